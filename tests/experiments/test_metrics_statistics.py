"""Statistics of real images: the same for any division into blocks, safe to read, and refused where they are another's."""

import hashlib
import re

import numpy as np
import pytest

from experiments import metrics
from experiments.errors import UserError
from experiments.metrics import statistics as metrics_statistics
from experiments.metrics.statistics import ImageHash, Statistics, compute_statistics, image_hash, spread

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 1), np.uint8)


class Network:
    """Pixels, and their halves, as features."""

    name, preprocessing, sha256 = "pixels", "x / 255", "12ab" * 16

    def __init__(self):
        self.blocks = []

    def __call__(self, images):
        self.blocks.append(len(images))
        pixels = images.reshape(len(images), -1) / 255
        return {"pool": pixels, "spatial": pixels[:, :8] / 2}


def blocks(*sizes):
    return iter(np.split(IMAGES, np.cumsum(sizes)[:-1]))


@pytest.fixture(scope="module")
def statistics():
    return compute_statistics(blocks(50), Network())


def assert_same(a, b, rtol=0):
    assert (a.network, a.sha256, a.preprocessing, a.image_shape, a.images) == (
        b.network, b.sha256, b.preprocessing, b.image_shape, b.images,
    )  # fmt: skip
    assert a.count == b.count
    for mine, theirs in ((a.pool, b.pool), (a.spatial, b.spatial)):
        np.testing.assert_allclose(mine.mean, theirs.mean, rtol=rtol)
        np.testing.assert_allclose(mine.covariance, theirs.covariance, rtol=rtol, atol=rtol)
    np.testing.assert_array_equal(a.features, b.features)


def test_they_are_numpys_moments(statistics):
    features = Network()(IMAGES)
    np.testing.assert_allclose(statistics.pool.mean, features["pool"].mean(0), rtol=1e-12)
    np.testing.assert_allclose(
        statistics.pool.covariance, np.cov(features["pool"], rowvar=False), rtol=1e-10, atol=1e-14
    )
    np.testing.assert_allclose(
        statistics.spatial.covariance, np.cov(features["spatial"], rowvar=False), rtol=1e-10, atol=1e-14
    )
    np.testing.assert_array_equal(statistics.features, features["pool"])


def test_blocks_do_not_matter(statistics):
    network = Network()
    assert_same(compute_statistics(blocks(1, 0, 30, 19), network), statistics, rtol=1e-12)
    assert network.blocks == [1, 30, 19], "one block at a time"


def test_a_network_without_spatial_features():
    class Plain(Network):
        def __call__(self, images):
            return {"pool": images.reshape(len(images), -1)}

    found = compute_statistics(blocks(50), Plain())
    assert found.spatial is None and found.count == 50


def test_saved_and_read(statistics, tmp_path):
    path = tmp_path / "folder" / "statistics.npz"
    statistics.save(path)
    assert_same(Statistics.load(path), statistics, rtol=1e-15)
    assert [p.name for p in path.parent.iterdir()] == ["statistics.npz"]


def test_kept_features_are_some_of_the_images_evenly():
    """Over 50 images each of 10 places is filled by any with the same probability; the choice is always the same."""
    found = compute_statistics(blocks(7, 43), Network(), keep=10)
    np.testing.assert_array_equal(found.features, compute_statistics(blocks(50), Network(), keep=10).features)
    rows = {row.tobytes() for row in Network()(IMAGES)["pool"]}
    assert len({row.tobytes() for row in found.features} & rows) == 10
    positions = np.arange(5000).repeat(16).reshape(5000, 4, 4, 1).astype(np.float64)
    kept = compute_statistics([positions], Network(), keep=500).features[:, 0] * 255
    assert abs(kept.mean() - 2500) < 4 * 5000 / np.sqrt(12 * 500)
    assert np.histogram(kept, bins=5, range=(0, 5000))[0].min() > 70


