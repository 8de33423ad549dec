"""The averages of a run by the config's keys: which one is sampled from, exported, or made after training."""

import functools

import grain
import jax
import numpy as np
import pytest

from experiments import factory, load_run
from experiments.__main__ import main
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.learning import posthoc
from experiments.runs.checkpoint import Checkpoints
from experiments.runs.workdir import Workdir
from experiments.training.train import abstract_state
from tests.experiments.tiny import ROOT, flags, tiny_config

pytestmark = pytest.mark.e2e

AVERAGES = {"training__ema": "warmup,power:0.05,power:0.1", "training__ema_snapshot_every": "8"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run whose weights are random: snapshots each 8 steps, of which the last is in the checkpoint too."""
    workdir, config = Workdir(tmp_path_factory.mktemp("runs") / "random"), tiny_config(**AVERAGES)
    workdir.claim(config)
    rng = np.random.default_rng(0)

    def random(tree):
        return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), tree)

    state = random(abstract_state(Experiment(config))).replace(step=np.int32(40))
    snapshots = posthoc.Snapshots(workdir.ema_snapshots)
    for step in (8, 16, 24, 32, 40):
        for place, std in factory.power_emas(config).items():
            weights = state.emas[place] if step == 40 else random(factory.abstract_variables(config))
            snapshots.save(step, std, weights, updates=step)
    with Checkpoints(workdir.checkpoints, 2) as checkpoints:
        checkpoints.save(state, iter(grain.MapDataset.range(8).to_iter_dataset()))
    return workdir.path


def distance(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: np.abs(x - y).max(), a.variables, b.variables)))


def test_the_first_average_is_the_default_and_others_go_by_name(run):
    first, narrow, wide = (load_run(run, ema=name) for name in ("", "power:0.05", "power:0.1"))
    assert (first.average, narrow.average) == ("warmup", "power:0.05")
    assert first.step == narrow.step == 40
    assert distance(first, load_run(run)) == distance(first, load_run(run, ema="warmup")) == 0
    for tracked, std in ((narrow, 0.05), (wide, 0.1)):
        made = load_run(run, ema_std=std)
        assert made.step == 40 and made.average.startswith(f"power:{std}, made of 10 snapshots")
        assert distance(made, tracked) < 1e-5
    assert min(distance(first, narrow), distance(first, wide), distance(narrow, wide)) > 0.1


def test_arguments_replace_both_choices_of_a_config(run):
    """Either argument sets the other choice to none, so that a config with a choice of its own is no conflict."""

    def chosen(stored, **arguments):
        config = tiny_config(**AVERAGES, **{f"sampling__{key}": value for key, value in stored.items()})
        name = load_run(run, config, **arguments).average
        assert {key: config.sampling[key] for key in stored} == stored  # the caller's config stays
        return name.partition(",")[0]

    tracked, made = {"ema": "power:0.1"}, {"ema_std": 0.08}
    assert chosen(tracked) == chosen(made, ema="power:0.1") == "power:0.1"
    assert chosen(made) == chosen(tracked, ema_std=0.08) == "power:0.08"
    assert chosen(tracked, ema="") == chosen(tracked, ema_std=0.0) == chosen(made, ema="") == "warmup"
    assert chosen(made, ema_std=0.0) == chosen(made, ema="warmup", ema_std=0.0) == "warmup"
    assert chosen(made, ema="", ema_std=0.05) == "power:0.05"
    with pytest.raises(UserError, match=r"^sampling\.ema_std=0\.08: sampling\.ema='warmup' chooses an average too"):
        chosen({}, ema="warmup", ema_std=0.08)


def test_an_average_made_after_training_is_the_sum_of_snapshots(run):
    made, folder = load_run(run, ema_std=0.08), run / "ema_snapshots"
    coefficients = posthoc.fit(np.repeat([8, 16, 24, 32, 40], 2), np.tile([0.05, 0.1], 5), 40, 0.08).coefficients
    files = [f"{step:08d}-{std}.npz" for step in (8, 16, 24, 32, 40) for std in ("0.05", "0.1")]
    leaves = [np.load(folder / name)["params/conv_in/kernel"] for name in files]
    np.testing.assert_allclose(
        made.variables["params"]["conv_in"]["kernel"], np.tensordot(coefficients, leaves, 1), atol=1e-5
    )


def test_it_is_exported_as_a_model_of_one_average(run, tmp_path, capsys):
    pytest.importorskip("safetensors", reason="safetensors is not installed: pip install -e '.[pretrained]'")
    path, workdir = tmp_path / "model.safetensors", tmp_path / "imported"
    assert main(["export", f"--workdir={run}", f"--out={path}", "--config.sampling.ema_std=0.08"]) == 0
    assert "average power:0.08, made of 10 snapshots" in capsys.readouterr().out
    assert main(["import", f"--from={path}", "--format=ornstein", f"--workdir={workdir}"]) == 0
    assert distance(load_run(workdir), load_run(run, ema_std=0.08)) == 0
    assert distance(load_run(workdir, ema="power:0.1"), load_run(workdir)) == 0


def test_faults_are_one_line(fails, run, tmp_path):
    exporting = functools.partial(fails, "export", f"--workdir={run}", f"--out={tmp_path / 'x'}")
    assert "cannot be changed after training; export takes keys of sampling.ema" in exporting(
        "--config.sampling.steps=3"
    )
    assert "sampling.ema='power:0.3' is unknown" in exporting("--config.sampling.ema=power:0.3")
    assert "do not make such an average" in exporting("--config.sampling.ema_std=0.01")
    assert not (tmp_path / "x").exists()


def test_training_keeps_power_averages_and_samples_from_the_one_asked_for(tmp_path, capsys):
    """All snapshots stay though only two checkpoints are kept; accumulation and Muon are on."""
    workdir = tmp_path / "run"
    untrained = "constant:0.9999"
    changes = AVERAGES | {"training__ema": f"{untrained},power:0.05,power:0.1", "optim__lr": "0.01"}
    changes |= {"optim__accumulate": "2", "optim__name": "muon", "training__num_steps": "20"}
    assert main(["train", f"--config={ROOT}/configs/digits.py", f"--workdir={workdir}", *flags(**changes)]) == 0
    names = sorted(path.name for path in (workdir / "ema_snapshots").iterdir())
    assert names == [f"{step:08d}-{std}.npz" for step in (8, 16, 20) for std in ("0.05", "0.1")]
    for std in (0.05, 0.1):
        assert distance(load_run(workdir, ema_std=std), load_run(workdir, ema=f"power:{std}")) < 1e-6
    drawn = {}
    for flag in ("ema=", "ema=power:0.1", "ema_std=0.1"):
        out = tmp_path / "x.npz"
        assert (
            main(["sample", f"--workdir={workdir}", "--num_samples=8", f"--out={out}", f"--config.sampling.{flag}"])
            == 0
        )
        drawn[flag] = np.load(out)["samples"].astype(int)
    assert "from step 20, average power:0.1, made of 6 snapshots" in capsys.readouterr().out
    assert np.abs(drawn["ema_std=0.1"] - drawn["ema=power:0.1"]).max() <= 1
    assert np.abs(drawn["ema="] - drawn["ema=power:0.1"]).max() > 4
