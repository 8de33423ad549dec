"""Objectives from the config to what a run is good for: a classifier that guides, and two players of a user."""

import json
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sde_lib
from experiments import load_run
from experiments.__main__ import main
from experiments.devices.parallel import Pmap
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.generation import guidance
from experiments.generation.sampler import Sampler
from experiments.loading import runs
from experiments.runs.workdir import Workdir
from tests.experiments.tiny import ROOT, flags, newest_state, tiny_config

SMALL = {
    "model__channels": 8, "model__channel_multipliers": "1", "model__head_channels": 8, "training__num_steps": 8,
    "training__sample_every": 8, "training__checkpoint_every": 8,
}  # fmt: skip
DRAWN = {"parameterization__name": "data", "sampling__sampler": "ddim", "sampling__steps": 2}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The folder of a classifier of eight steps."""
    workdir = tmp_path_factory.mktemp("runs") / "classifier"
    assert (
        main(["train", f"--config={ROOT}/configs/digits.py:classifier", f"--workdir={workdir}", *flags(**SMALL)]) == 0
    )
    return workdir


def test_a_classifier_is_judged_on_held_out_images_at_each_noise_level(classifier, capsys):
    told = json.loads((classifier / "metrics.json").read_text())
    run = load_run(classifier)
    assert told["step"] == 8 and told["objective"] == "classification" and told["examples"] == 64
    levels = told["levels"]
    sde = run.experiment.sde(run.experiment.evaluation.t_min)
    ends = [float(sde.log_snr(t)) for t in (sde.t_min, sde.t_max)]
    np.testing.assert_allclose([row["log_snr"] for row in levels], np.linspace(*ends, 3), rtol=1e-6)
    for name in ("accuracy", "cross_entropy"):
        np.testing.assert_allclose(told["figures"][name], np.mean([row[name] for row in levels]), rtol=1e-6)
    rows = [json.loads(line) for line in (classifier / "metrics.jsonl").read_text().splitlines()]
    assert abs(rows[0]["loss"] - np.log(10)) < 0.5 and 0 <= rows[0]["accuracy"] <= 1  # ten classes, nothing learned
    before = (classifier / "metrics.json").read_text()
    assert main(["evaluate", f"--workdir={classifier}"]) == 0
    assert (classifier / "metrics.json").read_text() == before and "accuracy" in capsys.readouterr().out


class Oracle:
    """Logits that are a table of the first pixel's sign: class 0 below zero, class 1 above."""

    def apply(self, variables, x, noise_level, condition, *, train, dropout_keys=None):
        assert condition is None
        return jnp.stack([-x[:, 0, 0, 0], x[:, 0, 0, 0], jnp.full(len(x), -1e9)], 1) * 1e9


def test_figures_and_frames_are_those_of_what_the_network_finds(monkeypatch):
    monkeypatch.setattr("experiments.factory.model.network", lambda config: Oracle())
    changes = {"objective__name": "classification", "model__num_classes": 3, "evaluation__noise_levels": 2}
    objective = Experiment(tiny_config(**changes)).objective
    images = np.zeros((3, 8, 8, 1), np.uint8)
    images[1] = 255  # the second is of class 1, the others of class 0
    found = objective.evaluate({}, images, np.array([0, 1, 1]))
    assert found["levels"][0]["accuracy"] == pytest.approx(2 / 3) and found["examples"] == 3
    picture = objective.picture({}, images, np.array([0, 1, 1]))
    assert picture.shape == (10 * 12, 3 * 12, 3)
    np.testing.assert_array_equal(picture[1, [1, 13, 25]], [[40, 150, 60], [40, 150, 60], [200, 40, 40]])
    np.testing.assert_array_equal(picture[4, [4, 16, 28]].mean(1) > 128, [False, True, False])


class Steep:
    """A classifier whose log-likelihood of class c is c times the mean of what it sees, and a Denoiser of zeros."""

    def apply(self, variables, x, noise_level, condition=None, *, train=False):
        logits = jnp.arange(3.0) * x.mean((1, 2, 3))[:, None]
        return logits + jax.lax.stop_gradient(jax.nn.logsumexp(logits, axis=1, keepdims=True)) * 0

    def gradient(self, sde, x, t, c):
        """Of log softmax at the state, with respect to each pixel."""
        m = np.asarray(x).mean((1, 2, 3))
        p = np.exp(np.arange(3) * m[:, None]) / np.exp(np.arange(3) * m[:, None]).sum(1, keepdims=True)
        return (c - p @ np.arange(3)) / 64


