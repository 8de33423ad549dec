"""Components of a user by import path: each of one file, each through the commands, each refused with its missing part."""

import json
import textwrap
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sde_lib
from experiments.__main__ import main
from experiments.cli import catalogue
from experiments.config import components
from experiments.config import files as config
from experiments.errors import UserError
from experiments.factory import check
from experiments.factory.experiment import Experiment
from experiments.files import strict_json
from experiments.inverse import build, problems, restore
from experiments.learning import state
from experiments.loading.runs import load_run
from experiments.metrics import records
from tests.experiments.tiny import ROOT, flags, tiny_config

DIGITS = f"{ROOT}/configs/digits.py"
EXTENDING = ROOT / "docs" / "extending"
OWN = [
    "--config.sde.name=my_process:Trigonometric", "--config.sde.power=0.9",
    "--config.model.name=my_network:Convolutions", "--config.model.width=8", "--config.model.depth=1",
    "--config.objective.name=my_objective:Huber", "--config.objective.width=0.1",
    "--config.sampling.sampler=my_sampler:Midpoint", "--config.sampling.place=0.4",
    "--config.data.source=my_source:squares", "--config.evaluation.metrics=my_metric:VENDI",
]  # fmt: skip


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A run whose process, network, sampler, source and metric are the documented ones."""
    workdir = tmp_path_factory.mktemp("extended") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(EXTENDING)
        patch.syspath_prepend(EXTENDING)
        general = [flag for flag in flags() if not flag.startswith("--config.model.")]
        assert main(["train", f"--config={DIGITS}", f"--workdir={workdir}", *OWN, *general]) == 0
        yield workdir


def test_a_run_of_own_components_is_trained_and_judged(extended):
    stored = json.loads((extended / "config.json").read_text())
    assert stored["sde"] == {"name": "my_process:Trigonometric", "power": 0.9, "t_max": 0.99}
    assert stored["model"] == {"name": "my_network:Convolutions", "width": 8, "depth": 1}
    measured = strict_json.read(extended / "metrics.json", strict_json.METRICS)
    assert measured["metrics"]["vendi"]["less"] is False
    assert 1 <= measured["real"]["vendi"] <= measured["sampling"]["num_samples"]
    page = (extended / "report.html").read_text()
    assert "Vendi score (effective number of different samples)" in page and "my_source:squares" in page
    run = load_run(extended)
    sde = run.denoiser.sde
    np.testing.assert_allclose(sde.alpha(0.5), np.cos(0.25 * np.pi) ** 0.9, rtol=1e-6)
    assert (
        run.experiment.sampler.place == 0.4 and run.experiment.evaluations == 2 * (stored["sampling"]["steps"] - 1) + 1
    )


def test_the_objective_of_a_user_is_the_distance_it_states(extended):
    """Of the same errors d with three widths w, sqrt(d^2 + w^2) - w; and training brings it down."""
    made = load_run(extended).experiment
    assert type(made.objective).__name__ == "Huber" and made.objective.width == 0.1
    params = made.init_network(jax.random.key(0))
    example = {"data": jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 1)), jnp.float32)}
    drawn = state.draws(jax.random.key(1), jnp.int32(0), jnp.arange(4), 4)
    losses = {
        width: made.objective.__class__(made, width=width).loss(drawn, params, example, None)[0]
        for width in (1e-6, 0.1, 5.0)
    }
    error = losses[1e-6]
    assert (error > 0.1).all() and len(np.unique(error)) == 4
    for width, loss in losses.items():
        np.testing.assert_allclose(loss, np.sqrt(np.square(error) + width**2) - width, rtol=1e-4, atol=1e-5)
    rows = [json.loads(line)["loss"] for line in (extended / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1] < rows[0]


def test_its_samples_are_those_of_the_sampler_with_its_options(extended, tmp_path, capsys):
    for name, more in (("a", ["--config.sampling.place=0.4"]), ("b", []), ("c", ["--config.sampling.place=0.5"])):
        out = tmp_path / f"{name}.npz"
        assert main(["sample", f"--workdir={extended}", "--num_samples=4", f"--out={out}", *more]) == 0
    drawn = [np.load(tmp_path / f"{name}.npz")["samples"] for name in "abc"]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[1] != drawn[2]).any()
    assert "by my_sampler:Midpoint" in capsys.readouterr().out


def test_samples_are_guided_by_the_guidance_of_a_user(monkeypatch):
    """Along D scaled by `parallel`: 1 is linear guidance, and at 0 what is added is orthogonal to D, image by image."""
    monkeypatch.syspath_prepend(EXTENDING)
    made = tiny_config(model__num_classes=3, condition__label__dropout=0.1, sampling__guidance__scale=3.0)
    linear = Experiment(made)
    x, labels = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32), jnp.array([0, 2])
    rng = np.random.default_rng(1)  # the untrained network gives 0
    variables = jax.tree.map(
        lambda a: jnp.asarray(rng.normal(0, 0.3, a.shape), a.dtype), linear.init_network(jax.random.key(0))
    )
    plain = linear.denoiser(variables)
    strong = plain.replace(condition=linear.condition(labels))(x, 0.5)
    config.override(made, "sampling.guidance.name", "my_guidance:Projected")
    for parallel in (0.0, 1.0):
        config.override(made, "sampling.guidance.parallel", str(parallel))
        check.check(made, "label")
        guided = Experiment(made).guided(plain, labels)(x, 0.5)
        if parallel:
            np.testing.assert_allclose(guided, linear.guided(plain, labels)(x, 0.5), atol=1e-5)
        else:
            added, strong = np.asarray(guided - strong).reshape(2, -1), np.asarray(strong).reshape(2, -1)
            lengths = np.linalg.norm(added, axis=1) * np.linalg.norm(strong, axis=1)
            assert (lengths > 0.01).all()
            np.testing.assert_allclose((added * strong).sum(1) / lengths, 0, atol=1e-4)
    assert Experiment(made).network_evaluations == 2 * linear.evaluations


def test_an_image_is_restored_by_the_task_of_a_user(extended, tmp_path, capsys):
    np.savez(tmp_path / "truth.npz", images=np.linspace(0, 255, 128).reshape(2, 8, 8, 1).astype(np.uint8))
    command = ["restore", f"--workdir={extended}", "--task=my_task:levels", "--levels=3", "--answers=1", "--steps=3"]
    assert main([*command, f"--truth={tmp_path}/truth.npz", f"--out={tmp_path}/out", "--noise=0"]) == 0
    told = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (told["task"], told["options"]) == ("my_task:levels", {"levels": 3})
    with np.load(tmp_path / "out" / "answers.npz") as file:
        x, y = 2 * file["truth"] - 1, 2 * file["measured"] - 1
    place = x + 1  # (x + 1) / 2 times 3 - 1 levels
    np.testing.assert_allclose(y, place - np.sin(2 * np.pi * place) / (2 * np.pi) - 1, atol=1e-5)
    with pytest.raises(SystemExit):
        main([*command[:3], "--help"])
    assert "number of grey levels (default 4)" in capsys.readouterr().out


def test_an_image_is_restored_by_the_method_of_a_user(extended, tmp_path):
    np.savez(tmp_path / "truth.npz", images=np.linspace(0, 255, 128).reshape(2, 8, 8, 1).astype(np.uint8))
    command = ["restore", f"--workdir={extended}", "--task=hdr", "--answers=1", f"--truth={tmp_path}/truth.npz"]
    answers = []
    for settings in ("", ":strength=0", ":strength=1"):
        out = tmp_path / f"out{len(answers)}"
        assert main([*command, f"--method=my_method:gradient{settings}", "--steps=4", f"--out={out}"]) == 0
        with np.load(out / "answers.npz") as file:
            answers.append(file["answers"])
    told = json.loads((out / "results.json").read_text())
    assert (told["method"], told["settings"], told["evaluations"]) == ("my_method:gradient", {"strength": 1.0}, 4)
    assert (told["sampling"]["sampler"], told["sampling"]["eta"]) == ("ddim", 1.0)
    np.testing.assert_array_equal(answers[0], answers[2])
    assert (answers[0] != answers[1]).any()


def test_the_method_of_a_user_is_what_its_formula_says(monkeypatch):
    """On independent pixels N(0, 1/4), where D = c x: c x - strength sigma / alpha c (c x - y)."""
    monkeypatch.syspath_prepend(EXTENDING)
    process = sde_lib.VPSDE()
    of = build.problem("denoise", (4, 4, 1), {}, build.noise(0.1))
    x, y = (jnp.asarray(np.random.default_rng(i).normal(size=(2, 4, 4, 1)), jnp.float32) for i in range(2))
    arguments = (sde_lib.exact.Gaussian(process, 0.0, 0.5), of.measurement, y, of.noise, (4, 4, 1))
    name, settings = problems.method("my_method:gradient:strength=0.3")
    denoiser, sampler = build.conditioned(Experiment(tiny_config()), name, settings, *arguments)
    assert sampler == Experiment(tiny_config()).sampler
    alpha, sigma = process.alpha(0.4), process.sigma(0.4)
    c = alpha / 4 / (alpha**2 / 4 + sigma**2)
    np.testing.assert_allclose(denoiser(x, 0.4), c * x - 0.3 * sigma / alpha * c * (c * x - y), rtol=1e-4, atol=1e-6)


BROKEN = """
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from experiments.data import Images
from experiments.data.sources import Parts
from experiments.inverse.problems import Method, Task
from experiments.metrics.records import Metric
from experiments.objectives import Objective
from sde_lib import SDE, Denoiser, DerivedDenoiser, Sampler
from sde_lib.inverse import LinearMeasurement, Measurement

