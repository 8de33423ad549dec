"""Editing images with a model that was trained for none of it: by noise, by encoding, between two models, towards a style.

All of it rests on the noise level n = sigma / alpha. On y = x / alpha, which is x_0 + n noise, the probability flow of every
process is the same equation, dy / dn = E[noise | y] (`sampling/flows.py`), so that a level means the same in each of them,
and what one model has encoded at a level another may decode from there.

**Strength.** SDEdit's single number, in (0, 1], is the time at which `VPSDE()` has the noise level: the time t_0 of the
paper's VP process, so that the settings of the literature (0.3 to 0.6) mean here what they mean there, for any process and
any time grid. A share of the grid would mean other noise on each.

| strength | 0.1  | 0.2  | 0.3  | 0.4  | 0.5  | 0.6  | 0.7  | 0.8  | 0.9  | 1   |
|----------|------|------|------|------|------|------|------|------|------|-----|
| n        | 0.34 | 0.72 | 1.23 | 2.03 | 3.41 | 6.10 | 11.8 | 25.1 | 58.8 | 152 |

1 leaves nothing of an image. A process that has less noise stops at its own t_max.

Sources: Meng et al. (2022), https://arxiv.org/abs/2108.01073, for SDEdit; Su et al. (2022),
https://arxiv.org/abs/2203.08382, for dual diffusion implicit bridges; Song, Meng and Ermon (2021),
https://arxiv.org/abs/2010.02502, section 5.3, for interpolation.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.checks import at_least, positive
from sde_lib.denoiser import Denoiser
from sde_lib.flow import check_batch, spherical
from sde_lib.inverse.measurement import LinearMeasurement
from sde_lib.inverse.pixels import Inpainting
from sde_lib.inverse.projection import Replacement
from sde_lib.processes import VPSDE
from sde_lib.randomness import check_keys, split
from sde_lib.sampling.sample import sample
from sde_lib.sampling.sampler import Sampler
from sde_lib.sde import Process, scalar
from sde_lib.struct import Struct, as_pytree

P = TypeVar("P", bound=Process)


def level_of_strength(strength: ArrayLike) -> Array:
    """The noise level sigma / alpha that a strength in (0, 1] stands for, of the strength's shape."""
    return VPSDE().noise_to_signal(jnp.asarray(strength, jnp.result_type(float, strength)))


def until(sde: P, strength: ArrayLike) -> P:
    """The process up to the time of a strength (): a time grid of it is SDEdit's.

        times = karras_times(until(denoiser.sde, 0.5), 18)

    However small the strength, the grid has all its steps; a strength is a number, so that one program serves them all.
    """
    t = sde.time_at_log_snr(-2 * jnp.log(level_of_strength(strength)))
    return sde.replace(t_max=jnp.clip(t, sde.t_min, sde.t_max))


def sdedit(
    keys: Array,
    denoiser: Denoiser,
    sampler: Sampler,
    times: Array,
    guide: Array,
    mask: ArrayLike | None = None,
    posterior: Callable[[Denoiser, LinearMeasurement, Array], Denoiser] | None = None,
) -> Array:
    """SDEdit: noise is added to the guide until times[0], and the model takes it away again. Sample i depends on `keys[i]`.

    The guide is an image, with strokes of paint on it, perhaps. Little noise keeps it as it is, much noise makes it an image
    of the model's: for data N(m, s^2) and noise level n the answers' mean is g + (1 - c) (m - g), with c = s^2 / (s^2 + n^2)
    by a stochastic sampler and its square root by the probability flow, which so keeps more of the guide.

    With a mask only what is inside changes; what is outside is the guide's at the end. Until then either it is replaced by
    the guide at the noise of the time after each step (`Replacement`), or, with a posterior, it is an `Inpainting`
    measurement without noise of which the Denoiser knows. Only the latter lets what is inside answer to what is outside as
    the data have it: with the exact posterior a stochastic sampler draws what is inside given the guide's own pixels outside
    and its noisy ones inside, of which strength 1 leaves nothing.

        sdedit(keys, denoiser, Ancestral(), times, guide, mask, MMPS)

    Args:
        keys: (B,), one per example.
        denoiser: the model, or what guidance makes of it.
        sampler: any.
        times: (n + 1,), decreasing, ending in 0: a grid of `until(denoiser.sde, strength)`.
        guide: (B, *event).
        mask: 1 or True where pixels may change and 0 elsewhere, of the event's shape or (H, W, 1).
        posterior: (denoiser, measurement, y) -> Denoiser, such as `inverse.MMPS` or partial(inverse.PiGDM, data_std=0.5);
            None for replacement.

    Returns:
        (B, *event).

    Raises:
        ValueError: as in `sample`, or the numbers of keys and of guides differ.
    """
    guide, times = check_batch(guide), jnp.asarray(times)
    check_keys(keys, len(guide))
    event_shape, sde = guide.shape[1:], denoiser.sde
    key_noise, key_steps = split(keys, 2)
    noise = jax.vmap(lambda key: jax.random.normal(key, sde.state_shape(event_shape), guide.dtype))(key_noise)
    start = sde.perturb(guide, noise, times[0])
    if mask is None:
        return sample(key_steps, denoiser, sampler, times, event_shape, x_init=start)
    changes = jnp.asarray(mask, bool)
    kept = Inpainting(event_shape=event_shape, mask=(~changes).astype(guide.dtype))
    if posterior is None:
        sampler = Replacement(kept, kept.forward(guide), predictor=sampler)
    else:
        denoiser = posterior(denoiser, kept, kept.forward(guide))
    return jnp.where(changes, sample(key_steps, denoiser, sampler, times, event_shape, x_init=start), guide)


