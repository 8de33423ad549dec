"""Full-reference image quality metrics, for restorations and reconstructions with known references.

| name         | better | definition
|
|--------------|--------|-----------------------------------------------------------------------------------------------|
| `psnr`       | higher | peak signal-to-noise ratio, 10 log10(range^2 / mean squared error), in decibels
| | `ssim`       | higher | structural similarity, at most 1
| | `perceptual` | lower  | distance in the features of EfficientNet-lite0, defined like LPIPS with another network
|

Images are float (N, H, W, C) in the models' range [-1, 1], so the range is 2; metrics are (N,), one per image. Images
are neither clipped nor rounded.

Sources: Wang et al. (2004), https://doi.org/10.1109/TIP.2003.819861, for SSIM; Zhang et al. (2018),
https://arxiv.org/abs/1801.03924, for distances between features (eq. 1, there LPIPS).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from skimage.metrics import structural_similarity

from experiments.metrics import feature_maps

DATA_RANGE = 2.0
WINDOW = 11  # pixels: the published window of the SSIM
WINDOW_STD = 1.5
PERCEPTUAL_NAME = "perceptual distance (EfficientNet-lite0)"
BATCH_SIZE = 16  # images through the network at a time


def psnr(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns the peak signal-to-noise ratio in dB, (N,); infinite for an image equal to its reference.

    Raises:
        ValueError: the shapes differ, or are not (N, H, W, C).
    """
    images, truth = _pairs(images, truth)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(DATA_RANGE**2 / np.square(images - truth).mean((1, 2, 3)))


def ssim_window(height: int, width: int) -> int:
    """Returns the side of the SSIM window in pixels: the published 11, or the largest odd number that fits."""
    fits = min(height, width, WINDOW)
    return fits - (fits + 1) % 2


def ssim(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns the structural similarity, (N,): the mean over channels and over all windows inside the image.

    Window and constants are the published ones: 11 x 11 with Gaussian weights of standard deviation 1.5. For smaller
    images, window and standard deviation are scaled to `ssim_window` pixels (7 for images of 8 pixels); such values are
    comparable only between images of one size.

    Raises:
        ValueError: the shapes differ, or are not (N, H, W, C).
    """
    images, truth = _pairs(images, truth)
    std = WINDOW_STD * ssim_window(*images.shape[1:3]) / WINDOW
    similarity = functools.partial(
        structural_similarity,
        channel_axis=-1,
        data_range=DATA_RANGE,
        gaussian_weights=True,
        sigma=std,
        use_sample_covariance=False,
    )
    return np.array([similarity(*pair) for pair in zip(images, truth, strict=True)])


def perceptual(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns the perceptual distance in the features of EfficientNet-lite0, (N,), at least 0.

    The values are not comparable with published LPIPS values: LPIPS sums over layers of VGG or AlexNet, with weights
    fitted to human judgements. Images are resized to the network's 224 x 224 (Pillow's bicubic filter, unrounded); grey
    images are repeated to three channels. At the end of each of the network's five resolutions, the feature vector of
    each position is normalised to unit length; squared distances of these vectors are averaged over positions, then
    over the resolutions.

    Raises:
        ValueError: the shapes differ, or are not (N, H, W, 1 or 3).
    """
    images, truth = _pairs(images, truth, np.float32)
    if images.shape[-1] not in (1, 3):
        raise ValueError(f"the perceptual distance needs images of 1 or 3 channels, not {images.shape[-1]}")
    distances = []
    for start in range(0, len(images), BATCH_SIZE):
        indices = np.minimum(np.arange(start, start + BATCH_SIZE), len(images) - 1)  # the last batch is padded
        distances.append(np.asarray(_feature_distance(feature_maps.variables(), images[indices], truth[indices])))
    return np.concatenate(distances)[: len(images)].astype(np.float64)


def _pairs(images, truth, dtype=np.float64):
    if np.shape(images) != np.shape(truth) or np.ndim(images) != 4:
        raise ValueError(f"images {np.shape(images)} and truth {np.shape(truth)} must both be (N, H, W, C)")
    return np.asarray(images, dtype), np.asarray(truth, dtype)


@jax.jit
def _feature_distance(variables, images, truth):
    maps = feature_maps.of(variables, jnp.concatenate([images, truth]), clip=True)
    return sum(map(_map_distance, maps)) / len(maps)


def _map_distance(features):
    """Returns the mean squared distance over positions of normalised feature vectors, (N,), of maps (2 N, h, w, C)."""
    features = features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-10)
    images, truth = jnp.split(features, 2)
    return jnp.square(images - truth).sum(-1).mean((1, 2))
