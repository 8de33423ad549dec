"""The classes of the samples that are measured, in the proportions of the images that they are compared with.

A Frechet distance compares distributions. Data sets are rarely balanced: samples of each class in turn differ from the
reference by the mix of classes alone, however good each class is. So the classes are dealt in proportion to the reference's
class counts; with equal counts that is each class in turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments import data
from experiments.factory.experiment import Experiment
from experiments.generation.guidance import Guide, num_classes, sampled_classes


@dataclass(frozen=True)
class ClassMix:
    """The classes of samples 0, 1, 2, ...

    Attributes:
        description: the rule, in words.
        counts: images of each class in the reference, (classes,), by which classes are dealt; None where they are not.
    """

    description: str
    counts: tuple[int, ...] | None = None

    def labels(self, number: int) -> np.ndarray | None:
        """The classes of samples 0 to number - 1, int32 (number,); None leaves them to the sampler's own rule."""
        return None if self.counts is None else deal(self.counts, number)


def deal(counts: Sequence[int], number: int) -> np.ndarray:
    """Classes in proportion to their counts, int32 (number,).

    Sample i is of the class that lacks most of its share of i + 1 samples, the first of them if there are several. The class
    depends on i and the counts alone, so more samples begin with the same ones.
    """
    counts = np.asarray(counts, np.int64)
    total, lacking = int(counts.sum()), np.zeros(len(counts), np.int64)
    dealt = np.empty(number, np.int32)
    for i in range(number):
        lacking += counts
        dealt[i] = lacking.argmax()
        lacking[dealt[i]] -= total
    return dealt


def class_mix(experiment: Experiment, dataset: data.Dataset, guide: Guide | None = None) -> ClassMix | None:
    """The classes of an evaluation's samples; None for a model without classes that no classifier guides."""
    classes, label = num_classes(experiment, guide), experiment.sampling.label
    if not classes:
        return None
    if label >= 0:
        return ClassMix(f"{sampled_classes(experiment, guide, dataset.class_names)} alone")
    images, kind = (dataset.train, "training") if experiment.compares_with_training else (dataset.test, "held-out")
    if images.labels is None:
        return ClassMix(f"each class in turn, since the {kind} images have no classes")
    counts = np.bincount(images.labels, minlength=classes)[:classes]
    if not counts.any():
        return ClassMix(f"each class in turn, since no {kind} image is of the model's classes")
    return ClassMix(f"in the proportions of the {len(images):,} {kind} images", tuple(map(int, counts)))
