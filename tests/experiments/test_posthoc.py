"""Averages made after training: coefficients of the published code, and averages that were tracked directly."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.errors import RunError, UserError
from experiments.learning import averaging, posthoc, state

TIMES, STDS = np.repeat([256, 512, 1024, 1536], 2), np.tile([0.05, 0.1], 4)


@pytest.mark.parametrize(
    "std, published",
    [
        (0.03, [-9.45805654675976e-21, 5.473696076190813e-18, -2.5372955790020052e-11, 1.4647992078811912e-08,
                -0.0014610861858233627, 0.04766008115203268, 2.1446582974239945, -1.190857307012823]),
        (0.08, [1.9104873805179e-09, -2.6112610127677116e-08, 2.6758860120802226e-06, -3.658293272454573e-05,
                0.003593012273466203, -0.019472052097385895, 0.2578911370465435, 0.7580218340262115]),
        (0.2, [-0.0026605606007873575, 0.0073801777431602355, -0.018751228021070255, 0.05215091890776616,
               -0.1327254021149548, 0.3350424447357768, -0.3856923287867768, 1.145255978136886]),
    ],
)  # fmt: skip
def test_coefficients_are_the_published_ones(std, published):
    """`solve_posthoc_coefficients(TIMES, STDS, 1536, std)` of
    https://github.com/NVlabs/edm2/blob/4bf8162f601bcc09472ce8a32dd0cbe8889dc8fc/training/phema.py."""
    np.testing.assert_allclose(posthoc.fit(TIMES, STDS, 1536, std).coefficients, published, rtol=1e-7, atol=1e-14)


def test_the_error_is_that_of_the_profile():
    """On a fine grid of times: the distance of the sum of profiles t^gamma from the wanted one."""
    t = (np.arange(200_000) + 0.5) / 200_000

    def profile(n, std):
        gamma = averaging.power_exponent(std)
        return np.where(t <= n, (gamma + 1) / n * np.where(t <= n, t / n, 0) ** gamma, 0)

    fitted = posthoc.fit(TIMES / 1536, STDS, 1, 0.2)
    made = sum(c * profile(n, s) for c, n, s in zip(fitted.coefficients, TIMES / 1536, STDS, strict=True))
    wanted = profile(1, 0.2)
    assert 0.3 < fitted.error < 0.4
    np.testing.assert_allclose(fitted.error, np.linalg.norm(made - wanted) / np.linalg.norm(wanted), rtol=1e-3)


def loss(draws, params, batch, frozen):
    """A linear model whose noisy target drifts, so that averages of different widths are far apart."""
    noise = jax.vmap(jax.random.normal)(draws.keys)
    return jnp.square(batch["image"] @ params["params"]["w"] - 3 * noise - batch["drift"])


