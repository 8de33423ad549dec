"""Bad input ends with exit code 2 and one line that names it and what is allowed, before anything is compiled or made."""

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import factory
from experiments.__main__ import main
from experiments.cli import arguments as arguments_module
from experiments.config import ranges
from experiments.errors import counted, nearest
from experiments.metrics.moments import Moments
from experiments.metrics.statistics import Statistics
from experiments.runs.checkpoint import Checkpoints
from experiments.runs.workdir import Workdir
from tests.experiments.tiny import ROOT, flags, tiny_config

pytestmark = pytest.mark.devices

DIGITS = f"{ROOT}/configs/digits.py"


@pytest.fixture(autouse=True)
def nothing_is_compiled(monkeypatch, request):
    """Building weights is the first thing that compiles: it must not be reached."""
    if "compiles" not in request.keywords:
        monkeypatch.setattr("experiments.factory.init_variables", lambda config: pytest.fail("compiled"))


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--config.data.batchsize=64", "--config.data.batchsize=64: unknown key; did you mean 'data.batch_size'?"),
        ("--config.optim.batch_size=64", "--config.optim.batch_size=64: unknown key; did you mean 'data.batch_size'?"),
        ("--config.optim.learning_rate=1", "unknown key; did you mean 'optim.lr'?"),
        ("--config.optimizer.learning_rate=1", "unknown key; did you mean 'optim.lr'?"),
        ("--config.optim.wd=1", "unknown key; did you mean 'optim.weight_decay'?"),
        ("--config.model.ch_mult=1", "unknown key; did you mean 'model.channel_multipliers'?"),
        ("--config.training.steps=1", "unknown key; did you mean 'training.num_steps'?"),
        ("--config.sde.betamax=1", "unknown key; did you mean 'sde.beta_max'?"),
        (
            "--config.optim.quux=1",
            "unknown key; optim has accumulate, beta1, beta2, decay_steps, eps, grad_clip, lr, momentum, name",
        ),
        ("--config.quux=1", "--config.quux=1: unknown key; the sections are condition, data, evaluation, loss, model"),
        ("--config.data.batch_size=many", "--config.data.batch_size=many: expected a whole number, such as 64"),
        ("--config.data.batch_size=1.5", "--config.data.batch_size=1.5: expected a whole number, such as 64"),
        ("--config.data.random_flip=maybe", "--config.data.random_flip=maybe: expected true or false, such as False"),
        ("--config.model.channel_multipliers=a", "expected whole numbers with commas between, such as 1,2"),
        ("--config.optim.lr=fast", "--config.optim.lr=fast: expected a number, such as 0.002"),
        ("--config.sampling.variable=nope", "sampling.variable='nope' is unknown: choose from"),
        ("--config.sampling.predictor=heum", "sampling.predictor='heum' is unknown: choose from"),
        (
            "--config.sampling.langevin_norm=x",
            "sampling.langevin_norm='x' is unknown: choose from batch, process, sample",
        ),
        ("--config.optim.lr --verbose", "--config.optim.lr: a value is missing, as in --config.optim.lr=VALUE"),
        ("--config.optim.lr", "--config.optim.lr: a value is missing, as in --config.optim.lr=VALUE"),
        (
            "--config.sde.name=vpp",
            "sde.name='vpp' is unknown: choose from cosine, critically_damped, ddpm, edm, iddpm, rectified_flow, "
            "scaled_linear, subvp, ve, vp; did you mean 'vp'?",
        ),
        ("--config.model.name=unett", "model.name='unett' is unknown: choose from adm, ddpm, "),
        ("--config.model.name=unett", "; did you mean 'unet'?"),
        ("--config.model.dtype=float12", "float12"),
        ("--config.model.channel_multipliers=1,2,2,2,2", "height 8 is not divisible by 16"),
        ("--config.sampling.sampler=huen", "sampling.sampler='huen' is unknown: choose from adaptive, ancestral,"),
        ("--config.sampling.sampler=huen", "did you mean 'heun'?"),
        ("--config.evaluation.features=inceptoin", "did you mean 'inception'?"),
        (
            "--config.evaluation.features=inception",
            "needs evaluation.feature_weights: the file pt_inception-2015-12-05",
        ),
        ("--config.evaluation.feature_weights=a.pth", "evaluation.feature_weights=a.pth: perceptron takes none"),
        (
            "--config.evaluation.reference=train",
            "evaluation.reference='train' is unknown: choose from held_out, training; did you mean 'training'?",
        ),
        ("--config.evaluation.statistics=a.npz", "evaluation.statistics=a.npz: no such file"),
        ("--config.evaluation.training_images=-1", "evaluation.training_images=-1: must be at least 2"),
        ("--config.evaluation.neighbours=0", "evaluation.neighbours=0: must be at least 4"),
        (
            "--config.sampling.times=linear",
            "sampling.times='linear' is unknown: choose from karras, log_snr, quadratic",
        ),
        (
            "--config.sampling.langevin_norm=x --config.sampling.sampler=langevin",
            "sampling.langevin_norm='x' is unknown",
        ),
        (
            "--config.loss.weighting=snr",
            "loss.weighting='snr' is unknown: choose from data, edm, hybrid, hybrid_noise, likelihood",
        ),
        (
            "--config.loss.times=normal",
            "loss.times='normal' is unknown: choose from discrete, geometric_sigma, log_normal",
        ),
        (
            "--config.parameterization.name=x0",
            "parameterization.name='x0' is unknown: choose from data, edm, noise, score, v, velocity",
        ),
        ("--config.loss.snr_gamma=0", "loss.snr_gamma=0.0: must be more than 0"),
        (
            "--config.loss.times=discrete --config.loss.discrete_levels=1000000",
            "loss: DiscreteTime: steps=1000000 of t_max=1.0 begin below t_min=1e-05: choose at most",
        ),
        (
            "--config.loss.times=discrete --config.loss.importance=true",
            "loss: DiscreteTime has no density in t, which importance weighting needs",
        ),
        (
            "--config.loss.weighting=hybrid",
            "loss: HybridWeighting needs CriticallyDampedLangevin, whose state has a velo",
        ),
        (
            "--config.sde.name=critically_damped",
            "sampling.sampler='heun' on sde.name='critically_damped' with parameterization.name='edm': "
            "CriticallyDampedLangevin has no scalar alpha(t) and sigma(t)",
        ),
        (
            "--config.sde.name=critically_damped --config.sampling.evaluations=10",
            "recommended_times: the state of CriticallyDampedLangevin is not the data with noise of one standard deviation",
        ),
        (
            "--config.sampling.evaluations=-1",
            "must be more than 0 and at most 1000000, or 0; 0 disables the recommended",
        ),
        (
            "--config.sampling.evaluations=10 --config.sampling.steps=20 --config.sampling.sampler=ddim",
            "sampling.evaluations=10 chooses the sampler by itself: leave out either it or sampling.steps, sampling.sampler",
        ),
        (
            "--config.sampling.sampler=sscs",
            "SSCS needs CriticallyDampedLangevin, whose state has a velocity, not VPSDE",
        ),
        (
            "--config.optim.name=adma",
            "optim.name='adma' is unknown: choose from adam, adamw, muon; did you mean 'adam'?",
        ),
        (
            "--config.optim.schedule=cos",
            "optim.schedule='cos' is unknown: choose from constant, cosine, inverse_sqrt; did",
        ),
        (
            "--config.parallel.strategy=fsdpp",
            "parallel.strategy='fsdpp' is unknown: choose from fsdp, pmap; did you mean 'fsdp'?",
        ),
        ("--config.data.batch_size=12", "data.batch_size=12 cannot be shared by 8 devices: choose a multiple of 8"),
        ("--config.training.num_steps=0", "training.num_steps=0: must be more than 0"),
        ("--config.training.t_min=2", "training.t_min=2.0: must be less than sde.t_max=1.0"),
        ("--config.training.ema_decay=1", "training.ema_decay=1.0: must lie in [0, 1)"),
        (
            "--config.training.ema=powers",
            "training.ema='powers' is unknown: choose from constant, half_life, power, warm",
        ),
        (
            "--config.training.ema=power --config.training.ema_std=0.3",
            "training.ema_std=0.3: must lie in (0, 0.2887]",
        ),
        ("--config.training.ema_ramp=-1", "training.ema_ramp=-1.0: must be at least 0; 0 disables the ramp"),
        (
            "--config.training.ema_half_life=0 --config.training.ema=half_life",
            "training.ema_half_life=0: must be more than 0",
        ),
        ("--config.training.ema=warmup:1", "training.ema='warmup:1': ema_decay must lie in [0, 1)"),
        ("--config.training.ema=half_life:-5", "training.ema='half_life:-5': ema_half_life must be more than 0"),
        ("--config.training.ema=power:0.3", "training.ema='power:0.3': ema_std must lie in (0, 0.2887]"),
        ("--config.training.ema=power:x", "training.ema='power:x': after power come ema_std, as numbers with colons"),
        ("--config.training.ema=power:0.1:2", "training.ema='power:0.1:2': after power come ema_std"),
        ("--config.training.ema=warmup,warmup", "training.ema='warmup,warmup': the same average is there twice"),
        (
            "--config.training.ema=warmup,power:0.1 --config.sampling.ema=power",
            "sampling.ema='power' is unknown: choose from power:0.1, warmup; did you mean 'power:0.1'?",
        ),
        (
            "--config.training.ema_snapshot_every=8",
            "training.ema_snapshot_every=8: training.ema='warmup' tracks no power",
        ),
        (
            "--config.training.ema_snapshot_dtype=float8",
            "training.ema_snapshot_dtype='float8' is unknown: choose from float16, float32",
        ),
        ("--config.sampling.ema_std=0.1", "sampling.ema_std=0.1: this run keeps no snapshots to make it of"),
        (
            "--config.training.ema=power --config.training.ema_snapshot_every=8 --config.sampling.ema_std=0.3",
            "sampling.ema_std=0.3: must lie in (0, 0.2887], or 0",
        ),
        (
            "--config.training.ema=power --config.sampling.ema=power --config.sampling.ema_std=0.2",
            "sampling.ema_std=0.2: sampling.ema='power' chooses an average too; set one",
        ),
        ("--config.training.on_nonfinite=ignore", "training.on_nonfinite='ignore' is unknown: choose from skip, stop"),
        ("--config.training.max_skips=-1", "training.max_skips=-1: must be at least 0"),
        ("--config.optim.accumulate=0", "optim.accumulate=0: must be more than 0"),
        ("--config.optim.accumulate=3", "optim.accumulate=3: data.batch_size=64 on 8 devices has 8 examples on each"),
        (
            "--config.condition.label.dropout=1.1 --config.model.num_classes=10",
            "condition.label.dropout=1.1: must lie in [0, 1]",
        ),
        (
            "--config.condition.label.dropout=0.1",
            "condition.label.dropout=0.1: model.num_classes=0 leaves no class to drop",
        ),
        ("--config.optim.decay_steps=0", "optim.decay_steps=0: must be more than 0"),
        ("--config.optim.grad_clip=-1", "optim.grad_clip=-1.0: must be at least 0; 0 disables clipping"),
        ("--config.training.num_steps=1e400", "--config.training.num_steps=1e400: expected a whole number, such as"),
        ("--config.model.channel_multipliers=()", "model.channel_multipliers=(): must have at least 1 entry"),
        ("--config.model.channels=6", "model: UNet: head_channels=32 does not divide 12 channels"),
        ("--config.model.channels=7", "model: UNet: channels=7 must be even and at least 4 for embedding='positional'"),
        ("--config.model.norm_groups=7", "model: GroupNorm: num_groups=7 does not divide 32 channels"),
        (
            "--config.model.out_channels=2",
            "model: the output of unet is 8x8x2 for images of 8x8x1; model.out_channels=0",
        ),
        ("--config.data.image_size=16384 --config.model.channels=0", "model.channels=0: must be more than 0"),
        ("--config.training.seed=4294967297", "training.seed=4294967297: must be at least 0 and at most 4294967295"),
        ("--config.sampling.label=3", "sampling.label=3: this model has no classes (model.num_classes=0)"),
        ("--config.evaluation.num_samples=2", "evaluation.num_samples=2: must be at least 4"),
        (
            "--config.evaluation.likelihood_images=8 --config.evaluation.likelihood_t_min=2",
            "evaluation.likelihood_t_min=2.0: must be less than sde.t_max=1.0",
        ),
        (
            "--config.evaluation.features=efficientnet-lite0 --config.data.num_channels=4",
            "evaluation.features='efficientnet-lite0' takes images of 1 or 3 channels, not data.num_channels=4",
        ),
        (
            "--config.training.ema=power:0.1 --config.training.ema_snapshot_every=500 --config.sampling.ema_std=0.01",
            "sampling.ema_std=0.01: the 3 snapshots of training.ema_snapshot_every=500 do not make such an average",
        ),
        ("--config.model.num_classes=7", "model.num_classes=7: data.source='digits' has 10 classes"),
        ("--config.data.image_size=16", "--config.data.image_size=8"),
        (
            "--config.data.source=digit",
            "data.source='digit' is unknown: choose from arrayrecord:PATTERN, digits, folder:PATH",
        ),
        ("--config.data.source=npz:/none.npz", "/none.npz does not exist"),
        ("--resume_with_change", "unknown argument --resume_with_change; did you mean '--resume_with_changes'?"),
    ],
)
def test_train_names_what_is_wrong_with_the_config(fails, tmp_path, argument, message):
    workdir = tmp_path / "run"
    assert message in fails("train", f"--config={DIGITS}", f"--workdir={workdir}", *argument.split())
    assert not workdir.exists()


