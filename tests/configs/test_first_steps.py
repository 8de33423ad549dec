"""Every experiment of the papers trains a step and samples a step, at reduced width.

Compilation is what this costs, so a network is compiled by itself, once for all experiments that have it; what they do
around it, the loss, the update and the method, runs operation by operation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from experiments import factory
from experiments.factory import check
from experiments.learning import state
from tests.configs.papers import EXPERIMENTS, load
from tests.models.families import FAMILIES

SIZE_OPTIONS = (
    "channels", "channel_multipliers", "blocks_per_level", "attention_resolutions", "dilations", "width", "depth",
    "num_heads", "head_channels", "norm_groups",
)  # fmt: skip
SAME_FOR_ALL = {"dropout": 0.1, "patch_size": 2}


def reduced(experiment):
    """The experiment with a tiny network on images of 8 px, and no warm-up, so that its first step moves."""
    loaded = load(experiment, data__image_size=8, optim__warmup_steps=0, optim__lr=1e-3, sampling__steps=2)
    family = FAMILIES[loaded.model.name]
    one_level = {} if "progressive" in loaded.model else family.smaller  # the pyramids want two
    small = family.options | one_level
    sizes = {key: small[key] for key in SIZE_OPTIONS if key in small} | SAME_FOR_ALL
    loaded.model.update({key: value for key, value in sizes.items() if key in loaded.model})
    return loaded


def network_of(loaded):
    """What makes another network, or other weights before training."""
    return loaded.model.to_json(sort_keys=True), loaded.data.num_channels, loaded.loss.learned_uncertainty


def structure(experiment):
    """What of an experiment makes another program than another experiment."""
    loaded = reduced(experiment)
    choices = [value for section in (loaded.loss, loaded.sampling) for value in section.values()]
    return (
        tuple((k, v) for k, v in sorted(loaded.model.items()) if k not in ("num_scales", "sigma_max")),
        loaded.sde.name, loaded.parameterization.name, loaded.parameterization.scale_input, loaded.data.num_channels,
        tuple(value for value in choices if isinstance(value, str | bool)),
    )  # fmt: skip


DISTINCT = {structure(experiment): experiment for experiment in reversed(EXPERIMENTS)}.values()
SAME_NETWORK = {}
for experiment in DISTINCT:
    SAME_NETWORK.setdefault(network_of(reduced(experiment)), []).append(experiment)


class Compiled:
    """A network whose calls are compiled by themselves."""

    def __init__(self, network):
        self.apply = jax.jit(network.apply, static_argnames="train")


@pytest.mark.thorough
@pytest.mark.parametrize("experiments", SAME_NETWORK.values(), ids=lambda experiments: experiments[0])
def test_they_train_a_step_and_sample_a_step(experiments, monkeypatch):
    first = reduced(experiments[0])
    variables, network = factory.init_variables(first), Compiled(factory.network(first))
    for experiment in experiments:
        loaded = reduced(experiment)
        check.check(loaded)
        with monkeypatch.context() as patch:
            patch.setattr(models, "create", lambda name, **options: network)
            trained = train_a_step(loaded, variables)
            sample_a_step(loaded, trained)


def train_a_step(loaded, variables, batch=64):
    """The networks that begin with an output of zero begin with a loss of 1 per value, which the step lowers."""
    channels = loaded.data.num_channels
    x0 = 0.5 * jax.random.normal(jax.random.key(1), (batch, 8, 8, channels))
    condition = factory.condition(loaded, jnp.arange(batch) % max(loaded.model.num_classes, 1))
    drawn, loss = state.draws(jax.random.key(0), 0, jnp.arange(batch), batch), factory.loss(loaded)
    value_and_gradient = jax.value_and_grad(lambda variables: loss(drawn, variables, x0, condition).mean())

    before, gradient = value_and_gradient(variables)
    variables = updated(factory.optimizer(loaded), variables, gradient)
    after, _ = value_and_gradient(variables)
    assert after < before
    if loaded.model.name not in ("ncsn", "ncsnv2"):  # these begin at random
        dimensions = 64 * channels
        per_value = before / (dimensions / 2 if loaded.loss.reduction == "half_sum" else 1)
        assert per_value == pytest.approx(1, abs=5 * np.sqrt(2 / batch / dimensions))
    return variables


def updated(optimizer, variables, gradient):
    """The weights after one update, as one vector to the optimizer: else its every operation is compiled for every shape."""

    def vector(tree):
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])

    leaves, structure = jax.tree.flatten(variables)
    weights = vector(variables)
    updates, _ = optimizer.update(vector(gradient), optimizer.init(weights), weights)
    parts = np.split(weights + updates, np.cumsum([leaf.size for leaf in leaves])[:-1])
    return structure.unflatten(part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True))


def sample_a_step(loaded, variables):
    """A step of the method and the denoising step: sample i depends on `keys[i]`, and on it alone."""
    denoiser = factory.denoiser(loaded, variables, loaded.sampling.t_min)
    denoiser = denoiser.replace(condition=factory.condition(loaded, jnp.zeros(2, int)))
    times, method = factory.times(loaded, denoiser.sde), factory.sampler(loaded)
    shape = (8, 8, loaded.data.num_channels)

    def draw(keys):
        x = jax.vmap(lambda key: denoiser.sde.prior_sample(key, shape))(keys)
        _, x = method.step(method.init(x, denoiser, times), keys, x, times[0], times[1], denoiser)
        return denoiser(x, times[1])

    keys = jax.random.split(jax.random.key(2), 2)
    samples, swapped = draw(keys), draw(keys[::-1])[::-1]
    np.testing.assert_allclose(samples, swapped, rtol=1e-4, atol=1e-4)
    assert np.abs(samples[0] - samples[1]).max() > 1e-3
