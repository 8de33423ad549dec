"""`list` and `describe`: every component that a config can name, with its options, made of the component itself."""

import flax.linen as nn
import pytest

import models
import sde_lib
from configs import base
from experiments.__main__ import main
from experiments.cli import catalogue
from experiments.conditions import LabelCondition
from experiments.config import files as configs
from experiments.config.ranges import KEYS
from experiments.data import sources
from experiments.errors import UserError
from experiments.factory import guidance, losses, media, model, sampling
from experiments.factory.conditions import CONDITIONS
from experiments.inverse import problems
from tests.experiments.tiny import ROOT

TABLES = {
    "process": model.PROCESSES, "parameterization": model.PARAMETERIZATIONS, "weighting": losses.WEIGHTINGS,
    "times": losses.TIME_DISTRIBUTIONS, "sampler": sampling.SAMPLERS, "guidance": guidance.GUIDANCES,
    "network": models.KNOWN, "source": sources.KINDS, "medium": media.MEDIA, "task": problems.TASKS,
    "method": problems.METHODS,
}  # fmt: skip


@pytest.mark.parametrize("kind", catalogue.KINDS)
def test_every_entry_has_a_summary_and_options_that_are_keys(kind):
    known = dict(configs.leaves(base.get_config()))
    for entry in catalogue.KINDS[kind].entries():
        assert len(entry.summary) > 10 and entry.summary in entry.document, entry.name
        for key, value in entry.options.items():
            of_config = catalogue.KINDS[kind].option.startswith("--config.") and kind != "network"
            assert not of_config or known[key] == value, (entry.name, key)
    if kind in TABLES:
        assert [entry.name for entry in catalogue.KINDS[kind].entries()] == (sorted if kind == "network" else list)(
            TABLES[kind]
        )


@pytest.mark.parametrize(
    "kind, name, made, options",
    [
        (
            "sampler",
            "dpm_solver",
            sde_lib.DPMSolver,
            [
                "sampling.order",
                "sampling.variable",
                "sampling.stochastic",
                "sampling.lower_order_final",
            ],
        ),
        ("sampler", "heun", sde_lib.Heun, [f"sampling.churn{end}" for end in ("", "_min", "_max", "_noise")]),
        ("sampler", "ancestral", sde_lib.Ancestral, []),
        ("weighting", "min_snr", sde_lib.MinSNRWeighting, ["loss.snr_gamma"]),
        ("weighting", "edm", sde_lib.EDMWeighting, ["parameterization.sigma_data"]),
        ("times", "log_normal", sde_lib.LogNormalSigma, ["loss.log_sigma_mean", "loss.log_sigma_std"]),
        ("process", "ve", sde_lib.VESDE, ["sde.t_max", "sde.sigma_min", "sde.sigma_max"]),
    ],
)
def test_options_are_the_keys_that_an_entry_reads(kind, name, made, options):
    entry = catalogue.entry(kind, name)
    assert entry.made is made and set(entry.options) == set(options)
    assert set(entry.options) - {"sampling.variable", "sampling.lower_order_final"} <= set(
        KEYS
    )  # which have a range each, where they are numbers


def test_defaults_that_depend_on_the_data_are_not_shown_as_values():
    task = catalogue.KINDS["task"]
    shown = [text for text, _ in task.arguments(catalogue.entry("task", "inpaint"))]
    assert "--mask=box" in shown and not any("None" in text for text in shown)


def test_a_component_of_the_user_is_described_as_ours(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "extending")
    entry = catalogue.entry("process", "my_process:Trigonometric")
    assert entry.options == {"sde.t_max": 0.99, "sde.power": 1.0} and entry.summary.startswith("alpha = cos(pi t / 2)")
    with pytest.raises(UserError, match=r"loss\.weighting='my_process:Trigonometric' is unknown"):
        catalogue.entry("weighting", "my_process:Trigonometric")


def test_an_entry_added_at_run_time_is_listed_described_and_named_in_messages(monkeypatch, capsys, fails):
    class Straight(sde_lib.Heun):
        """A sampler that was not there before."""

    monkeypatch.setitem(sampling.SAMPLERS, "straight", Straight)
    assert main(["list", "sampler"]) == 0
    assert "  straight               A sampler that was not there before.\n" in capsys.readouterr().out
    assert main(["describe", "sampler", "straight"]) == 0
    said = capsys.readouterr().out
    assert "sampler straight: --config.sampling.sampler=straight" in said and "  --config.sampling.churn=0.0\n" in said
    assert fails("describe", "sampler", "straigt").endswith("did you mean 'straight'?")


def test_kinds_and_names_that_are_unknown(fails):
    said = fails("list", "samplr")
    assert said.startswith("KIND='samplr' is unknown: choose from ") and said.endswith("; did you mean 'sampler'?")
    assert all(kind in said for kind in catalogue.KINDS)
    assert "sde.name='vpp' is unknown: choose from " in fails("describe", "process", "vpp")
    assert fails("describe", "sampler", "vp") == "there is no sampler 'vp'; try `describe process vp`"