@pytest.mark.parametrize(
    "config, message",
    [
        (f"{ROOT}/configs/digit.py", "configs/digit.py: no such file; did you mean"),
        ("/nowhere/at/all.py", "--config=/nowhere/at/all.py: no such file"),
        (
            f"{DIGITS}:vx",
            "'vx' is unknown: choose from vp, subvp, ve, cosine, edm, rectified_flow, ddpm, iddpm, "
            "scaled_linear, critically_damped, conditional, classifier",
        ),
        (f"{ROOT}/README.md", "README.md: a config must be a Python file (.py)"),
        (f"{ROOT}/configs/base.py:vp", "base.py:vp: this config takes no argument"),
        (f"{ROOT}/configs/__init__.py", "the file defines no get_config()"),
    ],
)
def test_train_names_a_config_that_cannot_be_loaded(fails, tmp_path, config, message):
    assert message in fails("train", f"--config={config}", f"--workdir={tmp_path}/run")


def test_the_command_line_names_missing_and_unknown_parts(fails):
    assert "the following arguments are required: --workdir" in fails("train", f"--config={DIGITS}")
    assert "invalid choice: 'trian'" in fails("trian")
    assert fails("smaple", "--workdir=runs").endswith("; did you mean 'sample'? (see --help)")
    assert "invalid choice: 'speeed'" in fails("benchmark", "--suite=speeed")
    assert fails("benchmark", "--suite=speeed").endswith("; did you mean 'speed'? (see --help)")
    assert "unknown argument --workdr; did you mean '--workdir'?" in fails("sample", "--workdr=runs")
    assert fails("--versoin") == "python -m experiments: unknown argument --versoin; did you mean '--version'?"


