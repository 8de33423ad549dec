"""Editing: SDEdit's law, the bridge's affine map and the moments of a style, each against its closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import (
    DDIM,
    SSCS,
    VESDE,
    VPSDE,
    Ancestral,
    CriticallyDampedLangevin,
    EnergyGuidance,
    Heun,
    exact,
    karras_times,
)
from sde_lib.editing import (
    Style,
    bridge,
    follow,
    interpolate_through,
    level_of_strength,
    moments,
    patches,
    sdedit,
    shared_levels,
    until,
)
from sde_lib.inverse import MMPS
from tests.sde_lib.processes import EVERY_SDE, SOME_SDES, every_sde, keys, some_sdes

MEAN, STD, GUIDE, N = 0.4, 0.7, -1.1, 4000
VP, VE = VPSDE(t_min=1e-3), VESDE(sigma_min=1e-2, sigma_max=300.0)


@every_sde
def test_a_strength_is_one_noise_level_on_every_process(sde):
    """sigma / alpha of the paper's VP process: beta from 0.1 to 20, whose log alpha at 0.5 is -0.25^2 19.9 - 0.025."""
    level = np.sqrt(np.expm1(2 * (0.0625 * 19.9 + 0.025)))
    process = until(sde, 0.5)
    np.testing.assert_allclose(process.noise_to_signal(process.t_max), level, rtol=1e-9)
    np.testing.assert_allclose(level_of_strength(0.5), level, rtol=1e-12)


@every_sde
def test_a_strength_beyond_the_process_is_its_own_end(sde):
    limited = sde.replace(t_max=until(sde, 0.6).t_max)
    np.testing.assert_allclose(until(limited, 0.9).t_max, limited.t_max)
    assert until(sde, 1e-9).t_max == sde.t_min


def edit(sde, method, steps, strength, **options):
    """SDEdit of GUIDE, N answers of a vector with the Denoiser of N(MEAN, STD^2)."""
    denoiser = options.pop("denoiser", exact.Gaussian(sde, MEAN, STD))
    guide = jnp.full((N, options.pop("size", 1)), GUIDE)
    return np.asarray(sdedit(keys(N), denoiser, method, karras_times(until(sde, strength), steps), guide, **options))


def assert_law(x, mean, std):
    """Within 4 standard errors of a Gaussian's."""
    np.testing.assert_allclose(x.mean(), mean, atol=4 * std / np.sqrt(len(x)))
    np.testing.assert_allclose(x.std(), std, rtol=4 / np.sqrt(2 * len(x)))