STEPS, DIRECT = 512, (0.05, 0.1, 0.04, 0.08, 0.15)
SHAPES = {"params": {"w": jax.ShapeDtypeStruct((3,), jnp.float32)}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder of snapshots of widths 0.05 and 0.1 each 16 steps, the last averages by width), of a toy run."""
    rules = tuple(averaging.power(std) for std in DIRECT)
    optimizer = optax.sgd(0.1)
    step = state.make_train_step(loss, optimizer, emas=rules, seed=0)
    some = jax.jit(state.make_train_steps(step, 16))
    current = state.create({"params": {"w": jnp.zeros(3)}}, optimizer, emas=len(rules))
    images = np.random.default_rng(0).normal(size=(STEPS, 8, 3)).astype(np.float32)
    drift = np.sin(np.linspace(0, 12, STEPS, dtype=np.float32))[:, None].repeat(8, 1) * images.sum(2)
    folder = tmp_path_factory.mktemp("run") / "ema_snapshots"
    snapshots = posthoc.Snapshots(folder)
    for start in range(0, STEPS, 16):
        part = slice(start, start + 16)
        current, _ = some(current, {"image": images[part], "drift": drift[part]}, 16)
        for std, ema in zip(DIRECT[:2], current.emas, strict=False):
            snapshots.save(int(current.step), std, ema, updates=int(current.updates))
    return folder, {std: np.asarray(ema["params"]["w"]) for std, ema in zip(DIRECT, current.emas, strict=True)}


def thinned(folder, every, tmp_path):
    """A folder with the snapshots of each `every` steps alone."""
    other = tmp_path / f"every_{every}"
    other.mkdir()
    for (step, _), path in posthoc.Snapshots(folder).files().items():
        if step % every == 0:
            (other / path.name).write_bytes(path.read_bytes())
    return other


@pytest.mark.parametrize("std", DIRECT[2:])
def test_reconstruction_nears_the_average_tracked_directly(run, tmp_path, std):
    """With more snapshots the error falls; with one each 16 steps it is small beside the distance to those kept."""
    folder, direct = run
    errors, predicted = [], []
    for every in (128, 64, 32, 16):
        made = posthoc.reconstruct(thinned(folder, every, tmp_path), SHAPES, std)
        assert (made.step, made.count) == (STEPS, 2 * STEPS // every)
        errors.append(np.abs(made.variables["params"]["w"] - direct[std]).max())
        predicted.append(made.error)
    nearest = min(np.abs(direct[kept] - direct[std]).max() for kept in DIRECT[:2])
    assert (np.diff(predicted) < 0).all() and errors[-1] < 0.25 * errors[0]
    assert errors[-1] < 0.02 * nearest


@pytest.mark.parametrize("std", DIRECT[:2])
def test_a_width_that_was_kept_is_found_again(run, std):
    folder, direct = run
    made = posthoc.reconstruct(folder, SHAPES, std)
    np.testing.assert_allclose(made.variables["params"]["w"], direct[std], rtol=1e-5, atol=1e-6)
    assert made.error < 1e-5
    one_width = posthoc.reconstruct(folder, SHAPES, std, stds=(0.1,))
    assert one_width.count == STEPS // 16
    np.testing.assert_allclose(one_width.variables["params"]["w"], direct[std], atol=2e-2)


def test_an_earlier_step_is_of_its_own_time(run):
    """Widths are in units of the training up to the step."""
    folder, _ = run
    early = posthoc.reconstruct(folder, SHAPES, 0.1, step=256)
    with np.load(folder / "00000256-0.1.npz") as file:
        np.testing.assert_allclose(early.variables["params"]["w"], file["params/w"], rtol=1e-5, atol=1e-6)
    assert posthoc.reconstruct(folder, SHAPES, 0.1, latest=260).step == 256


def test_an_earlier_step_is_made_of_the_snapshots_up_to_it(run, tmp_path):
    folder, _ = run
    until = tmp_path / "until_256"
    until.mkdir()
    for (step, _), path in posthoc.Snapshots(folder).files().items():
        if step <= 256:
            (until / path.name).write_bytes(path.read_bytes())
    made, alone = posthoc.reconstruct(folder, SHAPES, 0.08, step=256), posthoc.reconstruct(until, SHAPES, 0.08)
    assert made.count == alone.count == 2 * 256 // 16
    np.testing.assert_array_equal(made.variables["params"]["w"], alone.variables["params"]["w"])


def test_times_are_updates_and_not_steps(tmp_path):
    """Where steps were skipped the files say it: the same snapshots, all of their steps moved, give the same average."""
    rng = np.random.default_rng(0)
    moved, plain = posthoc.Snapshots(tmp_path / "moved"), posthoc.Snapshots(tmp_path / "plain")
    for updates in (10, 20, 30, 40):
        for std in (0.05, 0.1):
            weights = {"params": {"w": rng.normal(size=3)}}
            plain.save(updates, std, weights, updates=updates)
            moved.save(updates + 7, std, weights, updates=updates)
    a, b = (posthoc.reconstruct(s.folder, SHAPES, 0.08).variables for s in (plain, moved))
    np.testing.assert_array_equal(a["params"]["w"], b["params"]["w"])


def test_half_precision_takes_half_the_space(tmp_path):
    weights = {"params": {"w": np.random.default_rng(0).normal(size=3000)}}
    for name in posthoc.DTYPES:
        posthoc.Snapshots(tmp_path / name).save(4, 0.1, weights, updates=4, dtype=name)
    half, whole = ((tmp_path / name / "00000004-0.1.npz").stat().st_size for name in ("float16", "float32"))
    assert 6000 < half < 7000 and 12000 < whole < 13000
    shapes = {"params": {"w": jax.ShapeDtypeStruct((3000,), jnp.float32)}}
    made = posthoc.reconstruct(tmp_path / "float16", shapes, 0.1).variables["params"]["w"]
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, weights["params"]["w"], rtol=2**-11)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_sum_of_snapshots_is_rounded_once(tmp_path, dtype):
    """Coefficients of -1.2 and 2.1 cancel: a sum in the dtype of the weights is off by several roundings."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(len(TIMES), 500)).astype(np.float32)
    for n, std, row in zip(TIMES, STDS, weights, strict=True):
        posthoc.Snapshots(tmp_path).save(int(n), std, {"params": {"w": row}}, updates=int(n))
    shapes = {"params": {"w": jax.ShapeDtypeStruct((500,), dtype)}}
    made = posthoc.reconstruct(tmp_path, shapes, 0.05, step=1536).variables["params"]["w"]
    np.testing.assert_array_equal(made, weights[-2].astype(dtype))
    made = posthoc.reconstruct(tmp_path, shapes, 0.04).variables["params"]["w"]
    exact = posthoc.fit(TIMES, STDS, 1536, 0.04).coefficients @ weights.astype(float)
    assert made.dtype == dtype and np.abs(exact).max() < 100
    error = np.abs(made - exact) / np.spacing(np.abs(exact).astype(dtype))
    assert error.max() < 0.51  # units in the last place


