"""Metrics at their ends: smallest sets, defaults, odd shapes, and what is refused just there and no sooner."""

import itertools
import json

import numpy as np
import pytest

from experiments import metrics
from experiments.data import Images
from experiments.errors import UserError
from experiments.metrics import feature_maps, feature_networks, features, kernel, quality, resizing
from experiments.metrics.memorisation import memorisation
from experiments.metrics.moments import Moments
from experiments.metrics.statistics import Statistics, compute_statistics, spread

RNG = np.random.default_rng


def test_four_samples_can_be_compared_and_three_cannot():
    points = RNG(0).normal(size=(9, 2))
    metrics.check_comparable(points[:4], points[:4])
    for pair, name in (((points[:3], points), "samples"), ((points, points[:3]), "reference")):
        with pytest.raises(
            UserError, match=rf"the {name} have shape \(3, 2\); \(N, d\) features with N > 3 are needed"
        ):
            metrics.check_comparable(*pair)
    with pytest.raises(UserError, match=r"the samples have shape \(9,\)"):
        metrics.check_comparable(points[:, 0], points)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_features_that_are_not_finite_cannot_be_compared(value, place):
    sets = [RNG(0).normal(size=(6, 2)) for _ in range(2)]
    sets[place][5, 1] = value
    with pytest.raises(UserError, match=f"features of the {('samples', 'reference')[place]} are not all finite"):
        metrics.check_comparable(*sets)


def test_a_reference_varies_in_one_feature_at_least():
    reference = np.ones((6, 3))
    with pytest.raises(UserError, match="there is no scale"):
        metrics.check_comparable(RNG(0).normal(size=(6, 3)), reference)
    reference[3, 2] = 2
    metrics.check_comparable(RNG(0).normal(size=(6, 3)), reference)


def subsets(a, b, num_subsets, size, seed):
    """The definition: two draws without replacement for each of the subsets."""
    rng = RNG(seed)
    found = [
        metrics.kernel_distance(a[rng.choice(len(a), size, replace=False)], b[rng.choice(len(b), size, replace=False)])
        for _ in range(num_subsets)
    ]
    return pytest.approx((np.mean(found), np.std(found)), rel=1e-10)


@pytest.mark.parametrize("n, m, size", [(30, 20, 12), (10, 20, 10), (20, 9, 9)])
def test_kernel_distances_of_subsets_are_drawn_from_all_of_either_set(n, m, size):
    a, b = RNG(1).normal(size=(n, 3)), RNG(2).normal(size=(m, 3)) + 0.3
    found = metrics.kernel_distance_of_subsets(a, b, num_subsets=4, size=12, seed=5)
    assert found == subsets(a, b, 4, size, 5)


def test_published_kernel_distances_are_of_100_subsets_of_1000(monkeypatch):
    sizes = []
    monkeypatch.setattr(kernel, "kernel_distance", lambda a, b: sizes.append((len(a), len(b))) or 0.0)
    metrics.kernel_distance_of_subsets(np.zeros((1500, 1)), np.zeros((1200, 1)))
    assert sizes == [(1000, 1000)] * 100


def test_published_inception_scores_are_of_parts_of_5000():
    logits = RNG(0).normal(size=(5003, 2)) * 3
    parts = [metrics.inception_score(part, len(part))[0] for part in (logits[:5000], logits[5000:])]
    assert metrics.inception_score(logits)[0] == pytest.approx(np.mean(parts), rel=1e-12)


def test_the_nearest_training_image_is_told_with_its_distance():
    train = np.array([[0.0, 0], [3, 4], [10, 0]])
    found = memorisation(np.array([[3.0, 3], [9, 0]]), train, np.array([[1.0, 1]]))
    np.testing.assert_array_equal(found.nearest, [1, 2])
    np.testing.assert_allclose(found.distance, [1, 1])


def test_a_single_feature_does_not_vary_and_two_vary_by_their_difference():
    one, two = Moments.of(np.array([[3.0, 4]])), Moments.of(np.array([[0.0, 2], [2, 6]]))
    np.testing.assert_array_equal(one.covariance, np.zeros((2, 2)))
    np.testing.assert_array_equal(two.covariance, [[2, 4], [4, 8]])
    assert (one.total_variance, two.total_variance) == (0, 10)