@pytest.mark.parametrize("sde", [VP, VE], ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("strength", [0.1, 0.4])
def test_sdedit_by_the_flow_has_the_law_of_the_guide_s_noise_carried_back(sde, strength):
    """x_0 = m + sqrt(c) (g + n z - m), c = s^2 / (s^2 + n^2)."""
    n = float(level_of_strength(strength))
    root = STD / np.hypot(STD, n)
    assert_law(edit(sde, Heun(), 40, strength), MEAN + root * (GUIDE - MEAN), root * n)


@pytest.mark.parametrize("sde", [VP, VE], ids=lambda sde: type(sde).__name__)
def test_sdedit_by_the_reverse_sde_draws_from_the_posterior_given_the_noisy_guide(sde):
    """x_0 given y = g + n z is N(m + c (y - m), c n^2): less of the guide is left than by the flow."""
    n = float(level_of_strength(0.2))
    c = STD**2 / (STD**2 + n**2)
    assert_law(edit(sde, Ancestral(), 150, 0.2), MEAN + c * (GUIDE - MEAN), np.sqrt(c**2 * n**2 + c * n**2))


def test_answers_depend_on_their_own_key_and_guide_alone():
    denoiser, grid = exact.Gaussian(VP, MEAN, STD), karras_times(until(VP, 0.4), 5)
    guides = jnp.arange(3.0)[:, None]
    mask = np.ones(1)
    together = sdedit(keys(3), denoiser, DDIM(eta=1.0), grid, guides, mask)
    alone = sdedit(keys(3)[2:], denoiser, DDIM(eta=1.0), grid, guides[2:], mask)
    np.testing.assert_allclose(alone[0], together[2], rtol=1e-10)


def test_pixels_outside_of_the_mask_stay_and_those_inside_have_sdedit_s_law():
    n = float(level_of_strength(0.3))
    root = STD / np.hypot(STD, n)
    x = edit(VP, Heun(), 40, 0.3, size=2, mask=np.array([1, 0]))
    np.testing.assert_array_equal(x[:, 1], GUIDE)
    assert_law(x[:, 0], MEAN + root * (GUIDE - MEAN), root * n)


def test_pixels_inside_of_the_mask_answer_to_those_outside():
    """Correlated pixels: the answer leans to the kept pixel's side, and away from it where the correlation is negative."""
    means = []
    for correlation in (0.9, -0.9):
        covariance = STD**2 * np.array([[1, correlation], [correlation, 1]])
        denoiser = exact.CorrelatedGaussian(VP, np.full(2, MEAN), covariance)
        means.append(edit(VP, Ancestral(), 60, 1.0, denoiser=denoiser, size=2, mask=np.array([1, 0]))[:, 0].mean())
    posterior = 0.9 * (GUIDE - MEAN)
    assert means[0] - MEAN < 0.5 * posterior and means[1] - MEAN > -0.5 * posterior


OF_THREE = STD**2 * np.array([[1, 0.8, -0.5], [0.8, 1, -0.2], [-0.5, -0.2, 1]])


@pytest.mark.parametrize(
    "sde, method, strength",
    [(VP, Ancestral(), 1.0), (VE, Ancestral(), 0.15), (CriticallyDampedLangevin(), SSCS(2), 0.15)],
    ids=["VP", "VE", "velocities"],
)
def test_a_posterior_draws_what_is_inside_of_the_mask_given_the_rest(sde, method, strength):
    """Exactly: given the third pixel of the guide and its first two with noise, of which strength 1 leaves nothing."""
    process = until(sde, strength)
    level = float(process.noise_to_signal(process.t_max))
    noise = np.diag([level**2, level**2, 0])
    gain = OF_THREE @ np.linalg.inv(OF_THREE + noise)
    left = OF_THREE - gain @ OF_THREE
    # x_0 given y = guide + noise; y itself has the noise of SDEdit.
    mean, covariance = MEAN + gain @ np.full(3, GUIDE - MEAN), left + gain @ noise @ gain.T
    denoiser, mask = exact.CorrelatedGaussian(sde, np.full(3, MEAN), OF_THREE), np.array([1, 1, 0])

    options = {"denoiser": denoiser, "size": 3, "mask": mask}
    x = edit(sde, method, 200, strength, posterior=partial(MMPS, rtol=1e-8), **options)
    np.testing.assert_array_equal(x[:, 2], GUIDE)
    std = np.sqrt(np.diag(covariance)[:2])
    np.testing.assert_array_less(np.abs(x.mean(0) - mean)[:2], 5 * std / np.sqrt(N))
    np.testing.assert_array_less(np.abs(np.cov(x.T) - covariance)[:2, :2], 7 * np.outer(std, std) / np.sqrt(N))
    if strength == 1.0:
        replaced = edit(sde, method, 200, strength, **options)
        assert (np.abs(replaced.mean(0) - mean)[:2] > 0.1 * np.abs(mean - MEAN)[:2]).all()


# Bridges


def transported(x, a, b, levels):
    """The flow of a Gaussian keeps (y - mean) / hypot(std, level): up with a = (mean, std), down with b."""
    low, high = levels[0], levels[-1]
    top = a[0] + np.hypot(a[1], high) / np.hypot(a[1], low) * (x - a[0])
    return b[0] + np.hypot(b[1], low) / np.hypot(b[1], high) * (top - b[0])


A, B = (0.5, 0.3), (-0.8, 0.9)
X = np.linspace(-1, 1, 5)[:, None]


@pytest.mark.parametrize("source", SOME_SDES, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("target", [VP, VE], ids=lambda sde: type(sde).__name__)
def test_the_bridge_between_gaussians_is_affine_and_its_error_falls_at_order_2(source, target):
    """Between any two processes; the levels end where the first of them does."""
    errors = []
    for n in (160, 320):
        levels = shared_levels(source, target, n)
        x = bridge(exact.Gaussian(source, *A), exact.Gaussian(target, *B), X, levels)
        errors.append(np.abs(x - transported(X, A, B, np.asarray(levels))).max())
    assert errors[0] < 0.01
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), 2, atol=0.3)


