"""Feature maps of EfficientNet-lite0 at its five resolutions, for content and style distances.

The weights are part of an installed package.
"""

import functools
from typing import Any

import jax

from experiments.metrics import feature_networks, resizing
from models.efficientnet import EfficientNetLite0
from models.pretrained import efficientnet

# The last block at each size of the map: 1/2, 1/4, 1/8, 1/16, 1/32 of 224 pixels.
LAYERS = ("block_0", "block_2", "block_4", "block_10", "block_15")


@functools.cache
def variables() -> Any:
    """Returns the weights, on the first device.

    Raises:
        UserError: the package is not installed.
    """
    return jax.device_put(feature_networks.load("efficientnet-lite0").variables)


def of(variables: Any, images: jax.Array, *, clip: bool) -> tuple[jax.Array, ...]:
    """Returns the five feature maps, (N, 112, 112, 16) to (N, 7, 7, 320).

    Args:
        variables: the weights.
        images: (N, H, W, 1 or 3) in [-1, 1], of any size; grey images are repeated to three channels.
        clip: whether pixels are clipped to [-1, 1] after resizing. Without clipping, gradients do not vanish outside.
    """
    resize = resizing.pil_float if clip else resizing.unclipped
    pixels = resize((feature_networks.rgb(images) + 1) * 127.5, efficientnet.SIZE, "bicubic")
    _, captured = EfficientNetLite0().apply(
        variables, (pixels - 127) / 128, capture_intermediates=lambda module, _: module.name in LAYERS
    )
    return tuple(captured["intermediates"][layer]["__call__"][0] for layer in LAYERS)
