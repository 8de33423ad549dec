"""Noise-conditional classification against the same done by hand: losses, figures of noise levels, framed pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import sde_lib
from experiments.factory.experiment import Experiment
from experiments.learning import state
from experiments.media import LatentMedium
from experiments.objectives import Objective, classification
from tests.experiments.tiny import tiny_config

CLASSES = 3
RNG = np.random.default_rng(0)
# Different smallest times for training, sampling and evaluation, and a seed that is not the default.
SETTINGS = {
    "objective__name": "classification", "model__num_classes": CLASSES, "parameterization__name": "data",
    "training__t_min": 0.02, "sampling__t_min": 0.04, "evaluation__t_min": 0.08, "evaluation__seed": 7,
    "evaluation__noise_levels": 2, "training__loss_bins": 4,
}  # fmt: skip


class Linear:
    """A network whose logits are linear in the pixels; it notes whether it runs as in training."""

    modes: list = []

    def apply(self, variables, x, noise_level, condition=None, *, train=False, dropout_keys=None):
        self.modes.append((train, dropout_keys is not None))
        return x.reshape(len(x), -1) @ variables["w"]


@pytest.fixture
def made(monkeypatch):
    """(process, changes) -> the experiment and weights of its classifier."""
    monkeypatch.setattr("experiments.factory.model.network", lambda config: Linear())
    monkeypatch.setattr(Linear, "modes", [])

    def make(process="ve", **changes):
        experiment = Experiment(tiny_config(process, **SETTINGS | changes))
        pixels = int(np.prod(experiment.event_shape))
        return experiment, {"w": jnp.asarray(RNG.normal(0, 0.3, (pixels, CLASSES)), jnp.float32)}

    return make


def noisy(sde, x0, t, keys):
    noise = jnp.stack([jax.random.normal(key, x0.shape[1:]) for key in keys])
    return sde.alpha(t) * x0 + sde.sigma(t) * noise


def levels(experiment, count):
    """(log-SNR, time) of the evaluation's levels, from clean to noisy."""
    sde = experiment.sde(0.08)
    ends = float(sde.log_snr(0.08)), float(sde.log_snr(sde.t_max))
    return sde, [(level, sde.time_at_log_snr(jnp.float32(level))) for level in np.linspace(*ends, count)]


@pytest.mark.parametrize("count", [4, 10])
def test_figures_are_means_over_all_examples_whatever_the_batch(made, monkeypatch, count):
    """Example i has the noise of key(seed) folded with i; the last batch is cut to the examples that there are."""
    monkeypatch.setattr(classification, "BATCH", 4)
    experiment, variables = made()
    images = RNG.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    labels = RNG.integers(0, CLASSES, count)
    found = experiment.objective.evaluate(variables, images, labels)
    sde, expected = levels(experiment, 2)
    keys = [jax.random.fold_in(jax.random.key(7), i) for i in range(count)]
    rows = []
    for (log_snr, t), row in zip(expected, found["levels"], strict=True):
        logits = experiment.classifier(variables).logits(noisy(sde, images / 127.5 - 1, t, keys), t)
        log_probs = scipy.special.log_softmax(np.asarray(logits, float), 1)
        rows.append((-log_probs[np.arange(count), labels].mean(), (log_probs.argmax(1) == labels).mean()))
        assert row["log_snr"] == pytest.approx(log_snr, rel=1e-5)
        assert (row["cross_entropy"], row["accuracy"]) == pytest.approx(rows[-1], rel=1e-4)
    means = np.mean(rows, 0)
    assert found["figures"] == {"cross_entropy": pytest.approx(means[0], rel=1e-4), "accuracy": pytest.approx(means[1])}
    assert found["examples"] == count and set(Linear.modes) == {(False, False)}
    with pytest.raises(ValueError, match=r"objective.name='classification' needs held-out examples with classes"):
        experiment.objective.evaluate(variables, images, None)


def test_a_loss_is_the_cross_entropy_at_the_times_of_training(made):
    """From the smallest time of training on, with dropout; accuracy and bins are of the same logits and times."""
    experiment, variables = made()
    x0 = jnp.asarray(RNG.uniform(-1, 1, (5, 8, 8, 1)), jnp.float32)
    labels = jnp.asarray([0, 1, 2, 0, 1])
    drawn = state.draws(jax.random.key(3), jnp.int32(4), jnp.arange(5), 5, 40)
    losses, figures = experiment.objective.loss(drawn, variables, {"data": x0, "label": labels}, None)
    assert Linear.modes == [(True, True)]
    expected, logits, t = sde_lib.noisy_classification(
        drawn.keys, experiment.classifier(variables), experiment.sde(0.02), x0, labels,
        times=experiment.training_times(drawn), train=True,
    )  # fmt: skip
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    right = np.asarray(logits).argmax(1) == labels
    np.testing.assert_array_equal(figures.pop("accuracy"), right.astype(np.float32))
    bins = experiment.binned(expected, t)
    assert figures.keys() == bins.keys() and len(bins) == 2
    for name in bins:
        np.testing.assert_allclose(figures[name], bins[name], rtol=1e-6)
        assert bins[name].shape == (5, 4)


