"""A config of the digits with a network of one convolution: a child process trains it some seconds after its start.

A config is a Python file, so it can bring a network of its own.
"""

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

import models
from configs import digits


class OneLayer(nn.Module):
    """One convolution, scaled by the noise level.

    Attributes:
        num_classes: 0, for there is no condition.
    """

    num_classes: int = 0

    @nn.compact
    def __call__(self, x, noise_level, condition=None, *, train=False, dropout_keys=None):
        """Maps images (B, H, W, C) to images."""
        scale = nn.Dense(x.shape[-1])(jnp.tanh(noise_level)[:, None])
        return nn.Conv(x.shape[-1], (3, 3))(x) * (1 + scale[:, None, None])


models.NETWORKS["one_layer"] = models.KNOWN["one_layer"] = OneLayer


def get_config() -> ConfigDict:
    """Saves at every second step, which is far more often than anybody would."""
    config = digits.get_config("vp")
    config.model = ConfigDict({"name": "one_layer", "num_classes": 0})
    config.data.batch_size = 16
    config.training.update(
        num_steps=400, steps_per_call=2, checkpoint_every=2, keep_checkpoints=2, log_every=2, sample_every=400
    )
    config.optim.warmup_steps = 4
    config.sampling.update(steps=2, batch_size=64)
    config.evaluation.update(num_samples=64, noise_levels=2)
    return config