class Guide:
    variables = {}

    def __init__(self, config):
        self.experiment = Experiment(config)


@pytest.mark.parametrize("classes, scale, share", [(0, 1.0, 1.0), (0, 2.5, 2.5), (3, 2.5, 1.5)])
def test_a_classifier_guides_by_its_gradient(monkeypatch, classes, scale, share):
    """D + share n^2 grad log p, where the share is the scale, less the one that a conditional model has already."""
    monkeypatch.setattr("experiments.factory.model.network", lambda config: Steep())
    config = tiny_config(model__num_classes=classes, **DRAWN)
    config.sampling.guidance.update(scale=scale, guide="x")
    of_classes = tiny_config(objective__name="classification", model__num_classes=3, parameterization__name="data")
    guide = Guide(of_classes)
    monkeypatch.setattr(
        "experiments.factory.model.denoiser",
        lambda config, variables, t_min: sde_lib.NetworkDenoiser(
            Experiment(config).sde(t_min), sde_lib.DataPrediction(), Zeros(), {}
        ),
    )
    denoiser = guidance.guided(Experiment(config), ({}, {}), jnp.array([2, 0]), guide)
    x, t = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32), jnp.full(2, 0.3)
    sde = denoiser.sde
    n2, alpha = (float(f(jnp.float32(0.3))) for f in (lambda t: sde.noise_to_signal(t) ** 2, sde.alpha))
    gradient = Steep().gradient(sde, x, t, np.array([2, 0])) * alpha  # of a shift of the data
    expected = np.broadcast_to((share * n2 * gradient)[:, None, None, None], x.shape)
    np.testing.assert_allclose(denoiser(x, t), expected, rtol=1e-4)
    assert Experiment(config).network_evaluations == 2 * Experiment(config).evaluations


class Zeros:
    def apply(self, variables, x, noise_level, condition=None, **mode):
        return jnp.zeros_like(x)


def test_classes_of_an_unconditional_model_are_those_of_its_classifier():
    config = tiny_config(**DRAWN)
    config.sampling.guidance.guide = "x"
    guide = Guide(tiny_config(objective__name="classification", model__num_classes=3))
    sampler = Sampler(Experiment(config), Pmap(jax.devices()[:1]), 5, guide=guide)
    np.testing.assert_array_equal(sampler.labels(np.arange(5)), [0, 1, 2, 0, 1])
    config.sampling.label = 2
    sampler = Sampler(Experiment(config), Pmap(jax.devices()[:1]), 5, guide=guide)
    np.testing.assert_array_equal(sampler.labels(np.arange(5)), [2] * 5)


def test_samples_are_guided_to_a_class_by_a_run(classifier, tiny_run, tmp_path, capsys, fails):
    command = ["sample", f"--workdir={tiny_run}", "--num_samples=6", f"--guide={classifier}"]
    drawn = {}
    for name, more in {"seven": ["--label=7"], "strong": ["--label=7", "--guidance=40"], "each": []}.items():
        assert main([*command, *more, f"--out={tmp_path}/{name}.npz"]) == 0
        drawn[name] = np.load(tmp_path / f"{name}.npz")["samples"]
    assert (drawn["seven"] != drawn["strong"]).any() and (drawn["seven"][0] != drawn["each"][0]).any()
    assert "14 evaluations each" in capsys.readouterr().out  # 7 of the network, 7 of the classifier
    out = f"--out={tmp_path}/x.npz"
    assert fails(*command, out, "--label=ten").startswith("sampling.label=ten: the classes are 0")
    assert "rescale=0.7 has no effect" in fails(*command, out, "--config.sampling.guidance.rescale=0.7")
    assert "a weaker model has no effect at sampling.guidance.scale=1" in fails(
        "sample", f"--workdir={tiny_run}", f"--guide={tiny_run}", out
    )
    config = tiny_config(sampling__label=3)
    config.sampling.guidance.update(guide=str(tiny_run), scale=2.0)
    with pytest.raises(UserError, match=r"sampling.label=3: this model has no classes .* is no classifier"):
        runs.load_guide(Experiment(config))
    for arguments in (("sample", out), ("edit", "--input=a.png", out), ("evaluate", "--sweep-guidance=1,2")):
        name, *rest = arguments
        assert "sample" in fails(name, f"--workdir={classifier}", *rest)
    assert "cannot be changed after training" in fails("evaluate", f"--workdir={classifier}", "--steps=3")