def test_no_number_is_a_misspelt_one():
    assert nearest("12", ["1", "2"]) == "" and nearest("sampel", ["sample"]) == "; did you mean 'sample'?"


def test_one_of_a_kind_has_no_plural():
    assert [counted(number, "device") for number in (0, 1, 8)] == ["0 devices", "1 device", "8 devices"]


SEEDED = [
    ("sample", "--seed"),
    ("edit", "--input=a.png", "--out=edited", "--seed"),
    ("restore", "--task=inpaint", "--truth=a.png", "--out=restored", "--seed"),
    ("restore", "--task=sensing", "--truth=a.png", "--out=restored", "--operator_seed"),
    ("reconstruct", "--modality=mri", "--truth=a.png", "--out=made", "--seed"),
    ("reconstruct", "--modality=mri", "--truth=a.png", "--out=made", "--operator_seed"),
]


@pytest.mark.parametrize("words", SEEDED, ids=lambda words: f"{words[0]} {words[-1]}")
def test_seeds_that_repeat_others_are_refused(fails, words):
    """A key of JAX holds 32 bits of the seed, so 2^32 + 1 would draw what 1 draws."""
    *arguments, flag = words
    for seed in (-1, 2**32, 2**32 + 1, 10**30):
        message = fails(*arguments, "--workdir=runs", f"{flag}={seed}")
        assert f"argument {flag}: {seed} must be at least 0 and at most 4294967295" in message
    assert "holds no run" in fails(*arguments, "--workdir=runs", f"{flag}={2**32 - 1}")
    assert arguments_module.SEEDS == ranges.SEEDS and arguments_module.INT32 == ranges.INT32


