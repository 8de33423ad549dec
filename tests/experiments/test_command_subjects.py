"""Settings of training do not stop other commands: each command validates what it uses. Nothing is compiled."""

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import load_run
from experiments.__main__ import main_or_raise
from experiments.config import files as config
from experiments.devices.parallel import STRATEGIES, Pmap
from experiments.errors import UserError
from experiments.factory import check
from tests.experiments.tiny import ROOT, tiny_config

pytestmark = pytest.mark.devices


class Opened(Exception):
    """The weights would be read now: everything before was accepted."""


@pytest.fixture
def three_devices(monkeypatch):
    monkeypatch.setitem(STRATEGIES, "pmap", lambda devices: Pmap(devices or jax.devices()[:3]))


def settings_of_another_machine(**evaluation):
    """Settings of training that do not work here: batch, packages, names, and numbers out of their ranges."""
    stored = tiny_config(data__batch_size=64, optim__accumulate=7)
    stored.training.update(writers=("jsonl", "wandb"), on_nonfinite="wait", t_min=5.0, num_steps=0, seed=-1)
    stored.optim.update(name="lion", grad_clip=-1.0, beta1=1.0, schedule="step")
    stored.loss.update(weighting="unknown", times="unknown")
    stored.data.update(workers=-3, augmentation=2.0, dequantization="unknown", random_flip=True)
    stored.evaluation.update(evaluation)
    return stored


@pytest.fixture
def opened(tmp_path, monkeypatch, three_devices):
    """Runs a command on a run that was trained with these settings; it must get as far as the weights."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    def reached(*arguments, **keywords):
        raise Opened

    monkeypatch.setattr("experiments.runs.checkpoint.Checkpoints.restore_ema", reached)
    run = tmp_path / "run"
    (run / "checkpoints" / "8").mkdir(parents=True)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "image.png")

    def open_by(command, *arguments, stored):
        (run / "config.json").write_text(config.to_json(stored))
        with pytest.raises(Opened):
            main_or_raise([command, f"--workdir={run}", *(text.format(folder=tmp_path) for text in arguments)])

    return open_by


IMAGE = "--input={folder}/image.png"
TRUTH = "--truth={folder}/image.png"
OUT = "--out={folder}/out"
COMMANDS = [
    ("sample", "--out={folder}/samples.npz"),
    ("restore", "--task=inpaint", TRUTH, OUT),
    ("restore", "--task=inpaint", "--method=ddrm", TRUTH, OUT),
    ("reconstruct", "--modality=mri", TRUTH, OUT),
    ("edit", IMAGE, OUT),
    ("translate", IMAGE, OUT, "--to={folder}/run"),
    ("interpolate", IMAGE, "--to={folder}/image.png", OUT),
    ("rank", TRUTH, OUT, "--cases=inpaint-box", "--methods=pigdm"),
    ("export", OUT),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments[:2]))
def test_settings_of_training_and_evaluation_do_not_stop_a_command(opened, arguments):
    stored = settings_of_another_machine(
        features="inception", feature_weights="/gone.pth", statistics="/gone.npz", num_samples=2, neighbours=0
    )
    stored.data.source = "folder:/gone"
    opened(*arguments, stored=stored)


def test_settings_of_training_do_not_stop_evaluate(opened):
    opened("evaluate", stored=settings_of_another_machine())


def test_settings_of_training_and_evaluation_do_not_stop_load_run(opened, tmp_path):
    opened("sample", "--out={folder}/samples.npz", stored=settings_of_another_machine())
    with pytest.raises(Opened):
        load_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"sampling\.ema_std=0\.3: must lie in \(0, 0\.2887\]"):
        load_run(tmp_path / "run", ema_std=0.3)


def test_export_and_encodings_do_not_read_the_sampling_method(opened):
    stored = settings_of_another_machine()
    stored.sampling.update(method="unknown", times="unknown", churn=-1.0)
    for arguments in COMMANDS[-4:-2] + COMMANDS[-1:]:
        opened(*arguments, stored=stored)


def test_a_method_with_steps_of_its_own_does_not_read_the_sampling_method(opened):
    stored = settings_of_another_machine()
    stored.sampling.update(method="adaptive", steps=2)
    opened(*COMMANDS[2], stored=stored)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("sample", "--config.sampling.churn=-1"), "sampling.churn=-1.0: must be at least 0"),
        (("sample", "--config.sampling.label=-2"), "sampling.label=-2: "),
        (
            ("restore", "--task=inpaint", "--method=ddrm", "--config.sampling.eta=2", TRUTH, OUT),
            "sampling.eta=2.0: must",
        ),
        (
            ("restore", "--task=inpaint", "--method=ddrm", "--config.sampling.label=3", TRUTH, OUT),
            "sampling.label=3: this",
        ),
        (("interpolate", IMAGE, "--to={folder}/image.png", OUT, "--config.sampling.rho=-1"), "sampling.rho=-1.0: must"),
        (("export", OUT, "--config.sampling.ema_std=0.3"), "sampling.ema_std=0.3: must lie in (0, 0.2887]"),
        (("evaluate", "--config.evaluation.num_samples=2"), "evaluation.num_samples=2: must be at least 4"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_an_override_is_validated_by_every_command_that_accepts_it(opened, tmp_path, arguments, message):
    with pytest.raises(UserError) as error:
        opened(*arguments, stored=settings_of_another_machine())
    assert message in str(error.value)


def test_training_on_three_devices_still_refuses_the_batch(three_devices):
    stored = tiny_config(data__batch_size=64)
    check.check(stored, "model", "average", "sampling", "data", "evaluation")
    with pytest.raises(UserError, match=r"data\.batch_size=64 cannot be shared by 3 devices: choose a multiple of 3"):
        check.check(stored, "training")


def test_every_subject_has_a_name_and_training_reads_all_but_the_parts_of_others():
    assert set(check.SUBJECTS) - set(check.EVERYTHING) == {"flow", "times", "sampler", "label"}
    check.check(config.load(f"{ROOT}/configs/digits.py"))
