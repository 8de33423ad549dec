"""The probability flow as a map: against the exact flow of a Gaussian, and there and back again."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import VPSDE, DiscreteVP, FunctionDenoiser, Status, decode, encode, exact, flow, interpolate
from sde_lib.flow import FlowSolution, _controller, _largest_rms, spherical
from tests.sde_lib.processes import SOME_SDES, every_sde
from tests.sde_lib.shared_programs import shared_mixture, symmetric_sample

pytestmark = pytest.mark.thorough


def kinked(sde):
    """Whether the velocity bends on the way: DDPM's table is interpolated by cubic pieces, and 1,000 joints cost an adaptive
    solver of fifth order digits that its tolerance does not see."""
    return isinstance(sde, DiscreteVP)


@every_sde
def test_encoding_of_a_gaussian_is_its_exact_flow_and_decoding_brings_it_back(sde):
    mean, std = jnp.array([0.3, -0.2]), 0.4
    gaussian = exact.Gaussian(sde, mean=mean, std=std)
    denoiser = shared_mixture(sde, jnp.stack([mean, mean]), std)
    x0 = gaussian.sample(jax.random.key(0), (8, 2))
    encoded = encode(denoiser, x0)
    expected = gaussian.flow(x0, sde.t_min, sde.t_max)
    np.testing.assert_allclose(encoded.x, expected, rtol=1e-3, atol=1e-4)
    decoded = decode(denoiser, encoded.x)
    np.testing.assert_allclose(decoded.x, x0, atol=4e-4 if kinked(sde) else 1e-4)
    assert (encoded.status == Status.SOLVED).all() and (decoded.status == Status.SOLVED).all()


@every_sde
def test_encode_then_decode_returns_a_mixtures_data(sde):
    denoiser = shared_mixture(sde)
    x0 = symmetric_sample(sde)
    np.testing.assert_allclose(decode(denoiser, encode(denoiser, x0).x).x, x0, atol=2e-4)


@every_sde
def test_tighter_tolerances_are_met(sde):
    gaussian = exact.Gaussian(sde, mean=jnp.array([0.3, -0.2]), std=0.4)
    denoiser = shared_mixture(sde, jnp.stack([gaussian.mean] * 2), 0.4)
    x0 = gaussian.sample(jax.random.key(0), (8, 2))
    scale = sde.sigma(sde.t_max)
    encoded = encode(denoiser, x0, rtol=1e-9, atol=1e-9)
    expected = gaussian.flow(x0, sde.t_min, sde.t_max)
    np.testing.assert_allclose(encoded.x / scale, expected / scale, rtol=0, atol=1e-5 if kinked(sde) else 1e-7)


def test_an_example_does_not_depend_on_its_batch_mates():
    denoiser = shared_mixture(SOME_SDES[0])
    x0 = symmetric_sample(SOME_SDES[0]).at[:4].multiply(1e-3)
    together, alone = encode(denoiser, x0), encode(denoiser, x0[3:4])
    np.testing.assert_allclose(together.x[3], alone.x[0], rtol=1e-10)
    assert together.nfe[3] == alone.nfe[0]
    assert len(np.unique(together.nfe)) > 1  # each has its own steps


@pytest.mark.parametrize("broken", ["at once", "on the way"])
def test_an_example_whose_denoiser_breaks_is_reported_and_leaves_the_others_intact(broken):
    whole = shared_mixture(SOME_SDES[0])
    x0 = symmetric_sample(SOME_SDES[0]).at[2].set(9.0 if broken == "at once" else -6.0)
    # The far example is beyond the limit from the start, or comes to lie beneath it.
    limits = {"highest": 8.0} if broken == "at once" else {"lowest": -3.0, "lowest_at": 0.5}
    solution = encode(whole.replace(**limits), x0)
    expected = encode(whole, x0)
    others = np.arange(8) != 2
    np.testing.assert_array_equal(solution.status, np.where(others, Status.SOLVED, Status.NO_STEP))
    assert np.isnan(solution.x[2]).all()
    np.testing.assert_allclose(solution.x[others], expected.x[others], rtol=1e-10)
    assert solution.nfe[2] < 1000  # it gives up soon


def test_too_few_steps_are_reported_and_leave_the_others_intact():
    denoiser = shared_mixture(SOME_SDES[0])
    x0 = symmetric_sample(SOME_SDES[0]).at[:4].multiply(1e-3)
    expected = encode(denoiser, x0)
    max_steps = int(np.sort((expected.nfe - 1) // 6)[3])
    solution = encode(denoiser, x0, max_steps=max_steps)
    done = (expected.nfe - 1) // 6 <= max_steps
    assert done.any() and not done.all()
    np.testing.assert_array_equal(solution.status, np.where(done, Status.SOLVED, Status.MAX_STEPS))
    np.testing.assert_array_equal(np.isnan(solution.x).all(1), ~done)
    np.testing.assert_allclose(solution.x[done], expected.x[done], rtol=1e-10)


def test_nfe_is_the_number_of_calls():
    calls, sde = [], SOME_SDES[0]
    gaussian = exact.Gaussian(sde, mean=0.4, std=0.5)

    def counted(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return gaussian(x, t)

    nfe = encode(FunctionDenoiser(sde, counted), jnp.array([[0.3], [1.7]])).nfe
    jax.block_until_ready(nfe)
    jax.effects_barrier()
    assert len(calls) == max(nfe)


CONDITIONED = exact.Gaussian(SOME_SDES[0], mean=np.repeat([[-0.5], [0.8]], 512, axis=1), std=0.5)


def test_a_condition_per_example_meets_its_example():
    """A Denoiser that holds one mean per example, as one conditioned on labels does."""
    sde = CONDITIONED.sde
    x0 = CONDITIONED.sample(jax.random.key(0), (2, 512))
    expected = CONDITIONED.flow(x0, sde.t_min, sde.t_max)
    np.testing.assert_allclose(encode(CONDITIONED, x0).x, expected, atol=2e-4)


def test_interpolation_passes_from_one_to_the_other_through_typical_samples():
    """In 512 dimensions a Gaussian's samples have one norm: the straight line between two loses a factor sqrt(2)."""
    a, b = (CONDITIONED.sample(jax.random.key(i), (2, 512)) for i in (0, 1))
    path = interpolate(CONDITIONED, a, b, [0.0, 0.3, 0.5, 1.0])
    np.testing.assert_allclose(path.x[0], a, atol=1e-3)
    np.testing.assert_allclose(path.x[-1], b, atol=1e-3)
    norms = np.sqrt(np.square((path.x - CONDITIONED.mean) / 0.5).mean(-1))
    np.testing.assert_allclose(norms, 1, atol=0.08)
    closer_to_a = np.square(path.x[1] - a).sum(-1) < np.square(path.x[1] - b).sum(-1)
    assert closer_to_a.all() and path.status.shape == path.nfe.shape == (4, 2) and (path.status == 0).all()