@pytest.mark.parametrize("channels", [1, 5])
def test_a_picture_has_a_column_for_each_example_and_a_row_for_each_noise_level(made, channels):
    """At most ten of both; data of unit variance keep their size, and the frame tells whether the class is found."""
    experiment, variables = made(data__num_channels=channels)
    images = RNG.integers(0, 256, (12, 8, 8, channels), dtype=np.uint8)
    labels = RNG.integers(0, CLASSES, 12)
    picture = experiment.objective.picture(variables, images, labels)
    assert picture.shape == (10 * 12, 10 * 12, 3) and picture.dtype == np.uint8
    sde, every = levels(experiment, 10)
    keys = jax.random.split(jax.random.key(0), 10)
    cells = picture.reshape(10, 12, 10, 12, 3).swapaxes(1, 2)
    for row in (0, 6):
        t = every[row][1]
        x = noisy(sde, images[:10] / np.float32(127.5) - 1, t, keys)
        grey = (np.asarray(x / jnp.sqrt(1 + sde.sigma(t) ** 2)) + 1) * 127.5
        expected = np.clip(np.rint(grey), 0, 255)[..., :3] * np.ones(3)
        assert np.abs(cells[row, :, 2:-2, 2:-2] - expected).max() <= 1
        found = np.asarray(experiment.classifier(variables).logits(x, t)).argmax(1) == labels[:10]
        colours = np.where(found[:, None], (40, 150, 60), (200, 40, 40))
        ring = cells[row][:, [1, 1, -2, -2, 1, 5], [1, -2, 1, -2, 5, -2]]
        np.testing.assert_array_equal(ring, np.repeat(colours[:, None], 6, 1))
        border = cells[row][:, [0, 0, -1, -1, 0, 5], [0, -1, 0, -1, 5, -1]]
        assert (border == 255).all()
    assert experiment.objective.picture(variables, images, None) is None
    experiment.__dict__["medium"] = LatentMedium((8, 8, channels))
    assert experiment.objective.picture(variables, images, labels) is None


def test_a_classifier_is_of_classes_and_has_a_logit_for_each(made):
    experiment, _ = made(model__num_classes=0)
    with pytest.raises(ValueError, match=r"^model.num_classes=0: objective.name='classification' needs the number of"):
        experiment.objective.check()
    for classes, fits in ((CLASSES, True), (CLASSES + 1, False), (CLASSES - 1, False)):
        experiment, variables = made(model__num_classes=classes)
        objective = experiment.objective
        object.__setattr__(objective, "init", lambda key, variables=variables: variables)
        if fits:
            objective.check()
            continue
        with pytest.raises(
            ValueError, match=f"the output is 3, not a logit for each of {classes} classes; choose a cl"
        ):
            objective.check()


def test_what_an_objective_leaves_out_is_that_of_one_network():
    """The optimizer, averages and projection of the experiment; no frozen weights, no picture and no figures."""
    experiment = Experiment(tiny_config(training__ema="warmup,power:0.1"))
    plain = Objective(experiment)
    (name, player), *others = plain.players.items()
    assert (name, others) == ("network", []) and player.optimizer is experiment.optimizer
    assert player.averages == tuple(experiment.emas.values()) and player.project is experiment.projection
    assert plain.frozen() is plain.picture(None, None, None) is plain.check() is None
    assert plain.network_variables("weights") == "weights" and plain.evaluate(None, None, None) == {"figures": {}}
    assert Objective.samples and not classification.Classification.samples
    with pytest.raises(NotImplementedError, match=r"^Objective must define loss\(draws, params, example, frozen\)$"):
        plain.loss(None, None, None, None)

    class Own(Objective):
        rate: float = 0.5

        @property
        def players(self):
            return {}

    class Heir(Own):
        width: int = 3

    assert [made(experiment).has_own_players for made in (Objective, classification.Classification, Own, Heir)] == [
        False, False, True, True,
    ]  # fmt: skip
    made = Heir(experiment, rate=0.25)
    assert (made.experiment, made.rate, made.width) == (experiment, 0.25, 3)
    with pytest.raises(AttributeError):
        made.experiment = None
