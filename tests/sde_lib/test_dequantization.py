"""Bits per dimension of levels: 8.000 for uniform noise, exact entropies for known laws, and bounds that are bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import struct

from sde_lib import (
    VPSDE,
    Denoiser,
    ExactDivergence,
    LogitNormalDequantizer,
    ModelDequantizer,
    Quantization,
    TruncatedNormalDequantizer,
    UniformDequantizer,
    bits_per_dim,
    dequantize,
    exact,
    log_likelihood,
)
from sde_lib.dequantization import log_prob_of_levels
from sde_lib.sde import expand
from tests.sde_lib.processes import keys

pytestmark = pytest.mark.thorough

RANGES = [Quantization.filling(-1.0, 1.0), Quantization.filling(0.0, 1.0), Quantization.between(-1.0, 1.0)]
DEQUANTIZERS = [
    UniformDequantizer(),
    TruncatedNormalDequantizer(0.2),
    TruncatedNormalDequantizer(3.0),
    LogitNormalDequantizer(),
    LogitNormalDequantizer(0.7, 0.5),
]


@struct.dataclass
class Uniform(Denoiser):
    """The exact Denoiser of data uniform on [low, high] in every dimension: the mean of a truncated normal."""

    low: float
    high: float

    def __call__(self, x, t):
        y, s = x / expand(self.sde.alpha(t), x), expand(self.sde.noise_to_signal(t), x)
        a, b = (self.low - y) / s, (self.high - y) / s
        # Mirrored so that the difference of two distribution functions is never that of two numbers close to 1.
        mirrored = a + b > 0
        a, b = jnp.where(mirrored, -b, a), jnp.where(mirrored, -a, b)
        norm = jax.scipy.stats.norm
        log_mass = norm.logcdf(b) + jnp.log1p(-jnp.exp(norm.logcdf(a) - norm.logcdf(b)))
        shift = jnp.exp(norm.logpdf(a) - log_mass) - jnp.exp(norm.logpdf(b) - log_mass)
        return y + s * jnp.where(mirrored, -shift, shift)


def noise_images(shape, num_levels=256):
    return jax.random.randint(jax.random.key(5), shape, 0, num_levels)


@pytest.mark.parametrize("quantization", RANGES, ids=["[-1,1]", "[0,1]", "2q/255-1"])
def test_uniform_noise_under_its_density_has_8_bits(quantization):
    x = dequantize(keys(16), noise_images((16, 5)), quantization)
    log_prob = jnp.full(16, -5 * jnp.log(quantization.high - quantization.low))
    np.testing.assert_allclose(bits_per_dim(log_prob, x, quantization=quantization), 8, rtol=1e-12)


@pytest.mark.parametrize("quantization", RANGES[:2], ids=["[-1,1]", "[0,1]"])
def test_uniform_noise_under_the_flow_of_its_exact_denoiser_has_8_bits(quantization):
    denoiser = Uniform(VPSDE(t_min=1e-5), quantization.low, quantization.high)
    # Away from the edges, where p_{t_min} is blurred, and in pairs that cancel the prior's difference from p_{t_max}.
    images = jnp.array([[20], [100], [140], [235]])
    x = dequantize(keys(4), images, quantization)
    found = log_likelihood(None, denoiser, x, divergence=ExactDivergence())
    # 8 bits, but for the prior: a density known in closed form at the encodings, which the test of likelihoods has.
    sde = denoiser.sde
    alpha, sigma = sde.alpha(sde.t_max), sde.sigma(sde.t_max)
    cdf = jax.scipy.stats.norm.cdf
    width = quantization.high - quantization.low
    mass = cdf((found.z - alpha * quantization.low) / sigma) - cdf((found.z - alpha * quantization.high) / sigma)
    log_prob = found.log_prob - sde.prior_log_prob(found.z) + jnp.log(mass / (alpha * width))[:, 0]
    np.testing.assert_allclose(bits_per_dim(log_prob, x, quantization=quantization), 8, atol=1e-3)


@pytest.mark.parametrize("quantization", RANGES, ids=["[-1,1]", "[0,1]", "2q/255-1"])
def test_dequantized_images_round_to_their_levels_and_fill_the_bins(quantization):
    images = noise_images((64, 50))
    x = dequantize(keys(64), images, quantization)
    place = np.asarray((x - quantization.low) / quantization.width)
    np.testing.assert_array_equal(np.floor(place), images)
    assert abs((place % 1).mean() - 0.5) < 0.02 and abs((place % 1).std() - 12**-0.5) < 0.01


@pytest.mark.parametrize("level", [0, 1, 254, 255])
@pytest.mark.parametrize("quantization", RANGES, ids=["[-1,1]", "[0,1]", "2q/255-1"])
def test_images_of_the_first_and_the_last_level_have_8_bits(quantization, level):
    """The bins of both ends are whole; float32 may put a draw on their outer edges."""
    images = jnp.full((4, 5), level)
    log_prob = jnp.full(4, -5 * jnp.log(quantization.high - quantization.low))
    x = np.array(dequantize(keys(4), images, quantization), np.float32)
    x[0, 0] = quantization.low + quantization.width * (level if level < 2 else level + 1)
    np.testing.assert_allclose(bits_per_dim(log_prob, x, quantization=quantization), 8, rtol=1e-6)


@pytest.mark.parametrize("quantization", RANGES, ids=["[-1,1]", "[0,1]", "2q/255-1"])
def test_data_a_hundredth_of_a_bin_outside_are_refused(quantization):
    x = dequantize(keys(4), noise_images((4, 5)), quantization)
    for edge, outward in ((quantization.low, -1), (quantization.high, 1)):
        rounded, outside = (x.at[1, 2].set(edge + outward * part * quantization.width) for part in (5e-4, 1e-2))
        bits_per_dim(jnp.zeros(4), rounded, quantization=quantization)
        with pytest.raises(ValueError, match="outside the 256 levels"):
            bits_per_dim(jnp.zeros(4), outside, quantization=quantization)


def test_quantizations_are_the_usual_scalings():
    levels = np.array([0, 1, 255])
    np.testing.assert_allclose(Quantization.between(-1, 1).centre(levels), 2 * levels / 255 - 1, atol=1e-12)
    np.testing.assert_allclose(Quantization.filling(-1, 1).centre(levels), 2 * (levels + 0.5) / 256 - 1, atol=1e-12)
    np.testing.assert_allclose(Quantization.filling(0, 1).width, 1 / 256)


@pytest.mark.parametrize("dequantizer", DEQUANTIZERS, ids=str)
def test_log_ratio_is_the_density_of_the_draws(dequantizer):
    """The density's integral between two draws is the share of draws between them."""
    quantization = Quantization.filling(-1.0, 1.0)
    n, centre = 4000, quantization.centre(3)
    x, log_density = dequantizer(keys(n), jnp.full((n, 1), 3), quantization)
    order = np.argsort(x[:, 0])
    x, density = np.asarray(x[order, 0]), np.exp(log_density[order])
    assert (np.abs(x - centre) < 0.5 * quantization.width).all()
    mass = np.concatenate([[0], np.cumsum(np.diff(x) * 0.5 * (density[1:] + density[:-1]))])
    np.testing.assert_allclose(mass, np.arange(n) / n, atol=0.03)