# ---- the perceptron ----


class Fitted:
    """Stands for scikit-learn's classifier: keeps how it is made and what it is fitted to."""

    made = None

    def __init__(self, hidden, **options):
        Fitted.made = self
        self.hidden, self.options = hidden, options

    def fit(self, pixels, labels):
        self.pixels, self.labels = pixels, np.asarray(labels)
        self.classes_ = np.unique(self.labels)
        sizes = (pixels.shape[1], *self.hidden, len(self.classes_))
        self.coefs_ = [np.ones(pair) for pair in itertools.pairwise(sizes)]
        self.intercepts_ = [np.zeros(size) for size in sizes[1:]]


@pytest.fixture
def fitted(monkeypatch):
    def fit(count, labels=None, **options):
        monkeypatch.setattr("sklearn.neural_network.MLPClassifier", Fitted)
        pixels = RNG(0).integers(0, 256, (count, 2, 2, 1), np.uint8)
        pixels[:, 0, 0, 0] = np.arange(count) % 251
        space = features.fit_features(Images(pixels, labels), **options)
        return Fitted.made, space

    return fit


@pytest.mark.parametrize(
    "count, epochs, batch",
    [
        (40, 1600, 40),
        (64, 1000, 64),
        (100, 640, 64),
        (6399, 11, 127),
        (6400, 10, 128),
        (9000, 10, 180),
        (12_000, 10, 200),
    ],
)
def test_a_perceptron_sees_64000_examples_or_10_epochs(fitted, count, epochs, batch):
    made, space = fitted(count, np.arange(count) % 3)
    assert made.hidden == (128, 64)
    assert made.options == {"batch_size": batch, "max_iter": epochs, "n_iter_no_change": epochs, "random_state": 0}
    assert (
        len(made.pixels) == min(count, 10_000)
        and f"trained {epochs} epochs on the 3 classes of {min(count, 10_000)}" in space.name
    )


def test_of_many_images_10000_are_drawn_by_the_seed(fitted):
    labels = (np.arange(12_000) % 5).astype(np.int32)
    first = fitted(12_000, labels)[0].labels
    np.testing.assert_array_equal(first, labels[RNG(0).permutation(12_000)[:10_000]])
    np.testing.assert_array_equal(fitted(12_000, labels, seed=3)[0].labels, labels[RNG(3).permutation(12_000)[:10_000]])


@pytest.mark.parametrize(
    "count, labels, clusters",
    [(30, None, 10), (7, None, 7), (30, np.zeros(30, int), 10), (30, np.arange(30) % 2, None)],
)
def test_clusters_stand_for_classes_where_there_are_not_two(fitted, count, labels, clusters):
    made, space = fitted(count, labels)
    assert len(made.classes_) == (clusters or 2)
    assert (space.classes is None) == bool(clusters)
    assert (f"the {clusters} k-means clusters" if clusters else "the 2 classes") in space.name


@pytest.mark.parametrize("shape", [(32, 32), (33, 32), (32, 33), (16, 40), (40, 16), (31, 5)])
def test_images_are_averaged_where_either_side_is_more_than_32(shape):
    images = RNG(0).integers(0, 256, (2, *shape, 1), np.uint8)

    def boxes(size):
        new = min(size, 32)
        fine = np.repeat(np.eye(size), new, axis=0)  # each pixel in as many parts as there are boxes
        return fine.reshape(new, size, size).mean(1)

    (pixels,) = features._pixels(images)
    expected = np.einsum("hH,nHW,wW->nhw", boxes(shape[0]), images[..., 0] / 255, boxes(shape[1]))
    np.testing.assert_allclose(pixels, expected.reshape(2, -1), atol=1e-12)


# ---- published networks ----

DIGITS = {
    "efficientnet-lite0": "57934424",
    "inception": "6726825d",
    "inception-tf1": "6726825d",
    "inception-clean": "6726825d",
}


