"""Guidance: closed forms of Gaussians and mixtures, densities whose gradients are the guided scores, and the laws of all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from sde_lib import (
    DDIM,
    EDMSDE,
    SDE,
    VPSDE,
    ClassifierFree,
    ClassifierGuidance,
    Composition,
    CriticallyDampedLangevin,
    DataPrediction,
    Denoiser,
    EDMPreconditioning,
    EnergyGuidance,
    Flat,
    FunctionDenoiser,
    Guided,
    Heun,
    Interval,
    Mixture,
    NetworkClassifier,
    NetworkDenoiser,
    Temperature,
    Thresholding,
    exact,
    karras_times,
    product,
    sample,
)
from sde_lib.struct import Struct
from tests.sde_lib.processes import EVERY_SDE, every_sde, keys

MEANS = np.array([[-1.0, 0.5], [2.0, 1.0], [0.3, -2.0], [1.5, -0.4]])
STDS, WEIGHTS = np.array([0.2, 0.5, 1.0, 0.4]), np.array([0.4, 0.2, 0.3, 0.1])
X = np.array([[0.3, -0.7], [1.5, 2.0], [-4.0, 0.1]])
Z = np.random.default_rng(0).normal(size=(3, 2, 2))  # states of a process with velocities
CLD = CriticallyDampedLangevin(beta=3.0, mass=0.3, gamma=0.1)


def mixture(sde):
    return exact.GaussianMixture(sde, MEANS, stds=STDS, weights=WEIGHTS)


def of_class_a(sde):
    """The data of the first class: two of the four modes."""
    return exact.GaussianMixture(sde, MEANS[:2], stds=STDS[:2], weights=WEIGHTS[:2] / WEIGHTS[:2].sum())


def gaussian(sde, mean, std=0.5):
    return exact.Gaussian(sde, mean=jnp.asarray(mean), std=jnp.asarray(std))


@struct.dataclass
class LogProbabilityOfA(Struct):
    """log p(A | x_t) of the mixture, up to a constant, from two densities."""

    joint: Denoiser
    conditional: Denoiser

    def __call__(self, x, t):
        return self.conditional.log_prob(x, t) - self.joint.log_prob(x, t)


@struct.dataclass
class Linear(Struct):
    """x0 -> slope . x0, a log-likelihood that tilts a Gaussian."""

    slope: jax.Array

    def __call__(self, x0):
        return x0 @ self.slope


@struct.dataclass
class Near(Struct):
    """log N(value; x0, variance), up to a constant."""

    value: jax.Array
    variance: float = 0.3

    def __call__(self, x0):
        return -0.5 * ((x0 - self.value) ** 2).sum(1) / self.variance


class Net:
    """A small network of x, noise level and label, with label 3 for none."""

    rng = np.random.default_rng(1)
    weights, table = 0.5 * rng.normal(size=(2, 2)), rng.normal(size=(4, 2))

    def __init__(self):
        self.calls = []

    def apply(self, variables, x, noise_level, condition, *, train):
        self.calls.append(x.shape)
        return (
            jnp.tanh(x @ variables[0] + 0.1 * noise_level[:, None] * variables[1][condition]) + variables[1][condition]
        )

    def denoiser(self, sde):
        return NetworkDenoiser(sde, EDMPreconditioning(0.5), self, (self.weights, self.table))


NET = Net()
LABELS = np.array([2, 0, 1])

GUIDED = {
    "Guided": lambda sde: Guided(of_class_a(sde), mixture(sde), 2.5),
    "rescaled": lambda sde: Guided(of_class_a(sde), mixture(sde), np.array([0.0, 1.0, 2.5]), 0.7),
    "ClassifierFree": lambda sde: ClassifierFree(NET.denoiser(sde), LABELS, 3, np.array([0.0, 1.0, 2.5]), 0.7),
    "Interval": lambda sde: Interval(of_class_a(sde), mixture(sde), 0.2, 2.0),
    "Composition": lambda sde: Composition(mixture(sde), (of_class_a(sde), gaussian(sde, 1.0)), np.array([1.5, -0.5])),
    "product": lambda sde: product((of_class_a(sde), gaussian(sde, 1.0)), np.ones((2, 3)) * [[0.3], [0.9]]),
    "Mixture": lambda sde: Mixture((of_class_a(sde), gaussian(sde, 1.0)), np.array([0.3, 0.7])),
    "Temperature": lambda sde: Temperature(mixture(sde), np.array([0.5, 1.0, 2.0]), 0.7),
    "ClassifierGuidance": lambda sde: ClassifierGuidance(
        mixture(sde), LogProbabilityOfA(mixture(sde), of_class_a(sde)), np.array([1.0, 0.5, 3.0])
    ),
    "EnergyGuidance": lambda sde: EnergyGuidance(mixture(sde), Near(np.array([0.5, 1.0])), np.array([1.0, 0.5, 3.0])),
    "with draws": lambda sde: EnergyGuidance(
        mixture(sde), Near(np.array([0.5, 1.0])), 1.0, draws=np.random.default_rng(2).normal(size=(5, 2)), data_std=1.3
    ),
    "no derivative": lambda sde: EnergyGuidance(
        mixture(sde), Near(np.array([0.5, 1.0])), 1.0, data_std=1.3, through_denoiser=False
    ),
    "Thresholding": lambda sde: Thresholding(mixture(sde), bound=0.9, quantile=0.6),
    "clipping": lambda sde: Thresholding(mixture(sde), bound=0.9, quantile=None),
    "nested": lambda sde: Interval(
        Thresholding(Guided(of_class_a(sde), mixture(sde), 3.0), bound=1.5), of_class_a(sde), 0.2, 2.0
    ),
}
every_guidance = pytest.mark.parametrize("kind", GUIDED)


@jax.jit
def views(denoiser, x, t):
    x0, noise = denoiser.x0_and_noise(x, t)
    return denoiser(x, t), x0, noise, denoiser.score(x, t)


def assert_same(denoiser, other, x, t, rtol=1e-10, atol=1e-10):
    for got, expected in zip(views(denoiser, x, t), views(other, x, t), strict=True):
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


@struct.dataclass
class AtThreeTimes(SDE):
    """A process at three times, the only ones at which it is asked: one program serves all processes."""

    times: jax.Array
    alphas: jax.Array
    sigmas: jax.Array

    def alpha(self, t):
        return jnp.asarray(self.alphas)[jnp.searchsorted(self.times, t)]

    def sigma(self, t):
        return jnp.asarray(self.sigmas)[jnp.searchsorted(self.times, t)]


@functools.cache
def _processes(place):
    sde = EVERY_SDE[place]
    t = sde.t_min + (sde.t_max - sde.t_min) * np.array([0.02, 0.3, 0.9])
    return AtThreeTimes(t, np.asarray(sde.alpha(t)), np.asarray(sde.sigma(t))), X, t


def processes(sde):
    """The process as it is at three times, a state of each, and the times."""
    return _processes([type(other) for other in EVERY_SDE].index(type(sde)))


# The laws of all.


@every_sde
@every_guidance
def test_expected_data_and_noise_make_up_the_state(kind, sde):
    sde, x, t = processes(sde)
    x0_alone, x0, noise, score = views(GUIDED[kind](sde), x, t)
    alpha, sigma = sde.alphas[:, None], sde.sigmas[:, None]
    np.testing.assert_allclose(x0_alone, x0, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(alpha * x0 + sigma * noise, x, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(score, -noise / sigma, rtol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind in GUIDED if kind not in ("Mixture", "ClassifierGuidance")])
def test_a_state_with_velocities_is_made_up_too(kind):
    t = np.array([0.1, 0.4, 0.9])
    x0_alone, x0, noise, _ = views(GUIDED[kind](CLD), Z, t)
    assert x0.shape == (3, 2)
    np.testing.assert_allclose(x0_alone, x0, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(CLD.perturb(x0, noise, t), Z, rtol=1e-9, atol=1e-9)


@every_guidance
def test_no_example_sees_another(kind):
    """The second row of three is the same alone, and at a scalar time."""
    run, guided = jax.jit(lambda denoiser, x, t: denoiser.x0_and_noise(x, t)), GUIDED[kind](VPSDE())
    one = jax.tree.map(lambda leaf: leaf[..., 1:2] if jnp.shape(leaf)[-1:] == (3,) else leaf, guided)
    for got, alone in zip(run(guided, X, np.array([0.1, 0.4, 0.9])), run(one, X[1:2], 0.4), strict=True):
        np.testing.assert_allclose(got[1:2], alone, rtol=1e-11, atol=1e-11)


@every_guidance
def test_one_program_serves_every_number(kind):
    run = jax.jit(lambda denoiser, x, t: denoiser.noise(x, t))
    guided, t = GUIDED[kind](VPSDE()), 0.5
    other = jax.tree.map(lambda leaf: leaf if jnp.issubdtype(jnp.result_type(leaf), int) else leaf * 0.99, guided)
    assert not np.allclose(run(guided, X, t), run(other, X, t), rtol=1e-4)
    assert run._cache_size() == 1


@struct.dataclass
class Careful(Denoiser):
    """N(mean, std^2), with a noise that has all its digits where little of it is left."""

    mean: float = 8.0
    std: float = 0.5

    def x0_and_noise(self, x, t):
        y, n = self.sde.to_data_scale(x, t), self.sde.noise_to_signal(t)
        away = (y - self.mean) / (self.std**2 + n**2)
        return y - n**2 * away, n * away

    def __call__(self, x, t):
        return self.x0_and_noise(x, t)[0]

    def log_prob(self, x, t):
        return exact.Gaussian(self.sde, self.mean, self.std).log_prob(x, t)


@pytest.mark.parametrize(
    "guide",
    [
        lambda d: Guided(d, d.replace(mean=8.1), 2.0),
        lambda d: Composition(d, (d.replace(mean=8.1), d.replace(mean=7.8)), np.array([0.7, 1.2])),
        lambda d: product((d, d.replace(mean=8.1))),
        lambda d: Mixture((d, d.replace(mean=8.1)), np.array([0.7, 0.3])),
        lambda d: Temperature(d, 0.5, 0.5),
        lambda d: Interval(d, d.replace(mean=8.1), 0.1),
        lambda d: ClassifierGuidance(d, Partial(lambda x, t: 0.7 * x.sum(1)), 1.5),
        lambda d: EnergyGuidance(d, Partial(lambda x: 0.7 * x.sum(1)), 1.5),
        lambda d: EnergyGuidance(d, Partial(lambda x: 0.7 * x.sum(1)), 1.5, through_denoiser=False),
        lambda d: Thresholding(d, bound=9.5),
    ],
)
def test_noise_keeps_float32s_digits_where_little_is_left(guide):
    """(x - x0) / sigma has but 3 of them left: its error is 8e-7 / 0.002."""
    sde, x, t = EDMSDE(), np.array([[7.0, 7.5], [8.3, 9.0]]), 0.002
    exactly = guide(Careful(sde)).noise(x, t)
    with jax.enable_x64(False):
        got = guide(Careful(sde)).noise(jnp.float32(x), jnp.float32(t))
        assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, exactly, rtol=1e-5, atol=1e-8)


Partial = jax.tree_util.Partial


# Two Denoisers.


@every_sde
@pytest.mark.parametrize("scale", [2.5, np.array([0.0, 0.4, 7.0])], ids=["one", "each"])
def test_guidance_between_gaussians_of_equal_variance_moves_the_mean(sde, scale):
    sde, x, t = processes(sde)
    guided = Guided(gaussian(sde, [1.0, -2.0]), gaussian(sde, [0.5, 3.0]), scale)
    mean = np.array([0.5, 3.0]) + np.reshape(scale, (-1, 1)) * np.array([0.5, -5.0])
    assert_same(guided, exact.Gaussian(sde, mean, 0.5), x, t)


@pytest.mark.parametrize("name", ["__call__", "noise", "velocity"])
def test_scales_0_and_1_are_the_two_denoisers_to_the_last_bit(name):
    sde, t = VPSDE(), np.array([0.1, 0.5, 0.9])
    strong, weak, third = of_class_a(sde), mixture(sde), gaussian(sde, 0.3)

    def view(denoiser):
        return np.asarray(getattr(denoiser, name)(X, t))

    for at_0, at_1 in [
        (Guided(strong, weak, 0.0), Guided(strong, weak, 1.0)),
        (Composition(weak, (third, strong), np.zeros(2)), Composition(weak, (third, strong), np.array([0.0, 1.0]))),
        (ClassifierGuidance(weak, LogProbabilityOfA(weak, strong), 0.0), Guided(strong, weak, 1.0, rescale=0.7)),
        (EnergyGuidance(weak, Near(jnp.ones(2)), 0.0), Temperature(strong, 1.0, 0.7)),
        (EnergyGuidance(weak, Near(jnp.ones(2)), 0.0, through_denoiser=False), Thresholding(strong, bound=10.0)),
    ]:
        np.testing.assert_array_equal(view(at_0), view(weak))
        np.testing.assert_array_equal(view(at_1), view(strong))
    each = np.asarray(getattr(Guided(strong, weak, np.array([0.0, 1.0, 2.0])), name)(X, t))
    np.testing.assert_array_equal(each[:2], [view(weak)[0], view(strong)[1]])


def test_the_scales_derivative_is_the_difference_of_the_two():
    """At 0 and 1 too, where an exact result must not have cost the derivative."""
    sde = VPSDE()
    strong, weak = of_class_a(sde), mixture(sde)
    for scale in (0.0, 0.3, 1.0):
        slope = jax.jacfwd(lambda scale: Guided(strong, weak, scale)(X, 0.5))(scale)
        np.testing.assert_allclose(slope, strong(X, 0.5) - weak(X, 0.5), rtol=1e-12)


@pytest.mark.parametrize("no_condition", [3, np.array([3, 0, 2])], ids=["none", "negative"])
def test_one_evaluation_of_twice_the_batch_is_two(no_condition):
    net, sde = Net(), VPSDE()
    network, scale, t = net.denoiser(sde), np.array([0.0, 1.0, 2.5]), np.array([0.1, 0.5, 0.9])
    others = np.broadcast_to(no_condition, 3)
    twice = Guided(network.replace(condition=LABELS), network.replace(condition=others), scale, 0.7).x0_and_noise(X, t)
    assert net.calls == [(3, 2), (3, 2)]
    once = ClassifierFree(network, LABELS, no_condition, scale, 0.7).x0_and_noise(X, t)
    assert net.calls[2:] == [(6, 2)]
    for got, expected in zip(once, twice, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_conditions_of_several_arrays_are_kept_together():
    class Sees:
        def apply(self, variables, x, noise_level, condition, *, train):
            return x + condition["shift"] * condition["factor"][:, None]

    condition = {"shift": np.arange(6.0).reshape(3, 2), "factor": np.array([1.0, 2.0, 3.0])}
    network = NetworkDenoiser(VPSDE(), DataPrediction(), Sees())
    guided = ClassifierFree(network, condition, {"shift": 1.0, "factor": np.array(0.5)}, 2.0)
    np.testing.assert_allclose(guided(X, 0.5), X + 2 * condition["shift"] * [[1], [2], [3]] - 0.5, rtol=1e-12)


def test_rescaling_gives_each_sample_the_spread_it_is_to_have():
    """std = phi std(strong) + (1 - phi) std(guided), each sample's own, in the direction of the guided x0."""
    sde, x = VPSDE(), np.random.default_rng(3).normal(size=(3, 4, 4, 2))
    strong, weak = gaussian(sde, 1.0, np.linspace(0.1, 2, 32).reshape(4, 4, 2)), gaussian(sde, -0.5, 0.4)
    guided = Guided(strong, weak, 5.0)
    for phi in (1.0, 0.7, np.array([0.0, 0.4, 0.9])):
        x0 = np.asarray(guided.replace(rescale=phi)(x, 0.6)).reshape(3, -1)
        plain, conditional = (np.asarray(d(x, 0.6)).reshape(3, -1) for d in (guided, strong))
        np.testing.assert_allclose(x0.std(1), phi * conditional.std(1) + (1 - phi) * plain.std(1), rtol=1e-12)
        np.testing.assert_allclose(np.ptp(x0 / plain, axis=1), 0, atol=1e-12)