def test_what_cannot_be_made_is_one_line(run, tmp_path):
    folder, _ = run

    def message(folder, std=0.1, shapes=SHAPES, **options):
        with pytest.raises(UserError) as error:
            posthoc.reconstruct(folder, shapes, std, **options)
        return str(error.value)

    assert "has no snapshot of an average yet" in message(tmp_path)
    assert "step 17:" in message(folder, step=17) and "16, 32, 48, ..., 512" in message(folder, step=17)
    few = thinned(folder, 256, tmp_path)
    assert "the 4 snapshots up to step 512" in message(few, 0.25)
    assert "error of its profile: 73%" in message(few, 0.25)
    other = {"params": {"w": jax.ShapeDtypeStruct((4,), jnp.float32)}}
    assert "does not match the network" in message(folder, shapes=other)
    broken = few / "00000256-0.1.npz"
    broken.write_bytes(broken.read_bytes()[:-40])
    assert f"the snapshot {broken} cannot be read" in message(few)
    broken.write_bytes(b"")
    assert f"the snapshot {broken} cannot be read" in message(few)


@pytest.mark.parametrize("error, made", [(0.0, True), (0.299, True), (0.3, True), (0.301, False), (2.0, False)])
def test_an_average_may_be_off_by_three_tenths(tmp_path, monkeypatch, error, made):
    """In the units of the profile's norm; the limit is that of the check before training too."""
    posthoc.Snapshots(tmp_path).save(8, 0.1, {"params": {"w": np.ones(3)}}, updates=8)
    monkeypatch.setattr(posthoc, "fit", lambda *given: posthoc.Fit(np.ones(1), error))
    if made:
        assert posthoc.reconstruct(tmp_path, SHAPES, 0.2).error == error
        return
    with pytest.raises(UserError, match=rf"the 1 snapshots up to step 8 .* error of its profile: {error:.0%}"):
        posthoc.reconstruct(tmp_path, SHAPES, 0.2)


def files_of(folder, *names):
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return posthoc.Snapshots(folder).files()


def test_files_are_snapshots_by_their_names_in_the_order_of_their_steps(tmp_path):
    names = ["00000016-0.05.npz", "123456789-0.1.npz", "00000008-0.288.npz", "00000008-.1.npz", "00000007-1.npz"]
    others = ["00000016.npz", "a-0.1.npz", "8-0.1.tmp", "8--0.1.npz", "8-0.1-2.npz", "8-1e-3.npz"]
    found = files_of(tmp_path / "a", *names, *others)
    assert list(found) == [(7, 1.0), (8, 0.1), (8, 0.288), (16, 0.05), (123456789, 0.1)]
    assert sorted(path.name for path in found.values()) == sorted(names)
    assert posthoc.Snapshots(tmp_path / "nowhere").files() == {}


@pytest.mark.parametrize("std", [0.05, 0.1, 0.075, 0.2886, 1e-5])
def test_a_width_comes_back_from_the_name_of_its_file(tmp_path, std):
    posthoc.Snapshots(tmp_path).save(8, std, {"params": {"w": np.ones(3)}}, updates=8)
    assert list(posthoc.Snapshots(tmp_path).files()) == [(8, std)]
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


@pytest.mark.parametrize(
    "steps, told",
    [([8], "8"), ([1, 2, 3, 4, 5], "1, 2, 3, 4, 5"), ([1, 2, 3, 4, 5, 6], "1, 2, 3, ..., 6"), (range(9), "0, 1, 2, ..., 8")],
)  # fmt: skip
def test_up_to_five_steps_are_named(steps, told):
    assert posthoc._ranges(list(steps)) == told


def test_the_newest_snapshot_is_the_default_and_up_to_the_latest_step_that_is_asked_for(tmp_path, monkeypatch):
    """A step itself counts as up to it; snapshots of other widths are left out where widths are given."""
    monkeypatch.setattr(
        posthoc, "fit", lambda times, stds, time, std: posthoc.Fit(np.ones(len(times)) / len(times), 0.0)
    )
    for step in (8, 16, 24):
        for std in (0.05, 0.1):
            posthoc.Snapshots(tmp_path).save(step, std, {"params": {"w": np.full(3, step + std)}}, updates=step)
    options = [{}, {"latest": 16}, {"latest": 15}, {"latest": 99}, {"step": 8}, {"latest": 16, "stds": (0.1,)}]
    made = [posthoc.reconstruct(tmp_path, SHAPES, 0.1, **given) for given in options]
    assert [(found.step, found.count) for found in made] == [(24, 6), (16, 4), (8, 2), (24, 6), (8, 2), (16, 2)]
    np.testing.assert_allclose(made[1].variables["params"]["w"], 12.075, rtol=1e-6)
    np.testing.assert_allclose(made[5].variables["params"]["w"], 12.1, rtol=1e-6)
    with pytest.raises(UserError, match="has no snapshot of an average yet"):
        posthoc.reconstruct(tmp_path, SHAPES, 0.1, latest=7)
    with pytest.raises(UserError, match=r"step 24: .* has snapshots of the steps 8, 16$"):
        posthoc.reconstruct(tmp_path, SHAPES, 0.1, latest=16, step=24)


def test_a_snapshot_that_is_not_written_leaves_nothing_and_says_so(tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(RunError, match=r"cannot be written to .*: No space left on device\. Checkpoints are intact"):
        posthoc.Snapshots(tmp_path / "new").save(8, 0.1, {"params": {"w": np.ones(3)}}, updates=8)
    assert list((tmp_path / "new").iterdir()) == []