def test_publishers_hashes_are_known_where_there_are_any():
    """The first eight digits, which inception's file has in its own name."""
    assert {name: kind.digits for name, kind in feature_networks.KINDS.items() if kind.digits} == DIGITS
    assert DIGITS["inception"] in feature_networks.KINDS["inception"].published_as
    assert {name for name, kind in feature_networks.KINDS.items() if kind.packaged_file} == {feature_networks.DEFAULT}
    assert feature_networks.DEFAULT == "efficientnet-lite0"


def test_pytorchs_inception_sees_pixels_from_minus_one_to_one():
    image = RNG(0).integers(0, 256, (1, 299, 299, 3), np.uint8)
    found = feature_networks.KINDS["inception"].preprocess(image)
    np.testing.assert_allclose(found, image / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("count, calls", [(1, 1), (31, 1), (32, 1), (33, 2), (64, 2)])
def test_a_network_takes_32_images_at_a_time(count, calls):
    seen = []

    class Network(feature_networks.FeatureNetwork):
        @property
        def _compiled(self):
            return lambda variables, images: seen.append(images) or {"pool": images[:, 0, 0] * 1.0}

        _on_device = None

    network = Network("n", "", "", None, None, None)
    images = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(3, -1)
    np.testing.assert_array_equal(network(images)["pool"][:, 0], np.arange(count))
    assert [len(block) for block in seen] == [32] * calls


@pytest.mark.parametrize("shape", [(1, 8, 8, 1), (1, 8, 8, 3), (2, 1, 9, 3)])
def test_gray_and_colour_images_of_any_size_are_allowed(shape):
    feature_networks.check_images(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(1, 8, 8, 4), (1, 8, 8, 2), (1, 0, 8, 3), (0, 8, 8, 3), (1, 1, 8, 8, 3)])
def test_images_of_other_shapes_are_not(shape):
    with pytest.raises(UserError, match="features need images uint8"):
        feature_networks.check_images(np.zeros(shape, np.uint8))
    with pytest.raises(UserError, match="these are list"):
        feature_networks.check_images([[0]])


# ---- perceptual distance ----


def test_maps_of_different_lengths_count_by_their_directions():
    """1 - cos is half the squared distance of unit vectors; no direction has none to anything."""
    a, b = np.zeros((1, 1, 2, 3), np.float32), np.zeros((1, 1, 2, 3), np.float32)
    a[0, 0, 0], b[0, 0, 0] = [3e-4, 0, 4e-4], [0, 0, 700]
    a[0, 0, 1], b[0, 0, 1] = [0, 2, 0], [5, 0, 0]
    found = quality._map_distance(np.concatenate([a, b]))
    np.testing.assert_allclose(found, [(2 * (1 - 0.8) + 2) / 2], rtol=1e-5)
    silent = np.concatenate([np.zeros_like(a), b])
    np.testing.assert_allclose(quality._map_distance(silent), [1], rtol=1e-6)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 33])
def test_each_pair_has_its_perceptual_distance_in_its_place(monkeypatch, count):
    monkeypatch.setattr(feature_maps, "variables", lambda: None)
    sizes = []

    def distance(variables, images, truth):
        sizes.append(len(images))
        return images[:, 0, 0, 0] - truth[:, 0, 0, 0]

    monkeypatch.setattr(quality, "_feature_distance", distance)
    images = np.arange(count, dtype=float)[:, None, None, None].repeat(3, -1)
    np.testing.assert_array_equal(quality.perceptual(images, -images), 2 * np.arange(count))
    assert set(sizes) == {16} and quality.perceptual(images, images).dtype == np.float64


@pytest.mark.parametrize("channels", [2, 4])
def test_perceptual_distances_are_of_gray_and_colour_images(channels):
    with pytest.raises(ValueError, match=f"needs images of 1 or 3 channels, not {channels}"):
        quality.perceptual(np.zeros((1, 8, 8, channels)), np.zeros((1, 8, 8, channels)))


