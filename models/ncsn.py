"""NCSN and NCSNv2: dilated residual networks refined by a RefineNet, the first score networks for many noise levels.

A way down of residual blocks, of which later stages dilate their convolutions instead of halving the resolution, is
followed by one refine block for each stage, from the coarsest to the finest (`models/layers/refinenet.py`).

- `NCSN` learns its noise levels as classes: every norm has a row of parameters for each of them. It has values at its own
  `num_scales` levels only, in between it takes the nearest.
- `NCSNv2` does not see the noise level at all, but in the image: score = output / sigma.

**What goes in and out.** `noise_level` is log(sigma), and the output is sigma times the score: `ScorePrediction`. (The
published code has the index of sigma for the one and the score for the other, and divides NCSNv2's output by sigma
itself.) The published networks were trained on data in [0, 1], in whose units their sigmas are, and map it to [-1, 1] at
their entry. With `centered`, the default, x comes as data in [-1, 1]; where `noise_level` stays in the published unit
(`ScorePrediction(sigma_scale=0.5)`), the output is the published one, since sigma times the score has no unit.

Published sizes: 128 channels (64 for MNIST). NCSN: sigma from 1 to 0.01 in 10 levels. NCSNv2: up to 64 pixels the
defaults; `SIZES` has the stages for 128 and 256 pixels.

Sources: Song and Ermon (2019), https://arxiv.org/abs/1907.05600, appendix A; Song and Ermon (2020),
https://arxiv.org/abs/2006.09011, appendix A; https://github.com/ermongroup/ncsn and https://github.com/ermongroup/ncsnv2.
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

# The stages of the published networks, by their largest image in pixels.
SIZES = {
    64: {"channel_multipliers": (1, 2, 2, 2), "dilations": (1, 1, 2, 4)},
    128: {"channel_multipliers": (1, 2, 2, 4, 4), "dilations": (1, 1, 1, 2, 4)},
    256: {"channel_multipliers": (1, 2, 2, 2, 4, 4), "dilations": (1, 1, 1, 1, 2, 4)},
}


class NCSN(nn.Module):
    """NCSN: every norm, those of the refine blocks included, has its own parameters at each noise level.

    Attributes:
        channels: channels of the finest stage.
        channel_multipliers: channels of each stage, finest first, in units of `channels`.
        dilations: of the convolutions of each stage. A stage after the first halves the resolution where this is 1.
        num_scales: number of noise levels, in a geometric sequence.
        sigma_min, sigma_max: its ends, in the unit of `noise_level`.
        centered: whether x is data in [-1, 1]; else in [0, 1].
        dropout: rate of the dropout in each residual block, in training; published networks have none.
        num_classes: 0 for an unconditional network; else the condition's `label` is below it, and the norms have parameters
            for each class at each noise level; published networks have none.
        dtype: of the computation, "float32" or "bfloat16"; parameters and output are float32.
        remat: recompute every block's inner values in the backward pass, for less memory and about a third more time.
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
            x: (B, H, W, C); H and W divisible by 2 for each stage that halves them.
            noise_level: (B,), log(sigma); the nearest of the levels is taken.
            condition: leaves by name, or None. `label` (B,), integers in [0, num_classes) or the null num_classes, for
                which the norms take the mean of all classes' parameters, where `num_classes` is not 0.
            train: whether dropout is on.
            dropout_keys: (B,) typed PRNG keys; needed with `train` where `dropout` is above 0.

        Returns:
            (B, H, W, C) float32.

        Raises:
            ValueError: for a size that cannot be halved often enough, stages without dilation or width, an unknown choice,
                and for leaves of the condition or keys missing or in excess.
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
        """The index (B,) of the noise level nearest in log(sigma), from 0 for `sigma_max` down to `sigma_min`."""
        span = math.log(self.sigma_max / self.sigma_min)
        place = (math.log(self.sigma_max) - noise_level) / span * (self.num_scales - 1)
        return jnp.clip(jnp.round(place), 0, self.num_scales - 1).astype(jnp.int32)


class NCSNv2(nn.Module):
    """NCSNv2: blind to the noise level, with unconditional norms in the residual blocks and none in the refine blocks.

    Attributes:
        channels: channels of the finest stage.
        channel_multipliers: channels of each stage, finest first, in units of `channels`.
        dilations: of the convolutions of each stage. A stage after the first halves the resolution where this is 1.
        centered: whether x is data in [-1, 1]; else in [0, 1].
        dropout: rate of the dropout in each residual block, in training; published networks have none.
        num_classes: 0 for an unconditional network; else the condition's `label` is below it, and the norms have parameters
            for each class; published networks have none.
        dtype: of the computation, "float32" or "bfloat16"; parameters and output are float32.
        remat: recompute every block's inner values in the backward pass, for less memory and about a third more time.
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
        """Maps noisy images to sigma times their score. Arguments, result and errors are those of `NCSN`.

        The network does not read `noise_level`, which is log(sigma).
        """
        labels, dropout_keys = _check(self, x, condition, train, dropout_keys)
        index = _classes(labels, self.num_classes) if self.num_classes else None
        return _refine(self, x, index, self.num_classes, 0, dropout_keys)


def _classes(labels, num_classes):
    """The classes (B, num_classes) whose parameters a norm averages: the label's alone, or each for no class."""
    labels = labels[:, None]
    return jnp.where(labels < num_classes, labels, jnp.arange(num_classes))


def _check(network, x, condition, train, dropout_keys):
    """Checks options and arguments; returns the labels and the dropout keys to use, each None where there are none."""
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
    """The layers that NCSN and NCSNv2 share, made in the scope of the network that calls: (B, H, W, C) to float32."""
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
        # The coarsest block has nothing to join, and with that no convolution that could change the width.
        width = widths[max(stage - 1, 0)] if inputs else widths[stage]
        block = refine_type(width, units, refine_conditions, dtype, name=f"refine_{stage}")
        inputs = [block(stages[stage], *inputs, condition=index)]

    (h,) = inputs
    h = InstanceNormPlus(norm_conditions, dtype=dtype, name="norm_out")(h, index)
    return conv(x.shape[-1], dtype=dtype, name="conv_out")(nn.elu(h)).astype(jnp.float32)


# By the name that a config gives.
NETWORKS = {"ncsn": NCSN, "ncsnv2": NCSNv2}
