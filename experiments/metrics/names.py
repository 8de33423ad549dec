"""Names and descriptions of the metrics of samples, by feature network.

The name of a metric depends on the features: only the Frechet distance in Inception features is called FID. Distances
in the features of the perceptron, which is fitted to one data set, are scaled to the variance of the reference;
distances in the features of published networks are not scaled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LESS, MORE = "less is better", "more is better"


@dataclass(frozen=True)
class Names:
    """Keys and titles of the metrics in the features of one network.

    Attributes:
        frechet, kernel, spatial, score: (key, title) of the Frechet distance, the kernel distance, the Frechet distance
            in spatial features, and the classifier score.
        scaled: whether distances are scaled such that the variance of the reference is 100.
    """

    frechet: tuple[str, str]
    kernel: tuple[str, str]
    spatial: tuple[str, str]
    score: tuple[str, str]
    scaled: bool = False


def distances(network: str) -> Names:
    """Returns the names of the metrics in the features of a network."""
    if network in NAMES:
        return NAMES[network]
    slug = network.replace("-", "_")
    return Names(
        (f"fd_{slug}", f"Frechet distance in {network}"),
        (f"kd_{slug}", f"kernel distance in {network}"),
        (f"sfd_{slug}", f"spatial Frechet distance in {network}"),
        (f"score_{slug}", f"Inception Score's formula in {network}"),
    )


NAMES = {
    "perceptron": Names(
        ("frechet_distance", "Frechet distance"),
        ("kernel_distance", "kernel distance"),
        ("spatial_frechet_distance", "spatial Frechet distance"),
        ("classifier_score", "classifier score"),
        scaled=True,
    ),
} | {
    f"inception{way}": Names(
        (f"fid{key}", f"FID{title}"),
        (f"kid{key}", f"KID{title}"),
        (f"sfid{key}", f"sFID{title}"),
        (f"inception_score{key}", f"Inception Score{title}"),
    )
    for way, key, title in (("", "", ""), ("-tf1", "_tf1", " (TensorFlow 1)"), ("-clean", "_clean", " (clean-fid)"))
}


def meanings(network: str, more: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, tuple[str, str]]:
    """Returns {key: (title, meaning)} of every metric of an evaluation, in the order of tables, main metric first.

    Args:
        network: name of the feature network.
        more: metrics of the user, as described in metrics.json.
    """
    named = distances(network)
    return {
        named.frechet[0]: (named.frechet[1], LESS),
        named.spatial[0]: (named.spatial[1], LESS),
        named.kernel[0]: (named.kernel[1], LESS),
        named.score[0]: (named.score[1], MORE),
        "precision": ("precision", "samples that look real"),
        "recall": ("recall", "real images that are covered"),
        "density": ("density", "real images around a sample, 1 is usual"),
        "coverage": ("coverage", "real images with a sample near"),
    } | {key: (about["title"], about["meaning"]) for key, about in (more or {}).items()}


def is_better(
    network: str, key: str, value: float, other: float, more: Mapping[str, Mapping[str, Any]] | None = None
) -> bool:
    """Returns True if `value` of the metric `key` is better than `other`; further arguments as in `meanings`."""
    less = more[key]["less"] if key in (more or {}) else meanings(network)[key][1] == LESS
    return value < other if less else value > other


MEMORISATION = {
    "nearer_than_held_out": ("nearer to training images than held-out images are", "1/2 is usual, 1 is copied"),
    "copies": ("three times as near to one training image as to the next", "less is better"),
    "authenticity": ("farther from a training image than that is from others", "as of held-out images"),
}