def counted(denoiser, calls):
    """The same Denoiser, which notes the times at which it is run (which tracing does not)."""

    def function(x, t):
        jax.debug.callback(lambda t: calls.append(float(t)), t)
        return denoiser(x, t)

    return FunctionDenoiser(denoiser.sde, function)


def test_outside_of_the_interval_guidance_is_not_evaluated():
    sde, inner, outer = VPSDE(), [], []
    strong = of_class_a(sde)
    guided = Guided(strong, counted(mixture(sde), inner), 3.0)
    interval = Interval(guided, counted(strong, outer), 0.2, 2.0)
    levels = np.array([0.05, 0.2, 0.21, 1.0, 1.99, 2.01, 50.0])
    times = sde.time_at_log_snr(-2 * jnp.log(levels * (1 + 1e-9 * np.array([0, -1, 0, 0, 0, 0, 0]))))
    for t in times:
        inner.clear(), outer.clear()
        result = jax.block_until_ready(interval(X, t))
        jax.effects_barrier()
        inside = 0.2 < sde.noise_to_signal(t) <= 2.0
        assert (len(inner), len(outer)) == ((1, 0) if inside else (0, 1))
        np.testing.assert_allclose(result, (Guided(strong, mixture(sde), 3.0) if inside else strong)(X, t), rtol=1e-12)
    each = interval.replace(denoiser=Guided(strong, mixture(sde), 3.0), outside=strong)(X, times[1:4])
    expected = [
        strong(X, times[1])[0],
        *(Guided(strong, mixture(sde), 3.0)(X, t)[i + 1] for i, t in enumerate(times[2:4])),
    ]
    np.testing.assert_allclose(each, expected, rtol=1e-12)


