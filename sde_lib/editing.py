"""Training-free image editing: SDEdit, diffusion bridges between two models, interpolation and style guidance.

All methods are defined in terms of the noise level n = sigma / alpha. For y = x / alpha = x_0 + n noise, the
probability flow of every process is the same equation, dy / dn = E[noise | y] (`sampling/flows.py`). Noise levels of
different processes are therefore comparable, and an encoding by one model at a noise level can be decoded by another
model.

**Strength.** The parameter of SDEdit, in (0, 1], is the time t_0 of the VP process of the paper (`VPSDE()`), and stands
for the noise level at that time. Published settings (0.3 to 0.6) therefore give the published noise level for every
process and every time grid; a fraction of the grid would give a noise level that depends on both.

| strength | 0.1  | 0.2  | 0.3  | 0.4  | 0.5  | 0.6  | 0.7  | 0.8  | 0.9  | 1   |
|----------|------|------|------|------|------|------|------|------|------|-----|
| n        | 0.34 | 0.72 | 1.23 | 2.03 | 3.41 | 6.10 | 11.8 | 25.1 | 58.8 | 152 |

Strength 1 removes the image entirely. A process with less noise starts at its t_max.

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
    """Returns the noise level sigma / alpha of a strength in (0, 1], of the shape of the strength."""
    return VPSDE().noise_to_signal(jnp.asarray(strength, jnp.result_type(float, strength)))


def until(sde: P, strength: ArrayLike) -> P:
    """Returns the process with t_max set to the time of a strength (), for the time grid of SDEdit.

        times = karras_times(until(denoiser.sde, 0.5), 18)

    The grid has the full number of steps at every strength. The strength may be traced: one compilation serves all
    values.
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
    """SDEdit: perturbs the guide to times[0] and denoises it with the model. Sample i depends only on `keys[i]`.

    The guide is an image, for example a photograph with painted strokes. At low noise the result stays close to the
    guide, at high noise it becomes a sample of the model. For data N(m, s^2), guide g and noise level n, the mean of
    the samples is g + (1 - c) (m - g), with c = s^2 / (s^2 + n^2) for a stochastic sampler and c = s / sqrt(s^2 + n^2)
    for the probability flow, which preserves more of the guide.

    With a mask, only pixels inside the mask change. Pixels outside are set to the guide at the end. During sampling
    they are either replaced, after each step, by the guide with the noise of the new time (`Replacement`); or, with
    `posterior`, treated as a noiseless `Inpainting` measurement on which the Denoiser is conditioned. Only `posterior`
    makes the inside consistent with the outside: with the exact posterior, a stochastic sampler draws the inside given
    the clean guide outside and the noisy guide inside. At strength 1 the noisy guide carries no information.

        sdedit(keys, denoiser, Ancestral(), times, guide, mask, MMPS)

    Args:
        keys: one per example, (B,).
        denoiser: the Denoiser of the model, guided or not.
        sampler: any sampler.
        times: (n + 1,), decreasing, ending in 0: a grid of `until(denoiser.sde, strength)`.
        guide: the images to edit, (B, *event).
        mask: 1 or True where pixels may change and 0 elsewhere, of the event's shape or (H, W, 1).
        posterior: (denoiser, measurement, y) -> Denoiser, such as `inverse.MMPS` or partial(inverse.PiGDM, data_std=0.5);
            None selects replacement.

    Returns:
        The edited images, (B, *event).

    Raises:
        ValueError: as in `sample`, or the numbers of keys and guides differ.
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
    """Returns n + 1 increasing noise levels in the range of both processes, evenly spaced in level^(1 / rho).

    The highest is the noise level of the strength, limited to the range of both processes.

    Args:
        source, target: the two processes.
        n: number of steps, at least 1.
        strength: (), in (0, 1]; see the module docstring.
        rho: as in `karras_times`.

    Raises:
        ValueError: n is less than 1, or a process has no scalar alpha and sigma.
    """
    at_least("shared_levels", 1, n=n)
    for sde in (source, target):
        if not sde.has_scalar_noise:
            raise ValueError(
                f"{type(sde).__name__} has states that are not noisy data: another process cannot decode them"
            )
    low = jnp.maximum(*(sde.noise_to_signal(sde.t_min) for sde in (source, target)))
    high = jnp.minimum(*(sde.noise_to_signal(sde.t_max) for sde in (source, target)))
    high = jnp.clip(level_of_strength(strength), low, high)
    return jnp.linspace(low ** (1 / rho), high ** (1 / rho), n + 1) ** rho


@jax.jit
def follow(denoiser: Denoiser, y: Array, levels: Array) -> Array:
    """Solves the probability flow from the first noise level to the last by Heun's method (order 2) with fixed steps.

    The cost is 2 (len(levels) - 1) evaluations. `encode` and `decode` use adaptive steps.

    Args:
        denoiser: the Denoiser that defines the flow.
        y: x / alpha at the first noise level, (B, *event).
        levels: noise levels sigma / alpha in the range of the process, increasing or decreasing, (n + 1,).

    Returns:
        y at the last noise level, (B, *event).
    """
    sde = scalar(denoiser.sde)
    times = sde.time_at_log_snr(-2 * jnp.log(levels))

    def step(y, stop):
        (t, s), length = stop[0], stop[1]
        slope = denoiser.noise(sde.alpha(t) * y, t)
        slope_at_end = denoiser.noise(sde.alpha(s) * (y + length * slope), s)
        return y + 0.5 * length * (slope + slope_at_end), None

    return jax.lax.scan(step, y, ((times[:-1], times[1:]), jnp.diff(levels)))[0]


def bridge(source: Denoiser, target: Denoiser, x0: Array, levels: Array) -> Array:
    """Dual diffusion implicit bridge: encodes x0 by the probability flow of the source and decodes it by the target's.

    Source and target may be two models, of one process or of two, or one model with two conditions; with target =
    source the bridge returns x0. The encoding is passed on as y = x / alpha at a noise level of both processes,
    independent of the scales of the priors, so that two processes of the same data give the identity. For data
    N(m_a, s_a^2) and N(m_b, s_b^2) the bridge is affine, and converges to the optimal transport x0 -> m_b + s_b / s_a
    (x0 - m_a) as the highest level grows. The inverse is the bridge from target to source with the same levels. The
    error of a cycle is of order 3 in the step length, because the leading errors of Heun's steps in both directions
    cancel.

    Source: Su et al. (2022), https://arxiv.org/abs/2203.08382, algorithm 1; section 3 for the optimal transport.

    Args:
        source, target: the two Denoisers.
        x0: the images, (B, *event), taken as y at the lowest noise level.
        levels: increasing noise levels, `shared_levels(source.sde, target.sde, n)`.

    Returns:
        The translated images, (B, *event), at the lowest noise level.
    """
    levels = jnp.asarray(levels)
    return follow(target, follow(source, check_batch(x0), levels), levels[::-1])


def interpolate_through(denoiser: Denoiser, a: Array, b: Array, weights: Array, levels: Array) -> Array:
    """Interpolates between images: encodes a and b at the last noise level, interpolates spherically, and decodes.

    A variant of `sde_lib.interpolate` with fixed steps and a free noise level. At a low level the result is close to a
    blend of the two images; at a high level it is an image of the model. The norm of the encodings is interpolated
    linearly.

    Args:
        denoiser: the Denoiser that defines the flow.
        a, b: the images, (B, *event).
        weights: (W,); 0 gives a, 1 gives b.
        levels: increasing noise levels, `shared_levels(denoiser.sde, denoiser.sde, n, strength)`.

    Returns:
        The interpolated images, (W, B, *event).
    """
    levels = jnp.asarray(levels)
    start, end = (follow(denoiser, check_batch(image), levels) for image in (a, b))
    decode = partial(follow, denoiser, levels=levels[::-1])
    # Weights are not merged into the batch axis: the Denoiser may have one condition per example.
    return jnp.stack([decode(jax.vmap(spherical, (0, 0, None))(start, end, weight)) for weight in jnp.asarray(weights)])


def patches(x0: Array, size: int) -> Array:
    """Returns all patches of size x size pixels of images (B, H, W, C): (B, H - size + 1, W - size + 1, size^2 C)."""
    return jnp.moveaxis(
        jax.lax.conv_general_dilated_patches(jnp.moveaxis(x0, -1, 1), (size, size), (1, 1), "VALID"), 1, -1
    )


def moments(features: Array) -> tuple[Array, Array]:
    """Returns mean (B, C) and covariance (B, C, C) of features (B, *positions, C) over the positions."""
    flat = features.reshape(len(features), -1, features.shape[-1])
    mean = flat.mean(1)
    centred = flat - mean[:, None]
    return mean, jnp.einsum("bpi,bpj->bij", centred, centred, precision="highest") / flat.shape[1]


@struct.dataclass
class Style(Struct):
    """Log-likelihood of an image given the style of a reference image, for `EnergyGuidance`:

        log p = -(|mean - mean'|^2 + |covariance - covariance'|^2) / (2 std^2)

    with mean and covariance of features over the positions of an image, which do not depend on the spatial arrangement;
    the primes mark the reference. The Gram matrix of Gatys et al. is covariance + mean mean^T. The maximum is 0, where
    both statistics equal those of the reference. With several feature maps, such as the layers of a network, log p is
    the mean over the maps, so each map is weighted by its scale.

        guided = EnergyGuidance(denoiser, Style.of(partial(patches, size=3), image, std=0.05))

    Sources: Gatys et al. (2016), https://doi.org/10.1109/CVPR.2016.265; Li et al. (2017),
    https://arxiv.org/abs/1701.01036, for means and covariances as the statistics of a style.

    Attributes:
        features: x0 (B, *event) -> (B, *positions, C), or a tuple of such maps; a function or a callable pytree.
        mean: mean of the reference features, (C,), or a tuple of means.
        covariance: covariance of the reference features, (C, C), or a tuple of covariances.
        std: tolerance of the statistics, > 0 (ValueError); a smaller value gives stronger guidance.
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
        """Returns the style of one reference image (*event); `features` and `std` as in the class."""
        maps, tree = jax.tree.flatten(features(image[None]))
        means, covariances = zip(*map(moments, maps), strict=True)
        mean, covariance = (tree.unflatten([value[0] for value in values]) for values in (means, covariances))
        return cls(features, mean, covariance, std)

    def square_distance(self, x0: Array) -> Array:
        """Returns |mean - mean'|^2 + |covariance - covariance'|^2, (B,), averaged over maps, of images (B, *event)."""
        distances = []
        leaves = map(jax.tree.leaves, (self.features(x0), self.mean, self.covariance))
        for features, style_mean, style_covariance in zip(*leaves, strict=True):
            mean, covariance = moments(features)
            covariance_distance = jnp.square(covariance - style_covariance).sum((1, 2))
            distances.append(jnp.square(mean - style_mean).sum(1) + covariance_distance)
        return cast(Array, sum(distances)) / len(distances)

    def __call__(self, x0: Array) -> Array:
        """Returns log p, (B,), of images (B, *event)."""
        return -0.5 * self.square_distance(x0) / self.std**2
