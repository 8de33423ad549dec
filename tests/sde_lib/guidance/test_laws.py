"""What holds of every guidance: its views agree, its numbers are leaves, and its score is the gradient of its density."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jax.tree_util import Partial

from sde_lib import (
    DDIM,
    EDMSDE,
    VPSDE,
    ClassifierFree,
    ClassifierGuidance,
    Composition,
    Denoiser,
    EnergyGuidance,
    Flat,
    Guided,
    Heun,
    Interval,
    Mixture,
    Temperature,
    Thresholding,
    exact,
    guidance,
    karras_times,
    product,
    sample,
)
from tests.sde_lib.guidance.cases import (
    CLD,
    LABELS,
    LogProbabilityOfA,
    Near,
    Net,
    X,
    Z,
    gaussian,
    mixture,
    of_class_a,
    processes,
    views,
)
from tests.sde_lib.processes import every_sde, keys

# Scale 1 is the conditional model, no bounds are those of all noise levels, and T = 1 is the data as they are.
SCALED = {"scale": 1.0}
DEFAULTS = {
    "ClassifierFree": {**SCALED, "rescale": None},
    "ClassifierGuidance": SCALED,
    "EnergyGuidance": {**SCALED, "draws": None, "data_std": 1.0, "through_denoiser": True},
    "Guided": {**SCALED, "rescale": None},
    "Interval": {"low": 0.0, "high": np.inf},
    "Mixture": {"weights": None, "log_densities": None},
    "NetworkClassifier": {"inputs": None, "dropout_keys": None},
    "Temperature": {"temperature": 1.0, "data_std": 1.0},
    "Thresholding": {"bound": 1.0, "quantile": 0.995},  # Saharia et al. (2022): 0.95 to 0.999
    "product": {"weights": None},
}


def test_defaults_are_those_of_the_sources():
    found = {
        name: {
            key: p.default
            for key, p in inspect.signature(getattr(guidance, name)).parameters.items()
            if p.default is not p.empty and not key.startswith("_")
        }
        for name in guidance.__all__
    }
    assert {name: values for name, values in found.items() if values} == DEFAULTS


NET = Net()
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


@pytest.mark.parametrize(
    "guide",
    [
        lambda d: Guided(d, d, np.array([0.5, 2.0])),
        lambda d: Guided(d, d, 2.0, rescale=0.7),
        lambda d: Composition(d, (d, d), np.array([0.7, 1.2])),
        lambda d: product((d, d), np.array([[0.7, 1.2], [0.1, 0.3]])),
        lambda d: Temperature(d, 0.5),
        lambda d: Interval(d, d, 0.1, 2.0),
        lambda d: Thresholding(d),
        lambda d: EnergyGuidance(d, Partial(lambda x0: x0.sum(1))),
        lambda d: ClassifierGuidance(d, Partial(lambda x, t: x.sum(1))),
    ],
)
def test_guidance_has_the_dtype_of_its_denoisers(guide):
    """Whatever the precision of scales and weights for each example; nothing is computed here."""
    x = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    denoiser, t = guide(Careful(EDMSDE())), jnp.float32(0.5)
    assert jax.eval_shape(lambda x: denoiser.x0_and_noise(x, t), x) == (x, x)
    assert jax.eval_shape(lambda x: denoiser(x, t), x) == x


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