def test_the_intervals_ends():
    """Open below and closed above, as published; and NaN of the one that is not asked does no harm."""
    sde = EDMSDE()
    nan = FunctionDenoiser(sde, lambda x, t: jnp.full_like(x, jnp.nan))
    interval = Interval(nan, gaussian(sde, 0.0), 0.5, 2.0)
    asked = [bool(jnp.isnan(interval(X, jnp.float64(t))).all()) for t in (0.5, 0.5000001, 2.0, 2.0000001)]
    assert asked == [False, True, True, False]
    by_row = jnp.isnan(interval(X, jnp.array([0.5, 2.0, 2.1])))
    np.testing.assert_array_equal(by_row, [[False] * 2, [True] * 2, [False] * 2])


# Likelihoods.


@every_sde
def test_an_exact_classifier_gives_the_conditional_denoiser(sde):
    sde, x, t = processes(sde)
    guided = ClassifierGuidance(mixture(sde), LogProbabilityOfA(mixture(sde), of_class_a(sde)), 1.0)
    assert_same(guided, of_class_a(sde), x, t)


def test_an_exact_classifier_of_states_with_velocities():
    joint, conditional = mixture(CLD), of_class_a(CLD)
    guided = ClassifierGuidance(joint, LogProbabilityOfA(joint, conditional), 1.0)
    assert_same(guided, conditional, Z, np.array([0.1, 0.4, 0.9]))


