"""Runs of the exponential integrators, written out with Lagrange polynomials and Gauss's quadrature of many points."""

import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import DEIS, VPSDE, DPMSolver, SinglestepDPMSolver, UniPC, exact
from sde_lib.randomness import fold_in, split, standard_normal
from tests.sde_lib.processes import keys

SDE = VPSDE(t_min=1e-3)
DENOISER = exact.GaussianMixture(SDE, np.array([[-1.0], [0.8]]), stds=0.3)
TIMES = np.array([1.0, 0.7, 0.45, 0.2, 0.05])
X = np.array([[0.4], [-1.2], [1.9]])
ALPHA = np.exp(-0.25 * 19.9 * TIMES**2 - 0.05 * TIMES)
HALF = np.log(ALPHA / np.sqrt(1 - ALPHA**2))
VARIABLES = {
    "log_snr": lambda half: half,
    "angle": lambda half: np.arctan(np.exp(-half)),
    "time": lambda half: np.asarray(SDE.time_at_log_snr(2 * half)),
}


def value(of_noise, y, t):
    """The Denoiser or its noise at x = alpha y."""
    x0, noise = DENOISER.x0_and_noise(SDE.alpha(t) * y, t)
    return np.asarray(noise if of_noise else x0)


def integral(kernel, variable, start, end, nodes, values):
    """Of the kernel times the polynomial through the values at the nodes, lambda from start to end."""
    points, weights = np.polynomial.legendre.leggauss(60)
    half = start + (end - start) * 0.5 * (points + 1)
    at, along = [variable(node) for node in nodes], variable(half)
    total = 0
    for k, f in enumerate(values):
        polynomial = np.prod([(along - v) / (at[k] - v) for m, v in enumerate(at) if m != k], axis=0)
        total = total + 0.5 * (end - start) * (weights * kernel(half, end) * polynomial).sum() * f
    return total


def kernel_of(of_noise, tau):
    """What the value at lambda counts for in y at the end of a step."""
    rate = 1 + tau**2
    return (lambda half, end: -np.exp(-half)) if of_noise else lambda half, end: rate * np.exp(-rate * (end - half))


def base(y, start, end, tau, noise):
    """What is left of y, and the noise of the step."""
    h = end - start
    return np.exp(-(1 + tau**2) * h) * y + np.exp(-end) * np.sqrt(-np.expm1(-2 * tau**2 * h)) * noise


def expected_run(order, variable, *, of_noise=False, corrected=False, tau=0.0, final=False):
    kernel, variable, y = kernel_of(of_noise, tau), VARIABLES[variable], X / ALPHA[0]
    values, left = [], None
    for i in range(4):
        values.insert(0, value(of_noise, y, TIMES[i]))
        nodes = list(HALF[i::-1])
        if (corrected and i > 0) or (order == 3 and i == 1):
            y = left + integral(kernel, variable, HALF[i - 1], HALF[i], nodes[: order + 1], values[: order + 1])
        used = min(order, 4 - i) if final else order
        noise = np.asarray(standard_normal(fold_in(keys(3), i), jnp.asarray(X)))
        left = y if of_noise else base(y, HALF[i], HALF[i + 1], tau, noise)
        y = left + integral(kernel, variable, HALF[i], HALF[i + 1], nodes[:used], values[:used])
    return ALPHA[4] * y


RUNS = [
    (DPMSolver(1), (1, "log_snr"), {}),
    (DPMSolver(2), (2, "log_snr"), {}),
    (DPMSolver(3), (3, "log_snr"), {}),
    (DPMSolver(3, "angle", lower_order_final=True), (3, "angle"), {"final": True}),
    (DPMSolver(2, tau=0.6), (2, "log_snr"), {"tau": 0.6}),
    (UniPC(1), (1, "log_snr"), {"corrected": True}),
    (UniPC(2, "angle", tau=1.0), (2, "angle"), {"corrected": True, "tau": 1.0}),
    (UniPC(3, "time"), (3, "time"), {"corrected": True}),
    (DEIS(2), (2, "time"), {"of_noise": True}),
    (DEIS(3, lower_order_final=True), (3, "time"), {"of_noise": True, "final": True}),
    (DEIS(2, "log_snr", corrected=True), (2, "log_snr"), {"of_noise": True, "corrected": True}),
]


@pytest.mark.parametrize("method, rule, options", RUNS, ids=lambda value: str(value)[:40])
def test_a_run_of_four_steps_is_that_of_the_formulas(method, rule, options):
    """The values known so far, the newest first; the first step of order 3, or each corrected one, is done again."""
    x, times = jnp.asarray(X), jnp.asarray(TIMES)
    carry = method.init(x, DENOISER, times)
    for i in range(4):
        carry, x = method.step(carry, fold_in(keys(3), i), x, times[i], times[i + 1], DENOISER)
    np.testing.assert_allclose(x, expected_run(*rule, **options), rtol=1e-8)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("tau", [0.0, 0.8])
def test_a_singlestep_run_is_that_of_the_formulas(order, tau):
    """Stages at equal parts of the step in log-SNR; each polynomial goes through the first value and the newest."""
    method, start, end = SinglestepDPMSolver(order, tau), HALF[1], HALF[2]
    _, found = method.step((), keys(3), jnp.asarray(X), *jnp.asarray(TIMES[1:3]), DENOISER)
    kernel, y = kernel_of(False, tau), X / ALPHA[1]
    nodes, values, left = [start], [value(False, y, TIMES[1])], y
    for i, key in enumerate(split(keys(3), order)):
        stop = start + (i + 1) / order * (end - start)
        left = base(
            left, start + i / order * (end - start), stop, tau, np.asarray(standard_normal(key, jnp.asarray(X)))
        )
        y = left + integral(
            kernel, VARIABLES["log_snr"], start, stop, nodes[:1] + nodes[1:][-1:], values[:1] + values[1:][-1:]
        )
        nodes.append(stop)
        values.append(value(False, y, SDE.time_at_log_snr(2 * stop)))
    np.testing.assert_allclose(found, ALPHA[2] * y, rtol=1e-8)