def test_all_kinds_are_listed_with_their_keys(capsys):
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    for name, kind in catalogue.KINDS.items():
        paths = ("process", "network", "objective", "sampler", "guidance", "source", "metric", "task", "method")
        own = ", or module:name of your own" if name in paths else ""
        restore = {
            "task": "restore --task=NAME",
            "method": "restore --method=NAME",
            "metric": "evaluate --config.evaluation.metrics=NAME",
        }
        usage = "chosen by its options" if name == "condition" else restore.get(name, f"--config.{kind.key}=NAME")
        assert f"{name} ({usage}{own})\n" in said


def test_conditions_are_those_of_their_room_with_their_nulls(capsys, monkeypatch):
    assert [entry.name for entry in catalogue.KINDS["condition"].entries()] == list(CONDITIONS)
    label = catalogue.entry("condition", "label")
    assert label.made is LabelCondition
    assert label.options == {"model.num_classes": 0, "condition.label.dropout": 0.0}

    class Turned(LabelCondition):
        """A condition that was not there before."""

        name, option = "turned", "augment_features"

    monkeypatch.setitem(CONDITIONS, "turned", Turned)
    assert main(["list", "condition"]) == 0
    assert "  turned        A condition that was not there before.\n" in capsys.readouterr().out
    assert main(["describe", "condition", "turned"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("condition turned\n") and "  --config.model.augment_features=0\n" in said
    with pytest.raises(UserError, match=r"condition='lable' is unknown: choose from .*; did you mean 'label'\?"):
        catalogue.entry("condition", "lable")


class Fresh(sde_lib.VPSDE):
    """A component that was not there before."""


class FreshSampler(sde_lib.Heun):
    """A component that was not there before."""


class FreshGuidance(sde_lib.Guided):
    """A component that was not there before."""


class FreshNetwork(nn.Module):
    """A component that was not there before."""

    width: int = 7


def fresh_source(path, wanted):
    """A component that was not there before."""


SAID = "A component that was not there before."
# kind: the table, the record, a line of `describe`. Metrics have no table: they are given by import path alone.
RECORDS = {
    "process": (model.PROCESSES, Fresh, "--config.sde.beta_max=20.0"),
    "sampler": (sampling.SAMPLERS, FreshSampler, "--config.sampling.churn=0.0"),
    "guidance": (guidance.GUIDANCES, FreshGuidance, "guidance fresher: --config.sampling.guidance.name=fresher"),
    "network": (models.KNOWN, FreshNetwork, "--config.model.width=7"),
    "source": (sources.KINDS, (fresh_source, "fresher:PATH"), "--config.data.resize=none"),
    "task": (problems.TASKS, problems.Task(SAID, {"depth": 5}, help={"depth": "of it"}), "--depth=5  of it"),
    "method": (problems.METHODS, problems.Method(SAID, {"steps": 9}, {"depth": 5}), "--method=fresher:depth=5"),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_of_each_kind_added_at_run_time_is_listed_described_and_offered(
    kind, monkeypatch, capsys, fails, tmp_path
):
    table, record, option = RECORDS[kind]
    monkeypatch.setitem(table, "fresher", record)
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("  fresher ") and line.endswith(f" {SAID}") for line in lines)
    assert main(["describe", kind, "fresher"]) == 0
    said = capsys.readouterr().out
    assert SAID in said and option in said
    key = catalogue.KINDS[kind].key
    assert fails("describe", kind, "freshr").endswith("did you mean 'fresher'?")
    if key.startswith("--"):
        with pytest.raises(SystemExit):
            main(["restore", "--help"])
        said = capsys.readouterr().out
        assert (
            f"  fresher       {SAID}" in said if kind == "task" else f"  fresher      {SAID}; 9 steps [depth=5]" in said
        )
        assert kind == "method" or "fresher: of it (default 5)" in " ".join(said.split())
        wrong = [f"--{other}={name}" for other, name in {"task": "hdr", kind: "freshr"}.items()]
        command = ["restore", f"--workdir={tmp_path}", "--truth=a.npz", f"--out={tmp_path}/out", *wrong]
    else:
        command = ["train", f"--config={ROOT}/configs/digits.py", f"--workdir={tmp_path}/run", f"--config.{key}=freshr"]
        guided = ("model.num_classes=10", "condition.label.dropout=0.1", "sampling.guidance.scale=2")
        command += [f"--config.{text}" for text in guided if kind == "guidance"]
    said = fails(*command)
    assert said.startswith(f"{key}='freshr' is unknown: choose from ") and said.endswith("did you mean 'fresher'?")
    assert "fresher" in said.partition("choose from")[2].partition(";")[0]
