"""InceptionV3 of the FID: TensorFlow's classifier of 2015-12-05 with 1008 outputs.

It differs from the network of the paper and of torchvision in three ways that affect the FID:

- average pools of 3x3 pixels divide by the number of pixels within the image (4 in a corner), not by 9;
- the last block has a max pool, where the previous block has an average pool;
- it has 1008 logits; the Inception Score applies the softmax to the logits without the bias.

Layers are named as in torchvision's InceptionV3: blocks "Mixed_5" have 35 x 35 pixels, "Mixed_6" 17 x 17, "Mixed_7" 8 x
8.

Sources: Szegedy et al. (2015), https://arxiv.org/abs/1512.00567; Heusel et al. (2017),
https://arxiv.org/abs/1706.08500; https://github.com/mseitzer/pytorch-fid/blob/master/src/pytorch_fid/inception.py for
the differences; https://github.com/pytorch/vision/blob/main/torchvision/models/inception.py for the sizes of the
layers.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers.frozen import FrozenConv, FrozenDense

Pool = Callable[[jax.Array], jax.Array]

# The sFID features, "mixed_6/conv:0" of TensorFlow's graph in guided-diffusion's evaluations/evaluator.py: the first 7
# channels of the first branch of Mixed_6d, hence of its output. (dgm-eval uses Mixed_6e.)
SPATIAL_BLOCK, SPATIAL_CHANNELS = "Mixed_6d", 7


class Layer(NamedTuple):
    """One convolution of a branch; convolutions of stride 2 are not padded."""

    name: str
    features: int
    kernel_size: tuple[int, int] = (1, 1)
    stride: int = 1


class Branches(nn.Module):
    """Inception block: parallel chains of convolutions, whose outputs are concatenated along the channels.

    Attributes:
        chains: chains of layers. A tuple of layers at the end of a chain is a fork: the outputs of its layers are
            concatenated.
        pool: pooling of the last branch, which is followed by the convolution `branch_pool` if `pool_features` > 0.
        pool_features: channels of the convolution `branch_pool`; 0 for no convolution.
    """

    chains: tuple[tuple[Layer | tuple[Layer, ...], ...], ...]
    pool: Pool
    pool_features: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H', W', C')."""
        branches = []
        for chain in self.chains:
            h = x
            for layer in chain:
                fork = (layer,) if isinstance(layer, Layer) else layer
                h = jnp.concatenate([_conv(part)(h) for part in fork], -1)
            branches.append(h)
        pooled = self.pool(x)
        branches.append(_conv(Layer("branch_pool", self.pool_features))(pooled) if self.pool_features else pooled)
        return jnp.concatenate(branches, -1)


class InceptionV3(nn.Module):
    """InceptionV3 of the FID as a feature network and classifier, for inference only.

    Attributes:
        num_classes: number of logits.
    """

    num_classes: int = 1008

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        """Maps images to features.

        Args:
            x: (B, H, W, 3) float32 in [-1, 1]; 299 x 299 for the published weights.

        Returns:
            `pool` (B, 2048), the mean over the pixels of the last feature map, for FID, KID, precision and recall;
            `spatial` (B, 2023), 7 flattened channels of a feature map of 17 x 17 pixels, for sFID; `logits` (B,
            num_classes) without the bias, for the Inception Score. All float32.
        """
        x = x.astype(jnp.float32)
        for layer in STEM_1:
            x = _conv(layer, "VALID" if layer.name != "Conv2d_2b_3x3" else "SAME")(x)
        x = _halved(x)
        for layer in STEM_2:
            x = _conv(layer, "VALID")(x)
        x = _halved(x)
        for name, chains, pool, pool_features in BLOCKS:
            x = Branches(chains, pool, pool_features, name=name)(x)
            if name == SPATIAL_BLOCK:
                spatial = x[..., :SPATIAL_CHANNELS].reshape(len(x), -1)
        pool = x.mean((1, 2))
        return {
            "pool": pool,
            "spatial": spatial,
            "logits": FrozenDense(self.num_classes, use_bias=False, name="fc")(pool),
        }