def test_with_much_noise_the_bridge_is_the_optimal_transport():
    levels = shared_levels(VE, VE, 300)
    x = bridge(exact.Gaussian(VE, *A), exact.Gaussian(VE, *B), X, levels)
    np.testing.assert_allclose(x, B[0] + B[1] / A[1] * (X - A[0]), atol=0.02)


@pytest.mark.parametrize("levels_of", [VE, VPSDE(t_min=1e-2)], ids=["VE", "VP"])
def test_levels_are_those_that_both_processes_have(levels_of):
    """From the larger of the lowest to the smaller of the highest, at even roots of order rho."""
    other = until(VP, 0.9)
    levels = np.asarray(shared_levels(other, levels_of, 6, rho=3.0))
    low = max(float(sde.noise_to_signal(sde.t_min)) for sde in (other, levels_of))
    np.testing.assert_allclose(levels[[0, -1]], [low, level_of_strength(0.9)], rtol=1e-9)
    np.testing.assert_allclose(np.diff(levels ** (1 / 3)), (levels[-1] ** (1 / 3) - low ** (1 / 3)) / 6)
    np.testing.assert_allclose(shared_levels(other, levels_of, 6, 0.3)[-1], level_of_strength(0.3))


MEANS_A, MEANS_B = np.array([[0.5, 0.3], [-0.5, -0.3]]), np.array([[0.6, -0.4], [-0.2, 0.7], [-0.5, -0.5]])


def test_the_cycle_between_mixtures_closes_at_order_3():
    """A -> B -> A, of two processes: the errors of Heun's steps up and down cancel to first order."""
    a, b = exact.GaussianMixture(VP, MEANS_A, 0.3), exact.GaussianMixture(VE, MEANS_B, 0.25)
    x0 = a.sample(jax.random.key(0), 8)
    gaps, moved = [], None
    for n in (50, 100, 200):
        levels = shared_levels(VP, VE, n, 0.9)
        moved = bridge(a, b, x0, levels)
        gaps.append(float(jnp.sqrt(jnp.square(bridge(b, a, moved, levels) - x0).mean())))
    assert jnp.abs(moved - x0).max() > 0.3  # B is elsewhere
    np.testing.assert_allclose(np.log2(np.divide(gaps[:-1], gaps[1:])), 3, atol=0.35)


def test_two_processes_of_the_same_data_give_the_identity():
    levels = shared_levels(VP, VE, 200)
    x0 = exact.GaussianMixture(VP, MEANS_A, 0.3).sample(jax.random.key(0), 8)
    x = bridge(exact.GaussianMixture(VP, MEANS_A, 0.3), exact.GaussianMixture(VE, MEANS_A, 0.3), x0, levels)
    np.testing.assert_allclose(x, x0, atol=1e-3)


@some_sdes
def test_interpolation_is_a_great_circle_between_the_encodings(sde):
    """Of a Gaussian, whose encoding is affine: in the plane, by the angle between the two."""
    levels = shared_levels(sde, sde, 200, 0.5)
    a, b = np.array([[0.9, 0.1]]), np.array([[-0.2, 0.6]])
    up = np.hypot(A[1], levels[-1]) / np.hypot(A[1], levels[0])
    ends = [(A[0] + up * (x - A[0]))[0] for x in (a, b)]
    radii, angles = ([f(*end) for end in ends] for f in (np.hypot, lambda x, y: np.arctan2(y, x)))
    turn = (angles[1] - angles[0] + np.pi) % (2 * np.pi) - np.pi
    expected = []
    for weight in (0.0, 0.3, 1.0):
        radius, angle = radii[0] + weight * (radii[1] - radii[0]), angles[0] + weight * turn
        point = radius * np.array([np.cos(angle), np.sin(angle)])
        expected.append(A[0] + (point - A[0]) / up)
    path = interpolate_through(exact.Gaussian(sde, *A), a, b, [0.0, 0.3, 1.0], levels)
    np.testing.assert_allclose(path[:, 0], expected, atol=5e-3)
    np.testing.assert_allclose(path[[0, -1], 0], np.concatenate([a, b]), atol=1e-3)