def test_a_dequantizer_is_fitted_by_ascent_on_the_bound():
    """Where p is normal within a bin, with std 0.15 of its width, so is the best dequantizer, and the bound is tight."""
    quantization, weights = Quantization.filling(-1.0, 1.0, num_levels=4), np.array([0.1, 0.2, 0.3, 0.4])
    law = exact.GaussianMixture(
        VPSDE(),
        quantization.centre(np.arange(4))[:, None],
        stds=0.15 * quantization.width,
        weights=jnp.asarray(weights),
    )
    images = jnp.asarray(np.random.default_rng(0).choice(4, size=(500, 1), p=weights))

    def bound(log_std, keys, dequantizer=None):
        dequantizer = TruncatedNormalDequantizer(jnp.exp(log_std)) if dequantizer is None else dequantizer
        x, log_ratio = dequantizer(keys, images, quantization)
        return (law.log_prob(x, 0.0) - log_ratio).mean()

    @jax.jit
    def fit(log_std):
        steps = jax.random.split(jax.random.key(1), (150, 500))
        return jax.lax.scan(lambda s, k: (s + 0.1 * jax.grad(bound)(s, k), None), log_std, steps)[0]

    log_std = fit(jnp.log(0.4))
    np.testing.assert_allclose(jnp.exp(log_std), 0.15, rtol=0.05)
    truth = np.log(weights[images[:, 0]]).mean()
    assert truth - 0.01 < bound(log_std, keys(500)) < truth + 0.005
    assert bound(None, keys(500), UniformDequantizer()) < truth - 0.5


