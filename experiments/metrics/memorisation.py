"""Memorisation: are samples copies of training images? Their nearest training images in features say.

Distances alone say nothing: some images have close relatives, some data sets have copies. Each figure is therefore read
beside that of held-out images, which no model can have copied:

- `nearer_than_held_out`: the probability that a sample is nearer to its nearest training image than a held-out image is to
  its own (ties count half): 1/2 where samples are like held-out images, towards 1 where they are copied, towards 0 where
  they are poor. Meehan et al. (2020), https://arxiv.org/abs/2004.05675, section 3, whose statistic is 1 minus this,
  standardised.
- `copies`: the fraction of samples whose nearest training image is less than a third as far as the second nearest. Yoon et
  al. (2023), https://openreview.net/forum?id=shciCbSk9h; Gu et al. (2023), https://arxiv.org/abs/2310.02664, section 2.
- `authenticity`: the fraction of samples farther from their nearest training image than that image is from any other
  training image. Alaa et al. (2022), https://arxiv.org/abs/2102.08921, section 3.2. Stein et al. (2023),
  https://arxiv.org/abs/2306.04675, section 4.5, compare all of them: in features, no figure replaces looking at the pairs.
"""

from dataclasses import dataclass

import numpy as np

from experiments.metrics.neighbours import Points, nearest, together

COPY = 1 / 3  # of the distance to the second nearest training image


@dataclass(frozen=True)
class Memorisation:
    """What the figures are the means of, one entry per sample, and which training image is nearest.

    Attributes:
        nearer_than_held_out: (N,), the fraction of held-out images that are farther from the training images.
        copies: bool (N,).
        authenticity: bool (N,).
        nearest: int (N,), the number of the nearest training image.
        distance: (N,), to it.
    """

    nearer_than_held_out: np.ndarray
    copies: np.ndarray
    authenticity: np.ndarray
    nearest: np.ndarray
    distance: np.ndarray


def memorisation(features: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> Memorisation:
    """Compares features of samples (N, d) with those of training images (L, d), L at least 2, and held-out ones (M, d)."""
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
    """Squared distances (N,) of the training images with these numbers to the nearest of the other training images."""
    asked, places = np.unique(numbers, return_inverse=True)
    chosen = Points(training.points[asked], 0.0)
    return nearest(chosen, training, 2)[0][places, 1]
