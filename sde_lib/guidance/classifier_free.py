"""Guidance of a Denoiser away from a weaker one: classifier-free guidance, autoguidance, intervals, rescaling.

    D_guided = D_weak + scale (D - D_weak)

at every x and t. Scale 1 is D and scale 0 is D_weak, to the last bit; beyond 1 it extrapolates. Papers that call the
unguided model w = 0 (Ho and Salimans) mean scale = 1 + w. What the weak one is names the method:

- without the condition: classifier-free guidance;
- with another condition, one to be avoided: a negative prompt;
- smaller, or trained less: autoguidance.

Sources: Ho and Salimans (2022), https://arxiv.org/abs/2207.12598, eq. 6; Karras et al. (2024),
https://arxiv.org/abs/2406.02507, section 2, whose scale this is.
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
    """weak + scale (strong - weak), with no rounding at 0 and 1."""
    scale = expand(jnp.asarray(scale, strong.dtype), strong)
    return (1 - scale) * weak + scale * strong


def _extrapolate(
    sde: Process,
    x: Array,
    t: ArrayLike,
    strong: tuple[Array, Array],
    weak: tuple[Array, Array],
    scale: ArrayLike,
    rescale: ArrayLike | None,
) -> tuple[Array, Array]:
    """Expected data and noise, guided and rescaled; the noise is extrapolated as x0 is, which keeps its digits."""
    x0, noise = (_between(*views, scale) for views in zip(weak, strong, strict=True))
    if rescale is None:
        return x0, noise
    axes = tuple(range(1, x0.ndim))
    ratio = strong[0].std(axes, keepdims=True) / x0.std(axes, keepdims=True)
    return shifted(sde, x, x0, noise, expand(rescale, x0) * (ratio - 1) * x0, t)


@struct.dataclass
class Guided(DerivedDenoiser):
    """D_weak + scale (D - D_weak): classifier-free guidance and autoguidance. Two evaluations.

        Guided(denoiser.replace(condition=condition), denoiser.replace(condition=null), scale=2.0)
        Guided(large, small, scale=1.5)

    `rescale` shrinks x0 to the spread that D alone has, against the excess of contrast of large scales:
    x0 (1 + rescale (std(D) / std(x0) - 1)), with each sample's own standard deviations over all its values (Lin et al.;
    they suggest 0.7, at scale 7.5). The weak model is then not reached at scale 0. Events of a single value have none.

    Sources: Ho and Salimans (2022), https://arxiv.org/abs/2207.12598; Karras et al. (2024),
    https://arxiv.org/abs/2406.02507; Lin et al. (2023), https://arxiv.org/abs/2305.08891, eq. 14 to 16, for `rescale`,
    here of x0.

    Attributes:
        denoiser: D, the strong or conditional one.
        weak: D_weak, of the same process.
        scale: () or (B,); for images some 1 to 8. EDM2's presets (https://github.com/NVlabs/edm2): 1.2 to 1.4 without a
            class in the weak model, 2.05 to 2.1 for autoguidance, for their best FID on ImageNet 512.
        rescale: phi, from 0 to 1, () or (B,); None for none.
    """

    weak: Denoiser
    scale: ArrayLike = 1.0
    rescale: ArrayLike | None = None

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Both views from one evaluation of each Denoiser."""
        strong, weak = self.denoiser.x0_and_noise(x, t), self.weak.x0_and_noise(x, t)
        return _extrapolate(self.sde, x, t, strong, weak, self.scale, self.rescale)


@struct.dataclass
class ClassifierFree(DerivedDenoiser):
    """`Guided` for one network with and without its condition: one evaluation of twice the batch.

    Faster than two where the batch leaves the device idle; it needs up to twice the memory. Example i and its unconditional
    twin are neighbours in the batch, so that a batch that is sharded over devices stays so.

    Attributes:
        denoiser: one with a field `condition`, such as `NetworkDenoiser`; its own condition is not used.
        condition: what to condition on, one entry an example: any pytree of arrays (B, ...).
        no_condition: the null, which stands for no condition (or a condition to be avoided): of the same structure, each
            array broadcast to the condition's.
        scale, rescale: as in `Guided`.
    """

    condition: Any
    no_condition: Any
    scale: ArrayLike = 1.0
    rescale: ArrayLike | None = None

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Both views from one evaluation of twice the batch."""

        def twins(value, other):
            value = jnp.asarray(value)
            both = jnp.stack([value, jnp.broadcast_to(jnp.asarray(other, value.dtype), value.shape)], 1)
            return both.reshape(-1, *value.shape[1:])

        times = jnp.broadcast_to(t, x.shape[:1])
        denoiser = self.denoiser.replace(condition=jax.tree.map(twins, self.condition, self.no_condition))
        x0, noise = denoiser.x0_and_noise(twins(x, x), twins(times, times))
        strong, weak = (x0[0::2], noise[0::2]), (x0[1::2], noise[1::2])
        return _extrapolate(self.sde, x, t, strong, weak, self.scale, self.rescale)


@struct.dataclass
class Interval(DerivedDenoiser):
    """One Denoiser where low < sigma / alpha <= high, and another at all other noise levels.

        Interval(Guided(conditional, unconditional, 3.0), conditional, low=0.2, high=2.0)

    guides where it helps and nowhere else; experts for ranges of noise are others. With a scalar t, as in sampling, only
    the one that is asked is evaluated, and the sampler's `nfe` counts evaluations of this Denoiser, whatever they cost.
    With t (B,) both are. A network that is in both is compiled twice.

    Source: Kynkäänniemi et al. (2024), https://arxiv.org/abs/2404.07724, section 3: (0.28, 2.9] for EDM2-S on ImageNet 512.
    Their code (https://github.com/kynkaat/guidance-interval) has steps 17 to 22 of EDM's 32, so (0.28, 1.61], at scale 2 for
    EDM2-XXL's FID of 1.40.

    Attributes:
        denoiser: inside of the interval.
        outside: outside of it, of the same process.
        low, high: noise levels sigma / alpha, in the units of the data; () or (B,).
    """

    outside: Denoiser
    low: ArrayLike = 0.0
    high: ArrayLike = jnp.inf

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Both views of the Denoiser that serves this noise level."""
        level = jnp.asarray(self.sde.noise_to_signal(t))
        inside = (self.low < level) & (level <= self.high)
        within, beyond = self.denoiser.x0_and_noise, self.outside.x0_and_noise
        if not inside.ndim:
            return jax.lax.cond(inside, within, beyond, x, t)
        return jax.tree.map(lambda a, b: jnp.where(expand(inside, a), a, b), within(x, t), beyond(x, t))


# By the name that a config gives.
GUIDANCES = {"linear": Guided}
