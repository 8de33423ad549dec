"""How fast an exponential moving average of the weights follows them: the rules that papers use.

    ema <- ema + share(n) (weights - ema),      n = 0, 1, ...: the updates made before this one

A rule is a function n -> share, 1 minus what is called decay or beta. In float32 the share keeps its digits where the decay
would lose them: after a million updates they differ from 0 and 1 by 1e-6 only.

Shares of 1 at n = 0 make the average forget the random start.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array

Rule = Callable[[Array], Array]

LARGEST_STD = 12**-0.5  # of `power`: that of all weights alike


def warmup(decay: float) -> Rule:
    """The decay is min(decay, (1 + n) / (10 + n)): little at first.

    Source: TensorFlow's rule for n updates before, https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage.
    https://github.com/yang-song/score_sde_pytorch/blob/main/models/ema.py has counted this update too when it takes n, so
    that its first decay is 2/11 and not 1/10.

    Raises:
        ValueError: the decay does not lie in [0, 1).
    """
    _require_decay(decay)
    return lambda n: 1 - jnp.minimum(decay, (1 + n) / (10 + n))


def constant(decay: float) -> Rule:
    """The decay is the same at every step, the first included.

    Sources: https://github.com/yang-song/score_sde/blob/main/losses.py; guided-diffusion, DiT.

    Raises:
        ValueError: the decay does not lie in [0, 1).
    """
    _require_decay(decay)
    return lambda n: jnp.full(jnp.shape(n), 1 - decay, jnp.float32)


def _require_decay(decay: float) -> None:
    if not 0 <= decay < 1:
        raise ValueError("a decay lies in [0, 1)")


def half_life(images: float, ramp: float, batch_size: int) -> Rule:
    """What the average holds of today's weights is halved by so many images, or `ramp` times those seen before, if fewer.

    The decay is 0.5 ** (batch_size / min(images, ramp * batch_size * n)), and 0 for n = 0. A ramp of 0 is none.

    Source: https://github.com/NVlabs/edm/blob/main/training/training_loop.py.

    Raises:
        ValueError: there are no images, or the ramp is less than 0.
    """
    if images <= 0:
        raise ValueError("a half-life is more than 0 images")
    if ramp < 0:
        raise ValueError("a ramp is at least 0, which is none")

    def share(n):
        updates = images / batch_size
        if ramp:
            updates = jnp.minimum(updates, ramp * n)
        return -jnp.expm1(-math.log(2) / jnp.maximum(updates, 1e-8 / batch_size))

    return share


def power(std: float) -> Rule:
    """Weights count in proportion to t ** gamma, t being their time in training: the profile of EDM2.

    The decay is (1 - 1 / (n + 1)) ** (gamma + 1), so that the weights of update m of N have the share that the interval
    from m - 1 to m has in the integral of t ** gamma from 0 to N. The profile's standard deviation is `std`, in units of N.

    Source: Karras et al. (2024), https://arxiv.org/abs/2312.02696, eq. 123 to 127;
    https://github.com/NVlabs/edm2/blob/main/training/phema.py.

    Of two such averages, saved now and then, `experiments/learning/posthoc.py` makes one of any width after training.

    Args:
        std: more than 0 and at most `LARGEST_STD`, for which gamma is 0.
    """
    exponent = power_exponent(std) + 1
    # The logarithm of 1 - 1 / (n + 1) is that of 0 for n = 0.
    return lambda n: -jnp.expm1(exponent * jnp.log1p(-1 / (1 + jnp.asarray(n, jnp.float32))))


def power_exponent(std: float) -> float:
    """gamma of the profile t ** gamma on [0, 1] with this standard deviation, std^2 = (g + 1) / ((g + 2)^2 (g + 3)).

    Raises:
        ValueError: std is not more than 0 and at most `LARGEST_STD`.
    """
    if not 0 < std <= LARGEST_STD + 1e-9:
        raise ValueError(f"a relative standard deviation is more than 0 and at most {LARGEST_STD:.4f}")
    inverse = std**-2
    roots = np.roots([1, 7, 16 - inverse, 12 - inverse])  # a cubic in gamma, of which one root is 0 or more
    return max(float(roots.real.max()), 0.0)
