"""Adams methods: orders of convergence, their exact cases, and the rule of one run written out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import VPSDE, Adams, FunctionDenoiser, exact, quadratic_times, sample
from sde_lib.inverse import Inpainting, Replacement
from tests.sde_lib.processes import EVERY_SDE, every_sde, keys, some_sdes
from tests.sde_lib.shared_programs import gaussian_error


@pytest.mark.parametrize("sde", [EVERY_SDE[0], EVERY_SDE[5]], ids=["VP", "EDM"])
@pytest.mark.parametrize(
    "order, corrected, observed, steps",
    [(1, False, 1, (128, 256)), (1, True, 2, (128, 256)), (2, False, 2, (128, 256)), (2, True, 3, (128, 256)),
     (3, True, 4, (128, 256)), (4, True, 5, (64, 128))],
)  # fmt: skip
def test_error_falls_at_the_order(sde, order, corrected, observed, steps):
    """The corrector adds one to the predictor's order. The data's standard deviations are not `data_std`."""
    errors = [gaussian_error(sde, quadratic_times, Adams(order, corrected, 0.4), n) for n in steps]
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), observed, atol=0.2)


@every_sde
def test_a_gaussian_of_the_methods_standard_deviation_is_exact(sde):
    """Then F is 0 at every time, and any step is exact, the last to clean data too; which carries x0 = c x / norm."""
    c = 0.37
    denoiser, start = exact.Gaussian(sde, mean=0.0, std=c), np.linspace(-2, 2, 5)[:, None] * sde.sigma(sde.t_max)
    for denoise in (False, True):
        times = quadratic_times(sde, 3, denoise=denoise)
        x = sample(keys(5), denoiser, Adams(3, data_std=c), times, (1,), x_init=jnp.asarray(start), denoise=denoise)
        norm = np.hypot(c * sde.alpha(sde.t_max), sde.sigma(sde.t_max))
        expected = start * (c / norm if denoise else denoiser.marginal_std(sde.t_min) / norm)
        np.testing.assert_allclose(x, expected, rtol=2e-6)


def test_a_run_is_that_of_the_formulas():
    """Three evaluations with weights added to every step, written out with numpy's polynomials."""
    c, predictor = 0.6, np.array([[0.0, 0.0], [-0.1, 0.1], [0.2, -0.2]])
    corrector = np.array([[7.0, 7.0, 7.0], [0.05, -0.05, 0.0], [-0.3, 0.2, 0.1]])
    sde, times = VPSDE(t_min=1e-3), np.array([1.0, 0.5, 0.2, 0.01])
    denoiser = exact.GaussianMixture(sde, jnp.array([[-1.0], [0.8]]), stds=0.3)
    start = np.linspace(-1.5, 2, 5)[:, None]

    angle, norm = np.arctan2(sde.sigma(times), c * sde.alpha(times)), np.hypot(sde.sigma(times), c * sde.alpha(times))

    def value(z, i):
        x0, noise = denoiser.x0_and_noise(jnp.asarray(z * norm[i]), times[i])
        return np.asarray(np.sin(angle[i]) * x0 / c - np.cos(angle[i]) * noise)

    def integral(i, nodes, values, added):
        coefficients = np.linalg.solve(np.vander(angle[nodes], increasing=True), np.stack(values)[..., 0])  # (K, B)
        powers = np.arange(len(nodes))[:, None] + 1
        area = (coefficients / powers * (angle[i] ** powers - angle[i + 1] ** powers)).sum(0)
        extra = (angle[i] - angle[i + 1]) * (np.asarray(added)[: len(nodes), None] * np.stack(values)[..., 0]).sum(0)
        return (area + extra)[:, None]

    z0 = start / norm[0]
    f0 = value(z0, 0)
    f1 = value(z0 + integral(0, [0], [f0], predictor[0]), 1)
    z1 = z0 + integral(0, [1, 0], [f1, f0], corrector[1])
    f2 = value(z1 + integral(1, [1, 0], [f1, f0], predictor[1]), 2)
    z2 = z1 + integral(1, [2, 1, 0], [f2, f1, f0], corrector[2])
    expected = norm[3] * (z2 + integral(2, [2, 1], [f2, f1], predictor[2]))

    method = Adams(2, data_std=c, predictor=predictor, corrector=corrector)
    x = sample(keys(5), denoiser, method, times, (1,), x_init=jnp.asarray(start), denoise=False)
    np.testing.assert_allclose(x, expected, rtol=1e-9)


@some_sdes
def test_a_small_data_std_is_the_denoisers_polynomial(sde):
    """c -> 0 at order 1 is DDIM: x0 is constant over a step."""
    denoiser, start = exact.Gaussian(sde, mean=0.7, std=0.5), np.linspace(-2, 2, 5)[:, None]
    t, s = jnp.float64(0.8), jnp.float64(0.35)
    method = Adams(1, corrected=False, data_std=1e-5)
    _, x = method.step(method.init(jnp.asarray(start), denoiser, jnp.array([t, s])), keys(5), start, t, s, denoiser)
    x0, noise = denoiser.x0_and_noise(start, t)
    np.testing.assert_allclose(x, sde.alpha(s) * x0 + sde.sigma(s) * noise, rtol=2e-4)


def test_the_last_step_of_replacement_is_the_predictors():
    sde, y = VPSDE(t_min=1e-3), jnp.ones((3, 2))
    denoiser = FunctionDenoiser(sde, lambda x, t: 0.3 * x)
    method, times = Adams(2), jnp.array([1.0, 0.6, 0.4, 0.0])
    nothing = Inpainting(event_shape=(2,), mask=jnp.zeros(2))
    ends = [sample(keys(3), denoiser, each, times, (2,)) for each in (method, Replacement(nothing, 0 * y, method))]
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-6)


@pytest.mark.parametrize(
    "wrong, message", [({"order": 7}, "order=7 must be one of"), ({"data_std": 0.0}, "data_std=0.0")]
)
def test_what_cannot_work_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Adams(**wrong)