def test_all_seeds_that_are_allowed_make_keys_of_their_own():
    seeds = [0, 1, 2**31 - 1, 2**31, 2**32 - 2, ranges.SEEDS]
    keys = {tuple(np.asarray(jax.random.key_data(jax.random.key(seed))).tolist()) for seed in seeds}
    assert len(keys) == len(seeds)


@pytest.mark.parametrize("fault", ["weights", "statistics", "network", "shape", "images"])
def test_files_of_the_evaluation_are_read_before_training(fails, tmp_path, fault):
    broken, workdir = tmp_path / "file", tmp_path / "run"
    broken.write_bytes(b"no weights and no statistics")
    flags = {
        "weights": ["--config.evaluation.features=inception", f"--config.evaluation.feature_weights={broken}"],
        "statistics": [f"--config.evaluation.statistics={broken}"],
    }
    if fault in ("network", "shape", "images"):
        statistics = Statistics(
            network="inception" if fault == "network" else "perceptron",
            sha256="", preprocessing="", image_shape=(16, 16, 1) if fault == "shape" else (8, 8, 1),
            images="", fingerprint="", pool=Moments.of(np.eye(4)), spatial=None, features=np.eye(4),
        )  # fmt: skip
        statistics.save(tmp_path / "file.npz")
    message = fails(
        "train", f"--config={DIGITS}", f"--workdir={workdir}",
        *flags.get(fault, [f"--config.evaluation.statistics={tmp_path}/file.npz"]),
    )  # fmt: skip
    assert {
        "weights": f"inception: cannot read weights from {broken}",
        "statistics": f"statistics: {broken} is not a file of statistics",
        "network": "its feature network is 'inception', not evaluation.features='perceptron'",
        "shape": "it is of images of 16x16x1, not of 8x8x1",
        "images": "it is of other images",
    }[fault] in message
    assert not workdir.exists()


