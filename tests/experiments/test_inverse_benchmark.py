"""The benchmark of methods for inverse problems: its answers, its measures, and the code of azula beside."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from experiments.benchmarks import inverse, inverse_peers
from experiments.benchmarks.inverse import Case, Row
from experiments.benchmarks.inverse_methods import FAST, SETTINGS, Setting
from sde_lib.inverse import MMPS, PeriodicBlur
from tests.sde_lib.inverse.dense import gaussian_posterior

pytestmark = pytest.mark.thorough


@pytest.fixture(autouse=True)
def few_evaluations_in_float64(monkeypatch):
    monkeypatch.setattr(inverse, "EVALUATIONS", (20,))
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def correlated():
    return case("correlated", "half", 0.1)


def case(prior, measurement, noise):
    with jax.enable_x64(True):
        found = Case(prior, measurement, noise, inverse.priors()[prior], inverse.measurements()[measurement])
        return replace(found, num_measurements=2, num_samples=400)


def mmps(posterior):
    """The setting of `mmps` with another class in its place."""
    return Setting(lambda prior, *told: (posterior(prior, *told[:-1]), FAST), "quadratic", 9, "", "")


@struct.dataclass
class Doubled(MMPS):
    """With a wrong factor."""

    def correct(self, x, t):
        x0, noise, correction = super().correct(x, t)
        return x0, noise, 2 * correction


OBLIQUE = PeriodicBlur(event_shape=(4, 4, 1), kernel=np.array([[0, 0, 0.1], [0, 0.5, 0.3], [0, 0.1, 0]]))


@pytest.mark.parametrize("measurement", [None, OBLIQUE], ids=["half", "oblique"])
def test_draws_of_the_posterior_are_those_of_the_closed_form(correlated, measurement):
    """A and not its transpose, and y without what is not measured."""
    mine = replace(correlated, measurement=measurement or correlated.measurement)
    blurred = np.asarray(mine.measurement.forward(jnp.asarray(mine.reference[0].reshape(-1, 4, 4, 1))))
    np.testing.assert_allclose(
        mine.reference[0] @ np.asarray(mine.matrix).T, blurred.reshape(len(blurred), -1), atol=1e-12
    )
    matrix, y = np.asarray(mine.matrix)[mine.measured], np.asarray(mine.y).reshape(2, -1)
    assert (y[:, ~mine.measured] == 0).all() and mine.measured.sum() == (16 if measurement else 8)
    for x, told in zip(mine.reference, y[:, mine.measured], strict=True):
        law = gaussian_posterior(np.zeros(16), np.asarray(mine.prior.covariances[0]), matrix, told, 0.1)
        std = np.sqrt(np.diag(law[1]))
        np.testing.assert_array_less(np.abs(x.mean(0) - law[0]), 5 * std / np.sqrt(len(x)))
        np.testing.assert_allclose(x.std(0), std, rtol=5 / np.sqrt(2 * len(x)))


def test_an_exact_method_is_at_the_floor_and_a_wrong_factor_far_above(correlated):
    rows = [
        inverse.ours(correlated, "mmps solved", SETTINGS["mmps solved"]),
        inverse.oracle(correlated),
        inverse.fresh(correlated),
    ]
    assert all(row.at_floor[-1] for row in rows) and rows[0].claims
    np.testing.assert_allclose([row.misfit for row in rows], 1, atol=0.05)
    assert inverse.claims(rows) == "2 of 2 claims to be exact are at the floor."
    wrong = replace(inverse.ours(correlated, "mmps", mmps(Doubled)), claims=True)
    assert wrong.distances[-1] > 2 * wrong.ceiling
    assert inverse.claims([*rows, wrong]).splitlines()[1].startswith("mmps on correlated, half, noise 0.1: ")


def test_tmpd_is_at_the_floor_where_pixels_are_independent():
    row = inverse.ours(case("independent", "half", 0.1), "tmpd fast", SETTINGS["tmpd fast"])
    assert row.claims and row.at_floor[-1]


def test_particles_are_at_the_floor_of_the_mixture(monkeypatch):
    """Where they are many and the steps small; so is the exact Denoiser, and MMPS's Gaussian is not."""
    monkeypatch.setattr(inverse, "EVALUATIONS", (60,))
    mixture = case("mixture", "half", 0.1)
    many = inverse.twisted(mixture, 8_000)
    assert many.at_floor[-1] and many.method == "twisted, 8,000"
    assert inverse.twisted(mixture, 400).distances[-1] > 1.3 * many.distances[-1]
    assert inverse.oracle(mixture).at_floor[-1]
    assert inverse.ours(mixture, "mmps", SETTINGS["mmps"]).distances[-1] > 1.3 * mixture.floor[1]