FLAT = """
import flax.linen as nn

class Flat(nn.Module):
    num_classes: int = 0
    @nn.compact
    def __call__(self, x, noise_level, condition=None, *, train=False, dropout_keys=None):
        return x * self.param("w", nn.initializers.ones, ())
"""


def test_the_network_of_a_classifier_gives_a_logit_for_each_class(fails, tmp_path, monkeypatch):
    command = ["train", f"--config={ROOT}/configs/digits.py", f"--workdir={tmp_path}/run", *flags()]
    of_classes = "--config.objective.name=classification"
    assert "model.num_classes=0: objective.name='classification' needs" in fails(*command, of_classes)
    of_classes = (of_classes, "--config.model.num_classes=10")
    assert "UNet: num_classes=10 needs condition" in fails(*command, *of_classes)
    (tmp_path / "flat.py").write_text(FLAT)
    monkeypatch.syspath_prepend(tmp_path)
    message = fails(*command, *of_classes, "--config.model.name=flat:Flat", "--config.model.num_classes=10")
    assert message.endswith(
        "the output is 8x8x1, not a logit for each of 10 classes; choose a classifier, such as unet_classifier"
    )
    assert "objective.name='classificaton' is unknown: " in fails(*command, "--config.objective.name=classificaton")
    assert "dumps does not derive from experiments.objectives.Objective; an objective defines loss" in fails(
        *command, "--config.objective.name=json:dumps"
    )


PAIR = '''
import dataclasses

import jax.numpy as jnp
import optax

from experiments.learning.players import Player
from experiments.objectives import Objective


@dataclasses.dataclass(frozen=True, eq=False)
class Pair(Objective):
    """A network, and a number that is drawn to 3 by its own optimizer."""

    rate: float = 0.25

    @property
    def players(self):
        network = super().players["network"]
        return {"network": network, "number": Player(optax.sgd(self.rate), network.averages)}

    def init(self, key):
        return {"network": self.experiment.init_network(key), "number": jnp.ones(8)}

    def network_variables(self, params):
        return params["network"]

    def loss(self, draws, params, example, frozen):
        losses, aux = self.experiment.loss(draws, params["network"], example["data"], None)
        return {"network": losses, "number": jnp.square(params["number"] - 3).sum() / 2 + 0 * losses}, aux
'''


def test_two_players_of_a_user_are_trained_resumed_averaged_and_sampled(tiny_run, tmp_path, monkeypatch):
    (tmp_path / "pair.py").write_text(PAIR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    changes = {
        "objective__name": "pair:Pair", "training__num_steps": 8, "training__checkpoint_every": 4,
        "training__sample_every": 8, "training__ema": "power:0.1", "training__ema_snapshot_every": 4,
        "parallel__strategy": "fsdp", "training__on_nonfinite": "skip",
    }  # fmt: skip
    command = ["train", f"--config={ROOT}/configs/digits.py", "--workdir=run", *flags(**changes)]
    assert main([*command, "--config.objective.rate=0.5"]) == 0
    experiment = Experiment(Workdir(tmp_path / "run").read_config())
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    plain = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    # The warm-up of four updates is the same for any number of steps: the network is trained as it is alone.
    np.testing.assert_allclose(rows[0]["loss_network"], plain[0]["loss"], rtol=1e-4)
    # number - 3 is halved by each update: the mean over steps 4 to 7 of 8 / 2 (2 / 2^n)^2
    np.testing.assert_allclose(
        rows[-1]["loss_number"], np.mean([4 * (2 * 0.5**n) ** 2 for n in range(4, 8)]), rtol=1e-4
    )
    trained = newest_state(tmp_path / "run")
    np.testing.assert_allclose(trained.params["number"], 3 - 2 * 0.5**8, rtol=1e-6)
    shutil.rmtree("run/checkpoints/8")
    assert main([*command, "--config.objective.rate=0.5"]) == 0
    for a, b in zip(jax.tree.leaves(newest_state(tmp_path / "run")), jax.tree.leaves(trained), strict=True):
        np.testing.assert_array_equal(a, b)
    made = load_run("run", ema_std=0.1)
    assert jax.tree.structure(made.variables) == jax.tree.structure(experiment.abstract_variables)
    for a, b in zip(jax.tree.leaves(made.variables), jax.tree.leaves(trained.emas[0]["network"]), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)
    assert main(["sample", "--workdir=run", "--num_samples=2", "--out=a.npz"]) == 0
    sys.modules.pop("pair")