def test_a_function_or_a_method_is_a_log_likelihood_too():
    sde = VPSDE()
    a, b = gaussian(sde, 1.0), gaussian(sde, -1.0, 0.7)
    by_method = jax.jit(lambda guided: guided.score(X, 0.5))(ClassifierGuidance(a, b.log_prob, 2.0))
    np.testing.assert_allclose(by_method, a.score(X, 0.5) + 2 * b.score(X, 0.5), rtol=1e-10)
    plain = jax.jit(lambda guided: guided.score(X, 0.5))(ClassifierGuidance(a, lambda x, t: 3 * x[:, 1], 2.0))
    np.testing.assert_allclose(plain, a.score(X, 0.5) + np.array([0.0, 6.0]), rtol=1e-10)


class Posterior:
    """A network that is the exact classifier of a mixture's modes; it sees 2 x and 999 t."""

    def apply(self, variables, x, noise_level, condition, *, train):
        assert condition is None and not train
        return variables._log_joint(x / 2, noise_level / 999)[0] + 7.0


def test_a_network_guides_each_example_to_its_label():
    sde, t = VPSDE(), np.array([0.1, 0.5, 0.9])
    classifier = NetworkClassifier(Posterior(), mixture(sde), LABELS, lambda x, t: (2 * x, 999 * t))
    guided = ClassifierGuidance(mixture(sde), classifier, 1.0)
    modes = exact.Gaussian(sde, mean=MEANS[LABELS], std=STDS[LABELS][:, None])
    assert_same(guided, modes, X, t)
    probability = np.exp(np.stack([classifier.replace(labels=k)(X, t) for k in range(4)]))
    np.testing.assert_allclose(probability.sum(0), 1, rtol=1e-12)


