"""What the config's loss adds to the library's: the reduction and the bins of noise levels; the network is a stub."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import factory
from experiments.learning import state
from tests.experiments.tiny import tiny_config

SIZE = 64
DRAWS = state.draws(jax.random.key(0), 3, jnp.arange(SIZE), SIZE)
IMAGES = np.random.default_rng(0).normal(size=(SIZE, 8, 8, 1)).astype(np.float32)


class Halving:
    """Stands for the network."""

    def apply(self, variables, x, noise_level, condition, **mode):
        return 0.5 * x


@pytest.fixture(autouse=True)
def stub(monkeypatch):
    monkeypatch.setattr("experiments.factory.model.network", lambda config: Halving())


def test_half_the_sum_is_half_the_number_of_values_times_the_mean():
    mean, half_sum = (
        factory.loss(tiny_config(loss__reduction=reduction))(DRAWS, None, IMAGES, None)
        for reduction in ("mean", "half_sum")
    )
    np.testing.assert_allclose(half_sum, 0.5 * 8 * 8 * mean, rtol=1e-6)
