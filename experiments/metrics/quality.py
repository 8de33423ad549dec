"""How near images are to the true ones: for restorations and reconstructions, of which the truth is known.

| name         | better | is                                                                                            |
|--------------|--------|-----------------------------------------------------------------------------------------------|
| `psnr`       | higher | peak signal-to-noise ratio, 10 log10(range^2 / mean squared error), in decibels                |
| `ssim`       | higher | structural similarity, at most 1                                                              |
| `perceptual` | lower  | distance in the features of EfficientNet-lite0: made as LPIPS is, but of another network      |

Images are float (N, H, W, C) in the models' range [-1, 1], which is 2 wide; the figures are (N,), an image each. Nothing is
clipped or rounded first.

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
    """Peak signal-to-noise ratio in dB, (N,); infinite where an image is the truth.

    Raises:
        ValueError: the shapes differ, or are not (N, H, W, C).
    """
    images, truth = _pairs(images, truth)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(DATA_RANGE**2 / np.square(images - truth).mean((1, 2, 3)))


def ssim_window(height: int, width: int) -> int:
    """The side in pixels of the window of the SSIM: the published 11, or the largest odd number that fits the image."""
    fits = min(height, width, WINDOW)
    return fits - (fits + 1) % 2


def ssim(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity, (N,): the mean over channels and over the windows that lie within the image.

    The window is the published one, 11 x 11 with Gaussian weights of standard deviation 1.5, and so are the constants. Where
    an image is smaller than that, window and standard deviation shrink together to `ssim_window` pixels (7 for images of 8
    pixels), and the figures compare with others of that size only.

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
    """Distance in the features of EfficientNet-lite0, (N,), from 0; it compares with no published LPIPS.

    Images are resized to the network's 224 x 224 (Pillow's bicubic filter, unrounded), gray ones shown as equal red, green
    and blue. At the end of each of the network's five resolutions, the channels of each place are scaled to unit length;
    the squared distances of these vectors are averaged over places, then over the five. LPIPS sums over layers of VGG or
    AlexNet, with weights fitted to the judgements of people.

    Raises:
        ValueError: the shapes differ, or are not (N, H, W, 1 or 3).
    """
    images, truth = _pairs(images, truth, np.float32)
    if images.shape[-1] not in (1, 3):
        raise ValueError(f"the perceptual distance needs images of 1 or 3 channels, not {images.shape[-1]}")
    distances = []
    for start in range(0, len(images), BATCH_SIZE):
        places = np.minimum(np.arange(start, start + BATCH_SIZE), len(images) - 1)  # the last call filled with repeats
        distances.append(np.asarray(_feature_distance(feature_maps.variables(), images[places], truth[places])))
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
    """The mean over places of the squared distance of unit vectors, (N,), of maps (2 N, h, w, C)."""
    features = features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-10)
    images, truth = jnp.split(features, 2)
    return jnp.square(images - truth).sum(-1).mean((1, 2))
