"""Every experiment of the papers trains a step and samples a step, at reduced width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sde_lib
from experiments import build, check, state
from tests.configs.papers import EXPERIMENTS, load
from tests.models.families import FAMILIES

SIZE_OPTIONS = (
    "channels", "channel_multipliers", "blocks_per_level", "attention_resolutions", "dilations", "width", "depth",
    "num_heads", "head_channels", "norm_groups",
)  # fmt: skip


def reduced(experiment):
    """The experiment with a tiny network on images of 8 px, and no warm-up, so that its first step moves."""
    loaded = load(experiment, data__image_size=8, optim__warmup_steps=0, optim__lr=1e-3, sampling__steps=2)
    family = FAMILIES[loaded.model.name]
    one_level = {} if "progressive" in loaded.model else family.smaller  # the pyramids want two
    small = family.options | one_level
    loaded.model.update({key: small[key] for key in SIZE_OPTIONS if key in small and key in loaded.model})
    return loaded


def structure(experiment):
    """What of an experiment makes another program than another experiment."""
    loaded = reduced(experiment)
    choices = [value for section in (loaded.loss, loaded.sampling, loaded.training) for value in section.values()]
    return (
        tuple((k, v) for k, v in sorted(loaded.model.items()) if k not in ("dropout", "num_scales", "sigma_max")),
        loaded.sde.name, loaded.parameterization.name, loaded.parameterization.scale_input,
        loaded.data.num_channels, tuple(value for value in choices if isinstance(value, str | bool)),
    )  # fmt: skip


DISTINCT = list({structure(experiment): experiment for experiment in reversed(EXPERIMENTS)}.values())


@pytest.mark.thorough
@pytest.mark.parametrize("experiment", DISTINCT)
def test_it_trains_a_step_and_samples_a_step(experiment):
    """The networks that begin with an output of zero begin with a loss of 1 per value, which the step lowers."""
    loaded, batch = reduced(experiment), 64
    check.check(loaded)
    channels = loaded.data.num_channels
    x0 = 0.5 * jax.random.normal(jax.random.key(1), (batch, 8, 8, channels))
    labels = build.condition(loaded, jnp.arange(batch) % max(loaded.model.num_classes, 1))
    variables, loss = build.init_variables(loaded), build.loss(loaded)
    drawn = state.draws(jax.random.key(0), 0, jnp.arange(batch), batch)
    compiled = {"compiler_options": {"xla_backend_optimization_level": "0"}}

    optimizer = build.optimizer(loaded)
    value_and_gradient = jax.jit(
        jax.value_and_grad(lambda variables: loss(drawn, variables, x0, labels).mean()), **compiled
    )
    before, gradient = value_and_gradient(variables)
    updates, _ = optimizer.update(gradient, optimizer.init(variables), variables)
    variables = jax.tree.map(jnp.add, variables, updates)
    after, _ = value_and_gradient(variables)
    assert after < before
    if loaded.model.name not in ("ncsn", "ncsnv2"):  # these begin at random
        dimensions = 64 * channels
        per_value = before / (dimensions / 2 if loaded.loss.reduction == "half_sum" else 1)
        assert per_value == pytest.approx(1, abs=5 * np.sqrt(2 / batch / dimensions))

    denoiser = build.denoiser(loaded, variables, loaded.sampling.t_min)
    denoiser = denoiser.replace(condition=None if labels is None else labels[:2] * 0)
    times, method = build.times(loaded, denoiser.sde), build.method(loaded)
    draw = jax.jit(lambda keys: sde_lib.sample(keys, denoiser, method, times, (8, 8, channels)), **compiled)
    keys = jax.random.split(jax.random.key(2), 2)
    samples, swapped = draw(keys), draw(keys[::-1])[::-1]
    np.testing.assert_allclose(samples, swapped, rtol=1e-4, atol=1e-4)
    assert np.abs(samples[0] - samples[1]).max() > 1e-3
