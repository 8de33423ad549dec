"""An image is the vector of its numbers: whatever is computed of images is what is computed of them as vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import (
    DDIM,
    DEIS,
    SSCS,
    VPSDE,
    Adams,
    Ancestral,
    CriticallyDampedLangevin,
    EulerMaruyama,
    ExactDivergence,
    FunctionDenoiser,
    Heun,
    Hutchinson,
    Langevin,
    LogitNormalDequantizer,
    ModelDequantizer,
    PredictorCorrector,
    Quantization,
    ReverseDiffusion,
    SinglestepDPMSolver,
    TruncatedNormalDequantizer,
    UniformDequantizer,
    UniPC,
    denoising_score_matching,
    exact,
    implicit_score_matching,
    sliced_score_matching,
)
from sde_lib.flow import spherical
from sde_lib.losses import rademacher
from sde_lib.randomness import standard_normal
from sde_lib.variational_bound import _diffusion, _prior, _reconstruction
from tests.sde_lib.processes import keys

IMAGE, VECTOR, B = (2, 3, 2), (12,), 3
RNG = np.random.default_rng(0)
X, X0, NOISE, VELOCITY = RNG.normal(size=(4, B, 12))
LEVELS = RNG.integers(0, 8, (B, 12))
MEANS, STD, COVARIANCES = RNG.normal(size=(2, 12)), RNG.uniform(0.3, 2.0, 12), np.empty((2, 12, 12))
for i in range(2):
    root = RNG.normal(size=(12, 12)) / 3
    COVARIANCES[i] = root @ root.T + 0.1 * np.eye(12)
MATRIX, Y = RNG.normal(size=(4, 12)), RNG.normal(size=4)
T = np.array([0.2, 0.5, 0.9])
VP, CDL = VPSDE(t_min=1e-2), CriticallyDampedLangevin()
QUANTIZATION = Quantization.filling(-1.0, 1.0, 8)

METHODS = [
    DDIM(eta=0.5), DEIS(2), Adams(2), Ancestral(), EulerMaruyama(), ReverseDiffusion(), Heun(churn=1.0), UniPC(2),
    SinglestepDPMSolver(3, tau=0.5), PredictorCorrector(),
    *(Langevin(0.1, 2, norm) for norm in ("process", "sample", "batch")),
]  # fmt: skip


def of_shape(shape, *values):
    found = [jnp.asarray(value).reshape(B, *shape) for value in values]
    return found if len(found) > 1 else found[0]


def two_steps(method, denoiser, x):
    times = jnp.array([0.8, 0.5, 0.3, 0.0])
    carry = method.init(x, denoiser, times)
    for i in range(2):
        carry, x = method.step(carry, jax.random.split(jax.random.key(i), B), x, times[i], times[i + 1], denoiser)
    return x


def by_method(method):
    return lambda shape: two_steps(method, FunctionDenoiser(VP, lambda x, t: jnp.tanh(x) + 0.1), of_shape(shape, X))


def of_velocities(method):
    denoiser = FunctionDenoiser(CDL, lambda z, t: jnp.tanh(z[..., 0]) + 0.1)
    return lambda shape: two_steps(method, denoiser, jnp.stack(of_shape(shape, X, VELOCITY), -1))


def score(x, t):
    return jnp.tanh(x) - 0.3 * jnp.roll(x.reshape(B, -1), 1, 1).reshape(x.shape)


def laws(make):
    """Density and mean of x at times of its own for each, and draws, if any."""

    def evaluate(shape):
        law, x = make(shape), of_shape(shape, X)
        found = [law(x, T)]
        if hasattr(law, "log_prob"):
            draws = law.sample(jax.random.key(1), (5, *shape) if isinstance(law, exact.Gaussian) else 5)
            found += [law.log_prob(x, T), draws.reshape(5, *shape)]
        return found

    return evaluate


def state_views(sde):
    def evaluate(shape):
        x, x0, noise = of_shape(shape, X, X0, NOISE)
        if sde is CDL:
            x, noise = jnp.stack([x, noise], -1), jnp.stack([noise, x], -1)
        return [
            sde.prior_log_prob(x), sde.log_prob_beyond_data_scale(x, T), sde.prior_sample(jax.random.key(0), shape),
            sde.perturb(x0, noise, T), sde.to_data_scale(x, T), sde.noise_from_x0(x, x0, T), sde.drift(x, T),
            sde.score_from_noise(noise, T), sde.velocity_from_x0_and_noise(x, x0, noise, T),
            sde.transition(x, 0.5 * T, T)[0],
        ]  # fmt: skip

    return evaluate


def dequantized(dequantizer):
    return lambda shape: dequantizer(keys(B), of_shape(shape, LEVELS), QUANTIZATION)


def bound(shape):
    x0, denoiser = of_shape(shape, X0), FunctionDenoiser(VP, lambda x, t: jnp.tanh(x))
    levels = of_shape(shape, LEVELS)
    return [
        _prior(keys(B), VP, x0),
        _diffusion(keys(B), denoiser, x0, 0.5, 2),
        _reconstruction(keys(B), VP, x0, x0, None),
        _reconstruction(keys(B), VP, levels, QUANTIZATION.centre(levels), QUANTIZATION),
    ]


def divergences(shape):
    x = jnp.zeros(shape)
    derivative = lambda u: (COVARIANCES[0] @ u.ravel()).reshape(shape)  # noqa: E731
    signs, normal = (Hutchinson(3, kind) for kind in ("rademacher", "gaussian"))
    probes = [estimator.probes(jax.random.key(0), x) for estimator in (signs, normal)]
    estimates = [estimator(derivative, x, probe) for estimator, probe in zip((signs, normal), probes, strict=True)]
    return [*probes, *estimates, ExactDivergence(5)(derivative, x, None)]


def loss(shape):
    denoiser = FunctionDenoiser(VP, lambda x, t: jnp.tanh(x))
    return denoising_score_matching(keys(B), denoiser, of_shape(shape, X0), return_times=True)


CASES = {
    **{str(method): by_method(method) for method in METHODS},
    **{f"{method} of velocities": of_velocities(method) for method in (SSCS(), SSCS(2), EulerMaruyama())},
    "views": state_views(VP),
    "views of velocities": state_views(CDL),
    "Gaussian": laws(lambda shape: exact.Gaussian(VP, MEANS[0].reshape(shape), STD.reshape(shape))),
    "Gaussian of velocities": lambda shape: exact.Gaussian(CDL, 0.3, STD.reshape(shape)).log_prob(
        jnp.stack(of_shape(shape, X, VELOCITY), -1), T
    ),
    "CorrelatedGaussian": laws(lambda shape: exact.CorrelatedGaussian(VP, MEANS[0].reshape(shape), COVARIANCES[0])),
    "GaussianMixture": laws(lambda shape: exact.GaussianMixture(VP, MEANS.reshape(2, *shape), np.array([0.3, 0.8]))),
    "CorrelatedMixture": laws(lambda shape: exact.CorrelatedMixture(VP, MEANS.reshape(2, *shape), COVARIANCES)),
    "posterior": laws(
        lambda shape: exact.CorrelatedMixture(VP, MEANS.reshape(2, *shape), COVARIANCES).given(MATRIX, Y, 0.3)
    ),
    **{
        type(each).__name__: dequantized(each)
        for each in (
            UniformDequantizer(), TruncatedNormalDequantizer(), LogitNormalDequantizer(), ModelDequantizer(VP),
        )
    },
    "bound": bound,
    "divergence": divergences,
    "denoising": loss,
    "implicit": lambda shape: implicit_score_matching(score, of_shape(shape, X), T),
    "sliced": lambda shape: sliced_score_matching(keys(B), score, of_shape(shape, X), T, probes=2),
    "sliced without |s|^2": lambda shape: sliced_score_matching(
        keys(B), score, of_shape(shape, X), T, variance_reduced=False
    ),
    "draws": lambda shape: [draw(keys(B), of_shape(shape, X)) for draw in (standard_normal, rademacher)],
    "spherical": lambda shape: jax.vmap(spherical, (0, 0, None))(*of_shape(shape, X, X0), 0.3),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_image_is_the_vector_of_its_numbers(case):
    of_image, of_vector = (jax.tree.leaves(CASES[case](shape)) for shape in (IMAGE, VECTOR))
    for image, vector in zip(of_image, of_vector, strict=True):
        np.testing.assert_allclose(np.ravel(image), np.ravel(vector), rtol=1e-9, atol=1e-12)