@pytest.mark.parametrize("t_min, tight", [(1e-4, True), (3e-2, False)])
def test_the_models_own_dequantization_gives_the_probability_of_levels(t_min, tight):
    """Data of three images of two pixels: exact where the noise at t_min is far below a bin, a bound elsewhere."""
    quantization = Quantization.filling(-1.0, 1.0, num_levels=8)
    images, weights = jnp.array([[1, 6], [2, 6], [7, 0]]), jnp.array([0.5, 0.2, 0.3])
    sde = VPSDE(t_min=t_min)
    law = exact.GaussianMixture(sde, quantization.centre(images), stds=0.0, weights=weights)
    drawn = jax.random.choice(jax.random.key(0), 3, (4000,), p=weights)
    x, log_ratio = ModelDequantizer(sde)(keys(4000), images[drawn], quantization)
    bits = bits_per_dim(law.log_prob(x, t_min), x, log_ratio=log_ratio)
    truth = -jnp.log2(weights[drawn]) / 2
    if tight:
        np.testing.assert_allclose(bits, truth, atol=1e-6)
    else:
        gap = bits - truth
        assert gap.mean() > 4 * gap.std() / np.sqrt(len(gap)) and gap.mean() < 1


def test_the_last_step_is_a_distribution_over_levels():
    quantization, sde = Quantization.filling(-1.0, 1.0, num_levels=16), VPSDE(t_min=2e-2)
    levels = jnp.arange(16)[:, None]
    for x in (-3.0, 0.1, 0.98, 40.0):  # far outside the range too
        log_prob = log_prob_of_levels(sde, jnp.full((16, 1), x), levels, quantization)
        np.testing.assert_allclose(jnp.exp(log_prob).sum(), 1, rtol=1e-9)
        nearest = np.abs(x / sde.alpha(sde.t_min) - quantization.centre(levels)).argmin()
        assert log_prob.argmax() == nearest


@pytest.mark.parametrize("dequantizer", [DEQUANTIZERS[1], ModelDequantizer(VPSDE())], ids=lambda d: type(d).__name__)
def test_image_i_depends_on_key_i_alone(dequantizer):
    images, quantization = noise_images((8, 3)), RANGES[0]
    together = dequantizer(keys(8), images, quantization)
    alone = dequantizer(keys(8)[3:4], images[3:4], quantization)
    np.testing.assert_allclose(together[0][3], alone[0][0], rtol=1e-12)
    np.testing.assert_allclose(together[1][3], alone[1][0], rtol=1e-12)


def test_data_that_are_not_8_bit_are_refused():
    x, log_prob = dequantize(keys(4), noise_images((4, 5)), RANGES[0]), jnp.zeros(4)
    with pytest.raises(ValueError, match="not neither"):
        bits_per_dim(log_prob, x)
    with pytest.raises(ValueError, match="not both"):
        bits_per_dim(log_prob, x, quantization=RANGES[0], log_ratio=log_prob)
    with pytest.raises(ValueError, match=r"outside the 256 levels in \[0, 1\]"):
        bits_per_dim(log_prob, x, quantization=RANGES[1])
    with pytest.raises(ValueError, match="outside the 256 levels"):
        bits_per_dim(log_prob, x.at[0, 0].set(jnp.nan), quantization=RANGES[0])
    with pytest.raises(ValueError, match="dequantize it first"):
        bits_per_dim(log_prob, 2 * noise_images((4, 5)) / 255 - 1, quantization=RANGES[2])
    with pytest.raises(ValueError, match="dequantize it first"):
        bits_per_dim(log_prob, noise_images((4, 5)) / 256, quantization=RANGES[1])
    with pytest.raises(ValueError, match=r"not \(3,\) and \(4, 5\)"):
        bits_per_dim(log_prob[:3], x, quantization=RANGES[0])
    with pytest.raises(ValueError, match="integer levels, not float"):
        dequantize(keys(4), x, RANGES[0])
    with pytest.raises(ValueError, match=r"range from 0 to 256, outside \[0, 255\]"):
        dequantize(keys(1), jnp.array([[0, 256]]), RANGES[0])
    with pytest.raises(ValueError, match=r"not \(4, 5\) and \(3,\)"):
        dequantize(keys(3), noise_images((4, 5)), RANGES[0])
    with pytest.raises(ValueError, match=r"low < high, not \[1, -1\]"):
        Quantization.filling(1, -1)


def test_ranges_that_hold_no_levels_are_refused():
    for make in (Quantization.filling, Quantization.between):
        for low, high in ((1.0, 1.0), (1.0, 0.5), (0.0, float("nan"))):
            with pytest.raises(ValueError, match="must have low < high"):
                make(low, high)
        assert make(0.0, 1.0, 2).num_levels == 2
    two = Quantization.between(-1.0, 1.0, 2)
    np.testing.assert_allclose((two.low, two.high, two.width), (-2, 2, 2), rtol=1e-12)