def shared_levels(source: Process, target: Process, n: int, strength: ArrayLike = 1.0, rho: float = 7.0) -> Array:
    """n steps (n + 1 levels, rising) between noise levels that both processes have, of equal length in level^(1 / rho).

    The highest is that of the strength, or the most that both have. rho as in `karras_times`.

    Raises:
        ValueError: n is not at least 1, or the states of a process are not noisy data alone.
    """
    at_least("shared_levels", 1, n=n)
    for sde in (source, target):
        if not sde.has_scalar_noise:
            raise ValueError(
                f"{type(sde).__name__} has states that are not noisy data: no other process can decode them"
            )
    low = jnp.maximum(*(sde.noise_to_signal(sde.t_min) for sde in (source, target)))
    high = jnp.minimum(*(sde.noise_to_signal(sde.t_max) for sde in (source, target)))
    high = jnp.clip(level_of_strength(strength), low, high)
    return jnp.linspace(low ** (1 / rho), high ** (1 / rho), n + 1) ** rho


@jax.jit
def follow(denoiser: Denoiser, y: Array, levels: Array) -> Array:
    """The probability flow from the first noise level to the last, rising or falling, by Heun's steps: order 2.

    The steps are fixed, and so is the cost, 2 (len(levels) - 1) evaluations; `encode` and `decode` choose their own.

    Args:
        denoiser: the Denoiser whose flow to follow.
        y: (B, *event), data with noise of the first level: x / alpha.
        levels: (n + 1,), noise levels sigma / alpha that the process has.

    Returns:
        y at the last level.
    """
    sde = scalar(denoiser.sde)
    times = sde.time_at_log_snr(-2 * jnp.log(levels))

    def step(y, stop):
        (here, there), length = stop[0], stop[1]
        slope = denoiser.noise(sde.alpha(here) * y, here)
        slope_at_end = denoiser.noise(sde.alpha(there) * (y + length * slope), there)
        return y + 0.5 * length * (slope + slope_at_end), None

    return jax.lax.scan(step, y, ((times[:-1], times[1:]), jnp.diff(levels)))[0]


def bridge(source: Denoiser, target: Denoiser, x0: Array, levels: Array) -> Array:
    """Dual diffusion implicit bridge: x0 encoded by the source's probability flow, and decoded by the target's.

    The two may be two models, of one process or of two, or one model with two conditions; the same one twice gives x0 back.
    Encodings are handed over at a noise level that both have, as data with noise of that level: so no scale of one
    process's prior enters, and two processes of the same data give the identity. For data N(m_a, s_a^2) and N(m_b, s_b^2)
    the bridge is affine, and goes to the optimal transport x0 -> m_b + s_b / s_a (x0 - m_a) as the highest level grows.
    The way back is the bridge from target to source with the same levels: the cycle closes at order 3 in the steps,
    as the errors of Heun's steps up and down cancel to first order.

    Source: Su et al. (2022), https://arxiv.org/abs/2203.08382, algorithm 1; the transport, in their section 3.

    Args:
        source, target: Denoisers.
        x0: (B, *event), taken as data at the lowest level.
        levels: rising, of `shared_levels(source.sde, target.sde, n)`.
    """
    levels = jnp.asarray(levels)
    return follow(target, follow(source, check_batch(x0), levels), levels[::-1])


