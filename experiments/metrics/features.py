"""Feature space of a small classifier that is fitted to the training images in seconds; the default for evaluations.

Distances of pixels are poor measures of the similarity of images; features of a classifier are better (Heusel et al.
2017, https://arxiv.org/abs/1706.08500). Published values use the Inception network and its weights. Here a multilayer
perceptron learns the classes of the training images or, without classes, k-means clusters of their pixels (as in
DeepCluster, Caron et al. 2018, https://arxiv.org/abs/1807.05520). Its last hidden layer is the feature space. Distances
in these features compare runs on one data set; they are not comparable with published values.
"""

import hashlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from experiments.data.sources import Images, Source
from experiments.errors import UserError

MAX_IMAGES = 10_000  # maximum number of images to fit to: more images change the distances little
MAX_SIZE = 32  # pixels; larger images are averaged down to this size
HIDDEN_UNITS = (128, 64)  # the last number is the number of features
NUM_CLUSTERS = 10  # k-means clusters, for data without classes
MIN_EPOCHS, MIN_EXAMPLES = 10, 64_000  # minimum length of the training; both must be reached
MIN_BATCH, BATCHES_PER_EPOCH = 64, 50  # batches grow with the number of images, since each step has a fixed cost
BLOCK = 1000  # images per block


@dataclass(frozen=True)
class FeatureSpace:
    """A fitted feature space: `space(images)` maps uint8 (N, H, W, C), or float32 (N, *event), to float64 (N, d).

    Attributes:
        name: description of the features, for reports.
        image_shape: (H, W, C) of the images, or event shape of the arrays, that the space was fitted on and accepts.
        layers: weights (n_in, n_out) and biases (n_out,) of the perceptron, output layer last.
        classes: int32, the label of each output; None if the outputs are clusters.
        dtype: dtype of the data that the space was fitted on and accepts, uint8 or float32.
        raw_range: raw values that are mapped to 0 and 1 for the perceptron.
    """

    name: str
    image_shape: tuple[int, int, int]
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    classes: np.ndarray | None
    dtype: str = "uint8"
    raw_range: tuple[float, float] = (0.0, 255.0)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the activations (N, d), d = 64, of the last hidden layer (after its ReLU).

        Raises:
            UserError: the images have another dtype or shape than those that the space was fitted on.
        """
        if images.dtype != self.dtype or images.shape[1:] != self.image_shape:
            needed = ", ".join(map(str, self.image_shape))
            raise UserError(f"features need images {self.dtype} (N, {needed}); these are {images.dtype} {images.shape}")
        return np.concatenate([self._features(x) for x in _pixels(images, self.raw_range)])

    def accuracy(self, images: Images) -> float | None:
        """Returns the accuracy of the classifier on `images`; None without classes."""
        if self.classes is None:
            return None
        weights, biases = self.layers[-1]
        predicted = self.classes[np.argmax(self(images.images) @ weights + biases, axis=1)]
        return float(np.mean(predicted == images.labels))

    def _features(self, x: np.ndarray) -> np.ndarray:
        for weights, biases in self.layers[:-1]:
            x = np.maximum(x @ weights + biases, 0)
        return x


def fit_features(train: Source, seed: int = 0, raw_range: tuple[float, float] = (0.0, 255.0)) -> FeatureSpace:
    """Fits a feature space to training images; on one machine, the result is a function of the images and the seed.

    (On another machine, matrix products round differently, and training amplifies the difference, so distances differ
    slightly.)

    Args:
        train: training images; a random subset of at most 10,000 is used.
        seed: seed of the subset, of the initial weights and of the order of training.
        raw_range: raw values that are mapped to 0 and 1 for the perceptron.
    """
    import sklearn
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    if len(train) > MAX_IMAGES:
        train = train.take(np.random.default_rng(seed).permutation(len(train))[:MAX_IMAGES])
    train = train.in_memory()
    pixels = np.concatenate(list(_pixels(train.images, raw_range))).astype(np.float32)
    has_classes = train.labels is not None and len(np.unique(train.labels)) > 1
    epochs = max(MIN_EPOCHS, math.ceil(MIN_EXAMPLES / len(train)))
    classifier = MLPClassifier(
        HIDDEN_UNITS,
        batch_size=min(max(MIN_BATCH, len(train) // BATCHES_PER_EPOCH), len(train)),
        max_iter=epochs,
        n_iter_no_change=epochs,  # no early stopping: the fit takes the same number of steps everywhere
        random_state=seed,
    )
    # With one thread, sums do not depend on the number of cores; more threads would gain little on small matrices.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is fixed
        classifier.fit(pixels, train.labels if has_classes else _clusters(pixels, seed))
    layers = [
        (np.asarray(weights, np.float64), np.asarray(biases, np.float64))
        for weights, biases in zip(classifier.coefs_, classifier.intercepts_, strict=True)
    ]
    if len(classifier.classes_) == 2:  # scikit-learn then has one output, the log-odds of the second class
        weights, biases = layers[-1]
        layers[-1] = (np.hstack([0 * weights, weights]), np.hstack([0 * biases, biases]))
    target = f"the {len(classifier.classes_)} {'classes' if has_classes else 'k-means clusters'}"
    values = "pixels" if train.images.dtype == np.uint8 else "values"
    name = (
        f"{HIDDEN_UNITS[-1]} features: the last hidden layer of a perceptron ({pixels.shape[1]} {values}, "
        f"{', '.join(map(str, HIDDEN_UNITS))} units, ReLU) trained {epochs} epochs on {target} of {len(train)} "
        f"training images (scikit-learn {sklearn.__version__}, seed {seed}); not comparable with Inception features"
    )
    return FeatureSpace(
        name,
        train.images.shape[1:],
        tuple(layers),
        classifier.classes_ if has_classes else None,
        str(train.images.dtype),
        raw_range,
    )


@dataclass(frozen=True)
class Perceptron:
    """A fitted feature space with the interface of the published networks.

    Attributes:
        space: the feature space.
    """

    space: FeatureSpace
    name: ClassVar[str] = "perceptron"

    @property
    def preprocessing(self) -> str:
        """Description of the preprocessing of raw data."""
        low, high = self.space.raw_range
        if self.space.dtype != "uint8":
            return f"[{low:g}, {high:g}] to [0, 1], linearly"
        return f"box average to at most {MAX_SIZE} x {MAX_SIZE} (antialiased), x / 255"

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the weights, hexadecimal."""
        digest = hashlib.sha256(str(self.space.image_shape).encode())
        for array in (array for layer in self.space.layers for array in layer):
            digest.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def description(self) -> str:
        """Description of the features, for reports."""
        return self.space.name

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns `pool`, float64 (N, 64), of images (N, H, W, C) or arrays; raises as the space does."""
        return {"pool": self.space(images)}


def _clusters(pixels: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    return KMeans(min(NUM_CLUSTERS, len(pixels)), n_init=1, random_state=seed).fit_predict(pixels)


def _pixels(images: np.ndarray, raw_range: tuple[float, float] = (0.0, 255.0)) -> Iterator[np.ndarray]:
    """Yields blocks (B, d) of values, scaled such that `raw_range` becomes [0, 1].

    Images uint8 (N, H, W, C) are averaged down to at most 32 x 32 pixels; arrays of floats (N, *event) keep all values.
    """
    low, high = raw_range
    if images.dtype != np.uint8:
        for start in range(0, len(images), BLOCK):
            block = (images[start : start + BLOCK].astype(np.float64) - low) / (high - low)
            yield block.reshape(len(block), -1)
        return
    rows, columns = (_box_average(size, min(size, MAX_SIZE)) for size in images.shape[1:3])
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK] / 255
        if max(images.shape[1:3]) > MAX_SIZE:
            block = np.einsum("hH,nHWc,wW->nhwc", rows, block, columns, optimize=True)
        yield block.reshape(len(block), -1)


def _box_average(size: int, new_size: int) -> np.ndarray:
    """Returns the matrix (new_size, size) that averages `size` pixels over `new_size` boxes of equal width.

    A pixel that overlaps two boxes is weighted by its overlap with each box, so `size` need not be a multiple of
    `new_size`.
    """
    box = np.arange(new_size)[:, None] * (size / new_size)
    pixel = np.arange(size)[None, :]
    overlap = np.minimum(box + size / new_size, pixel + 1) - np.maximum(box, pixel)
    return np.maximum(overlap, 0) / (size / new_size)
