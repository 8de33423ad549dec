"""Sums, products and powers of densities, against those of Gaussians and mixtures."""

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from sde_lib import Composition, Mixture, Temperature, exact, product
from tests.sde_lib.guidance.cases import (
    MEANS,
    STDS,
    WEIGHTS,
    AtThreeTimes,
    assert_same,
    gaussian,
    mixture,
    of_class_a,
    processes,
    views,
)
from tests.sde_lib.processes import every_sde


@every_sde
def test_composition_of_gaussians_of_equal_variance_adds_their_shifts(sde):
    sde, x, t = processes(sde)
    base, first, second = np.array([0.5, 3.0]), np.array([1.0, -2.0]), np.array([-1.0, 0.4])
    weights = np.array([[1.5, 0.0, 1.0], [-0.5, 1.0, 2.0]])
    composed = Composition(gaussian(sde, base), (gaussian(sde, first), gaussian(sde, second)), weights)
    mean = base + weights[0][:, None] * (first - base) + weights[1][:, None] * (second - base)
    assert_same(composed, exact.Gaussian(sde, mean, 0.5), x, t)


@every_sde
def test_a_product_of_gaussians_becomes_their_product_where_noise_ends(sde):
    _, x, t = processes(sde)
    sde = AtThreeTimes(t, np.full(3, sde.alpha(sde.t_min)), np.full(3, sde.sigma(sde.t_min)))
    precision = 1 / 0.5**2 + 1 / 0.8**2
    exactly = gaussian(sde, (0.3 / 0.5**2 - 1.0 / 0.8**2) / precision, precision**-0.5)
    pair = product((gaussian(sde, 0.3, 0.5), gaussian(sde, -1.0, 0.8)))
    # Scores of up to 17 / alpha, each off by n^2 over its variance, relatively.
    bound = 120 * sde.sigmas[0] ** 2 / sde.alphas[0] ** 3
    np.testing.assert_allclose(views(pair, x, t)[3], views(exactly, x, t)[3], rtol=0, atol=bound)


@every_sde
def test_a_mixture_of_denoisers_is_that_of_the_joint_data(sde):
    sde, x, t = processes(sde)
    classes = (of_class_a(sde), exact.GaussianMixture(sde, MEANS[2:], STDS[2:], WEIGHTS[2:] / 0.4))
    joint = Mixture(classes, np.array([0.6, 0.4]))
    assert_same(joint, mixture(sde), x, t)
    # Of given densities, that are known to a constant of x and t, and weights that do not sum to 1 and differ by example.
    logits = Partial(lambda parts, x, t: jnp.stack([p.log_prob(x, t) for p in parts], 1) - x[:, :1] ** 2, classes)
    weights = np.array([[1.2, 3.0, 0.0], [0.8, 0.0, 2.0]])
    result = views(Mixture(classes, weights, logits), x, t)[0]
    expected = [views(d, x, t)[0][i] for i, d in enumerate((mixture(sde), *classes))]
    np.testing.assert_allclose(result, expected, rtol=1e-10)
    equal = Mixture((gaussian(sde, 1.0), gaussian(sde, -1.0)))
    assert_same(equal, exact.GaussianMixture(sde, np.array([[1.0, 1.0], [-1.0, -1.0]]), 0.5), x, t)


@every_sde
def test_a_tempered_gaussian_is_narrower_by_the_root_of_the_temperature(sde):
    sde, x, t = processes(sde)
    temperature = np.array([0.3, 1.0, 2.0])
    tempered = Temperature(gaussian(sde, [0.4, -1.0], 0.6), temperature, 0.6)
    assert_same(tempered, exact.Gaussian(sde, np.array([0.4, -1.0]), 0.6 * np.sqrt(temperature)[:, None]), x, t)