@pytest.fixture
def solves(monkeypatch):
    """What each solve is asked for, in order; each returns its input after 10 evaluations, and the status in x[:, 0]."""
    found = []

    def follow(denoiser, x, start, end, rtol, atol, max_steps, adjoint):
        found.append((float(start), float(end), rtol, atol, max_steps, adjoint))
        nfe = jnp.full(len(x), 10 if end > start else 1000)
        return FlowSolution(x, nfe, x[:, 0].astype(int) if end > start else jnp.zeros(len(x), int))

    monkeypatch.setattr(flow, "_follow", follow)
    return found


def test_settings_of_a_solve_reach_it(solves):
    sde = VPSDE(t_min=0.125)
    denoiser, x, options = exact.Gaussian(sde), jnp.ones((2, 3)), {"rtol": 0.1, "atol": 0.2, "max_steps": 7}
    adjoint = diffrax.RecursiveCheckpointAdjoint()
    encode(denoiser, x, **options, adjoint=adjoint), decode(denoiser, x, **options, adjoint=adjoint)
    assert solves == [(0.125, 1.0, 0.1, 0.2, 7, adjoint), (1.0, 0.125, 0.1, 0.2, 7, adjoint)]
    del solves[:]
    interpolate(denoiser, x, 2 * x, [0.2, 0.4, 0.9], **options)
    assert solves == [(0.125, 1.0, 0.1, 0.2, 7, None)] * 2 + [(1.0, 0.125, 0.1, 0.2, 7, None)] * 3