def test_train_without_a_config_wants_a_run_to_go_on_with(fails, tmp_path):
    message = f"--workdir={tmp_path} holds no run yet: say which with --config, as configs/digits.py"
    assert fails("train", f"--workdir={tmp_path}") == message


def test_evaluations_and_a_method_exclude_each_other(fails, tiny_run, tmp_path):
    out = f"--out={tmp_path}/s.npz"
    for other in ("--sampler=ddim", "--steps=5"):
        message = fails("sample", f"--workdir={tiny_run}", "--evaluations=5", other, out)
        assert message.startswith(
            "sampling.evaluations=5 chooses the sampler by itself: leave out either it or sampling."
        )
    assert "must be at least 1" in fails("sample", f"--workdir={tiny_run}", "--evaluations=0", out)
    assert list(tmp_path.iterdir()) == []


def test_every_sampler_is_listed(capsys):
    main(["list", "sampler"])
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()} >= set(factory.SAMPLERS)


def image(path, size=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((size, size), np.uint8)).save(path)


@pytest.mark.parametrize("fault", ["empty", "size", "broken"])
def test_train_names_what_is_wrong_with_a_folder(fails, tmp_path, fault):
    folder = tmp_path / "images"
    folder.mkdir()
    if fault != "empty":
        for i in range(4):
            image(folder / f"{i}.png")
    if fault == "size":
        image(folder / "odd.png", size=9)
    if fault == "broken":
        data = (folder / "2.png").read_bytes()
        (folder / "2.png").write_bytes(data[: len(data) // 2])
    message = fails("train", f"--config={DIGITS}", f"--workdir={tmp_path}/run", f"--config.data.source=folder:{folder}")
    assert {"empty": str(folder), "size": "odd.png", "broken": "2.png"}[fault] in message
    assert {"empty": "no image files", "size": "--config.data.image_size=9", "broken": "cannot be read as an image"}[
        fault
    ] in message


def test_a_workdir_that_cannot_be_written_is_named(fails, tmp_path):
    (tmp_path / "file").touch()
    message = fails("train", f"--config={DIGITS}", f"--workdir={tmp_path}/file/run")
    assert "file/run cannot be written: Not a directory" in message


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_a_folder_without_a_run_is_named(fails, tmp_path, command):
    assert "holds no run (no config.json)" in fails(command, f"--workdir={tmp_path}/none")
    (tmp_path / "run").mkdir()
    from experiments.config import files as config

    (tmp_path / "run" / "config.json").write_text(config.to_json(config.load(DIGITS)))
    assert f"{tmp_path}/run has no checkpoint yet" in fails(command, f"--workdir={tmp_path}/run")
    assert "; did you mean" in fails(command, f"--workdir={tmp_path}/runs")


@pytest.mark.compiles
def test_another_experiment_in_the_workdir_is_named_with_its_keys(fails, tiny_run):
    before = (tiny_run / "config.json").read_text()
    message = fails("train", f"--config={DIGITS}:ve", f"--workdir={tiny_run}", *flags(optim__lr=1e-3))
    assert "holds another experiment; these keys differ:" in message
    assert "optim.lr: 0.002 -> 0.001" in message and "sde.name: vp -> ve" in message
    assert "--resume_with_changes" in message
    assert (tiny_run / "config.json").read_text() == before


@pytest.mark.compiles
def test_sample_names_what_cannot_be_changed_after_training(fails, tiny_run, tmp_path):
    message = fails("sample", f"--workdir={tiny_run}", "--config.model.channels=4", f"--out={tmp_path}/s.npz")
    assert "--config.model.channels=4: cannot be changed after training; sample takes keys of sampling." in message
    message = fails("sample", f"--workdir={tiny_run}", "--sampler=dimm", f"--out={tmp_path}/s.npz")
    assert "sampling.sampler='dimm' is unknown" in message and "did you mean 'ddim'?" in message
    assert "must end in .npz" in fails("sample", f"--workdir={tiny_run}", f"--out={tmp_path}/s.png")
    assert "must be at least 1" in fails("sample", f"--workdir={tiny_run}", "--num_samples=0")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_network_is_refused_before_the_config_is_stored(fails, tmp_path):
    """A run of 40 steps that is complete: without the check nothing would be left to do but to store the new config."""
    config, workdir = tiny_config(), Workdir(tmp_path / "run")
    workdir.claim(config)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), factory.abstract_variables(config))
    with Checkpoints(workdir.checkpoints, 2) as checkpoints:
        checkpoints.save_weights(40, zeros)
    before = workdir.config.read_text()
    arguments = ["train", f"--config={DIGITS}", f"--workdir={workdir.path}", "--resume_with_changes"]
    message = fails(*arguments, *flags(model__channels=16))
    assert "does not fit the config" in message and "these keys differ: model.channels: 8 -> 16" in message
    assert workdir.config.read_text() == before