def test_a_velocity_beside_the_data_is_refused():
    with pytest.raises(ValueError, match="CriticallyDampedLangevin has states that are not noisy data"):
        shared_levels(VP, CriticallyDampedLangevin(), 5)


# Style


def pixels(x):
    """The colours of an image as its features."""
    return x


rng = np.random.default_rng(0)
IMAGE, OTHER = rng.normal(size=(1, 5, 4, 3)), 0.3 + 0.5 * rng.normal(size=(5, 4, 3)) @ rng.normal(size=(3, 3))


def test_patches_are_the_pixels_of_each_window():
    """The moments of 2 x 2 patches, from the windows of the image."""
    windows = np.array([IMAGE[0, i : i + 2, j : j + 2].ravel() for i in range(4) for j in range(3)])
    got = patches(jnp.asarray(IMAGE), 2)
    assert got.shape == (1, 4, 3, 12)
    np.testing.assert_allclose(np.sort(got.reshape(12, 12), 1), np.sort(windows, 1))
    mean, covariance = moments(got)
    np.testing.assert_allclose(np.sort(mean[0]), np.sort(windows.mean(0)))
    expected = np.cov(windows.T, bias=True)
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance[0]), np.linalg.eigvalsh(expected), atol=1e-12)


def test_the_gradient_of_a_style_is_the_closed_form():
    """d log p / dx_p = -[(mean - mean') + 2 (C - C') (x_p - mean)] / (P std^2), for P pixels."""
    style = Style.of(pixels, OTHER, std=0.7)
    flat, other = IMAGE.reshape(-1, 3), OTHER.reshape(-1, 3)
    mean, gap = flat.mean(0), np.cov(flat.T, bias=True) - np.cov(other.T, bias=True)
    expected = -((mean - other.mean(0)) + 2 * (flat - mean) @ gap) / (len(flat) * 0.7**2)
    gradient = jax.grad(lambda x: style(x).sum())(jnp.asarray(IMAGE))
    np.testing.assert_allclose(gradient.reshape(-1, 3), expected, atol=1e-12)


def test_several_maps_of_features_count_by_the_mean_of_their_squares():
    """Against numpy, map by map: mean and covariance of each over its own positions."""

    def maps(x):
        return pixels(x), 3 * x[:, ::2, 1:, :2]

    expected = []
    for one, other in zip(*(maps(image) for image in (IMAGE, OTHER[None])), strict=True):
        one, other = (x.reshape(-1, x.shape[-1]) for x in (one, other))
        gaps = one.mean(0) - other.mean(0), np.cov(one.T, bias=True) - np.cov(other.T, bias=True)
        expected.append(sum(np.square(gap).sum() for gap in gaps))
    style = Style.of(maps, OTHER, std=0.7)
    np.testing.assert_allclose(style.square_distance(jnp.asarray(IMAGE)), [np.mean(expected)], rtol=1e-12)
    np.testing.assert_allclose(style(jnp.asarray(IMAGE)), [-0.5 * np.mean(expected) / 0.7**2], rtol=1e-12)


def test_a_style_is_met_exactly_by_another_image_of_its_mean_and_covariance():
    """Whitened, and coloured with the style's covariance; where the pixels are plays no part."""
    style = Style.of(pixels, OTHER, std=0.1)
    flat, other = IMAGE.reshape(-1, 3), OTHER.reshape(-1, 3)
    of_image, of_other = (np.linalg.cholesky(np.cov(x.T, bias=True)) for x in (flat, other))
    coloured = other.mean(0) + (flat - flat.mean(0)) @ np.linalg.inv(of_image).T @ of_other.T
    assert style(jnp.asarray(IMAGE))[0] < -1
    for order in (np.arange(20), rng.permutation(20)):
        np.testing.assert_allclose(style(jnp.asarray(coloured[order].reshape(1, 5, 4, 3))), 0, atol=1e-20)