def interpolate_through(denoiser: Denoiser, a: Array, b: Array, weights: Array, levels: Array) -> Array:
    """Images between a and b: both encoded up to the last level, mixed on a great circle, and decoded.

    `sde_lib.interpolate` with fixed steps and any level: the lower it is, the more of the two images themselves is mixed,
    and the less the model can make of it. The norm is interpolated from one encoding's to the other's.

    Args:
        denoiser: the Denoiser whose flow to follow.
        a, b: (B, *event).
        weights: (W,); 0 gives a, 1 gives b.
        levels: rising, of `shared_levels(denoiser.sde, denoiser.sde, n, strength)`.

    Returns:
        (W, B, *event).
    """
    levels = jnp.asarray(levels)
    start, end = (follow(denoiser, check_batch(image), levels) for image in (a, b))
    decode = partial(follow, denoiser, levels=levels[::-1])
    # One after the other: the Denoiser may hold a condition per example.
    return jnp.stack([decode(jax.vmap(spherical, (0, 0, None))(start, end, weight)) for weight in jnp.asarray(weights)])


def patches(x0: Array, size: int) -> Array:
    """All patches of size x size pixels of images (B, H, W, C), as (B, H - size + 1, W - size + 1, size^2 C)."""
    return jnp.moveaxis(
        jax.lax.conv_general_dilated_patches(jnp.moveaxis(x0, -1, 1), (size, size), (1, 1), "VALID"), 1, -1
    )


def moments(features: Array) -> tuple[Array, Array]:
    """Mean (B, C) and covariance (B, C, C) of features (B, *positions, C) over the positions."""
    flat = features.reshape(len(features), -1, features.shape[-1])
    mean = flat.mean(1)
    centred = flat - mean[:, None]
    return mean, jnp.einsum("bpi,bpj->bij", centred, centred, precision="highest") / flat.shape[1]


@struct.dataclass
class Style(Struct):
    """The log-likelihood of an image that shall have the style of another, for `EnergyGuidance`:

        log p = -(|mean - mean'|^2 + |covariance - covariance'|^2) / (2 std^2)

    with the mean and covariance of features over the positions of an image, which say what it is made of and not where: the
    Gram matrix of Gatys et al. is covariance + mean mean^T. It is largest, 0, exactly where an image's are the style's. Of
    several maps of features, such as the layers of a network, it is the mean over maps; so their scales weigh them.

        guided = EnergyGuidance(denoiser, Style.of(partial(patches, size=3), image, std=0.05))

    Sources: Gatys et al. (2016), https://doi.org/10.1109/CVPR.2016.265; Li et al. (2017),
    https://arxiv.org/abs/1701.01036, for means and covariances as the statistics of a style.

    Attributes:
        features: x0 (B, *event) -> (B, *positions, C), or a tuple of such maps; a function, or a pytree that is one.
        mean: of the style, (C,), or a tuple of them.
        covariance: (C, C), or a tuple of them.
        std: how far the figures may be from the style's: a smaller one pulls harder.
    """

    features: Callable[[Array], Array | tuple[Array, ...]]
    mean: Array | tuple[Array, ...]
    covariance: Array | tuple[Array, ...]
    std: ArrayLike = 0.1

    def __post_init__(self):
        object.__setattr__(self, "features", as_pytree(self.features))
        positive("Style", std=self.std)

    @classmethod
    def of(cls, features: Callable[[Array], Array], image: Array, std: ArrayLike = 0.1) -> "Style":
        """The style of one image (*event)."""
        maps, tree = jax.tree.flatten(features(image[None]))
        means, covariances = zip(*map(moments, maps), strict=True)
        mean, covariance = (tree.unflatten([figure[0] for figure in figures]) for figures in (means, covariances))
        return cls(features, mean, covariance, std)

    def square_distance(self, x0: Array) -> Array:
        """|mean - mean'|^2 + |covariance - covariance'|^2, (B,), of images (B, *event); the mean of all maps."""
        squares = []
        figures = map(jax.tree.leaves, (self.features(x0), self.mean, self.covariance))
        for features, mean_of_style, covariance_of_style in zip(*figures, strict=True):
            mean, covariance = moments(features)
            of_covariance = jnp.square(covariance - covariance_of_style).sum((1, 2))
            squares.append(jnp.square(mean - mean_of_style).sum(1) + of_covariance)
        return cast(Array, sum(squares)) / len(squares)

    def __call__(self, x0: Array) -> Array:
        """log p, (B,), of images (B, *event)."""
        return -0.5 * self.square_distance(x0) / self.std**2
