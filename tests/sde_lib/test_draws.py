"""Every draw has a key of its own: stages, steps, rounds, probes and examples never share their randomness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from sde_lib import (
    DDIM,
    SSCS,
    VPSDE,
    Ancestral,
    AnnealedLangevin,
    CriticallyDampedLangevin,
    Denoiser,
    DPMSolver,
    EulerMaruyama,
    FunctionDenoiser,
    Heun,
    Hutchinson,
    Langevin,
    LogitNormalDequantizer,
    ModelDequantizer,
    PredictorCorrector,
    Quantization,
    ReverseDiffusion,
    Sampler,
    SinglestepDPMSolver,
    TruncatedNormalDequantizer,
    UniformDequantizer,
    denoising_score_matching,
    elbo,
    exact,
    sample,
    sliced_score_matching,
    uniform_times,
)
from sde_lib.randomness import standard_normal
from tests.drawn_keys import assert_each_key_once
from tests.sde_lib.processes import keys

VP = VPSDE(t_min=1e-2)
DENOISER = FunctionDenoiser(VP, lambda x, t: 0.5 * x)


@pytest.mark.parametrize(
    "method, draws",
    [
        (EulerMaruyama(), 1),
        (ReverseDiffusion(), 1),
        (Ancestral(), 1),
        (DDIM(eta=0.5), 1),
        (Heun(churn=1.0), 1),
        (Langevin(steps=3), 3),
        (AnnealedLangevin(steps=2), 2),
        (PredictorCorrector(corrector=Langevin(steps=2)), 3),
        (PredictorCorrector(SinglestepDPMSolver(2, tau=1.0), Langevin(steps=2)), 4),
        (DPMSolver(2, tau=1.0), 1),
        (SinglestepDPMSolver(3, tau=1.0), 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_two_draws_of_sampling_share_a_key(method, draws):
    """Two samples of three steps of the method: the prior's draw and those of each step."""
    times = uniform_times(VP, 4)
    assert_each_key_once(lambda: sample(keys(2), DENOISER, method, times, (7,)), 2 * (1 + 3 * draws))


@pytest.mark.parametrize("order", [1, 2])
def test_no_two_draws_of_the_splitting_sampler_share_a_key(order):
    sde = CriticallyDampedLangevin()
    denoiser = FunctionDenoiser(sde, lambda x, t: 0.5 * x[..., 0])
    times = uniform_times(sde, 3)
    assert_each_key_once(lambda: sample(keys(2), denoiser, SSCS(order), times, (7,)), 2 * (1 + 2 * 2))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_noise_has_the_dtype_of_what_it_is_added_to(dtype):
    """Also where JAX's own is another: x in float32 stays so."""
    x = jnp.zeros((3, 50), dtype)
    noise = standard_normal(keys(3), x)
    assert noise.dtype == dtype and (x + noise).dtype == dtype
    assert len(np.unique(noise)) > 140


@struct.dataclass
class OwnDraws(Sampler):
    """Each state is the step's own standard normal draw."""

    def step(self, carry, keys, x, t, s, denoiser):
        return carry, standard_normal(keys, x)


def test_the_noise_of_steps_is_not_that_of_the_prior_nor_of_other_steps():
    states = sample(keys(3), DENOISER, OwnDraws(), uniform_times(VP, 5), (2,), return_trajectory=True)
    draws = np.concatenate([states[:1] / VP.sigma(VP.t_max), states[1:-1]])
    assert len(np.unique(draws.round(9))) == draws.size == 5 * 3 * 2


@struct.dataclass
class Dropping(Denoiser):
    """In training, example i draws a number by `keys[i]`."""

    dropout_keys: jax.Array | None = None

    def __call__(self, x, t):
        return 0.5 * x if self.dropout_keys is None else x * standard_normal(self.dropout_keys, x)

    def training(self, keys):
        return self.replace(dropout_keys=keys)


def test_no_two_draws_of_the_loss_share_a_key():
    """The time, the noise and the dropout of each example."""
    assert_each_key_once(lambda: denoising_score_matching(keys(3), Dropping(VP), jnp.ones((3, 7)), train=True), 3 * 3)
    assert_each_key_once(lambda: denoising_score_matching(keys(3), Dropping(VP), jnp.ones((3, 7))), 3 * 2)


@pytest.mark.parametrize("variance_reduced", [True, False])
def test_no_two_probes_of_sliced_score_matching_share_a_key(variance_reduced):
    def loss():
        options = {"probes": 4, "variance_reduced": variance_reduced}
        return sliced_score_matching(keys(3), DENOISER.score, jnp.ones((3, 7)), 0.5, **options)

    assert_each_key_once(loss, 3 * 4)


def test_no_two_draws_of_the_bound_share_a_key():
    """Of each of 2 estimates: the prior's noise, a time and a noise for each of 3 strata; and the levels' noise."""
    x0 = jnp.full((2, 7), 0.3)
    assert_each_key_once(lambda: elbo(keys(2), DENOISER, x0, num_times=3, num_estimates=2), 2 * 2 * (1 + 3 * 2))
    levels, quantization = jnp.full((2, 7), 3), Quantization.filling(-1.0, 1.0, num_levels=8)
    bound = {"quantization": quantization, "num_times": 3, "num_estimates": 2}
    assert_each_key_once(lambda: elbo(keys(2), DENOISER, levels, **bound), 2 * 2 * (1 + 3 * 2 + 1))


def test_the_probes_of_an_example_differ():
    probes = Hutchinson(6).probes(jax.random.key(0), jnp.zeros(40))
    assert len(np.unique(probes, axis=0)) == 6


@pytest.mark.parametrize(
    "dequantizer",
    [UniformDequantizer(), TruncatedNormalDequantizer(), LogitNormalDequantizer(), ModelDequantizer(VP)],
    ids=lambda value: type(value).__name__,
)
def test_every_value_of_every_image_is_dequantized_by_a_draw_of_its_own(dequantizer):
    x, _ = dequantizer(keys(3), jnp.zeros((3, 5), int), Quantization.filling(-1.0, 1.0))
    assert len(np.unique(x)) == 15


def test_draws_of_exact_data_are_independent():
    """Of a mixture, which component and where in it: no key serves both, and no two examples are alike."""
    means, covariances = jnp.array([[0.0, 1.0], [2.0, 3.0]]), jnp.stack([jnp.eye(2)] * 2)
    for law in (exact.GaussianMixture(VP, means, stds=0.1), exact.CorrelatedMixture(VP, means, covariances)):
        assert_each_key_once(lambda law=law: law.sample(jax.random.key(0), 9), 2)
        assert len(np.unique(law.sample(jax.random.key(0), 9))) == 18
