"""The real images that samples are held against: their statistics, computed once and kept in the run's folder.

With `evaluation.statistics` the reference is a file that several runs share; it must be of the same images and features.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments import data
from experiments.devices import distributed
from experiments.errors import UserError
from experiments.evaluation.figures import some
from experiments.factory.experiment import Experiment
from experiments.loading.runs import Run
from experiments.metrics.statistics import Statistics, compute_statistics, spread

BLOCK = 1000  # images turned into features at a time


@dataclass(frozen=True)
class RealImages:
    """Statistics of real images.

    Attributes:
        reference: what samples are compared with.
        reference_name: in words.
        real: features (N, d) of other real images, which are compared with the reference as samples are: the floor.
        real_name: in words.
        train: features (L, d) of training images, for memorisation; none where `evaluation.training_images` is 0.
        held_out: features (M, d) of held-out images.
    """

    reference: Statistics
    reference_name: str
    real: np.ndarray
    real_name: str
    train: np.ndarray
    held_out: np.ndarray


def real_images(run: Run, dataset: data.Dataset, network: Any) -> RealImages:
    """The statistics of a run's real images, computed or read from its folder.

    Raises:
        UserError: `evaluation.statistics` names no file of statistics, or one of other images or features.
    """
    evaluation = run.experiment.evaluation
    against_training = run.experiment.compares_with_training
    shared = shared_statistics(run.experiment, dataset)  # refused before anything slow
    if shared is not None:
        shared.check(f"evaluation.statistics={evaluation.statistics}", network)
    limit, searched = evaluation.num_samples, evaluation.training_images
    whole = against_training and not evaluation.statistics
    wanted = spread(len(dataset.train), len(dataset.train) if whole else max(limit, searched))
    training = _cached(run, network, "training", dataset.train.take(wanted), max(limit, searched))
    held_out = _cached(run, network, "held_out", dataset.test.take(spread(len(dataset.test), limit)), limit)
    reference, other = (training, held_out) if against_training else (held_out, training)
    kinds = ("training", "held-out") if against_training else ("held-out", "training")
    if shared is not None:
        reference = shared
    real = some(other.features, limit)
    return RealImages(
        reference=reference,
        reference_name=f"{reference.count} {kinds[0]} images",
        real=real,
        real_name=f"{len(real)} {kinds[1]} images",
        train=some(training.features, searched),
        held_out=held_out.features,
    )


def shared_statistics(experiment: Experiment, dataset: data.Dataset) -> Statistics | None:
    """The statistics in the file of `evaluation.statistics`, None without one; training checks them at its start.

    Raises:
        UserError: the file is missing or damaged, or is of other images than those of the reference.
    """
    path = experiment.evaluation.statistics
    if not path:
        return None
    shared, images = Statistics.load(path), dataset.train if experiment.compares_with_training else dataset.test
    shared.check_images(f"evaluation.statistics={path}", images.fingerprint(), _blocks(images))
    return shared


def _cached(run: Run, network: Any, kind: str, images: data.Source, keep: int) -> Statistics:
    """The statistics of images: those in the run's folder, or new ones, which are then in the folder."""
    fingerprint = images.fingerprint()
    identity = f"{network.preprocessing} {network.sha256} {fingerprint} {keep}"
    digits = hashlib.sha256(identity.encode()).hexdigest()[:16]
    path = run.workdir.evaluation / f"{kind}_{network.name}_{digits}.npz"
    if distributed.first_tells(lambda: _is_good(path)):
        return Statistics.load(path)
    statistics = compute_statistics(_blocks(images), network, keep, fingerprint)
    if distributed.is_first():
        statistics.save(path)
    return statistics


def _is_good(path: Path) -> bool:
    try:
        Statistics.load(path)
    except UserError:  # there are none, or they are damaged
        return False
    return True


def _blocks(images: data.Source) -> Iterator[np.ndarray]:
    for start in range(0, len(images), BLOCK):
        yield images.pixels(np.arange(start, min(start + BLOCK, len(images))))