def test_guidance_gives_an_edit_the_moments_of_the_style():
    """SDEdit of independent pixels, of which colours alone are asked."""
    style = Style.of(pixels, 0.3 + 0.3 * OTHER, std=0.02)
    denoiser = exact.Gaussian(VP, 0.0, 1.0)
    times = karras_times(until(VP, 0.4), 200)
    squares = []
    for model in (denoiser, EnergyGuidance(denoiser, style, through_denoiser=False)):
        x = sdedit(keys(4), model, DDIM(), times, jnp.broadcast_to(IMAGE, (4, *IMAGE.shape[1:])))
        squares.append(-2 * 0.02**2 * style(x))
    assert (squares[1] < 0.01 * squares[0]).all()


def test_the_error_of_a_step_is_of_third_order():
    """One step of `follow` against the flow of a Gaussian, so that neither stage is at the wrong time."""
    gaussian, start = exact.Gaussian(VP, *A), 1.0
    errors = []
    for h in (0.02, 0.01):
        y = follow(gaussian, jnp.asarray(X), jnp.array([start, start + h]))
        expected = A[0] + np.hypot(A[1], start + h) / np.hypot(A[1], start) * (X - A[0])
        errors.append(np.abs(y - expected).max())
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), 3, atol=0.1)


def test_every_process_of_the_tests_has_levels():
    """A process that stops below a strength's level still has a grid that rises."""
    for sde in EVERY_SDE:
        levels = np.asarray(shared_levels(sde, sde, 4))
        assert (np.diff(levels) > 0).all()


def test_wrong_numbers_are_refused():
    denoiser, grid = exact.Gaussian(VP), karras_times(until(VP, 0.4), 2)
    with pytest.raises(ValueError, match="there are 2 keys: 3 examples need one each"):
        sdedit(keys(2), denoiser, DDIM(), grid, jnp.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"at least 2 axes, not \(3,\)"):
        sdedit(keys(3), denoiser, DDIM(), grid, jnp.zeros(3))
    with pytest.raises(ValueError, match="shared_levels: n=0 must be at least 1"):
        shared_levels(VP, VE, 0)
    assert len(shared_levels(VP, VE, 1)) == 2


def test_an_edit_in_float32_stays_so():
    guide = jnp.zeros((2, 3), jnp.float32)
    x = sdedit(keys(2), exact.Gaussian(VP), DDIM(), karras_times(until(VP, 0.4), 2).astype(jnp.float32), guide)
    assert x.dtype == jnp.float32


def test_a_mask_of_one_channel_keeps_the_guide_s_own_pixels_in_all():
    """Of images of two channels and any values; and where the mask is 1 everywhere the edit is that without one."""
    guide = np.random.default_rng(3).normal(size=(2, 2, 3, 2))
    denoiser, grid = exact.Gaussian(VP, MEAN, STD), karras_times(until(VP, 0.4), 3)
    mask = np.array([[1, 0, 1], [0, 0, 1]])[..., None]
    x = np.asarray(sdedit(keys(2), denoiser, DDIM(), grid, guide, mask))
    changes = np.broadcast_to(mask == 1, guide.shape)
    np.testing.assert_array_equal(x[~changes], guide[~changes])
    assert np.abs(x - guide)[changes].min() > 1e-6
    everywhere, free = (sdedit(keys(2), denoiser, DDIM(), grid, guide, m) for m in (np.ones((2, 3, 1)), None))
    np.testing.assert_allclose(everywhere, free, rtol=1e-9)


def test_levels_of_a_strength_below_both_processes_are_the_lowest_that_both_have():
    levels = shared_levels(VP, VE, 3, strength=1e-9)
    np.testing.assert_allclose(levels, np.full(4, max(float(sde.noise_to_signal(sde.t_min)) for sde in (VP, VE))))
