"""Song et al.'s projections for MRI and CT: the law of one step, a whole run, and the back-projection that they take."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from sde_lib import VESDE, VPSDE, Ancestral, Langevin, ReverseDiffusion, exact, log_snr_times, sample
from sde_lib.guidance import Interval
from sde_lib.inverse import (
    DDNM,
    CompletedRadon,
    FourierSampling,
    Projection,
    Radon,
    filtered_back_projection,
)
from sde_lib.struct import Struct
from tests.sde_lib.inverse.assembled import matrix
from tests.sde_lib.inverse.dense import Dense
from tests.sde_lib.inverse.test_posterior_methods import MATRIX, MEASUREMENT, Scaled, T, X, Y, assert_law, knows, run
from tests.sde_lib.processes import keys

NULL = np.eye(X.shape[1]) - np.linalg.pinv(MATRIX) @ MATRIX
both_sdes = pytest.mark.parametrize("sde", [VPSDE(), VESDE(sigma_max=20.0)], ids=lambda sde: type(sde).__name__)


@struct.dataclass
class Doubles(Struct):
    """A corrector that multiplies x by 2, to see what is done around it."""

    evaluations_per_step = 0

    def correct(self, keys, x, t, denoiser):
        return 2 * x


@both_sdes
@pytest.mark.parametrize("corrector, factor", [(None, 1), (Doubles(), 2)], ids=["alone", "corrected"])
def test_the_predictor_starts_from_y_as_it_is_at_its_time(sde, corrector, factor):
    """The corrector's doubling is seen where nothing is measured only: there is a projection after it too."""
    x = run(Projection(MEASUREMENT, Y, Scaled(3.0), corrector), X, knows(sde))
    assert_law(x @ MATRIX.T, 3 * sde.alpha(T) * Y[0], 9 * sde.sigma(T) ** 2 * MATRIX @ MATRIX.T)
    np.testing.assert_allclose(x @ NULL, np.broadcast_to(3 * factor * X @ NULL, x.shape), atol=1e-10)


def test_the_corrector_starts_from_y_too():
    """Half of the way twice, with a doubling between: 0.5 y + 0.5 (2 (0.5 y + 0.5 x)) = y + 0.5 x, in the mean."""
    sde = VPSDE()
    x = run(Projection(MEASUREMENT, Y, Scaled(), Doubles(), relaxation=0.5), X, knows(sde))
    variance = (0.5**2 + 0.5**2) * sde.sigma(T) ** 2
    assert_law(x @ MATRIX.T, sde.alpha(T) * Y[0] + 0.5 * (X @ MATRIX.T)[0], variance * MATRIX @ MATRIX.T)


def test_in_k_space_it_is_the_mixture_that_the_paper_has():
    """Of complex images, as good as without noise: (1 - lambda) x + lambda y on the lines, x beside them."""
    rng = np.random.default_rng(0)
    sde, mask = VESDE(sigma_min=1e-9, sigma_max=10.0), rng.random((6, 8)) < 0.4
    measurement = FourierSampling(event_shape=(6, 8, 2), mask=mask)
    x, truth = rng.normal(size=(2, 6, 8)) + 1j * rng.normal(size=(2, 6, 8))

    def centred(function, z):
        return np.fft.fftshift(function(np.fft.ifftshift(z), norm="ortho"))

    k = centred(np.fft.fft2, x)
    expected = centred(np.fft.ifft2, np.where(mask, 0.3 * k + 0.7 * centred(np.fft.fft2, truth), k))
    as_channels = lambda z: np.stack([z.real, z.imag], -1)[None]  # noqa: E731
    y = measurement.forward(jnp.asarray(as_channels(truth)))
    got = run(Projection(measurement, y, Scaled(), relaxation=0.7), as_channels(x), knows(sde), n=1, t=0.0, s=0.0)
    np.testing.assert_allclose(got, as_channels(expected), atol=1e-7)


def test_a_run_that_ends_with_y_itself():
    """The exact posterior where pixels are independent: measured pixels are y, others the prior's."""
    sde, n = VPSDE(t_min=1e-4), 2000
    measurement = Dense(event_shape=(2,), matrix=np.array([[1.0, 0.0]]))
    y, prior, times = np.array([[1.3]]), exact.Gaussian(sde, 0.4, 0.8), log_snr_times(sde, 60)
    end = Interval(DDNM(prior, measurement, y), prior, high=sde.noise_to_signal(times[-2]) * 1.001)
    x = np.asarray(sample(keys(n), end, Projection(measurement, y, Ancestral()), times, (2,)))
    np.testing.assert_allclose(x[:, 0], 1.3, rtol=1e-12)
    np.testing.assert_allclose([x[:, 1].mean(), x[:, 1].std()], [0.4, 0.8], atol=4 * 0.8 / np.sqrt(n))


def test_evaluations_are_the_predictors_and_the_correctors():
    assert Projection(MEASUREMENT, Y).nfe(11) == 11
    assert Projection(MEASUREMENT, Y, ReverseDiffusion(), Langevin(steps=2)).nfe(11) == 31


def test_sample_i_depends_on_its_key_alone():
    denoiser = exact.Gaussian(VPSDE(), 0.4, 0.8)
    grid, method = log_snr_times(denoiser.sde, 4), Projection(MEASUREMENT, Y, corrector=Langevin())
    x = sample(keys(3), denoiser, method, grid, X.shape[1:])
    np.testing.assert_allclose(sample(keys(3)[2:], denoiser, method, grid, X.shape[1:])[0], x[2], rtol=1e-10)


def test_what_is_not_linear_is_refused():
    with pytest.raises(ValueError, match="Projection needs a linear measurement: object has no `pseudo_inverse`"):
        Projection(object(), Y)
    with pytest.raises(ValueError, match="Projection: relaxation=0 must be more than 0"):
        Projection(MEASUREMENT, Y, relaxation=0)


SIZE = 12
SPARSE = {"event_shape": (SIZE, SIZE, 1), "angles": np.pi * np.arange(4) / 4}


def test_a_completed_back_projection_is_that_of_all_angles_with_zeros_for_those_without_data():
    radon, full = CompletedRadon(**SPARSE), Radon(event_shape=(SIZE, SIZE, 1), angles=np.pi * np.arange(SIZE) / SIZE)
    y = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, radon.num_detectors(), 1)))
    filled = jnp.zeros((2, SIZE, *y.shape[2:])).at[:, :: SIZE // 4].set(y)
    np.testing.assert_allclose(radon.pseudo_inverse(y), filtered_back_projection(full, filled), atol=1e-12)


def test_a_completed_back_projection_does_not_overshoot():
    """x <- x + A^+ (y - A x) converges where the eigenvalues of A^+ A are below 2; plain back-projection's are not."""
    radon = CompletedRadon(**SPARSE)
    forward = matrix(radon)
    y = jnp.eye(len(forward)).reshape(len(forward), 4, radon.num_detectors(), 1)
    for back, below in ((radon.pseudo_inverse, True), (lambda y: filtered_back_projection(radon, y), False)):
        eigenvalues = np.linalg.eigvals(np.asarray(back(y)).reshape(len(forward), -1).T @ forward)
        assert (np.abs(eigenvalues).max() < 2) == below
        assert eigenvalues.real.min() > -0.1
