"""A config of the digits with a perceptron for its network: a minute trains it, and its samples look like digits.

A config is a Python file, so it can bring a network of its own.
"""

from ml_collections import ConfigDict

import models
from configs import digits
from tests.experiments.tasks.perceptron import Perceptron

models.NETWORKS["perceptron"] = models.KNOWN["perceptron"] = Perceptron


def get_config() -> ConfigDict:
    """Saves once."""
    config = digits.get_config("vp")
    config.model = ConfigDict({"name": "perceptron", "num_classes": 0})
    config.optim.lr = 2e-3
    config.training.update(
        num_steps=1500, steps_per_call=100, checkpoint_every=1500, keep_checkpoints=1, log_every=100, sample_every=1500
    )
    config.training.update(loss_bins=0, measure_peak=False, writers=("jsonl",))
    config.sampling.update(steps=18, batch_size=64)
    config.evaluation.update(num_samples=64, noise_levels=2)
    return config
