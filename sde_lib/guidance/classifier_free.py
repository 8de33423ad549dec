"""Classifier-free guidance, autoguidance, guidance intervals and rescaling.

    D_guided = D_weak + scale (D - D_weak)

at every x and t. Scale 1 gives exactly D and scale 0 exactly D_weak; scales above 1 extrapolate. In the convention of
Ho and Salimans, where w = 0 is the unguided model, scale = 1 + w. The choice of D_weak determines the method:

- D without the condition: classifier-free guidance;
- D with a condition to avoid: negative prompting;
- a smaller or less trained model: autoguidance.

Sources: Ho and Salimans (2022), https://arxiv.org/abs/2207.12598, eq. 6; Karras et al. (2024),
https://arxiv.org/abs/2406.02507, section 2, for the convention of the scale.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.denoiser import Denoiser, DerivedDenoiser, shifted
from sde_lib.sde import Process, expand


def _between(weak: Array, strong: Array, scale: ArrayLike) -> Array:
    """Returns weak + scale (strong - weak), exact at scales 0 and 1."""
    scale = expand(jnp.asarray(scale, strong.dtype), strong)
    return (1 - scale) * weak + scale * strong


def _std(x: Array, axes: tuple[int, ...]) -> Array:
    """Returns the standard deviation over axes; its derivative is 0 where it is 0, not that of the square root."""
    variance = x.var(axes, keepdims=True)
    return jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 0.0)


def _extrapolate(
    sde: Process,
    x: Array,
    t: ArrayLike,
    strong: tuple[Array, Array],
    weak: tuple[Array, Array],
    scale: ArrayLike,
    rescale: ArrayLike | None,
) -> tuple[Array, Array]:
    """Returns guided and rescaled x0 and noise. The noise is extrapolated directly, for accuracy at small sigma."""
    x0, noise = (_between(*views, scale) for views in zip(weak, strong, strict=True))
    if rescale is None:
        return x0, noise
    axes = tuple(range(1, x0.ndim))
    target, std = (_std(values, axes) for values in (strong[0], x0))
    ratio = jnp.where(std > 0, target / jnp.where(std > 0, std, 1.0), 1.0)
    return shifted(sde, x, x0, noise, expand(rescale, x0) * (ratio - 1) * x0, t)


@struct.dataclass
class Guided(DerivedDenoiser):
    """D_weak + scale (D - D_weak): classifier-free guidance and autoguidance. Two evaluations.

        Guided(denoiser.replace(condition=condition), denoiser.replace(condition=null), scale=2.0)
        Guided(large, small, scale=1.5)

    `rescale` reduces the excess contrast at large scales by scaling the guided x0 towards the standard deviation of D:
    x0 (1 + rescale (std(D) / std(x0) - 1)), with the standard deviations of each sample over all its values (Lin et
    al., who suggest 0.7 at scale 7.5). With `rescale`, scale 0 does not give D_weak. Samples whose values are all equal,
    such as events with a single value, are not rescaled.

    Sources: Ho and Salimans (2022), https://arxiv.org/abs/2207.12598; Karras et al. (2024),
    https://arxiv.org/abs/2406.02507; Lin et al. (2023), https://arxiv.org/abs/2305.08891, eq. 14 to 16, for `rescale`,
    here of x0.

    Attributes:
        denoiser: D, the strong or conditional Denoiser.
        weak: D_weak, of the same process.
        scale: () or (B,); about 1 to 8 for images. EDM2's presets (https://github.com/NVlabs/edm2) for the best FID on
            ImageNet 512: 1.2 to 1.4 with an unconditional weak model, 2.05 to 2.1 for autoguidance.
        rescale: phi in [0, 1], () or (B,); None disables.
    """

    weak: Denoiser
    scale: ArrayLike = 1.0
    rescale: ArrayLike | None = None

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Returns x0 and noise from one evaluation of each Denoiser."""
        strong, weak = self.denoiser.x0_and_noise(x, t), self.weak.x0_and_noise(x, t)
        return _extrapolate(self.sde, x, t, strong, weak, self.scale, self.rescale)


@struct.dataclass
class ClassifierFree(DerivedDenoiser):
    """`Guided` for one network with and without its condition: one evaluation of a batch of twice the size.

    Faster than two evaluations if the batch does not fully use the device; up to twice the memory. The conditional and
    the unconditional copy of an example are adjacent in the batch, which preserves the sharding of the batch over
    devices.

    Attributes:
        denoiser: a Denoiser with a field `condition`, such as `NetworkDenoiser`; the value of this field is not used.
        condition: the conditioning input, a pytree of arrays (B, ...) with one entry per example.
        no_condition: the null condition (or a condition to avoid), a pytree of the structure of `condition`, whose
            arrays are broadcast to those of `condition`.
        scale, rescale: as in `Guided`.
    """

    condition: Any
    no_condition: Any
    scale: ArrayLike = 1.0
    rescale: ArrayLike | None = None

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Returns x0 and noise from one evaluation of a batch of twice the size."""

        def interleave(value, other):
            value = jnp.asarray(value)
            pairs = jnp.stack([value, jnp.broadcast_to(jnp.asarray(other, value.dtype), value.shape)], 1)
            return pairs.reshape(-1, *value.shape[1:])

        times = jnp.broadcast_to(t, x.shape[:1])
        denoiser = self.denoiser.replace(condition=jax.tree.map(interleave, self.condition, self.no_condition))
        x0, noise = denoiser.x0_and_noise(interleave(x, x), interleave(times, times))
        strong, weak = (x0[0::2], noise[0::2]), (x0[1::2], noise[1::2])
        return _extrapolate(self.sde, x, t, strong, weak, self.scale, self.rescale)


@struct.dataclass
class Interval(DerivedDenoiser):
    """One Denoiser where low < sigma / alpha <= high, and another Denoiser at all other noise levels.

    Guidance in a limited interval of noise levels:

        Interval(Guided(conditional, unconditional, 3.0), conditional, low=0.2, high=2.0)

    Expert models for ranges of noise levels are another use. With a scalar t, as in sampling, only the selected
    Denoiser is evaluated; with t (B,) both are. The sampler's `nfe` counts evaluations of the `Interval`, independent
    of their cost. A network that is part of both Denoisers is compiled twice.

    Source: Kynkäänniemi et al. (2024), https://arxiv.org/abs/2404.07724, section 3: (0.28, 2.9] for EDM2-S on ImageNet
    512. Their code (https://github.com/kynkaat/guidance-interval) uses steps 17 to 22 of EDM's 32, which is (0.28,
    1.61], and scale 2 for the FID of 1.40 of EDM2-XXL.

    Attributes:
        denoiser: the Denoiser inside the interval.
        outside: the Denoiser outside the interval, of the same process.
        low, high: bounds of the noise level sigma / alpha, in units of the data; () or (B,).
    """

    outside: Denoiser
    low: ArrayLike = 0.0
    high: ArrayLike = jnp.inf

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Returns x0 and noise of the Denoiser selected by the noise level."""
        level = jnp.asarray(self.sde.noise_to_signal(t))
        is_inside = (self.low < level) & (level <= self.high)
        inside, outside = self.denoiser.x0_and_noise, self.outside.x0_and_noise
        if not is_inside.ndim:
            return jax.lax.cond(is_inside, inside, outside, x, t)
        return jax.tree.map(lambda a, b: jnp.where(expand(is_inside, a), a, b), inside(x, t), outside(x, t))


# Names used in configs.
GUIDANCES = {"linear": Guided}
