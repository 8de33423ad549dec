"""A user's own process without scalar coefficients: everything that is written for any process runs on it."""

import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import (
    DDIM,
    VPSDE,
    Adaptive,
    ClassifierGuidance,
    EDMPreconditioning,
    EulerMaruyama,
    ExactDivergence,
    FunctionDenoiser,
    NetworkDenoiser,
    NoisePrediction,
    ProbabilityFlow,
    denoising_score_matching,
    exact,
    karras_times,
    log_likelihood,
    sample,
    scalar,
)
from sde_lib.inverse import MMPS, RePaint
from tests.sde_lib.inverse.dense import Dense
from tests.sde_lib.processes import Units, keys

SDE = VPSDE(t_min=1e-2)
UNITS = np.array([2.0, 0.5])
OTHER = Units(SDE, UNITS, t_min=1e-2)


def models(sde):
    """A mixture with an exact Denoiser, that mixture guided, and given a measurement."""
    mixture = exact.GaussianMixture(sde, np.array([[1.0, 0.5], [-1.0, 0.2]]), stds=0.4)
    measurement = Dense(event_shape=(2,), matrix=np.array([[1.0, 0.3]]))
    return {
        "mixture": mixture,
        "guided": ClassifierGuidance(mixture, lambda x, t: 0.3 * sde.to_data_scale(x, t).sum(1)),
        "posterior": MMPS(mixture, measurement, np.array([[0.4]]), 0.2),
    }


@pytest.mark.parametrize(
    "kind, sampler, rtol",
    [
        ("mixture", EulerMaruyama(), 1e-9), ("guided", ProbabilityFlow(), 1e-9), ("posterior", ProbabilityFlow(), 1e-9),
        pytest.param("mixture", RePaint(EulerMaruyama(), 2), 1e-9, marks=pytest.mark.thorough),
        pytest.param("mixture", Adaptive(1e-6, 1e-8), 1e-4, marks=pytest.mark.thorough),
    ],
)  # fmt: skip
def test_samples_are_those_of_the_process_in_the_units_of_the_data(kind, sampler, rtol):
    times = karras_times(SDE, 5)
    expected = sample(keys(3), models(SDE)[kind], sampler, times, (2,))
    np.testing.assert_allclose(sample(keys(3), models(OTHER)[kind], sampler, times, (2,)), expected, rtol=rtol)


@pytest.mark.thorough
def test_likelihoods_differ_by_the_volume_of_the_units():
    x = np.random.default_rng(0).normal(size=(3, 2))
    found = log_likelihood(None, models(OTHER)["mixture"], UNITS * x, divergence=ExactDivergence()).log_prob
    expected = log_likelihood(None, models(SDE)["mixture"], x, divergence=ExactDivergence()).log_prob
    np.testing.assert_allclose(found, expected - np.log(UNITS).sum(), atol=2e-3)


def test_a_loss_is_that_of_the_process_in_the_units_of_the_data():
    x0 = np.random.default_rng(0).normal(size=(4, 2))
    models = (FunctionDenoiser(sde, lambda x, t: 0.1 * jnp.ones_like(x)) for sde in (SDE, OTHER))
    losses = [denoising_score_matching(keys(4), model, x0) for model in models]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-9)


class Sees:
    def apply(self, variables, x, noise_level, condition, *, train):
        return 0.3 * x


def test_what_needs_scalar_coefficients_names_what_does_not():
    message = (
        r"^Units has no scalar alpha\(t\) and sigma\(t\): sample it with EulerMaruyama, ProbabilityFlow or an adaptive"
    )
    network = NetworkDenoiser(OTHER, EDMPreconditioning(0.5), Sees())
    x = UNITS * np.ones((1, 2))
    np.testing.assert_allclose(network(x, 0.5), network.replace(sde=SDE)(np.ones((1, 2)), 0.5), rtol=1e-9)
    for run in (
        lambda: sample(keys(1), models(OTHER)["mixture"], DDIM(), karras_times(SDE, 5), (2,)),
        lambda: network.replace(parameterization=NoisePrediction())(x, 0.5),
        lambda: scalar(OTHER),
    ):
        with pytest.raises(ValueError, match=message):
            run()
    assert scalar(SDE) is SDE