class Half(SDE):
    def alpha(self, t):
        return 1 - t

class Needy(SDE):
    rate: float
    def alpha(self, t):
        return 1 - t
    def sigma(self, t):
        return t

class Untimed(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x

class Eager(nn.Module):
    @nn.compact
    def __call__(self, x, noise_level, condition=None, *, train=False):
        return x

class Positional(nn.Module):
    num_classes: int = 3
    @nn.compact
    def __call__(self, x, noise_level, condition=None, *, train=False, dropout_keys=None):
        return nn.Dense(x.shape[-1])(x) * condition[:, None, None, None]

class Needing(nn.Module):
    num_classes: int = 3
    augment_features: int = 2
    @nn.compact
    def __call__(self, x, noise_level, condition=None, *, train=False, dropout_keys=None):
        return nn.Dense(x.shape[-1])(x) * condition["augmentation"].sum()

class Still(Sampler):
    pass

class NoSampler:
    pass

class Lossless(Objective):
    pass

class Short(Objective):
    def loss(self, draws, params):
        return draws

class Alone(Objective):
    def loss(self, draws, params, example, frozen):
        return example["data"].mean((1, 2, 3))

class Total(Objective):
    def loss(self, draws, params, example, frozen):
        return example["data"].mean(), {}

class Counts(Objective):
    def loss(self, draws, params, example, frozen):
        return example["label"], {}

class Figures(Objective):
    def loss(self, draws, params, example, frozen):
        return example["data"].mean((1, 2, 3)), {"mean": example["data"].mean()}

class Others(Objective):
    def loss(self, draws, params, example, frozen):
        return {"critic": example["data"].mean((1, 2, 3))}, {}

class Unlike:
    def loss(self, draws, params, example, frozen):
        return example["data"].mean((1, 2, 3)), {}

class Unguided(DerivedDenoiser):
    weak: Denoiser
    scale: float

class Scaleless(DerivedDenoiser):
    weak: Denoiser
    def __call__(self, x, t):
        return x

class Summed(DerivedDenoiser):
    weak: Denoiser
    scale: float
    def __call__(self, x, t):
        return x.sum(-1)

def constant(denoiser, weak, scale):
    return 1.0

def three(wanted):
    return 3

def raises(wanted):
    raise OSError("the disk is gone")

class Matrix(SDE):
    def alpha(self, t):
        return 1 - t
    def sigma(self, t):
        return t[..., None] * jnp.ones(2)

class Whole(nn.Module):
    @nn.compact
    def __call__(self, x, noise_level, condition=None, *, train=False, dropout_keys=None):
        return nn.Dense(x.shape[-1])(x).astype(int)

class Empty(nn.Module):
    @nn.compact
    def __call__(self, x, noise_level, condition=None, *, train=False, dropout_keys=None):
        return x

class Few(Sampler):
    def step(self, carry, keys, x, t, s, denoiser):
        return x[..., 0]

class Uncounted(Sampler):
    def step(self, carry, keys, x, t, s, denoiser):
        return carry, x
    def nfe(self, n_steps):
        return 4.5

class Unnumbered(Uncounted):
    def nfe(self):
        return 4

class Constant(SDE):
    def alpha(self, t):
        return 1 - t
    def sigma(self, t):
        return jnp.ones(3)

class Plain:
    pass

class Shrinking(nn.Module):
    @nn.compact
    def __call__(self, x, noise_level, condition=None, *, train=False, dropout_keys=None):
        return nn.Dense(x.shape[-1])(x)[: 1 if train else None]

class Rounding(nn.Module):
    @nn.compact
    def __call__(self, x, noise_level, condition=None, *, train=False, dropout_keys=None):
        return nn.Dense(x.shape[-1])(x).astype(int if train else float)

class First(Sampler):
    def step(self, carry, keys, x, t, s, denoiser):
        return carry, x[:1]

class Lost(Sampler):
    def step(self, carry, keys, x, t, s, denoiser):
        raise KeyError("what")

class Twice(Sampler):
    def step(self, carry, keys, x, t, s, denoiser):
        return carry, x + (s - t) * (denoiser.velocity(x, t) + denoiser.velocity(x, s)) / 2

class TwiceAtEnd(Sampler):
    def step(self, carry, keys, x, t, s, denoiser):
        return carry, x + (s - t) * denoiser.velocity(x, t)
    def finish(self, carry, x, t, denoiser):
        return (denoiser(x, t) + denoiser(x, t)) / 2

class Early(Twice):
    def init(self, x, denoiser, times):
        return denoiser(x, times[0])
    def step(self, carry, keys, x, t, s, denoiser):
        return carry, x + (s - t) * denoiser.velocity(x, t)

class Counted(Twice):
    def nfe(self, n_steps):
        return 2 * n_steps - 1

class CountedByStep(Twice):
    evaluations_per_step = 2

class Batched(Twice):
    batch_size: int = 3

class Steps(Twice):
    steps: int = 3

class Interval(DerivedDenoiser):
    weak: Denoiser
    scale: float
    low: float = 0.5

class Pair(DerivedDenoiser):
    weak: Denoiser
    scale: float
    def __call__(self, x, t):
        return x, x

class Nothing(DerivedDenoiser):
    weak: Denoiser
    scale: float
    def __call__(self, x, t):
        pass

class Single(DerivedDenoiser):
    weak: Denoiser
    scale: float
    def x0_and_noise(self, x, t):
        return x

class ShortNoise(DerivedDenoiser):
    weak: Denoiser
    scale: float
    def x0_and_noise(self, x, t):
        return x, x[:1]

def floats(wanted):
    return Images(np.zeros((40, 8, 8, 1)))

def large(wanted):
    return Images(np.zeros((40, 12, 12, 1), np.uint8))

def short(wanted):
    return Images(np.zeros((40, 8, 8, 1), np.uint8), np.zeros(10, np.int32))

def texts(wanted):
    return Images(np.zeros((2, 8, 8, 1), np.uint8), np.array(["cat", "dog"]))

def negative(wanted):
    return Images(np.zeros((40, 8, 8, 1), np.uint8), np.arange(40) - 1)

def flat(wanted):
    return Images(np.zeros((40, 8, 8), np.uint8))

def training(wanted):
    return Parts({"training": Images(np.zeros((40, 8, 8, 1), np.uint8))})

def named(wanted):
    return Parts({"all": Images(np.zeros((40, 8, 8, 1), np.uint8), np.arange(40) % 3)}, class_names=("low",))

def lists(wanted):
    return Images([[1]])

number = 3
METRIC = "vendi"
ONE = Metric("one", "One", lambda samples: 1.0)
UNTITLED = Metric("one", None, lambda samples, real: 1.0)
UNSURE = Metric("one", "One", lambda samples, real: (1.0, -3.0))
TAKEN = Metric("recall", "Recall", lambda samples, real: 1.0)
task = Task("measures nothing")
loud = Task("measures", noise="loud", make=lambda shape, options: object())
nothing = Task("measures", make=lambda shape, options: object())
total = Task("measures", make=lambda shape, options: Of(lambda x: x.sum()))
whole = Task("measures", make=lambda shape, options: Of(lambda x: x.astype(int)))
affine = Task("measures", make=lambda shape, options: Linear(lambda x: 0.5 * x + 0.25))
halves = Task("measures", make=lambda shape, options: Linear(lambda x: 0.5 * x))
plain = Task("measures", make=lambda shape, options: Of(lambda x: x), baselines={"none": lambda a, y: y})
listed = Task("measures", ["levels"], make=lambda shape, options: Of(lambda x: x))
flat_image = Task("measures", make=lambda shape, options: Of(lambda x: x.reshape(len(x), -1)))
vector = Task("measures", make=lambda shape, options: Of(lambda x: x.reshape(len(x), -1)[:, :5]), image=False)
undefined = Task("measures", make=lambda shape, options: Of(lambda x: jnp.log(1 - x)))
blind = Task("measures", make=lambda shape, options: Of(lambda x: x[:, 0, 0]), image=False, view=lambda a, y: y)
unseeing = Task("measures", make=lambda shape, options: Of(lambda x: x[:, 0, 0]), image=False, view=lambda y: y)
unfinished = Task("measures", make=lambda shape, options: Of(lambda x: x), baselines={"nan": lambda a, y, std: y / 0})

def prior_of(prior, measurement, y, noise, settings):
    return prior

STEPS = {"steps": 10}
aimless = Method("draws", STEPS)
deaf = Method("draws", STEPS, posterior=prior_of, noise="loud")
greedy = Method("draws", STEPS, posterior=prior_of, asks="everything")
strange = Method("draws", {"stepz": 10}, posterior=prior_of)
worded = Method("draws", STEPS, {"mode": "fast"}, posterior=prior_of)
needy = Method("draws", STEPS, posterior=lambda prior, y: prior)
numb = Method("draws", STEPS, posterior=lambda *of: 3)
summed = Method("draws", STEPS, posterior=lambda prior, *of: Summed(prior, prior, 1.0))
good = Method("draws", STEPS, {"depth": 2}, posterior=prior_of)
exact = Method("draws", STEPS, {"depth": 2}, posterior=prior_of, masks=True)
noisy = Task("measures", {"noise": 0.1, "mask": 3, "depth": 4}, make=lambda shape, options: Of(lambda x: x))

class Of(Measurement):
    def __init__(self, function):
        self.forward = function

class Linear(LinearMeasurement):
    def __init__(self, function):
        self.forward = function
"""


@pytest.fixture
def broken(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text(textwrap.dedent(BROKEN))
    (tmp_path / "failing.py").write_text("x = 1\nraise ValueError('not today')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.compiles
@pytest.mark.parametrize(
    "flag, said",
    [
        ("sde.name=broken:Half", "sde.name=broken:Half: Half must define sigma(t)"),
        ("sde.name=broken:Hafl", "sde.name=broken:Hafl: the module broken has no 'Hafl'; did you mean 'Half'?"),
        ("sde.name=brokn:Half", "sde.name=brokn:Half: there is no module 'brokn' in {folder} or installed"),
        ("sde.name=failing:Half", "sde.name=failing:Half, line 2: ValueError: not today"),
        ("sde.name=broken:Needy", "sde.name=broken:Needy: a process takes its options and t_min by name: "),
        ("model.name=broken:Untimed", "model.name=broken:Untimed: TypeError: Untimed.__call__() takes 2 positional"),
        ("model.name=broken:Eager", "unexpected keyword argument 'dropout_keys'; a network is called as (x, noise_level, "),
        ("model.name=broken:Positional", "; condition is a dict of 'label': int32 (B,)"),
        (
            "model.name=broken:Needing",
            "condition is a dict of 'augmentation': float32 (B, 2), which sampling leaves out, and 'label'",
        ),
        ("sampling.sampler=broken:Still", "Still must define step"),
        ("sampling.sampler=broken:NoSampler", "sampling.sampler=broken:NoSampler: NoSampler has no init; a sampler derives"),
        ("data.source=broken:three", "data.source=broken:three: returns int, which has no pixels: return a data.Images"),
        ("data.source=broken:raises", "data.source=broken:raises: OSError: the disk is gone; a source is called as"),
        ("evaluation.metrics=broken:METRIC", "evaluation.metrics=broken:METRIC: str has no key; a metric is an"),
        ("evaluation.metrics=broken:TAKEN", "evaluation.metrics=broken:TAKEN: another metric has the key 'recall'"),
        ("sde.name=broken:Matrix", "sde.name=broken:Matrix: sigma(t) is float32 (3, 2) for t float32 (3,); it acts element"),
        ("sde.name=broken:number", "sde.name=broken:number: a process takes its options and t_min by name: 'int' object is"),
        ("sde.name=broken:three", "sde.name=broken:three: a process takes its options and t_min by name: three() got an"),
        ("model.name=broken:Whole", "model.name=broken:Whole: the output is int32, not floating-point numbers"),
        ("sde.name=broken:Constant", "sde.name=broken:Constant: sigma(t) is float32 (3,) for t float32 (5,); it acts "),
        ("sde.name=broken", "sde.name=broken: is a module; name a component of it as broken:NAME"),
        ("model.name=broken", "model.name=broken: is a module; name a component of it as broken:NAME"),
        ("model.name=broken:Plain", "model.name=broken:Plain: Plain is no flax.linen.Module, which a network derives from"),
        ("model.name=broken:Shrinking", "the output in training has shape (1, 8, 8, 1) for x of shape (2, 8, 8, 1)"),
        ("model.name=broken:Rounding", "model.name=broken:Rounding: the output is int32, not floating-point numbers"),
        ("sampling.sampler=broken:First", "broken:First' on sde.name='vp' with parameterization.name='edm': "),
        ("sampling.sampler=broken:Lost", "'edm': KeyError: 'what'; a sampler defines step(carry, keys, x, t, s, denoiser)"),
        ("sampling.sampler=broken:Twice", "step evaluates the Denoiser 2 times, and nfe counts 1; define nfe("),
        ("sampling.sampler=broken:TwiceAtEnd", "finish evaluates the Denoiser 2 times, and nfe counts 1; define nfe("),
        ("sampling.sampler=broken:Early", "broken:Early: init evaluates the Denoiser 1 times, and nfe counts 0; define nfe"),
        ("sampling.sampler=broken:Batched", "its option 'batch_size' has the name of sampling.batch_size, a key that it"),
        ("sampling.sampler=broken:Steps", "broken:Steps: its option 'steps' has the name of sampling.steps, a key that it"),
        ("sampling.guidance.name=broken:Interval", "its option 'low' has the name of sampling.guidance.low, a key that it"),
        ("model.name=broken:Empty", "model.name=broken:Empty: the network has no parameters"),
        ("sampling.sampler=broken:Few", "sampling.sampler='broken:Few' on sde.name='vp' with parameterization.name='edm': "),
        ("sampling.sampler=broken:Uncounted", "nfe(5) is 4.5; a whole number of evaluations, or None, is needed"),
        ("sampling.sampler=broken:Unnumbered", "sampling.sampler=broken:Unnumbered: nfe(n_steps): TypeError: "),
        ("data.source=broken:floats", "broken:floats: its images are float64 (1, 8, 8, 1), not uint8 (N, H, W, C)"),
        ("data.source=broken:large", "broken:large holds 12x12x1 images but data.image_size=8"),
        ("data.source=broken:short", "its labels are int32 (10,) from 0; whole numbers from 0 are needed, one for each of"),
        ("data.source=broken:texts", "broken:texts: its labels are <U3 (2,); whole numbers from 0 are needed, one for each"),
        ("data.source=broken:negative", "its labels are int64 (40,) from -1; whole numbers from 0 are needed"),
        ("data.source=broken:flat", "data.source=broken:flat: its images are uint8 (1, 8, 8), not uint8 (N, H, W, C)"),
        ("data.source=broken:lists", "data.source=broken:lists: "),
        ("data.source=broken:training", "the splits are 'training': name 'all', or 'train' with 'validation', 'test' or"),
        ("data.source=broken:named", "data.source=broken:named: 1 class_names for 3 classes; name each, or none"),
        ("objective.name=broken:Lossless", "broken:Lossless: NotImplementedError: Lossless must define loss(draws, "),
        ("objective.name=broken:Short", "Short.loss() takes 3 positional arguments but 5 were given; an objective defines"),
        ("objective.name=broken:Alone", "broken:Alone: loss returns "),
        ("objective.name=broken:Total", "broken:Total: loss is float32 () for 2 examples; an objective defines loss(draws"),
        ("objective.name=broken:Counts", "broken:Counts: loss is int32 (2,) for 2 examples; an objective defines loss("),
        ("objective.name=broken:Figures", "broken:Figures: the figure mean is () for 2 examples; an objective defines"),
        ("objective.name=broken:Others", "broken:Others: the losses are of critic, the players are network"),
        ("objective.name=broken:Unlike", "Unlike does not derive from experiments.objectives.Objective; an objective"),
        ("evaluation.metrics=broken:UNTITLED", "broken:UNTITLED: its key and title are 'one', None; texts are needed"),
        ("evaluation.metrics=broken:UNSURE", "evaluation.metrics: one: ValueError: the standard error is -3; compute("),
        ("evaluation.metrics=broken:ONE", "evaluation.metrics: one: TypeError: "),
        (
            "evaluation.metrics=vendi",
            "evaluation.metrics='vendi' is unknown: choose from gaussian_kernel_distance; or give an import path, such as",
        ),
    ],
)  # fmt: skip
def test_a_component_without_a_part_is_refused_by_name(fails, broken, flag, said):
    message = fails("train", f"--config={DIGITS}", f"--workdir={broken}/run", f"--config.{flag}")
    assert said.format(folder=broken) in message
    assert not (broken / "run").exists()


@pytest.mark.parametrize(
    "name, said",
    [
        ("broken:Unguided", "NotImplementedError: Unguided must define __call__(x, t) or x0_and_noise(x, t)"),
        (
            "broken:Scaleless",
            "unexpected keyword argument 'scale'; a guidance is called with denoiser, weak, scale and",
        ),
        (
            "broken:Summed",
            "__call__(x, t) gives float32 (2, 8, 8) for x float32 (2, 8, 8, 1); expected data and noise have the shape of x",
        ),
        ("broken:Pair", "broken:Pair: __call__(x, t) gives tuple for x float32 (2, 8, 8, 1)"),
        ("broken:Nothing", "broken:Nothing: __call__(x, t) gives NoneType for x float32 (2, 8, 8, 1)"),
        (
            "broken:Single",
            "broken:Single: x0_and_noise(x, t) returns float32 (2, 8, 8, 1); the pair (expected data, expected noise)",
        ),
        (
            "broken:ShortNoise",
            "broken:ShortNoise: x0_and_noise(x, t) gives float32 (1, 8, 8, 1) for x float32 (2, 8, 8, 1)",
        ),
        (
            "broken:constant",
            "makes a float; a guidance derives from sde_lib.DerivedDenoiser and defines __call__(x, t)",
        ),
        ("broken:Unguidd", "the module broken has no 'Unguidd'; did you mean 'Unguided'?"),
        ("linaer", "sampling.guidance.name='linaer' is unknown: choose from linear; did you mean 'linear'?"),
    ],
)
def test_a_guidance_without_a_part_is_refused_by_name(broken, name, said):
    made = tiny_config(model__num_classes=3, condition__label__dropout=0.1, sampling__guidance__scale=3.0)
    made.sampling.guidance.name = name
    with pytest.raises(UserError) as error:
        check.check(made, "label")
    assert str(error.value).startswith("sampling.guidance.name=") and said in str(error.value)


@pytest.mark.parametrize(
    "task, said",
    [
        (
            "broken:task",
            "its make is no function; a task is an experiments.inverse.records.Task whose make(shape, options)",
        ),
        ("broken:METRIC", "--task=broken:METRIC: str has no summary; a task is an"),
        ("broken:loud", "--task=broken:loud: its noise is 'loud'; a standard deviation of at least 0 is needed"),
        ("broken:listed", "--task=broken:listed: its flags is a list, no dict; a task is an"),
        ("broken:tsk", "--task=broken:tsk: the module broken has no 'tsk'; did you mean 'task'?"),
    ],
)
def test_a_task_without_a_part_is_refused_by_name(broken, task, said):
    with pytest.raises(UserError) as error:
        problems.task(task, {})
    assert said in str(error.value)


@pytest.mark.parametrize(
    "task, said",
    [
        (
            "nothing",
            "--task=broken:nothing: AttributeError: 'object' object has no attribute 'forward'; make(shape, options)",
        ),
        (
            "total",
            "--task=broken:total: forward gives float32 () for images (2, 4, 4, 1); make(shape, options) returns a",
        ),
        ("whole", "--task=broken:whole: forward gives int32 (2, 4, 4, 1) for images"),
        ("affine", "--task=broken:affine: forward(a + b) is not forward(a) + forward(b): a LinearMeasurement is"),
        (
            "flat_image",
            "--task=broken:flat_image: forward gives (2, 16) for images (2, 4, 4, 1), which are no images (B, h, w, 1): set "
            "image=False",
        ),
        ("plain", "--task=broken:plain: the baseline 'none': TypeError: "),
        (
            "unfinished",
            "--task=broken:unfinished: the baseline 'nan' gives (3, 4, 4, 1), or values that are not finite",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_a_measurement_of_a_user_maps_images_to_floats(broken, task, said):
    with pytest.raises(UserError) as error:
        build.problem(f"broken:{task}", (4, 4, 1), {}, build.noise(0.1)).baseline(np.ones((3, 4, 4, 1), np.float32))
    assert said in str(error.value)
    assert build.problem("broken:halves", (4, 4, 1), {}, build.noise(0.1)).baseline(np.ones((3, 4, 4, 1))) == {}


@pytest.mark.parametrize(
    "task, said",
    [
        ("blind", "view(measurement, y) gives (3, 1), or values that are not finite; pictures (N, h, w, C) in [-1, 1]"),
        ("unseeing", "view(measurement, y): TypeError: "),
    ],
)
def test_a_view_of_a_user_makes_pictures(broken, task, said):
    view = build.problem(f"broken:{task}", (4, 4, 1), {}, build.noise(0.1)).view
    with pytest.raises(UserError) as error:
        view(np.ones((3, 1), np.float32))
    assert str(error.value).startswith(f"--task=broken:{task}: {said}")


def test_a_measurement_that_is_not_finite_is_refused(broken):
    of = build.problem("broken:undefined", (4, 4, 1), {}, build.noise(0.1))
    images = SimpleNamespace(names=("a", "b"), values=np.stack([np.zeros((4, 4, 1)), np.ones((4, 4, 1))]))
    request = SimpleNamespace(task="broken:undefined", truth="t", input=None, limit=None, seed=0)
    with pytest.raises(
        UserError, match=r"^--task=broken:undefined: what is measured of b has values that are not finite"
    ):
        restore._inputs(request, of, SimpleNamespace(read=lambda *of: images))


def test_values_without_a_picture_have_no_view(broken):
    assert build.problem("broken:vector", (4, 4, 1), {}, build.noise(0.1)).view is None
    image = build.problem("broken:halves", (4, 4, 1), {}, build.noise(0.1))
    np.testing.assert_array_equal(image.view(np.ones((3, 4, 4, 1))), np.ones((3, 4, 4, 1)))


@pytest.mark.parametrize("name", ["Counted", "CountedByStep"])
def test_a_sampler_that_counts_its_evaluations_is_taken(broken, name):
    made = tiny_config(sampling__steps=5)
    config.override(made, "sampling.sampler", f"broken:{name}")
    check.check(made, "sampler")
    assert Experiment(made).network_evaluations == 9


@pytest.mark.parametrize(
    "name, said",
    [
        ("METRIC", "str has no summary; a method is an experiments.inverse.records.Method with posterior(prior, "),
        ("task", "Task has no sampling; a method is an"),
        ("aimless", "its posterior and its steps are no functions; a method is an"),
        ("deaf", "its noise is 'loud', none of known, not asked, none"),
        (
            "greedy",
            "its asks is 'everything', none of products, many products, pseudo_inverse, normal_solve, ",
        ),
        ("strange", "its sampling has 'stepz', which is no key of config.sampling; did you mean 'steps'?"),
        ("worded", "its setting mode is 'fast', no number"),
        ("god", "the module broken has no 'god'; did you mean 'good'?"),
        ("good:deep=3", "'deep=3' is no setting of broken:good, which are depth=2; did you mean 'depth'?"),
        ("good:depth=x", "depth must be a whole number, such as 2"),
    ],
)
def test_a_method_without_a_part_is_refused_by_name(broken, name, said):
    assert problems.method("broken:good:depth=3") == ("broken:good", {"depth": 3})
    with pytest.raises(UserError) as error:
        problems.method(f"broken:{name}")
    assert str(error.value).startswith(f"--method=broken:{name}: {said}") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, said",
    [
        ("mmpz:rtol", "='mmpz' is unknown: choose from "),
        ("nowhere:good", "=nowhere:good: there is no module 'nowhere' in "),
    ],
)
def test_a_method_that_is_nowhere_is_refused(broken, name, said):
    with pytest.raises(UserError) as error:
        problems.method(name)
    assert str(error.value).startswith(f"--method{said}")


@pytest.mark.parametrize(
    "name, said",
    [
        (
            "needy",
            "TypeError: <lambda>() takes 2 positional arguments but 5 were given; posterior(prior, measurement, y, ",
        ),
        ("numb", "AttributeError: 'int' object has no attribute 'sde'; posterior(prior, "),
        (
            "summed",
            "gives (1, 4, 4, 4) for x of (1, 4, 4, 1); posterior(prior, measurement, y, noise, settings)",
        ),
    ],
)
def test_the_parts_of_a_method_of_a_user_are_tried_before_sampling(broken, name, said):
    of = build.problem("denoise", (4, 4, 1), {}, build.noise(0.1))
    with pytest.raises(UserError) as error:
        build.check_method(Experiment(tiny_config(sampling__sampler="ddim")), f"broken:{name}", {}, of, (4, 4, 1))
    assert said in str(error.value) and str(error.value).startswith(f"--method=broken:{name}: ")


def test_options_are_those_of_a_class_with_its_own_defaults(broken, monkeypatch):
    """A class without a decorator, before and after its first object; a value that replaces an inherited default."""
    monkeypatch.syspath_prepend(EXTENDING)
    process = components.load("sde.name", "my_process:Trigonometric")
    for _ in range(2):
        assert components.options(process) == {"t_max": 0.99, "power": 1.0}
        process(t_min=1e-3)
    assert components.options(components.load("x", "broken:Needy")) == {"t_max": 1.0}
    assert components.options(components.load("x", "my_sampler:Midpoint")) == {"place": 0.5}
    found = components.options(lambda a, b=2, *, c=(1, 2), d=None, e=np.float64, t_min=1: None)
    assert found == {"b": 2, "c": (1, 2), "d": None}


def test_an_option_that_is_not_set_keeps_the_default_of_the_class(monkeypatch):
    monkeypatch.syspath_prepend(EXTENDING)
    made = tiny_config()
    config.override(made, "sde.name", "my_process:Trigonometric")
    assert made.sde.to_dict() == {"name": "my_process:Trigonometric", "t_max": 0.99, "power": 1.0}
    config.override(made, "sde.power", "2")
    assert made.sde.power == 2.0
    with pytest.raises(UserError, match=r"sde.powr=2: unknown key; did you mean 'sde.power'\?"):
        config.override(made, "sde.powr", "2")
    assert config.from_json(config.to_json(made)).to_dict() == made.to_dict()


@pytest.mark.parametrize("text, path", [("a:b", True), ("a.b:c", True), ("a", False), ("a:", False), (":b", False),
                                        ("a:b.c", False), ("power:0.1", False), ("C:/x", False)])  # fmt: skip
def test_import_paths_are_a_module_and_a_name(text, path):
    assert components.is_path(text) == path


def test_a_metric_has_a_value_and_perhaps_an_error():
    rows = np.arange(12.0).reshape(6, 2)
    metric = records.Metric("m", "M", lambda samples, real: samples.sum() - real.sum())
    assert metric(rows, rows[:3]) == (66 - 15, None) and metric.described["meaning"] == "less is better"
    metric = records.Metric("m", "M", lambda samples, real: (1, 2), less=False)
    assert metric(rows, rows) == (1.0, 2.0) and metric.described["meaning"] == "more is better"
    with pytest.raises(UserError, match=r"m: TypeError: .*compute\(samples, real\) takes features"):
        records.Metric("m", "M", lambda samples: 1)(rows, rows)


def test_pixels_outside_of_a_mask_are_kept_by_a_method_of_a_user_that_works_without_noise(broken):
    flag, known = "--masked_by", {"replacement": {}, "ddrm": {"eta": 0.85}}
    assert problems.named_settings(flag, "broken:exact:depth=3", known) == ("broken:exact", {"depth": 3})
    for text, said in (
        ("broken:good", "a method with a posterior that works without noise is needed; such a one has masks=True"),
        ("broken:exat", "the module broken has no 'exat'; did you mean 'exact'?"),
        ("broken:exact:deep=3", "'deep=3' is no setting of broken:exact, which are depth=2; did you mean 'depth'?"),
        ("ddrn", "choose from ddrm, replacement; did you mean 'ddrm'?"),
    ):
        with pytest.raises(UserError) as error:
            problems.named_settings(flag, text, known)
        assert str(error.value).startswith(flag) and str(error.value).endswith(said)


def test_a_flag_of_a_task_of_a_user_that_restore_has_is_refused(fails, broken):
    message = fails("restore", "--workdir=run", "--task=broken:noisy", "--truth=a.png", "--out=out")
    assert message == "--task=broken:noisy: its flag --noise is one of restore itself; give it another name"


def test_a_component_without_a_docstring_is_described_by_none(broken):
    for kind, name in (("process", "broken:Half"), ("network", "broken:Whole")):
        assert catalogue.entry(kind, name).document == "no docstring"
