"""The sampling loop: one compiled program for any Denoiser, sampler and time grid."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from sde_lib.denoiser import Denoiser
from sde_lib.ends import check_times
from sde_lib.randomness import check_keys, fold_in, split
from sde_lib.sampling.sampler import Sampler


def sample(
    keys: Array,
    denoiser: Denoiser,
    sampler: Sampler,
    times: Array,
    event_shape: tuple[int, ...],
    *,
    x_init: Array | None = None,
    denoise: bool = True,
    return_trajectory: bool = False,
) -> Array:
    """Draws one sample per key. Sample i depends on `keys[i]` alone.

    The n = len(times) - 1 steps are n - 1 calls of `sampler.step` and, last, `sampler.finish`: for most samplers the
    denoising step x = D(x, times[-2]), which leaves no noise. `sampler.nfe(n)` counts the evaluations. The loop is a
    `lax.scan`, compiled once for all weights, numbers and conditions of the same structure.

    Args:
        keys: (B,), typed PRNG keys: `jax.random.split(jax.random.key(0), B)`.
        denoiser: the Denoiser to sample from; its SDE gives the prior.
        sampler: the discretization of the reverse process; see `sde_lib.sampling`.
        times: (n + 1,), decreasing, ending in 0 (clean data): `uniform_times(denoiser.sde, n)`.
        event_shape: the shape of one sample.
        x_init: (B, *state), where to start at times[0]; None draws from the prior.
        denoise: False makes all n steps the sampler's: the sample keeps the noise of times[-1], which then must be
            positive: `uniform_times(denoiser.sde, n, denoise=False)`.
        return_trajectory: return the states at all times, (n + 1, B, *state), the start first.

    Returns:
        (B, *event), or the trajectory. States have the data's shape, here and above, unless the process says otherwise
        (`Process.state_shape`); with denoise=False the sample is a state.

    Raises:
        ValueError: a shape does not fit, or, where `times` is not traced, as `sde_lib.ends.check_times`: a time is not
            finite, times do not decrease, or the process has no usable sigma / alpha at an end of the grid.
    """
    event_shape = tuple(event_shape)
    _check(
        keys, denoiser.sde, times, event_shape, x_init, denoise
    )  # before times become part of a program being traced
    return _sample(keys, denoiser, sampler, jnp.asarray(times), event_shape, x_init, denoise, return_trajectory)


def _check(keys, sde, times, event_shape, x_init, denoise):
    check_keys(keys)
    if x_init is not None and x_init.shape != (*keys.shape, *sde.state_shape(event_shape)):
        expected = (*keys.shape, *sde.state_shape(event_shape))
        raise ValueError(f"x_init has shape {x_init.shape}; keys and event_shape ask for {expected}")
    check_times(times, sde, denoise=denoise)


@partial(jax.jit, static_argnames=("event_shape", "denoise", "return_trajectory"))
def _sample(keys, denoiser, sampler, times, event_shape, x_init, denoise, return_trajectory):
    key_prior, key_steps = split(keys, 2)
    x = x_init
    if x is None:
        x = jax.vmap(lambda key: denoiser.sde.prior_sample(key, event_shape))(key_prior)
    stops = times[:-1] if denoise else times

    def body(state, step):
        carry, x = state
        index, t, s = step
        carry, x = sampler.step(carry, fold_in(key_steps, index), x, t, s, denoiser)
        return (carry, x), x if return_trajectory else None

    steps = (jnp.arange(stops.shape[0] - 1), stops[:-1], stops[1:])
    (carry, end), states = jax.lax.scan(body, (sampler.init(x, denoiser, times), x), steps)
    if denoise:
        end = sampler.finish(carry, end, stops[-1], denoiser)
    if not return_trajectory:
        return end
    return jnp.concatenate([x[None], states] + ([denoiser.sde.clean_state(end)[None]] if denoise else []))