@pytest.mark.parametrize("levels", [[[-1, 3]], [[0, 8]]])
def test_levels_are_from_0_to_the_last(levels):
    quantization = Quantization.filling(0.0, 1.0, 8)
    for dequantizer in (UniformDequantizer(), ModelDequantizer(VPSDE())):
        dequantizer(keys(1), jnp.array([[0, 7]]), quantization)
        with pytest.raises(ValueError, match=r"outside \[0, 7\]"):
            dequantizer(keys(1), jnp.array(levels), quantization)


def test_images_and_log_ratios_have_the_shapes_of_their_batch():
    x, log_prob = jnp.full((4, 5), 0.3), jnp.zeros(4)
    for log_ratio in (jnp.zeros(()), jnp.zeros(5), jnp.zeros((4, 1))):
        with pytest.raises(ValueError, match="log_ratio has shape"):
            bits_per_dim(log_prob, x, log_ratio=log_ratio)
    with pytest.raises(ValueError, match=r"log_prob must be \(B,\)"):
        bits_per_dim(log_prob, x[:, 0], log_ratio=log_prob)
    with pytest.raises(ValueError, match="one per image"):
        dequantize(keys(4), jnp.zeros(4, int), RANGES[0])


def test_bits_are_nats_less_the_ratio_over_dimensions_and_log_2():
    """By hand, with image axes; and the same under jit, where the data is not looked at."""
    x, quantization = jnp.full((2, 3, 2, 1), 0.3), Quantization.filling(-1.0, 1.0, 64)
    log_prob, log_ratio = jnp.array([-1.0, 2.0]), jnp.array([4.0, 5.0])
    expected = (np.array([4.0, 5.0]) - np.array([-1.0, 2.0])) / (6 * np.log(2))
    np.testing.assert_allclose(bits_per_dim(log_prob, x, log_ratio=log_ratio), expected, rtol=1e-12)
    expected = (-6 * np.log(1 / 32) - np.array([-1.0, 2.0])) / (6 * np.log(2))
    np.testing.assert_allclose(bits_per_dim(log_prob, x, quantization=quantization), expected, rtol=1e-12)
    traced = jax.jit(lambda x, q: bits_per_dim(log_prob, x, quantization=q))
    np.testing.assert_allclose(traced(9 * x, quantization), expected, rtol=1e-12)
    constant = jax.jit(lambda q: bits_per_dim(log_prob, x, quantization=q))
    np.testing.assert_allclose(constant(quantization), expected, rtol=1e-12)


def test_data_are_refused_for_lying_on_levels_only_where_all_of_them_do():
    """Centres and edges are levels of usual scalings; one value between them makes the data dequantized."""
    quantization = Quantization.filling(0.0, 8.0, 8)
    on, between = jnp.array([[0.5, 3.0, 7.5, 8.0]]), jnp.array([[0.5, 3.0, 7.51, 8.0]])
    bits_per_dim(jnp.zeros(1), between, quantization=quantization)
    with pytest.raises(ValueError, match="lies on the levels themselves"):
        bits_per_dim(jnp.zeros(1), on, quantization=quantization)


@pytest.mark.parametrize("make", [TruncatedNormalDequantizer, lambda std: LogitNormalDequantizer(0.3 * std, std)])
def test_a_dequantizer_may_have_numbers_of_its_own_for_each_pixel(make):
    """Each pixel is drawn, and its density is, as with that number alone; densities add up over the pixels."""
    stds, quantization = np.array([0.2, 0.9]), Quantization.filling(-1.0, 1.0, 16)
    images = jnp.full((5, 2), 3)
    x, log_density = make(jnp.asarray(stds))(keys(5), images, quantization)
    singles = [make(std)(keys(5), images, quantization) for std in stds]
    for i in range(2):
        np.testing.assert_allclose(x[:, i], singles[i][0][:, i], rtol=1e-12)
    place = (np.asarray(x) - quantization.centre(3)) / quantization.width
    if make is TruncatedNormalDequantizer:
        each = scipy.stats.truncnorm(-0.5 / stds, 0.5 / stds, scale=stds).logpdf(place)
    else:
        logit = np.log((0.5 + place) / (0.5 - place))
        each = scipy.stats.norm(0.3 * stds, stds).logpdf(logit) - np.log((0.5 + place) * (0.5 - place))
    np.testing.assert_allclose(log_density, (each - np.log(quantization.width)).sum(1), rtol=1e-9)