def test_some_of_many_are_spread_over_an_order_by_class_and_over_one_in_turns():
    """One of each twelve in a row, as near to half of either source as draws are; all, where all are wanted."""
    chosen = spread(60_000, 5000)
    np.testing.assert_array_equal(chosen // 12, np.arange(5000))
    for turns in (2, 12):
        expected = 5000 / turns
        counts = np.bincount(chosen % turns, minlength=turns)
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    np.testing.assert_array_equal(spread(10, 20), np.arange(10))
    assert not len(spread(0, 5)) and not len(spread(5, 0))
    np.testing.assert_array_equal(np.diff(spread(899, 898)) > 0, True)


def test_the_hash_is_of_the_set_of_images():
    whole = image_hash(IMAGES)
    parts = ImageHash()
    for part in (IMAGES[30:], IMAGES[:30]):
        parts.update(part)
    assert parts.hexdigest() == whole
    changed = IMAGES.copy()
    changed[3, 1, 1, 0] ^= 1
    others = (changed, IMAGES[:-1], np.concatenate([IMAGES, IMAGES[:1]]), IMAGES.reshape(50, 2, 8, 1))
    assert len({whole, *(image_hash(images) for images in others)}) == 5


def test_no_images():
    with pytest.raises(UserError, match="there are no images"):
        compute_statistics([], Network())


@pytest.mark.parametrize(
    "attribute, value, message",
    [
        ("name", "inception", "file.npz: its feature network is 'pixels', not 'inception'"),
        ("preprocessing", "x / 127.5", "file.npz: its preprocessing is 'x / 255', not 'x / 127.5'"),
        ("sha256", "0" * 64, f"file.npz: its weights' SHA-256 is '{'12ab' * 16}', not '{'0' * 64}'"),
    ],
)
def test_other_features_are_refused(statistics, attribute, value, message):
    network = Network()
    setattr(network, attribute, value)
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        statistics.check("file.npz", network)


def test_other_images_are_refused(statistics):
    statistics.check_images("file.npz", "", [IMAGES[30:], IMAGES[:30]])
    with pytest.raises(UserError, match=r"file\.npz: it is of other images \(hash \w{12}\) than those to compare with"):
        statistics.check_images("file.npz", "", [IMAGES[:-1]])


def test_no_image_is_read_of_a_source_with_the_same_fingerprint():
    def unread():
        yield pytest.fail("read")

    found = compute_statistics(blocks(50), Network(), fingerprint="sha256:12")
    found.check_images("file.npz", "sha256:12", unread())
    found.check_images("file.npz", "names-and-sample:34", blocks(50))
    with pytest.raises(UserError, match="of other images"):
        found.check_images("file.npz", "names-and-sample:34", [IMAGES[:20]])


def test_what_is_no_file_of_statistics(statistics, tmp_path):
    def message(name):
        with pytest.raises(UserError) as caught:
            Statistics.load(tmp_path / name)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    statistics.save(tmp_path / "good.npz")
    assert "goood.npz does not exist; did you mean 'good.npz'?" in message("goood.npz")
    np.savez(tmp_path / "fid.npz", mu=np.zeros(3), sigma=np.eye(3))
    assert "fid.npz has no 'about" in message("fid.npz")
    content = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(content[: len(content) // 2])
    assert "half.npz is not a file of statistics, or it is damaged" in message("half.npz")
    np.savez(tmp_path / "object.npz", about=np.array([{"a": 1}], dtype=object))
    assert "object.npz is not a file of statistics" in message("object.npz"), "nothing is unpickled"
    np.savez(tmp_path / "text.npz", about="no JSON")
    assert "text.npz is not a file of statistics" in message("text.npz")


def test_figures_against_a_file_are_those_against_the_features(statistics, tmp_path):
    statistics.save(tmp_path / "s.npz")
    samples = np.random.default_rng(1).normal(size=(60, 16))
    expected = metrics.frechet_distance(samples, Network()(IMAGES)["pool"])
    found = metrics.frechet_distance_of_moments(metrics.Moments.of(samples), Statistics.load(tmp_path / "s.npz").pool)
    assert found == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("blocks", [[100], [5, 95], [3, 1, 96], [7] * 14 + [2], [1] * 100])
def test_features_are_kept_by_algorithm_r_however_they_are_divided(size, blocks):
    """Row n takes place j of the first `size` for j drawn below n: each row is kept as likely as any other."""
    rows, draws = np.arange(100.0)[:, None], np.random.default_rng(0)
    expected = rows[:size].copy()
    for number in range(size + 1, 101):
        place = draws.integers(number)
        if place < size:
            expected[place] = rows[number - 1]
    reservoir = metrics_statistics._Reservoir(size)
    for block in np.split(rows, np.cumsum(blocks)[:-1]):
        reservoir.add(block)
    np.testing.assert_array_equal(reservoir.features(), expected)
    assert (expected != rows[:size]).all()


def test_every_row_is_kept_as_often():
    """Of 30 rows, 3 each time: 1000 reservoirs with draws of their own keep each about 100 times, each in any place."""
    kept = np.zeros((3, 30), int)
    for seed in range(1000):
        reservoir = metrics_statistics._Reservoir(3)
        reservoir._draws = np.random.default_rng(seed)
        reservoir.add(np.arange(20)[:, None])
        reservoir.add(np.arange(20, 30)[:, None])
        kept[np.arange(3), reservoir.features()[:, 0]] += 1
    np.testing.assert_allclose(kept.sum(0), 100, atol=5 * np.sqrt(100 * 0.9))
    assert (kept[:, 3:] > 10).all()


def test_the_hash_of_images_is_the_same_on_every_machine():
    """The number of images and the sum of their SHA-256 modulo 2^256; files of statistics are shared."""
    digests = [hashlib.sha256(b"(4, 4, 1)" + image.tobytes()).digest() for image in IMAGES]
    for count in range(51):
        total = sum(int.from_bytes(digest, "big") for digest in digests[:count]) % 2**256
        assert image_hash(IMAGES[:count]) == hashlib.sha256(f"{count} {total:064x}".encode()).hexdigest()
