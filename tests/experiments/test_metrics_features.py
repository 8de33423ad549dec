"""The feature space: the same each time, knows its classes, and tells real images from spoilt ones."""

import hashlib

import numpy as np
import pytest

from experiments.data import Images, load
from experiments.errors import UserError
from experiments.metrics import compare, fit_features, scaled_frechet_distance
from experiments.metrics.features import FeatureSpace, Perceptron, _pixels


@pytest.fixture(scope="module")
def digits():
    return load("digits", image_size=8, num_channels=1, test_fraction=0.5)


@pytest.fixture(scope="module")
def classes(digits):
    return fit_features(digits.train)


@pytest.fixture(scope="module")
def clusters(digits):
    return fit_features(Images(digits.train.images))


def test_deterministic(digits, classes, clusters):
    """In spite of what others draw from numpy's global generator."""
    np.random.random(7)  # noqa: NPY002
    images = digits.test.images[:50]
    np.testing.assert_array_equal(fit_features(digits.train)(images), classes(images))
    np.testing.assert_array_equal(fit_features(Images(digits.train.images))(images), clusters(images))
    assert (fit_features(digits.train, seed=1)(images) != classes(images)).any()


def test_classifier_knows_the_held_out_digits(digits, classes):
    assert classes.accuracy(digits.test) > 0.93
    shuffled = Images(digits.test.images, np.random.default_rng(0).permutation(digits.test.labels))
    assert classes.accuracy(shuffled) < 0.2


def test_two_classes_with_a_gap_in_their_numbers(digits):
    """Here scikit-learn has a single output, and its number is not the label."""

    def threes_and_sevens(images):
        return images.take(np.isin(images.labels, [3, 7]))

    space = fit_features(threes_and_sevens(digits.train))
    assert space.accuracy(threes_and_sevens(digits.test)) > 0.95


def test_clusters_have_no_accuracy(digits, clusters):
    assert clusters.accuracy(digits.test) is None
    one_class = Images(digits.train.images[:100], np.zeros(100, np.int32))
    assert fit_features(one_class).accuracy(one_class) is None
    assert "cluster" in clusters.name


@pytest.mark.parametrize("space", ["classes", "clusters"])
def test_distances_grow_with_the_damage(space, digits, request):
    """Real against real is the floor; noise of 16, 32 and 64 grey levels, then pure noise, is ever farther away."""
    space = request.getfixturevalue(space)
    rng = np.random.default_rng(0)
    train = digits.train.images
    sets = [train]
    for std in (16, 32, 64):
        sets.append(np.clip(np.rint(train + std * rng.normal(size=train.shape)), 0, 255).astype(np.uint8))
    sets.append(rng.integers(0, 256, train.shape, dtype=np.uint8))
    reference = space(digits.test.images)
    frechet, kernel, precision = [], [], []
    for images in sets:
        figures = compare(space(images), reference)
        print(len(frechet), figures)
        frechet.append(figures["frechet_distance"])
        kernel.append(figures["kernel_distance"])
        precision.append(figures["precision"])
    assert (np.diff(frechet) > 0).all() and (np.diff(kernel) > 0).all()
    assert frechet[0] < 1 and frechet[-1] > 20
    assert abs(kernel[0]) < 2 and kernel[-1] > 50
    assert precision[0] > 0.85 and precision[-1] < 0.4


def test_more_than_two_moments_of_the_pixels_are_seen(digits, clusters):
    """Gaussian noise with the digits' own mean and covariance is far above the floor, without labels too."""
    pixels = digits.train.images.reshape(899, 64).astype(np.float64)
    noise = np.random.default_rng(0).multivariate_normal(pixels.mean(axis=0), np.cov(pixels.T), 899)
    noise = np.clip(np.rint(noise), 0, 255).astype(np.uint8).reshape(899, 8, 8, 1)
    reference = clusters(digits.test.images)
    floor = scaled_frechet_distance(clusters(digits.train.images), reference)
    assert scaled_frechet_distance(clusters(noise), reference) > 6 * floor


def test_features_of_many_images_are_those_of_each(digits, classes):
    """Over several blocks, the last one partial."""
    images = np.concatenate([digits.train.images, digits.test.images])
    one_by_one = np.concatenate([classes(images[i : i + 1]) for i in (0, 999, 1000, 1796)])
    np.testing.assert_allclose(classes(images)[[0, 999, 1000, 1796]], one_by_one, rtol=1e-10, atol=1e-12)


def test_large_images_are_averaged_in_boxes():
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    (pixels,) = _pixels(images, (0.0, 255.0))
    expected = images.reshape(3, 32, 2, 32, 2, 3).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(pixels, expected.reshape(3, -1), rtol=1e-12)
    # 48 pixels over 32 boxes, each 1.5 wide: the first holds pixel 0 and half of pixel 1.
    images = np.zeros((1, 48, 48, 1), np.uint8)
    images[0, :, 1] = 255
    pixels = next(_pixels(images, (0.0, 255.0))).reshape(32, 32)
    np.testing.assert_allclose(pixels[:, :3], np.tile([1 / 3, 1 / 3, 0], (32, 1)), atol=1e-12)


