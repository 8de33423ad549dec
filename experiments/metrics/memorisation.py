"""Memorisation: metrics that detect copies of training images among samples, by nearest neighbours in feature space.

Absolute distances are not conclusive: some images have close relatives, and some data sets contain duplicates. Each
metric is therefore compared with its value for held-out images, which the model cannot have copied:

- `nearer_than_held_out`: the probability that a sample is nearer to its nearest training image than a held-out image is
  to its nearest training image (ties count half). It is 1/2 if samples are distributed like held-out images, tends to 1
  for copies, and to 0 for samples far from the data. Meehan et al. (2020), https://arxiv.org/abs/2004.05675, section 3;
  their statistic is 1 minus this probability, standardised.
- `copies`: the fraction of samples whose distance to the nearest training image is less than a third of the distance to
  the second nearest. Yoon et al. (2023), https://openreview.net/forum?id=shciCbSk9h; Gu et al. (2023),
  https://arxiv.org/abs/2310.02664, section 2.
- `authenticity`: the fraction of samples that are farther from their nearest training image than that image is from any
  other training image. Alaa et al. (2022), https://arxiv.org/abs/2102.08921, section 3.2.

Stein et al. (2023), https://arxiv.org/abs/2306.04675, section 4.5, compare these metrics; none of them replaces a
visual inspection of the pairs.
"""

from dataclasses import dataclass

import numpy as np

from experiments.metrics.neighbours import Points, nearest, together

COPY = 1 / 3  # largest ratio of the distances to the nearest and second nearest training images of a copy


@dataclass(frozen=True)
class Memorisation:
    """Values of each sample, whose means are the metrics, and the nearest training images.

    Attributes:
        nearer_than_held_out: (N,), the fraction of held-out images that are farther from their nearest training image.
        copies: bool (N,), the sample is a copy.
        authenticity: bool (N,), the sample is authentic.
        nearest: int (N,), the index of the nearest training image.
        distance: (N,), the distance to it.
    """

    nearer_than_held_out: np.ndarray
    copies: np.ndarray
    authenticity: np.ndarray
    nearest: np.ndarray
    distance: np.ndarray


def memorisation(features: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> Memorisation:
    """Compares features of samples (N, d) with training images (L, d), L at least 2, and held-out images (M, d)."""
    samples, others, training = together(features, held_out, train)
    distances, numbers = nearest(samples, training, 2)
    held_out_distances = np.sort(nearest(others, training, 1)[0][:, 0])
    below = np.searchsorted(held_out_distances, distances[:, 0], side="left")
    up_to = np.searchsorted(held_out_distances, distances[:, 0], side="right")
    return Memorisation(
        nearer_than_held_out=1 - (below + up_to) / (2 * len(held_out)),
        copies=distances[:, 0] < COPY**2 * distances[:, 1],
        authenticity=_spacing(training, numbers[:, 0]) < distances[:, 0],
        nearest=numbers[:, 0],
        distance=np.sqrt(distances[:, 0]),
    )


def _spacing(training: Points, numbers: np.ndarray) -> np.ndarray:
    """Returns the squared distances (N,) of training images to their nearest other training images."""
    unique, inverse = np.unique(numbers, return_inverse=True)
    chosen = Points(training.points[unique], 0.0)
    return nearest(chosen, training, 2)[0][inverse, 1]
