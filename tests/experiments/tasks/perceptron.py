"""The network of `small_digits.py`. It is in no list of networks until a config or a fixture puts it there."""

import flax.linen as nn

import models


class Perceptron(nn.Module):
    """The residual perceptron of `models/mlp.py` on the pixels in a row.

    Attributes:
        num_classes: 0, for there is no condition.
    """

    num_classes: int = 0

    @nn.compact
    def __call__(self, x, noise_level, condition=None, *, train=False, dropout_keys=None):
        """Maps images (B, H, W, C) to images."""
        return models.create("mlp", width=192, depth=3)(x.reshape(len(x), -1), noise_level).reshape(x.shape)