def test_interpolation_counts_all_solves_and_reports_the_worst(solves):
    a, b = jnp.array([[0.0, 1.0], [2.0, 1.0]]), jnp.array([[1.0, 1.0], [0.0, 1.0]])
    path = interpolate(exact.Gaussian(VPSDE()), a, b, [0.2, 0.4])
    np.testing.assert_array_equal(path.nfe, 1020)
    np.testing.assert_array_equal(path.status, [[1, 2], [1, 2]])


def test_spherical_interpolation_turns_at_even_speed():
    a, b = jnp.array([2.0, 0.0]), jnp.array([0.0, 4.0])
    np.testing.assert_allclose(
        [spherical(a, b, w) for w in (0, 1 / 3, 1)],
        [a, 8 / 3 * np.array([np.cos(np.pi / 6), np.sin(np.pi / 6)]), b],
        atol=1e-12,
    )
    np.testing.assert_allclose(spherical(a, a, 0.3), a)


def test_what_no_solve_can_take_is_refused():
    denoiser = exact.Gaussian(SOME_SDES[0])
    with pytest.raises(ValueError, match=r"at least 2 axes, not \(3,\)"):
        encode(denoiser, jnp.zeros(3))
    with pytest.raises(ValueError, match="real numbers, not uint8"):
        encode(denoiser, jnp.zeros((1, 3), jnp.uint8))
    with pytest.raises(ValueError, match="the solve: rtol=0 must be more than 0"):
        decode(denoiser, jnp.zeros((1, 3)), rtol=0)
    with pytest.raises(ValueError, match="the solve: max_steps=0 must be more than 0"):
        decode(denoiser, jnp.zeros((1, 3)), max_steps=0)
    with pytest.raises(ValueError, match=r"\(1, 3\) and b \(2, 3\)"):
        interpolate(denoiser, jnp.zeros((1, 3)), jnp.zeros((2, 3)), [0.5])
    with pytest.raises(ValueError, match=r"weights must be a vector"):
        interpolate(denoiser, jnp.zeros((1, 3)), jnp.zeros((1, 3)), 0.5)


def test_the_error_of_a_step_is_the_larger_root_mean_square_of_state_and_integrals():
    state, integrals = jnp.array([[3.0, 4.0], [0.0, 0.0]]), jnp.array([1.0, -7.0])
    np.testing.assert_allclose(_largest_rms((state, integrals)), 5.0, rtol=1e-12)
    np.testing.assert_allclose(_largest_rms((3 * state, integrals)), 7.5, rtol=1e-12)
    np.testing.assert_allclose(_largest_rms((state, jnp.zeros(0))), 2.5, rtol=1e-12)


def test_the_velocity_is_asked_for_between_t_min_and_t_max_alone():
    """Though squares of the solver's own time may round beyond."""
    seen, sde = [], VPSDE(t_min=0.27, t_max=0.88)  # in float32 sqrt(t)^2 is beyond both

    def recorded(x, t):
        jax.debug.callback(lambda t: seen.append(np.asarray(t)), t)
        return 0.5 * x

    denoiser, x = FunctionDenoiser(sde, recorded), jnp.ones((1, 2), jnp.float32)
    for solve in (encode, decode):
        jax.block_until_ready(solve(denoiser, x, rtol=1e-2, atol=1e-2).x)
    jax.effects_barrier()
    times = np.concatenate([np.ravel(t) for t in seen])
    assert times.min() == np.float32(0.27) and times.max() == np.float32(0.88)


def test_no_weights_are_refused():
    x = jnp.zeros((1, 3))
    for weights in ([], [[0.5]], 0.5):
        with pytest.raises(ValueError, match=r"weights must be a vector \(W,\) with W > 0, not of shape"):
            interpolate(exact.Gaussian(SOME_SDES[0]), x, x, weights)


def test_the_controller_has_both_tolerances_and_the_smallest_step_of_the_type():
    for dtype in ("float32", "float64"):
        controller = _controller(1e-2, 1e-5, jnp.dtype(dtype))
        assert (controller.rtol, controller.atol, controller.norm) == (1e-2, 1e-5, _largest_rms)
        assert controller.dtmin == 16 * np.finfo(dtype).eps and not controller.force_dtmin
        assert (controller.pcoeff, controller.icoeff, controller.dcoeff) == (0.3, 0.4, 0.0)


def test_statuses_have_the_documented_numbers():
    assert [(status.name, status.value) for status in Status] == [("SOLVED", 0), ("MAX_STEPS", 1), ("NO_STEP", 2)]