def _conv(layer: Layer, padding: str = "SAME") -> FrozenConv:
    padding = padding if layer.stride == 1 else "VALID"
    return FrozenConv(layer.features, layer.kernel_size, layer.stride, padding, name=layer.name)


def _halved(x):
    return nn.max_pool(x, (3, 3), (2, 2))


def _mean(x):
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def _maximum(x):
    return nn.max_pool(x, (3, 3), (1, 1), "SAME")


STEM_1 = (Layer("Conv2d_1a_3x3", 32, (3, 3), 2), Layer("Conv2d_2a_3x3", 32, (3, 3)), Layer("Conv2d_2b_3x3", 64, (3, 3)))
STEM_2 = (Layer("Conv2d_3b_1x1", 80), Layer("Conv2d_4a_3x3", 192, (3, 3)))

# Branches of the blocks, from figures 5, 10, 6, 10 and 7 of the paper.
CHAINS_5 = (
    (Layer("branch1x1", 64),),
    (Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, (5, 5))),
    (Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, (3, 3)), Layer("branch3x3dbl_3", 96, (3, 3))),
)
CHAINS_6A = (
    (Layer("branch3x3", 384, (3, 3), 2),),
    (Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, (3, 3)), Layer("branch3x3dbl_3", 96, (3, 3), 2)),
)


def _chains_6(width):
    return (
        (Layer("branch1x1", 192),),
        (Layer("branch7x7_1", width), Layer("branch7x7_2", width, (1, 7)), Layer("branch7x7_3", 192, (7, 1))),
        (
            Layer("branch7x7dbl_1", width),
            Layer("branch7x7dbl_2", width, (7, 1)),
            Layer("branch7x7dbl_3", width, (1, 7)),
            Layer("branch7x7dbl_4", width, (7, 1)),
            Layer("branch7x7dbl_5", 192, (1, 7)),
        ),
    )


CHAINS_7A = (
    (Layer("branch3x3_1", 192), Layer("branch3x3_2", 320, (3, 3), 2)),
    (
        Layer("branch7x7x3_1", 192),
        Layer("branch7x7x3_2", 192, (1, 7)),
        Layer("branch7x7x3_3", 192, (7, 1)),
        Layer("branch7x7x3_4", 192, (3, 3), 2),
    ),
)
CHAINS_7 = (
    (Layer("branch1x1", 320),),
    (Layer("branch3x3_1", 384), (Layer("branch3x3_2a", 384, (1, 3)), Layer("branch3x3_2b", 384, (3, 1)))),
    (
        Layer("branch3x3dbl_1", 448),
        Layer("branch3x3dbl_2", 384, (3, 3)),
        (Layer("branch3x3dbl_3a", 384, (1, 3)), Layer("branch3x3dbl_3b", 384, (3, 1))),
    ),
)
BLOCKS = (  # name, chains, pool, pool_features
    ("Mixed_5b", CHAINS_5, _mean, 32),
    ("Mixed_5c", CHAINS_5, _mean, 64),
    ("Mixed_5d", CHAINS_5, _mean, 64),
    ("Mixed_6a", CHAINS_6A, _halved, 0),
    ("Mixed_6b", _chains_6(128), _mean, 192),
    ("Mixed_6c", _chains_6(160), _mean, 192),
    ("Mixed_6d", _chains_6(160), _mean, 192),
    ("Mixed_6e", _chains_6(192), _mean, 192),
    ("Mixed_7a", CHAINS_7A, _halved, 0),
    ("Mixed_7b", CHAINS_7, _mean, 192),
    ("Mixed_7c", CHAINS_7, _maximum, 192),
)


def layer_names() -> list[str]:
    """Returns the paths of all convolutions, such as "Mixed_5b/branch1x1"."""
    names = [layer.name for layer in STEM_1 + STEM_2]
    for block, chains, _, pool_features in BLOCKS:
        for layer in (layer for chain in chains for layer in chain):
            names += [f"{block}/{part.name}" for part in ((layer,) if isinstance(layer, Layer) else layer)]
        names += [f"{block}/branch_pool"] if pool_features else []
    return names