def test_features_of_arrays_are_of_their_values_in_units_of_the_range():
    """Arrays of any shape, stretched and shifted together with their range, have the same features."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(120, 3, 2)).astype(np.float32)
    values[::2] += 2
    labels = np.arange(120, dtype=np.int32) % 2
    space = fit_features(Images(values, labels), raw_range=(-2.0, 4.0))
    assert space.accuracy(Images(values, labels)) > 0.9 and "6 pixels" not in space.name and "6 values" in space.name
    other = fit_features(Images(256 * values, labels), raw_range=(-512.0, 1024.0))
    np.testing.assert_array_equal(other(256 * values), space(values))
    assert (
        Perceptron(space).preprocessing == "[-2, 4] to [0, 1], linearly"
        and Perceptron(space).sha256 == Perceptron(other).sha256
    )
    with pytest.raises(UserError, match=r"float32 \(N, 3, 2\); these are uint8"):
        space(values.astype(np.uint8))


def test_images_of_another_kind_are_refused(digits, classes):
    with pytest.raises(UserError, match="float64"):
        classes(digits.test.images / 255)
    with pytest.raises(UserError, match=r"\(N, 8, 8, 1\)"):
        classes(digits.test.images[..., 0])


def test_compare_a_set_with_itself():
    features = np.random.default_rng(0).normal(size=(100, 5))
    figures = compare(features, features)
    assert figures.keys() == {"frechet_distance", "kernel_distance", "precision", "recall"}
    assert figures["frechet_distance"] < 1e-10 and figures["precision"] == figures["recall"] == 1


@pytest.mark.parametrize(
    "features, reference, phrase",
    [
        (np.ones((3, 2)), np.eye(8)[:, :2], r"samples have shape \(3, 2\)"),
        (np.eye(8), np.eye(8)[:, :2], "8 features of samples with 2"),
        (np.full((8, 2), np.nan), np.eye(8)[:, :2], "samples are not all finite"),
        (np.eye(8), np.ones((8, 8)), "no scale"),
    ],
)
def test_what_cannot_be_compared(features, reference, phrase):
    with pytest.raises(UserError, match=phrase):
        compare(features, reference)


def small_space(shape=(2, 2, 1), change=None, **options):
    """A feature space of counted weights, one of which is another number: (layer, 0 of weights or 1 of biases)."""
    layers = [[np.arange(12.0).reshape(4, 3), np.arange(3.0)], [np.arange(6.0).reshape(3, 2), np.arange(2.0)]]
    if change is not None:
        layers[change[0]][change[1]].flat[1] += 1
    return FeatureSpace("counted", shape, tuple(map(tuple, layers)), None, **options)


def test_a_perceptron_is_told_from_others_by_every_weight_and_the_shape_of_its_images():
    """And by its preprocessing, in words."""
    changes = [(layer, part) for layer in (0, 1) for part in (0, 1)]
    spaces = [small_space(), small_space((4, 1, 1)), *(small_space(change=change) for change in changes)]
    assert len({Perceptron(space).sha256 for space in spaces}) == 6
    assert Perceptron(small_space()).sha256 == Perceptron(spaces[0]).sha256
    digest = hashlib.sha256(b"(2, 2, 1)")
    for array in (array for layer in spaces[0].layers for array in layer):
        digest.update(str(array.shape).encode() + array.tobytes())
    assert Perceptron(spaces[0]).sha256 == digest.hexdigest()
    ways = [{}, {"dtype": "float32"}, {"dtype": "float32", "raw_range": (-0.5, 2.0)}]
    assert [Perceptron(small_space(**way)).preprocessing for way in ways] == [
        "box average to at most 32 x 32 (antialiased), x / 255", "[0, 255] to [0, 1], linearly",
        "[-0.5, 2] to [0, 1], linearly",
    ]  # fmt: skip
    named = Perceptron(spaces[0])
    assert (named.name, named.description) == ("perceptron", "counted")


def test_features_are_the_last_hidden_layer_of_values_in_units_of_the_range():
    """By hand: relu(x W + b) of x / 255, or of (x - low) / (high - low)."""
    pixels = np.array([[[[0], [51]], [[102], [255]]]], np.uint8)
    weights = np.array([[1, 0, -1], [2, 1, 0], [0, 5, 0], [-1, 0, 1.0]])
    space = FeatureSpace("", (2, 2, 1), ((weights, np.array([0.25, -1, 0.0])), (np.eye(3), np.zeros(3))), None)
    np.testing.assert_allclose(space(pixels), [[0, 1.2, 1]], atol=1e-12)
    np.testing.assert_array_equal(Perceptron(space)(pixels)["pool"], space(pixels))
    values = FeatureSpace("", (2, 2, 1), space.layers, None, "float32", (-1.0, 3.0))
    found = values(np.array([[[[-1], [3]], [[1], [5]]]], np.float32))  # 0, 1, 0.5, 1.5
    np.testing.assert_allclose(found, [[0.75, 2.5, 1.5]], atol=1e-12)
    labelled = FeatureSpace("", (2, 2, 1), space.layers, np.array([4, 7, 9], np.int32))
    assert labelled.accuracy(Images(np.repeat(pixels, 3, 0), np.array([7, 9, 7], np.int32))) == pytest.approx(2 / 3)


def test_values_are_taken_a_thousand_at_a_time_in_their_order():
    for count in (1, 999, 1000, 1001, 2003):
        values = np.arange(2.0 * count, dtype=np.float32).reshape(count, 1, 2)
        blocks = list(_pixels(values, (-1.0, 3.0)))
        assert list(map(len, blocks)) == [1000] * (count // 1000) + [count % 1000] * (count % 1000 > 0)
        np.testing.assert_allclose(np.concatenate(blocks), (values.reshape(count, 2) + 1) / 4, rtol=1e-12)
