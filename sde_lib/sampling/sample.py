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
    """Draws one sample per key. Sample i depends only on `keys[i]`.

    The n = len(times) - 1 steps are n - 1 calls of `sampler.step` and one call of `sampler.finish`, for most samplers
    the denoising step x = D(x, times[-2]), after which the sample has no noise. `sampler.nfe(n)` returns the number of
    evaluations. The loop is a `lax.scan`, compiled once for all weights, numbers and conditions of equal structure.

    Args:
        keys: typed PRNG keys, (B,): `jax.random.split(jax.random.key(0), B)`.
        denoiser: the Denoiser to sample from; its process defines the prior.
        sampler: the discretization of the reverse process; see `sde_lib.sampling`.
        times: (n + 1,), decreasing, ending in 0 (clean data): `uniform_times(denoiser.sde, n)`.
        event_shape: the shape of one sample.
        x_init: initial states at times[0], (B, *state); None samples from the prior.
        denoise: False replaces the denoising step by a step of the sampler. The sample retains the noise of times[-1],
            which must be positive: `uniform_times(denoiser.sde, n, denoise=False)`.
        return_trajectory: True returns the states at all times, (n + 1, B, *state), the initial states first.

    Returns:
        The samples, (B, *event), or the trajectory. The shapes of states and data are equal unless the process
        overrides `Process.state_shape`. With denoise=False the sample is a state, (B, *state).

    Raises:
        ValueError: a shape is invalid, or as in `sde_lib.ends.check_times`, if `times` is not traced: a time is not
            finite, times do not decrease, or sigma / alpha is invalid at an end of the grid.
    """
    event_shape = tuple(event_shape)
    # Checked outside of the compiled function, in which `times` is traced.
    _check(keys, denoiser.sde, times, event_shape, x_init, denoise)
    return _sample(keys, denoiser, sampler, jnp.asarray(times), event_shape, x_init, denoise, return_trajectory)


def _check(keys, sde, times, event_shape, x_init, denoise):
    check_keys(keys)
    if x_init is not None and x_init.shape != (*keys.shape, *sde.state_shape(event_shape)):
        expected = (*keys.shape, *sde.state_shape(event_shape))
        raise ValueError(f"x_init has shape {x_init.shape}; keys and event_shape require {expected}")
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
