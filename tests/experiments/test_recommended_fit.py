"""The fit of the recommended samplers around its numbers: which mixtures, starts and entries. Nothing is fitted."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import recommended
from experiments.benchmarks.recommended import Mixture


@pytest.fixture(scope="module")
def mixtures():
    rng = np.random.default_rng(0)
    return [recommended.random_mixture(rng) for _ in range(1500)]


def test_random_mixtures_are_those_of_the_text(mixtures):
    """2 to 10 modes in 1 to 128 dimensions, weights equal or not, all kinds alike."""
    modes, sizes = np.array([mixture.means.shape for mixture in mixtures]).T
    assert (modes.min(), modes.max(), sizes.min()) == (2, 10, 1) and 100 < sizes.max() <= 128
    kinds = [mixture.kind for mixture in mixtures]
    for kind in ("cube", "gauss", "circle", "grid", "line", "simplex", "cluster", "sphere"):
        assert kinds.count(kind) == pytest.approx(1500 / 8, abs=5 * np.sqrt(1500 / 8))
    assert {1, 2} >= {m.means.shape[1] for m in mixtures if m.kind in ("grid", "line")}
    assert {m.means.shape[0] for m in mixtures if m.kind == "grid"} == {4, 9}
    equal = [np.ptp(mixture.weights) == 0 for mixture in mixtures if len(mixture.weights) > 1]
    assert np.mean(equal) == pytest.approx(0.5, abs=0.06)
    for mixture in mixtures:
        assert mixture.weights.sum() == pytest.approx(1) and len(mixture.weights) == len(mixture.means)
    sides = np.log([np.abs(m.means).max() for m in mixtures if m.kind == "line" and len(m.means) > 1])
    np.testing.assert_allclose([sides.min(), sides.max()], np.log([1.7 * 0.4, 1.7 * 4]), atol=0.1)
    for kind, deviation in (("sphere", lambda x: np.sqrt((x**2).mean(1))), ("grid", lambda x: x.std())):
        of_kind = [m for m in mixtures if m.kind == kind]
        spreads = [np.mean(deviation(m.means)) for m in of_kind]
        assert 0.39 < min(spreads) < 0.45 and 3.6 < max(spreads) < 4.01
        ratios = [m.std / spread for m, spread in zip(of_kind, spreads, strict=True)]
        assert 0.0399 < min(ratios) < 0.044 and 0.31 < max(ratios) < 0.351


@pytest.fixture
def drawn(monkeypatch):
    """Draws a family; gives its mixtures, their levels and the number of starts."""
    monkeypatch.setattr(recommended, "stack", lambda mixtures, levels: (mixtures, levels))
    monkeypatch.setattr(recommended, "_solved", lambda rng, mixtures, levels, count: (mixtures, levels, count))
    return lambda draw, seed: draw(seed, 7)


VP, EDM = (152.2, 0.010486), (80.0, 0.002)


@pytest.mark.parametrize("seed", recommended.FAMILIES)
def test_a_family_is_half_of_many_dimensions_and_half_of_shapes(drawn, seed):
    """Under VP's and EDM's noise levels in turn; in each a plane of at most nine dimensions holds the means."""
    mixtures, levels, count = drawn(recommended.family, seed)
    assert len(mixtures) == 24 and count == 7 and levels == 12 * [VP, EDM]
    for mixture in mixtures[:12]:
        modes, size = mixture.means.shape
        assert mixture.kind in ("cube", "gauss", "sphere") and 20 <= size <= 128 and 6 <= modes <= 10
    for mixture in mixtures[12:]:
        assert mixture.kind in ("circle", "grid", "line", "cluster") and len(mixture.means) >= 4
    assert len({mixture.kind for mixture in mixtures}) >= 6


def test_the_families_and_the_validation_are_of_their_own_seeds(drawn):
    first, second = (drawn(recommended.family, seed)[0] for seed in recommended.FAMILIES)
    assert first[0].std != second[0].std and recommended.VALIDATION not in recommended.FAMILIES


def test_the_validation_is_of_cubes_and_circles(drawn):
    """Of spreads of 0.4 to 1 and of 1.5 to 3, with deviations of 0.1 to 0.3 and of 0.07 to 0.15 of them."""
    mixtures, levels, count = drawn(recommended.validation, recommended.VALIDATION)
    assert len(mixtures) == 24 and count == 7 and levels == 12 * [VP, EDM]
    for mixture in mixtures[:12]:
        assert mixture.kind == "cube" and mixture.means.shape[0] == 10 and 32 <= mixture.means.shape[1] <= 128
        spread = np.sqrt((mixture.means**2).mean())
        assert 0.36 < spread < 1.08 and 0.09 < mixture.std / spread < 0.33 and np.ptp(mixture.weights) == 0
        assert np.abs(mixture.means).max() / spread == pytest.approx(np.sqrt(3), rel=0.1)
    for mixture in mixtures[12:]:
        radii = np.linalg.norm(mixture.means, axis=1)
        assert mixture.kind == "circle" and mixture.means.shape[1] == 2 and 6 <= len(radii) <= 10
        np.testing.assert_allclose(radii, radii[0])
        assert 1.5 < radii[0] / np.sqrt(2) < 3 and 0.07 < mixture.std / radii[0] * np.sqrt(2) < 0.15
        angles = np.unwrap(np.arctan2(*mixture.means.T[::-1]))
        np.testing.assert_allclose(np.diff(angles), 2 * np.pi / len(radii))


def test_starts_are_of_the_marginal_at_the_first_time():
    """Modes by their weights, deviations of the data and of the noise; nothing in coordinates that no data has."""
    means = np.zeros((1, 10, 10))
    means[0, 0, 0], means[0, 1, 0] = -100.0, 300.0
    weights = np.full((1, 10), 1e-300)
    weights[0, :2] = 0.25, 0.75
    denoiser = SimpleNamespace(
        means=jnp.asarray(means), weights=weights, stds=np.array([3.0]), sde=SimpleNamespace(t_max=np.array([4.0]))
    )
    share = np.zeros((1, 10))
    share[0, :3] = 0.2, 0.3, 0.5
    found = np.asarray(recommended.starts(np.random.default_rng(0), denoiser, share, 4000))
    assert found.shape == (1, 4000, 10) and not found[..., 3:].any()
    assert (found[0, :, 0] > 100).mean() == pytest.approx(0.75, abs=0.03)
    np.testing.assert_allclose(found[0, :, 1:3].std(0), 5, rtol=0.05)
    np.testing.assert_allclose(found[0, found[0, :, 0] < 100, 0].mean(), -100, atol=0.6)


def test_a_stack_has_each_mixture_at_its_place():
    first = Mixture("cube", np.array([[0.0, 1.0], [2.0, 3.0]]), 0.25, np.array([0.3, 0.7]))
    second = Mixture("line", np.array([[0.0], [1.0], [5.0]]), 0.5, np.array([0.2, 0.3, 0.5]))
    denoiser, share = recommended.stack([first, second], [VP, EDM])
    np.testing.assert_allclose(denoiser.stds, [0.25, 0.5])
    np.testing.assert_allclose(denoiser.weights[0, :2], [0.3, 0.7])
    np.testing.assert_allclose(denoiser.weights[1, :3], [0.2, 0.3, 0.5])
    assert denoiser.weights[0, 2:].max() < 1e-30 and share.shape == (2, 10)
    np.testing.assert_allclose(denoiser.sde.t_max, [152.2, 80.0], rtol=1e-6)
    np.testing.assert_allclose(denoiser.sde.t_min, [0.010486, 0.002], rtol=1e-5)


@pytest.mark.parametrize("n, minimizations", [(5, 4), (20, 4), (21, 1), (35, 1)])
def test_a_fit_is_of_the_grid_and_then_with_its_weights(monkeypatch, n, minimizations):
    """From equal steps and a scale of one half; up to 20 evaluations three rounds with the weights, which begin at 0."""
    asked = []

    def minimize(function, vector, *, jac, method, options):
        asked.append(np.array(vector))
        assert (jac, method) == (True, "L-BFGS-B")
        assert options == {"maxiter": 10, "maxfun": 14, "maxcor": 30, "ftol": 1e-9}
        return SimpleNamespace(x=vector + 1, fun=0.0, nfev=1)

    monkeypatch.setattr(recommended.scipy.optimize, "minimize", minimize)
    monkeypatch.setattr(recommended, "chosen", lambda problems: problems)
    entry = recommended.fit(n, None, iterations=10)
    knots, order = min(n, 12), 2 if n <= 5 else 3 if n <= 10 else 4
    assert len(asked) == minimizations
    np.testing.assert_allclose(asked[0], [0.0] * knots + [np.log(0.5)])
    for round_, vector in enumerate(asked[1:], 1):
        np.testing.assert_allclose(vector[: knots + 1], asked[0] + round_)
        np.testing.assert_allclose(vector[knots + 1 :], [round_ - 1] * (n * (2 * order - 1)))
    assert (entry["evaluations"], entry["order"], entry["log_lengths"]) == (n, order, [0.0] * knots)
    assert entry["data_std"] == pytest.approx(0.5 * np.exp(minimizations), abs=1e-4)
    assert ("predictor" in entry) == (minimizations > 1)


def test_a_step_that_is_not_finite_is_a_high_wall(monkeypatch):
    values = []

    def minimize(function, vector, **options):
        values.append(function(vector))
        return SimpleNamespace(x=vector, fun=0.0, nfev=1)

    for found, slope, expected in ((2.0, 1.0, (2.0, 1.0)), (np.nan, 1.0, (1e3, 0.0)), (2.0, np.inf, (1e3, 0.0))):
        monkeypatch.setattr(recommended, "_slope", lambda vector, *_, f=found, s=slope: (f, jnp.full(vector.shape, s)))
        monkeypatch.setattr(recommended.scipy.optimize, "minimize", minimize)
        monkeypatch.setattr(recommended, "chosen", lambda problems: problems)
        recommended.fit(35, None)
        value, gradient = values.pop()
        assert (value, gradient.tolist()) == (expected[0], [expected[1]] * 13)


def test_an_entry_of_the_file_stays_where_no_fit_is_better(monkeypatch, tmp_path, capsys):
    """Each number has the candidates of all families and the entry that was there; the file is written after each."""
    out, compared = tmp_path / "table.json", []
    old = [{"evaluations": n, "validation_error": 0.5, "of": "file"} for n in (5, 99)]
    out.write_text(json.dumps({"entries": old}))
    monkeypatch.setattr(recommended, "family", lambda seed, count: (seed, count))
    monkeypatch.setattr(recommended, "validation", lambda seed, count: ("validation", seed, count))
    monkeypatch.setattr(recommended, "fit", lambda n, problems: {"evaluations": n, "of": problems[0]})

    def best(candidates, problems):
        assert problems == ("validation", 99, 500) and jax.config.jax_enable_x64
        compared.append([entry["of"] for entry in candidates])
        return candidates[-1] | {"validation_error": 0.25}

    monkeypatch.setattr(recommended, "best", best)
    recommended.main([f"--out={out}", "--evaluations", "8", "5", "--families", "1", "2"])
    assert compared == [[1, 2], [1, 2, "file"]]
    found = json.loads(out.read_text())["entries"]
    assert [(entry["evaluations"], entry["of"]) for entry in found] == [(5, "file"), (8, 2), (99, "file")]
    assert "8 evaluations: validation error 0.25" in capsys.readouterr().out
    recommended.main([f"--out={out}", "--evaluations", "5", "--families"])
    assert compared[-1] == ["file"]
    with pytest.raises(SystemExit):
        recommended.main([f"--out={out}", "--evaluations", "7", "--families"])
    assert "has no entry for 7 evaluations" in capsys.readouterr().err