@pytest.mark.parametrize("clip, expected", [(True, (0, 255)), (False, (-127.5, 382.5))])
def test_pixels_beyond_black_and_white_are_clipped_where_asked(monkeypatch, clip, expected):
    """Images of -2 and 2: what the network sees of them, after (x - 127) / 128."""
    seen = []

    class Network:
        def apply(self, variables, pixels, capture_intermediates):
            seen.append(np.asarray(pixels))
            kept = {layer: {"__call__": [layer]} for layer in feature_maps.LAYERS}
            return None, {"intermediates": kept}

    monkeypatch.setattr(feature_maps, "EfficientNetLite0", Network)
    images = np.array([-2.0, 2.0], np.float32)[:, None, None, None] * np.ones((2, 5, 7, 1), np.float32)
    maps = feature_maps.of(None, images, clip=clip)
    assert maps == ("block_0", "block_2", "block_4", "block_10", "block_15")
    assert seen[0].shape == (2, 224, 224, 3)
    for pixels, level in zip(seen[0], expected, strict=True):
        np.testing.assert_allclose(pixels, (level - 127) / 128, atol=1e-4)


def test_psnr_is_of_the_whole_range():
    assert quality.psnr(np.full((1, 4, 5, 2), 1.0), np.full((1, 4, 5, 2), -1.0)) == pytest.approx([0])
    for shapes in (((1, 8, 8), (1, 8, 8)), ((1, 8, 8, 1), (2, 8, 8, 1))):
        with pytest.raises(ValueError, match="must both be"):
            quality.psnr(*map(np.zeros, shapes))


@pytest.mark.parametrize("size, window", [(1, 1), (2, 1), (7, 7), (8, 7), (10, 9), (11, 11), (12, 11), (256, 11)])
def test_the_window_is_the_largest_odd_one_up_to_11(size, window):
    assert quality.ssim_window(size, 300) == quality.ssim_window(300, size) == window


# ---- statistics ----


class Pixels:
    name, preprocessing, sha256 = "pixels", "none", "0" * 64

    def __call__(self, images):
        return {"pool": images.reshape(len(images), -1) / 255}


def test_10000_features_are_kept():
    images = RNG(0).integers(0, 256, (10_050, 1, 2, 1), np.uint8)
    found = compute_statistics([images[:7000], images[7000:]], Pixels())
    assert found.count == 10_050 and found.features.shape == (10_000, 2)
    np.testing.assert_array_equal(found.features[:7], images[:7].reshape(7, 2) / 255)


@pytest.mark.parametrize("version", [0, 2, 3])
def test_a_file_of_another_version_is_refused(tmp_path, version):
    path = tmp_path / "s.npz"
    compute_statistics([np.zeros((5, 1, 2, 1), np.uint8)], Pixels()).save(path)
    with np.load(path) as file:
        arrays = dict(file)
    arrays["about"] = json.dumps(json.loads(str(arrays["about"])) | {"version": version})
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=f"is of version {version}; 1 is read here"):
        Statistics.load(path)


def test_a_file_in_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    compute_statistics([np.zeros((5, 1, 2, 1), np.uint8)], Pixels(), fingerprint="f").save(tmp_path / "s.npz")
    assert Statistics.load("~/s.npz").fingerprint == "f"
    with pytest.raises(UserError, match=r"none\.npz does not exist"):
        Statistics.load("~/nowhere/none.npz")


def test_sources_without_a_fingerprint_are_compared_by_their_images():
    images = np.arange(10, dtype=np.uint8).reshape(5, 1, 2, 1)
    found = compute_statistics([images], Pixels())
    assert found.fingerprint == ""
    with pytest.raises(UserError, match="of other images"):
        found.check_images("file", "", [images[:4]])


@pytest.mark.parametrize("count, limit", [(10, 10), (10, 3), (1, 1), (7, 6), (100, 99)])
def test_one_of_each_part_is_chosen(count, limit):
    chosen = spread(count, limit)
    assert len(chosen) == limit
    for i, place in enumerate(chosen):
        assert i * count // limit <= place < (i + 1) * count // limit


def test_bilinear_positions_before_the_first_pixel_are_the_first_pixel():
    """Twice as large: the centres are at -1/4, 1/4, 3/4, ..., of which the first lies outside."""
    x = np.array([[[0.0], [4.0]]], np.float32)[None].reshape(1, 1, 2, 1)
    found = np.asarray(resizing.bilinear(x, 4))[0, 0, :, 0]
    np.testing.assert_allclose(found, [0, 1, 3, 4])
    np.testing.assert_allclose(np.asarray(resizing.bilinear_tf1(x, 4))[0, 0, :, 0], [0, 2, 4, 4])
