"""The features of samples: drawn on all devices call by call, each call's features written before the next is looked at.

The images of a call are let go of with it; of 50,000 samples with 2,048 features, 400 MB are in memory at the end.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from experiments.devices import distributed
from experiments.devices.parallel import BATCH, STATE, Strategy
from experiments.errors import RunError
from experiments.evaluation.classes import ClassMix
from experiments.evaluation.journal import Journal
from experiments.generation.sampler import Sampler
from experiments.loading.runs import Run
from experiments.metrics.feature_networks import check_images

# What decides a sample, beside the weights, the seed and its number. Of `sampling` all but the batch does.
SECTIONS = ("sde", "model", "parameterization", "sampling")
IRRELEVANT = ("batch_size",)


@dataclass(frozen=True)
class FeatureSet:
    """The features of samples.

    Attributes:
        pool: (N, d).
        logits: (N, classes), where the network is a classifier; else None.
        spatial: gives the spatial features in blocks (n, s), each time anew, where the network has them; else None.
    """

    pool: np.ndarray
    logits: np.ndarray | None
    spatial: Callable[[], Iterator[np.ndarray]] | None

    def __len__(self) -> int:
        return len(self.pool)


class OnAllDevices:
    """A feature network whose images are divided among all devices, if it is one for devices.

    Args:
        network: a feature network.
        strategy: the mapping over devices.
    """

    def __init__(self, network: Any, strategy: Strategy):
        self._network, self._strategy = network, strategy
        self.name, self.preprocessing, self.sha256 = network.name, network.preprocessing, network.sha256
        self._apply = None
        if hasattr(network, "apply"):
            self._variables = strategy.place(network.variables)
            self._apply = strategy.map(network.apply, (STATE, BATCH), BATCH)

    @property
    def description(self) -> str:
        """A sentence for reports that says what the features are."""
        published = f"{self.name} ({self.preprocessing}; SHA-256 of the weights {self.sha256[:12]}...)"
        return getattr(self._network, "description", published)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The features of images uint8 (N, H, W, C), by name, each (N, ...); raises as the network does.

        Every process calls it with the same images and gets the features of all.
        """
        if self._apply is None:
            return self._network(images)
        check_images(images)
        share, parts = -(-len(images) // self._strategy.num_devices), []
        # Powers of two: few images cost little, and few programs are compiled.
        size = self._strategy.num_devices * min(self._network.batch_size, 1 << (share - 1).bit_length())
        for start in range(0, len(images), size):
            block = images[start : start + size]
            filled = np.resize(block, (size, *block.shape[1:]))[self._strategy.rows(size)]  # repeats, which are cut off
            found = self._strategy.gather(self._apply(self._variables, self._strategy.shard(filled)))
            parts.append({name: values[: len(block)] for name, values in found.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def journal_of_samples(run: Run, network: Any, classes: ClassMix | None = None, guide: Run | None = None) -> Journal:
    """The journal of the features of a run's samples, which other weights, classes, methods or networks do not share."""
    identity = run.experiment.record(*SECTIONS)
    identity["sampling"] = {k: v for k, v in identity["sampling"].items() if k not in IRRELEVANT}
    identity |= {
        "image": list(run.event_shape),
        "seed": run.experiment.evaluation.seed,
        "step": run.step,
        "weights": weights_hash(run.variables),
        "features": [network.name, network.preprocessing, network.sha256],
    }
    if classes is not None and classes.counts is not None:
        identity["class_counts"] = list(classes.counts)
    if guide is not None:
        identity["guide"] = weights_hash(guide.variables)
    return Journal(run.workdir.evaluation, "samples", identity)


def weights_hash(variables: Any) -> str:
    """The SHA-256 of the names, shapes and values of all weights."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        leaf = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def draw_features(run: Run, sampler: Sampler, network: Any, count: int, journal: Journal) -> FeatureSet | None:
    """Draws those of samples 0 to count - 1 that the journal has not, and returns the features of all.

    All processes draw; the first keeps the journal, and alone gets the features (others: None).

    Raises:
        RunError: a sample or a feature is not finite.
    """
    missing = np.asarray(distributed.first_tells(lambda: journal.missing(count).tolist()), int)
    if 0 < len(missing) < count:
        print(
            f"{count - len(missing):,} of {count:,} samples were drawn before: going on with the other {len(missing):,}"
        )
    for numbers, images in sampler.blocks(run.variables, missing, run.experiment.evaluation.seed, progress=True):
        features = network(images)
        for name, values in features.items():
            if not np.isfinite(values).all():
                raise RunError(
                    f"features of samples {numbers[0]} to {numbers[-1]} are not finite: {network.name}, {name}"
                )
        if distributed.is_first():
            journal.write(numbers, features)
    if not distributed.is_first():
        return None
    names = set(next(journal.blocks())[1])
    return FeatureSet(
        pool=journal.column("pool", count),
        logits=journal.column("logits", count) if "logits" in names else None,
        spatial=partial(_spatial, journal, count) if "spatial" in names else None,
    )


def _spatial(journal: Journal, count: int) -> Iterator[np.ndarray]:
    for numbers, results in journal.blocks():
        if (numbers < count).any():
            yield results["spatial"][numbers < count]
