"""Decay schedules of exponential moving averages (EMA) of the weights.

    ema <- ema + share(n) (weights - ema),      n = 0, 1, ...: number of updates before this one

A rule is a function n -> share, where share = 1 - decay (the decay is also called beta). In float32 the share has a
smaller relative rounding error than the decay: after a million updates the share is about 1e-6 and the decay 1 - 1e-6.

With share(0) = 1 the average does not depend on the initial weights.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array

Rule = Callable[[Array], Array]

LARGEST_STD = 12**-0.5  # largest width of `power`: the standard deviation of equal weights over the training


def warmup(decay: float) -> Rule:
    """Returns the rule with the decay min(decay, (1 + n) / (10 + n)), which starts at 1/10.

    Source: https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage, where n is the number of
    updates before. https://github.com/yang-song/score_sde_pytorch/blob/main/models/ema.py includes the current update
    in n, so its first decay is 2/11.

    Raises:
        ValueError: `decay` is not in [0, 1).
    """
    _require_decay(decay)
    return lambda n: 1 - jnp.minimum(decay, (1 + n) / (10 + n))


def constant(decay: float) -> Rule:
    """Returns the rule with the same decay at every step, including the first.

    Sources: https://github.com/yang-song/score_sde/blob/main/losses.py; guided-diffusion, DiT.

    Raises:
        ValueError: `decay` is not in [0, 1).
    """
    _require_decay(decay)
    return lambda n: jnp.full(jnp.shape(n), 1 - decay, jnp.float32)


def _require_decay(decay: float) -> None:
    if not 0 <= decay < 1:
        raise ValueError(f"the decay must be in [0, 1), got {decay}")


def half_life(images: float, ramp: float, batch_size: int) -> Rule:
    """Returns the rule with a half-life in training images and a linear ramp-up of the half-life.

    The half-life is min(images, ramp * images seen before). The decay is
    0.5 ** (batch_size / min(images, ramp * batch_size * n)), and 0 for n = 0.

    Args:
        images: number of images after which the weight of an update in the average is halved.
        ramp: upper limit of the half-life, as a multiple of the images seen before; 0 disables the limit.
        batch_size: images per update.

    Source: https://github.com/NVlabs/edm/blob/main/training/training_loop.py.

    Raises:
        ValueError: `images` is not more than 0, or `ramp` is less than 0.
    """
    if images <= 0:
        raise ValueError(f"the half-life must be more than 0 images, got {images}")
    if ramp < 0:
        raise ValueError(f"the ramp must be at least 0, where 0 disables it, got {ramp}")

    def share(n):
        updates = images / batch_size
        if ramp:
            updates = jnp.minimum(updates, ramp * n)
        return -jnp.expm1(-math.log(2) / jnp.maximum(updates, 1e-8 / batch_size))

    return share


def power(std: float) -> Rule:
    """Returns the rule of EDM2's power function EMA: the weight of time t in the average is proportional to t ** gamma.

    The decay is (1 - 1 / (n + 1)) ** (gamma + 1). After N updates, the weights of update m have the share of the
    interval [m - 1, m] in the integral of t ** gamma over [0, N]. The standard deviation of this profile is `std`, in
    units of N.

    Source: Karras et al. (2024), https://arxiv.org/abs/2312.02696, eq. 123 to 127;
    https://github.com/NVlabs/edm2/blob/main/training/phema.py.

    `experiments/learning/posthoc.py` reconstructs an average of any width after training from stored snapshots of two
    such averages.

    Args:
        std: relative width, more than 0 and at most `LARGEST_STD`, for which gamma is 0.

    Raises:
        ValueError: `std` is outside of this range.
    """
    exponent = power_exponent(std) + 1
    # At n = 0 the logarithm is log(0) = -inf, so the share is 1.
    return lambda n: -jnp.expm1(exponent * jnp.log1p(-1 / (1 + jnp.asarray(n, jnp.float32))))


def power_exponent(std: float) -> float:
    """Returns gamma of the profile t ** gamma on [0, 1] with std^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)).

    Raises:
        ValueError: `std` is not more than 0 and at most `LARGEST_STD`.
    """
    if not 0 < std <= LARGEST_STD + 1e-9:
        raise ValueError(f"the relative width must be more than 0 and at most {LARGEST_STD:.4f}, got {std}")
    inverse = std**-2
    roots = np.roots([1, 7, 16 - inverse, 12 - inverse])  # a cubic in gamma with one root that is not negative
    return max(float(roots.real.max()), 0.0)