# Denoisers p, a and g -> the guided one; and their densities -> the density of which its score is to be the gradient.
DENSITIES = {
    "Guided": (lambda p, a, g: Guided(a, p, 2.5), lambda p, a, g: p + 2.5 * (a - p)),
    "ClassifierGuidance": (lambda p, a, g: ClassifierGuidance(p, g.log_prob, 2.5), lambda p, a, g: p + 2.5 * g),
    "Composition": (
        lambda p, a, g: Composition(p, (a, g), np.array([1.5, -0.5])),
        lambda p, a, g: p + 1.5 * (a - p) - 0.5 * (g - p),
    ),
    "product": (lambda p, a, g: product((a, g)), lambda p, a, g: a + g),
    "weighted": (lambda p, a, g: product((a, g), np.array([0.3, 0.9])), lambda p, a, g: 0.3 * a + 0.9 * g),
    "Mixture": (
        lambda p, a, g: Mixture((a, g), np.array([0.3, 0.7])),
        lambda p, a, g: jnp.logaddexp(np.log(0.3) + a, np.log(0.7) + g),
    ),
    "Temperature": (lambda p, a, g: Temperature(p, 0.4, jnp.inf), lambda p, a, g: p / 0.4),
    "Flat": (lambda p, a, g: Flat(p.sde), lambda p, a, g: 0 * p),
}


