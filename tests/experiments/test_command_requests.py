"""Command lines as requests: the value of every flag and its default, and the exit codes of training. Nothing is opened."""

import signal
from pathlib import Path

import numpy as np
import pytest

from experiments.__main__ import main
from experiments.editing.edits import Edit
from experiments.editing.translate import Interpolation, Translation
from experiments.files import Results
from experiments.inverse.cases import CASES
from experiments.inverse.modalities import Reconstruction
from experiments.inverse.problems import METHODS, Restoration
from experiments.inverse.ranking import Ranking
from experiments.runs.workdir import Workdir
from tests.experiments.tiny import ROOT, tiny_config

FILES = {"workdir": Path("r"), "out": Path("o"), "overrides": [], "limit": None}
EDIT = FILES | {
    "input": "i", "strength": 0.5, "mask": None, "masked_by": "pigdm", "settings": {"data_std": 0.5}, "strokes": None,
    "style": None, "style_features": "patches", "style_std": 0.25, "label": None, "answers": 4, "seed": 0,
}  # fmt: skip
TRANSLATE = FILES | {"input": "i", "to": None, "from_label": None, "label": None, "strength": 1.0}
INTERPOLATE = FILES | {"input": "i", "to": "b", "label": None, "images": 7, "strength": 1.0}
ANSWERS = FILES | {"input": None, "truth": "i", "answers": 4, "seed": 0}
RESTORE = ANSWERS | {
    "task": "hdr", "options": {"contrast": 2.0}, "method": "pigdm", "settings": {"data_std": 0.5}, "noise": 0.05,
    "peak": None,
}  # fmt: skip
RECONSTRUCT = ANSWERS | {
    "modality": "ct", "options": {"angles": 30, "arc": 180.0, "metal": None}, "method": "projection",
    "settings": {"relaxation": 1.0, "snr": 0.16}, "noise": 0.0, "axis": "axial", "window": None,
    "chosen": slice(None, None), "white": None,
}  # fmt: skip
MRI = {"mask": "random_lines", "acceleration": 4.0, "coils": 1, "operator_seed": 0}
STEPS = ("sampling.steps", "3")


@pytest.mark.parametrize(
    "line, kind, expected",
    [
        ("edit --input=i", Edit, EDIT),
        (
            "edit --input=i --strength=0.2 --mask=m --masked_by=dps:zeta=2 --strokes=s --label=3 --guidance=2 --answers=2 "
            "--seed=9 --limit=4 --sampler=ddim --steps=3",
            Edit,
            EDIT | {
                "strength": 0.2, "mask": "m", "masked_by": "dps", "settings": {"zeta": 2.0}, "strokes": "s", "label": "3",
                "answers": 2, "seed": 9, "limit": 4,
                "overrides": [("sampling.sampler", "ddim"), STEPS, ("sampling.guidance.scale", "2.0")],
            },
        ),
        ("edit --input=i --style=y --style_features=perceptual", Edit,
         EDIT | {"style": "y", "style_features": "perceptual", "style_std": 0.1}),
        ("edit --input=i --style=y --style_std=0.5", Edit, EDIT | {"style": "y", "style_std": 0.5}),
        ("translate --input=i --to=b", Translation, TRANSLATE | {"to": Path("b")}),
        (
            "translate --input=i --label=cat --from_label=0 --strength=0.5 --guidance=3 --steps=3 --limit=2", Translation,
            TRANSLATE | {"label": "cat", "from_label": "0", "strength": 0.5, "limit": 2,
                         "overrides": [STEPS, ("sampling.guidance.scale", "3.0")]},
        ),
        ("interpolate --input=i --to=b", Interpolation, INTERPOLATE),
        (
            "interpolate --input=i --to=b --images=3 --label=1 --strength=0.25 --steps=3 --limit=5", Interpolation,
            INTERPOLATE | {"images": 3, "label": "1", "strength": 0.25, "limit": 5, "overrides": [STEPS]},
        ),
        ("restore --truth=i --task=hdr", Restoration, RESTORE),
        (
            "restore --truth=i --input=y --task=hdr --contrast=3 --method=mmps:rtol=0.5 --noise_kind=poisson --peak=9 "
            "--answers=1 --seed=5 --limit=6 --label=2 --steps=3",
            Restoration,
            RESTORE | {
                "options": {"contrast": 3.0}, "noise": 0.0, "peak": 9.0, "answers": 1, "seed": 5, "limit": 6,
                "overrides": [STEPS, ("sampling.label", "2")], "settings": {"max_steps": 1, "rtol": 0.5}, "method": "mmps",
            } | {"input": "y"},
        ),
        ("restore --truth=i --task=hdr --noise=0.5", Restoration, RESTORE | {"noise": 0.5}),
        ("reconstruct --truth=i --modality=ct", Reconstruction, RECONSTRUCT),
        (
            "reconstruct --truth=v.nii --modality=mri --coils=2 --noise=0.1 --method=mmps --axis=coronal --window=0,9 "
            "--slices=1:8:2",
            Reconstruction,
            RECONSTRUCT | {
                "modality": "mri", "truth": "v.nii", "options": MRI | {"coils": 2}, "noise": 0.1, "method": "mmps",
                "settings": {"max_steps": 1, "rtol": 1e-3}, "axis": "coronal", "window": (0.0, 9.0),
                "chosen": slice(1, 8, 2),
            },
        ),
        ("reconstruct --input=y --modality=mri --white=7", Reconstruction,
         RECONSTRUCT | {"modality": "mri", "input": "y", "truth": None, "options": {}, "noise": 0.02, "method": "pigdm",
                        "settings": {"data_std": 0.5}, "white": 7.0}),
    ],
)  # fmt: skip
def test_a_command_line_is_the_request_of_its_flags_and_defaults(monkeypatch, capsys, line, kind, expected):
    name, *flags = line.split()
    modules = {"edit": "editing.edit", "translate": "editing.translate", "interpolate": "editing.translate"}
    made = []
    place = f"experiments.{modules.get(name, f'inverse.{name}')}.{name}"
    monkeypatch.setattr(place, lambda request: made.append(request) or Results("the line that says where"))
    assert main([name, "--workdir=r", "--out=o", *flags]) == 0
    assert made == [kind(**expected)] and capsys.readouterr().out == "the line that says where\n"