def test_distances_are_in_units_of_the_floor_and_the_best_comes_first():
    def rows(name, *distances):
        cases = ("correlated, half, noise 1", "independent, half, noise 1", "mixture, half, noise 1")
        of_each = zip(cases, distances, (0.1, 0.2, 0.4), strict=True)
        return [Row(case, name, (distance,), 1.0, 1, floor, 1.1 * floor) for case, distance, floor in of_each]

    lines = inverse.summary([*rows("worse", 0.4, 0.2, 1.2), *rows("better", 0.1, 0.2, 0.4)]).splitlines()
    assert lines[2:] == ["| better | 1 | 1 | 1 | 3 of 3 |", "| worse | 1 | 2 | 3 | 1 of 3 |"]
    assert inverse.summary(rows("in part", 0.1, 0.2, 0.8)[2:]).splitlines()[2] == "| in part | 1 |  | 2 | 0 of 1 |"
    table = inverse.markdown([*rows("worse", 0.4, 0.2, 1.2), *rows("better", 0.1, 0.2, 0.4)])
    assert "| worse | 0.400 | 1.00 |" in table and "| worse | **0.200** | 1.00 |" in table


def test_the_suite_takes_no_config(fails, tmp_path):
    assert fails("benchmark", "--suite=inverse", "--config=configs/digits.py").startswith(
        "--suite=inverse takes no config"
    )
    assert fails("benchmark", "--suite=inverse", f"--out={tmp_path}/table.txt").endswith("must end in .md")
    assert "is for --suite=networks" in fails("benchmark", "--suite=inverse", "--families=unet")


@pytest.fixture
def torch():
    pytest.importorskip("azula", reason="azula is not installed: pip install -e '.[interop]'")
    return pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[interop]'")


def test_the_denoiser_in_torch_is_ours(torch):
    """At the same noise of x / alpha."""
    prior, peer = inverse.priors()["mixture"], inverse_peers.denoiser(inverse.priors()["mixture"])
    u = np.random.default_rng(0).normal(size=(5, 16))
    for t in (0.1, 0.5, 0.8):
        alpha, sigma = (float(value) for value in peer.schedule(torch.tensor(t, dtype=torch.float64)))
        expected = prior.sde.time_at_log_snr(2 * np.log(alpha / sigma))
        expected = prior(prior.sde.alpha(expected) * u.reshape(-1, 4, 4, 1), expected).reshape(5, 16)
        found = peer(alpha * torch.from_numpy(u), torch.tensor(t, dtype=torch.float64)).mean
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_azula_solves_the_same_problem(torch, monkeypatch):
    """Its MMPS, with many steps, is near the floor of a Gaussian; with 20 ours is nearer than any of its methods."""
    blurred = case("correlated", "blur", 1.0)
    ours = inverse.ours(blurred, "mmps", SETTINGS["mmps"])
    assert all(ours.distances[-1] < inverse.peer(blurred, name).distances[-1] for name in inverse_peers.PEERS)
    monkeypatch.setattr(inverse, "EVALUATIONS", (150,))
    assert inverse.peer(blurred, "azula: mmps 5").distances[-1] < 1.5 * blurred.floor[1]


def test_what_is_not_measured_is_not_told_to_azula(monkeypatch, correlated):
    """Rows of zeros would be no pixels, but count in the singular values and in shapes."""

    def draw(peer, prior, matrix, y, noise, steps):
        np.testing.assert_array_equal(matrix, np.eye(16)[:8])
        np.testing.assert_array_equal(y, np.repeat(np.asarray(correlated.y).reshape(2, 16)[:, :8], 400, axis=0))
        assert (noise, steps) == (0.1, 20)
        return correlated.reference.reshape(-1, 16)

    monkeypatch.setattr(inverse_peers, "draw", draw)
    assert inverse.peer(correlated, "azula: dps").distances == (0.0,)