@functools.partial(jax.jit, static_argnums=0)
def score_and_gradient(kind, sde, x, t):
    parts = mixture(sde), of_class_a(sde), gaussian(sde, 1.0)
    guided, density = DENSITIES[kind]
    gradient = jax.grad(lambda x: density(*(part.log_prob(x, t) for part in parts)).sum())(x)
    return guided(*parts).score(x, t), gradient


@every_sde
@pytest.mark.parametrize("kind", DENSITIES)
def test_the_score_is_the_gradient_of_the_guided_density(kind, sde):
    """Of every guidance that has one, by automatic differentiation."""
    score, gradient = score_and_gradient(kind, *processes(sde))
    np.testing.assert_allclose(score, gradient, rtol=1e-8, atol=1e-8)


@jax.jit
def energy_score_and_gradient(sde, x, t):
    p, near = mixture(sde), Near(jnp.array([0.5, 1.0]))
    gradient = jax.grad(lambda x: (p.log_prob(x, t) + 2.5 * near(p(x, t))).sum())(x)
    return EnergyGuidance(p, near, 2.5).score(x, t), gradient


@every_sde
def test_an_energys_gradient_is_that_of_the_energy_of_the_expected_data(sde):
    score, gradient = energy_score_and_gradient(*processes(sde))
    np.testing.assert_allclose(score, gradient, rtol=1e-8, atol=1e-8)


@every_sde
@pytest.mark.parametrize("through_denoiser", [True, False])
def test_a_linear_energy_tilts_a_gaussian_exactly(sde, through_denoiser):
    """N(m, s^2) exp(b x0) is N(m + s^2 b, s^2) to a factor; draws change nothing."""
    sde, x, t = processes(sde)
    slope, std = np.array([0.7, -1.2]), 0.6
    prior = gaussian(sde, [0.4, 1.0], std)
    draws = np.random.default_rng(0).normal(size=(4, 2))
    tilted = exact.Gaussian(sde, mean=np.array([0.4, 1.0]) + std**2 * 1.5 * slope, std=std)
    for options in ({}, {"draws": draws}):
        guided = EnergyGuidance(prior, Linear(slope), 1.5, data_std=std, through_denoiser=through_denoiser, **options)
        assert_same(guided, tilted, x, t)


