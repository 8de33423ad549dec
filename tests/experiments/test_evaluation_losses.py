"""The loss at each noise level, of a Denoiser that answers with black: it is the data's own power over the noise's."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import struct

from experiments import data, factory
from experiments.evaluation.losses import loss_per_noise_level
from sde_lib import Denoiser
from tests.experiments.tiny import fake_run, tiny_config


@struct.dataclass
class Black(Denoiser):
    condition: Any = None

    def __call__(self, x, t):
        return jnp.zeros_like(x)


@pytest.mark.parametrize("count", [7, 300])
def test_a_level_has_its_mean_over_images_and_the_error_of_that_mean(monkeypatch, count):
    """300 images are more than a batch; the last batch is filled up with images that do not count."""
    config = tiny_config(evaluation__noise_levels=3, evaluation__t_min=1e-3)
    monkeypatch.setattr(
        "experiments.factory.model.denoiser", lambda config, variables, t_min: Black(factory.sde(config, t_min))
    )
    images = data.Images(np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8))
    run = fake_run(config=config, variables=(), medium=factory.medium(config))
    rows = loss_per_noise_level(run, images)
    sde = factory.sde(config, 1e-3)
    levels = np.linspace(sde.log_snr(sde.t_max), sde.log_snr(1e-3), 3)
    np.testing.assert_allclose([row["log_snr"] for row in rows], levels, rtol=1e-5)
    np.testing.assert_allclose([row["noise_to_signal"] for row in rows], np.exp(-0.5 * levels), rtol=1e-3)
    power = np.square(images.images / 127.5 - 1).mean((1, 2, 3))
    for row in rows:
        of_images = power / row["noise_to_signal"] ** 2
        assert row["loss"] == pytest.approx(of_images.mean(), rel=1e-4)
        assert row["standard_error"] == pytest.approx(scipy.stats.sem(of_images), rel=0.6 / count + 1e-3)
