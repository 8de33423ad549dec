"""NCSN and NCSNv2: RefineNets with dilated residual blocks, the first score networks for many noise levels.

An encoder of residual blocks, whose later stages dilate their convolutions instead of halving the resolution, is
followed by one refine block per stage, from the coarsest to the finest (`models/layers/refinenet.py`).

- `NCSN` treats noise levels as classes: every norm has one row of parameters per noise level. Noise levels between its
  `num_scales` levels are rounded to the nearest level.
- `NCSNv2` is not conditioned on the noise level: score = output / sigma.

**Inputs and outputs.** `noise_level` is log(sigma), and the output is sigma times the score: `ScorePrediction`. (The
published code takes the index of sigma instead and returns the score; for NCSNv2, the network divides by sigma.) The
published networks were trained on data in [0, 1], with sigmas in that unit, and rescale x to [-1, 1] at the input. With
`centered`, the default, x is data in [-1, 1]. If `noise_level` remains in the published unit
(`ScorePrediction(sigma_scale=0.5)`), the output equals the published output, since sigma times the score is
dimensionless.

Published sizes: 128 channels (64 for MNIST). NCSN: sigma from 1 to 0.01 in 10 levels. NCSNv2: the defaults up to 64
pixels; `SIZES` has the stages for 128 and 256 pixels.

Sources: Song and Ermon (2019), https://arxiv.org/abs/1907.05600, appendix A; Song and Ermon (2020),
https://arxiv.org/abs/2006.09011, appendix A; https://github.com/ermongroup/ncsn and
https://github.com/ermongroup/ncsnv2.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models import checks
from models.layers.instance_norm import InstanceNormPlus
from models.layers.refinenet import DilatedBlock, RefineBlock, conv

CHOICES = {"dtype": ("float32", "bfloat16")}

# The stages of the published networks, by the largest image size in pixels.
SIZES = {
    64: {"channel_multipliers": (1, 2, 2, 2), "dilations": (1, 1, 2, 4)},
    128: {"channel_multipliers": (1, 2, 2, 4, 4), "dilations": (1, 1, 1, 2, 4)},
    256: {"channel_multipliers": (1, 2, 2, 2, 4, 4), "dilations": (1, 1, 1, 1, 2, 4)},
}


class NCSN(nn.Module):
    """NCSN, conditioned on discrete noise levels: every norm has separate parameters for each noise level.

    Attributes:
        channels: channels of the finest stage.
        channel_multipliers: channels of each stage, finest first, in units of `channels`.
        dilations: dilation of the convolutions of each stage. A later stage with dilation 1 halves the resolution.
        num_scales: number of noise levels, a geometric sequence from `sigma_max` to `sigma_min`.
        sigma_min, sigma_max: smallest and largest noise level, in the unit of exp(`noise_level`).
        centered: whether x is data in [-1, 1]; if False, in [0, 1].
        dropout: dropout rate in each residual block; 0 in the published networks.
        num_classes: number of classes of the condition `label`, each with its own parameters of the norms at each noise
            level; 0 for an unconditional network, as the published ones.
        dtype: dtype of the computation, "float32" or "bfloat16"; parameters and output are float32.
        remat: recompute the activations of each block in the backward pass: less memory, about a third more time.
    """

    channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 2)
    dilations: tuple[int, ...] = (1, 1, 2, 4)
    num_scales: int = 10
    sigma_min: float = 0.01
    sigma_max: float = 1.0
    centered: bool = True
    dropout: float = 0.0
    num_classes: int = 0
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        noise_level: jax.Array,
        condition: Mapping[str, jax.Array] | None = None,
        *,
        train: bool = False,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Maps noisy images to sigma times their score.

        Args:
            x: (B, H, W, C); H and W divisible by 2 ** (number of stages that halve the resolution).
            noise_level: (B,), log(sigma), rounded to the nearest level.
            condition: leaves by name, or None. If `num_classes` is not 0: `label` (B,), integers in [0, num_classes),
                or num_classes for no class, for which the norms use the mean of the parameters of all classes.
            train: whether dropout is enabled.
            dropout_keys: (B,) typed PRNG keys; required if `train` is True and `dropout` is above 0.

        Returns:
            (B, H, W, C) float32.

        Raises:
            ValueError: H or W is not divisible by the power of 2 above, `dilations` and `channel_multipliers` have
                different lengths, `dilations` does not start with 1, 0 < sigma_min < sigma_max is violated, an option
                has an unknown value, leaves of the condition are missing or unexpected, or keys are missing.
        """
        labels, dropout_keys = _check(self, x, condition, train, dropout_keys)
        checks.rising(self)
        index = self.nearest(noise_level)
        if self.num_classes:
            index = index[:, None] * self.num_classes + _classes(labels, self.num_classes)
        rows = self.num_scales * max(self.num_classes, 1)
        score = _refine(self, x, index, rows, rows, dropout_keys)
        return jnp.exp(noise_level.astype(jnp.float32))[:, None, None, None] * score

    def nearest(self, noise_level: jax.Array) -> jax.Array:
        """Returns the index (B,) of the nearest level in log(sigma), from 0 (`sigma_max`) to num_scales - 1."""
        span = math.log(self.sigma_max / self.sigma_min)
        index = (math.log(self.sigma_max) - noise_level) / span * (self.num_scales - 1)
        return jnp.clip(jnp.round(index), 0, self.num_scales - 1).astype(jnp.int32)