@pytest.mark.parametrize("through_denoiser", [True, False])
@pytest.mark.parametrize("sde, x", [(EVERY_SDE[1], X[:, :1]), (CLD, Z[:, :1])], ids=["SubVPSDE", "velocities"])
def test_draws_of_the_posterior_give_the_exact_likelihood(sde, x, through_denoiser):
    """A Gaussian's posterior is Gaussian, and a Gaussian measurement's posterior known; the draws are its quantiles."""
    t = np.array([0.1, 0.4, 0.9])
    mean, std, value, variance = 0.4, 0.6, 1.3, 0.2
    draws = jax.scipy.stats.norm.ppf((np.arange(4000) + 0.5) / 4000)[:, None]
    prior = gaussian(sde, mean, std)
    guided = EnergyGuidance(
        prior, Near(np.array([value]), variance), draws=draws, data_std=std, through_denoiser=through_denoiser
    )
    precision = 1 / std**2 + 1 / variance
    posterior = exact.Gaussian(sde, (mean / std**2 + value / variance) / precision, precision**-0.5)
    assert_same(guided, posterior, x, t, rtol=1e-3, atol=1e-3)


# Sums, products, powers.


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


# Thresholds.


def constant(x0):
    return FunctionDenoiser(VPSDE(), lambda x, t: jnp.asarray(x0))


def test_thresholds_are_quantiles_of_each_sample():
    x0 = np.array([np.linspace(-3, 3, 601), np.linspace(-0.9, 0.9, 601), np.linspace(0, 12, 601)])
    x = np.zeros_like(x0)
    # Of |x0| uniform on [0, 3] 80 % lie below 2.4; within the range nothing moves; of [0, 12] it is 9.6.
    expected = [np.clip(x0[0], -2.4, 2.4) / 2.4, x0[1], np.clip(x0[2], 0, 9.6) / 9.6]
    np.testing.assert_allclose(Thresholding(constant(x0), 1.0, 0.8)(x, 0.5), expected, atol=1e-12)
    expected = [np.clip(x0[0], -2.4, 2.4) * 2 / 2.4, x0[1], np.clip(x0[2], 0, 9.6) * 2 / 9.6]
    np.testing.assert_allclose(Thresholding(constant(x0), 2.0, 0.8)(x, 0.5), expected, atol=1e-12)
    np.testing.assert_array_equal(Thresholding(constant(x0), 2.0, None)(x, 0.5), np.clip(x0, -2, 2))


# Sampling.


def test_methods_sample_from_the_guided_as_from_the_exact():
    sde = VPSDE(t_min=1e-3)
    times, joint, conditional = karras_times(sde, 20), mixture(sde), of_class_a(sde)
    strong, weak, scale = gaussian(sde, [1.0, -2.0]), gaussian(sde, [0.5, 3.0]), np.linspace(-1, 4, 16)
    moved = exact.Gaussian(sde, np.array([0.5, 3.0]) + scale[:, None] * np.array([0.5, -5.0]), 0.5)
    classifier = LogProbabilityOfA(joint, conditional)
    for method, guided, expected in [
        (Heun(), ClassifierGuidance(joint, classifier, 1.0), conditional),
        (DDIM(eta=0.5), Guided(strong, weak, scale), moved),
    ]:
        got, expected = (sample(keys(16), denoiser, method, times, (2,)) for denoiser in (guided, expected))
        np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-7)


def test_a_run_pays_for_guidance_within_the_interval_only():
    sde, calls = VPSDE(t_min=1e-3), []
    strong, times = of_class_a(sde), karras_times(sde, 12)
    guided = Guided(strong, counted(mixture(sde), calls), 3.0)
    jax.block_until_ready(sample(keys(4), Interval(guided, strong, 0.2, 2.0), DDIM(), times, (2,)))
    jax.effects_barrier()
    levels = sde.noise_to_signal(times[:-1])
    inside = (levels > 0.2) & (levels <= 2.0)
    assert 1 < inside.sum() < 10
    np.testing.assert_allclose(sorted(calls), times[:-1][inside][::-1], rtol=1e-6)
