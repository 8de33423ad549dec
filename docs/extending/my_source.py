"""A data source: `--config.data.source=my_source:squares`."""

import numpy as np

from experiments.data import Images


def squares(wanted):
    """400 images of a filled or an empty square with noise; `wanted` has the size and the channels of the config."""
    rng = np.random.default_rng(0)
    size, channels, count = 8, wanted.num_channels or 1, 400
    labels = rng.integers(0, 2, count)
    images = np.zeros((count, size, size, channels))
    images[:, 1:-1, 1:-1] = 230
    images[labels == 1, 2:-2, 2:-2] = 0
    images = np.clip(images + rng.normal(0, 10, images.shape), 0, 255)
    return Images(images.astype(np.uint8), labels.astype(np.int32))