@pytest.mark.parametrize(
    "flags, changes, cases, methods",
    [
        ([], {}, list(CASES), list(METHODS)),
        (
            ["--limit=3", "--answers=2", "--cases=ct,hdr", "--methods=dps", "--config.sampling.steps=3"],
            {"limit": 3, "answers": 2, "overrides": [STEPS]}, ["ct", "hdr"], ["dps"],
        ),
    ],
)  # fmt: skip
def test_a_ranking_is_of_sixteen_images_with_four_answers_each(monkeypatch, capsys, flags, changes, cases, methods):
    made = []
    monkeypatch.setattr("experiments.inverse.ranking.rank", lambda *given: made.append(given) or Results("table"))
    assert main(["rank", "--workdir=r", "--truth=i", "--out=o", *flags]) == 0
    fields = {"workdir": Path("r"), "truth": "i", "out": Path("o"), "limit": 16, "answers": 4, "overrides": []}
    assert made == [(Ranking(**fields | changes), cases, methods)]


@pytest.fixture
def train(monkeypatch):
    """(what interrupts the training, flags) -> the exit code, and what `train` is given."""

    def run(interrupted_by, *flags):
        given = []
        monkeypatch.setattr(
            "experiments.training.train.train", lambda *of, **options: given.append((of, options)) or interrupted_by
        )
        return main(["train", *flags]), *given

    return run


@pytest.mark.parametrize("by, code, exit_code", [(None, 75, 0), (signal.SIGTERM, 75, 75), (signal.SIGTERM, None, 0),
                                                 (signal.SIGINT, 75, 130), (signal.SIGINT, None, 130)])  # fmt: skip
def test_training_ends_with_the_code_of_what_interrupted_it(train, tmp_path, by, code, exit_code):
    flags = [] if code is None else [f"--interrupted_code={code}", "--deadline=7.5", "--resume_with_changes"]
    found, (_, options) = train(by, f"--config={ROOT}/configs/digits.py", f"--workdir={tmp_path}", *flags)
    assert found == exit_code
    given = {"deadline": 7.5, "interrupted_code": 75, "resume_with_changes": True}
    assert options == (given if flags else {"deadline": 0.0, "interrupted_code": 0, "resume_with_changes": False})


def test_a_run_that_exists_needs_no_config(train, tmp_path, fails):
    """Its own, with the overrides; a config that is named is taken instead."""
    assert fails("train", f"--workdir={tmp_path}/run") == (
        f"--workdir={tmp_path}/run holds no run yet: say which with --config, as configs/digits.py"
    )
    Workdir(tmp_path / "run").claim(tiny_config(optim__lr=0.5))
    _, ((config, path), _) = train(None, f"--workdir={tmp_path}/run", "--config.training.seed=9")
    assert path == tmp_path / "run" and config.to_dict() == tiny_config(optim__lr=0.5, training__seed=9).to_dict()
    _, ((config, _), _) = train(None, f"--workdir={tmp_path}/run", f"--config={ROOT}/configs/digits.py:ve")
    assert (config.sde.name, config.optim.lr == 0.5) == ("ve", False)


def test_samples_are_drawn_with_the_guide_of_the_run(monkeypatch, tmp_path, capsys):
    from experiments.media import ImageMedium
    from tests.experiments.tiny import fake_run

    made, config = [], tiny_config()
    run = fake_run(
        config, medium=ImageMedium((8, 8, 1)), variables="weights", class_names=None, step=4, average="warmup"
    )
    monkeypatch.setattr("experiments.cli.arguments.open_run", lambda options, *allowed, uses: run)
    classifier = tiny_config(objective__name="classification", model__num_classes=3)
    guide = fake_run(classifier, class_names=("a", "b", "c"))
    loaded = {(id(run.experiment), id(run)): guide}
    monkeypatch.setattr(
        "experiments.loading.runs.load_guide", lambda experiment, model: loaded[id(experiment), id(model)]
    )

    class Sampler:
        nfe = 14

        def __init__(self, *given, guide):
            made.append((*given, guide))

        def __call__(self, variables, number, seed, progress):
            made.append((variables, number, seed, progress))
            return np.zeros((number, 8, 8, 1), np.uint8)

    monkeypatch.setattr("experiments.generation.samples.Sampler", Sampler)
    assert main(["sample", "--workdir=run", f"--out={tmp_path}/s.npz"]) == 0
    assert made == [(run.experiment, run.experiment.strategy, 64, guide), ("weights", 64, 0, True)]
    assert (
        "64 samples (each class in turn: 0 'a', 1 'b', 2 'c') by heun, 4 steps, 14 evaluations each"
        in capsys.readouterr().out
    )
