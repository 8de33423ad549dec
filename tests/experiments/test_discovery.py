"""One file in a package is all that a component inside the repository needs: no table names it."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from experiments.config import records
from tests.experiments.tiny import ROOT

EXTENDING = ROOT / "docs" / "extending"
# kind: file of docs/extending, room of the repository, lines that name the component.
ADDED = {
    "process": ("my_process", "sde_lib", 'PROCESSES = {"trigonometric": Trigonometric}'),
    "network": ("my_network", "models", 'NETWORKS = {"convolutions": Convolutions}'),
    "sampler": ("my_sampler", "sde_lib/sampling", 'SAMPLERS = {"midpoint": Midpoint}'),
    "guidance": ("my_guidance", "sde_lib/guidance", 'GUIDANCES = {"projected": Projected}'),
    "source": (
        "my_source", "experiments/data/sources", 'SOURCES = {"squares": (lambda path, wanted: squares(wanted), "squares")}',
    ),
    "metric": ("my_metric", "experiments/metrics", 'METRICS = {"vendi": VENDI}'),
    "objective": ("my_objective", "experiments/objectives", 'OBJECTIVES = {"huber": Huber}'),
    "task": ("my_task", "experiments/inverse/tasks", "TASK = levels"),
    "method": ("my_method", "experiments/inverse/methods", "METHOD = gradient"),
}  # fmt: skip
DEFINED_IN = {
    "experiments.inverse.problems": "experiments.inverse.records",
    "experiments.objectives": "experiments.objectives.objective",
    "experiments.data": "experiments.data.sources.base",
}
NAMES = {
    "process": "trigonometric", "network": "convolutions", "sampler": "midpoint", "guidance": "projected",
    "source": "squares", "metric": "vendi", "objective": "huber", "task": "my-task", "method": "my-method",
}  # fmt: skip
LOOK = """
import contextlib, io, json, sys
from experiments.__main__ import main

def said(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(list(arguments))
        except SystemExit as error:
            code = error.code
    return code, out.getvalue() + err.getvalue()

print(json.dumps([said(*arguments) for arguments in json.load(sys.stdin)]))
"""


def run(tree, lines):
    """(exit code, text) of each command line, by the code of a tree."""
    found = subprocess.run(
        [sys.executable, "-c", LOOK], input=json.dumps(lines), cwd=tree, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(tree)},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the packages with one file more for each kind."""
    folder = tmp_path_factory.mktemp("tree")
    for package in ("sde_lib", "models", "configs", "experiments"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file, room, line in ADDED.values():
        text = (EXTENDING / f"{file}.py").read_text()
        for package, module in DEFINED_IN.items():  # the package imports the new file itself
            text = text.replace(f"from {package} import", f"from {module} import")
        (folder / room / f"{file}.py").write_text(f"{text}\n\n{line}\n")
    return folder


@pytest.mark.thorough
def test_a_file_of_each_kind_is_listed_described_offered_and_used(tree, tmp_path):
    lines = {(kind, "list"): ["list", kind] for kind in ADDED}
    lines |= {(kind, "describe"): ["describe", kind, NAMES[kind]] for kind in ADDED}
    lines |= {(kind, "typo"): ["describe", kind, f"{NAMES[kind]}s"] for kind in ADDED}
    lines["help", ""] = ["restore", "--help"]
    lines["help", "train"] = ["train", "--help"]
    np.savez(tmp_path / "truth.npz", images=np.full((1, 8, 8, 1), 128, np.uint8))
    workdir = f"--workdir={tmp_path}/run"
    short = [f"--config.training.{key}=4" for key in ("num_steps", "sample_every", "checkpoint_every", "log_every")]
    lines["train", ""] = [
        "train", f"--config={ROOT}/configs/digits.py", workdir, "--config.sde.name=trigonometric", "--config.sde.power=2",
        "--config.model.name=convolutions", "--config.model.width=8", "--config.data.source=squares",
        "--config.objective.name=huber", "--config.objective.width=0.5", "--config.evaluation.metrics=vendi",
        "--config.sampling.sampler=midpoint", "--config.sampling.place=0.4", "--config.sampling.steps=3",
        "--config.evaluation.num_samples=16", "--config.evaluation.noise_levels=2", *short,
    ]  # fmt: skip
    lines["restore", ""] = [
        "restore", workdir, "--task=my-task", "--levels=3", "--method=my-method:strength=0.5", "--steps=3",
        "--answers=1", f"--truth={tmp_path}/truth.npz", f"--out={tmp_path}/restored",
    ]  # fmt: skip
    found = dict(zip(lines, run(tree, list(lines.values())), strict=True))
    for kind, name in NAMES.items():
        assert any(line.split()[:1] == [name] for line in found[kind, "list"][1].splitlines()), found[kind, "list"]
        code, said = found[kind, "describe"]
        assert code == 0 and said.startswith(f"{kind} {name}"), said
        code, said = found[kind, "typo"]
        assert code == 2 and f"did you mean {name!r}?" in said, said
    offered = set(found["help", "train"][1].replace(",", " ").split())
    assert {NAMES[kind] for kind in ADDED if kind not in ("task", "method")} <= offered
    assert "  my-task " in found["help", ""][1] and "  my-method " in found["help", ""][1]
    assert found["train", ""][0] == 0, found["train", ""][1]
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["sde"]["name"] == "trigonometric" and (stored["sde"]["power"], stored["sde"]["t_max"]) == (2.0, 0.99)
    assert "vendi" in json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    assert found["restore", ""][0] == 0, found["restore", ""][1]


def test_two_files_of_one_name_are_refused(tmp_path, monkeypatch):
    for file in "ab":
        (tmp_path / "twice" / file).with_suffix(".py").parent.mkdir(exist_ok=True)
        (tmp_path / "twice" / f"{file}.py").write_text("THINGS = {'one': 1}\n")
    (tmp_path / "twice" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    import twice

    with pytest.raises(ValueError, match=r"twice\.b: another module of twice has the name 'one'"):
        records.named(twice, "THINGS")
    (tmp_path / "twice" / "b.py").write_text("NOTHING = 0\n")
    sys.modules.pop("twice.b")
    assert records.named(twice, "THINGS") == {"one": 1}