class NCSNv2(nn.Module):
    """NCSNv2, not conditioned on the noise level: unconditional norms in residual blocks, no norms in refine blocks.

    Attributes:
        channels: channels of the finest stage.
        channel_multipliers: channels of each stage, finest first, in units of `channels`.
        dilations: dilation of the convolutions of each stage. A later stage with dilation 1 halves the resolution.
        centered: whether x is data in [-1, 1]; if False, in [0, 1].
        dropout: dropout rate in each residual block; 0 in the published networks.
        num_classes: number of classes of the condition `label`, each with its own parameters of the norms; 0 for an
            unconditional network, as the published ones.
        dtype: dtype of the computation, "float32" or "bfloat16"; parameters and output are float32.
        remat: recompute the activations of each block in the backward pass: less memory, about a third more time.
    """

    channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 2)
    dilations: tuple[int, ...] = (1, 1, 2, 4)
    centered: bool = True
    dropout: float = 0.0
    num_classes: int = 0
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        noise_level: jax.Array,
        condition: Mapping[str, jax.Array] | None = None,
        *,
        train: bool = False,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Maps noisy images to sigma times their score; arguments, result and errors as in `NCSN`.

        `noise_level`, log(sigma), is ignored.
        """
        labels, dropout_keys = _check(self, x, condition, train, dropout_keys)
        index = _classes(labels, self.num_classes) if self.num_classes else None
        return _refine(self, x, index, self.num_classes, 0, dropout_keys)


def _classes(labels, num_classes):
    """Returns the classes (B, num_classes) that a norm averages: copies of the label, or all classes for no class."""
    labels = labels[:, None]
    return jnp.where(labels < num_classes, labels, jnp.arange(num_classes))


def _check(network, x, condition, train, dropout_keys):
    """Checks options and arguments; returns the labels or None, and the dropout keys or None."""
    name, stages, dilations = type(network).__name__, network.channel_multipliers, network.dilations
    if len(stages) != len(dilations) or dilations[0] != 1:
        raise ValueError(
            f"{name}: dilations={dilations} must start with 1 and have one entry for each of channel_multipliers={stages}"
        )
    checks.choices(network, CHOICES)
    halvings = dilations.count(1) - 1
    checks.divisible(network, x.shape, 2**halvings, f"{halvings} stages that halve it need")
    leaves = checks.condition(network, len(x), condition)
    return leaves.get("label"), checks.dropout(network, train, dropout_keys)


def _refine(network, x, index, norm_conditions, refine_conditions, dropout_keys):
    """Applies the common layers of NCSN and NCSNv2 in the scope of `network`: (B, H, W, C) to (B, H, W, C) float32."""
    dtype = jnp.dtype(network.dtype)
    down_type: Any
    refine_type: Any
    down_type, refine_type = (nn.remat(t) if network.remat else t for t in (DilatedBlock, RefineBlock))
    widths = [network.channels * multiplier for multiplier in network.channel_multipliers]

    h = x if network.centered else 2 * x - 1
    h = conv(widths[0], dtype=dtype, name="conv_in")(h.astype(dtype))
    stages = []
    for stage, (width, dilation) in enumerate(zip(widths, network.dilations, strict=True)):
        for i in range(2):
            change = stage > 0 and i == 0
            block = down_type(
                width, change, dilation, norm_conditions, network.dropout, dtype, name=f"down_{stage}_{i}"
            )
            h = block(h, index, dropout_keys)
        stages.append(h)

    inputs: list[jax.Array] = []
    for stage in reversed(range(len(stages))):
        units = 1 if stage else 3
        # The coarsest block has no second input, hence no fusing convolution that could change the width.
        width = widths[max(stage - 1, 0)] if inputs else widths[stage]
        block = refine_type(width, units, refine_conditions, dtype, name=f"refine_{stage}")
        inputs = [block(stages[stage], *inputs, condition=index)]

    (h,) = inputs
    h = InstanceNormPlus(norm_conditions, dtype=dtype, name="norm_out")(h, index)
    return conv(x.shape[-1], dtype=dtype, name="conv_out")(nn.elu(h)).astype(jnp.float32)


# Keys are the values of `model.name` in a config.
NETWORKS = {"ncsn": NCSN, "ncsnv2": NCSNv2}
