"""The experiment's images: loaded, checked against the model and the evaluation at the end, and described in one line.

    dataset = load_data(experiment, workdir)      # numbered as the run's classes are
    check_training(experiment, dataset)           # refuses classes that would be noise, and too few images to evaluate with
    print(summary(experiment, dataset))           # images by split, classes by name, what is left out and why

The same description is kept in the run's folder (`data.json`): class names for the commands, facts for the report.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from experiments import data
from experiments.data.sources.names import counted, listed, natural_order, quoted, shown
from experiments.data.sources.splits import uniform
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.files import replace_text, strict_json
from experiments.metrics import NEIGHBOURS
from experiments.runs.workdir import Workdir

MAX_COUNTED = 1000  # classes whose images are counted one by one in data.json
COMPARED = 16  # images decoded at once to find two that differ
MISSING = {"nan", "none", "null", "na", "n/a", "-1", "?"}  # what programs write for no label
SPLITS = {"train": "training", "validation": "validation", "test": "test"}


def load_data(experiment: Experiment, workdir: Workdir | None = None) -> data.Dataset:
    """The experiment's images, checked against the model.

    Args:
        experiment: its objects.
        workdir: of a run, whose order of class names is kept; None, or a folder without a run, gives natural order.

    Raises:
        UserError: something is wrong with the source, or the model has another number of classes.
    """
    order, medium = class_order(workdir), experiment.medium
    dataset = data.load(
        experiment.data.source,
        image_size=experiment.event_shape[:2],
        num_channels=experiment.event_shape[-1],
        test_fraction=experiment.data.test_fraction,
        validation_fraction=experiment.data.validation_fraction,
        resize=experiment.data.resize,
        memory_gb=experiment.data.memory_gb,
        background=experiment.data.background,
        white=experiment.data.white,
        class_order=order,
        arrays=None if medium.has_pixels else data.Arrays(medium.event_shape, *medium.raw_range, order),
    )
    if experiment.num_classes and experiment.num_classes != dataset.num_classes:
        raise UserError(_wrong_number_of_classes(experiment, dataset))
    if order == "text" and dataset.class_names and list(dataset.class_names) != natural_order(dataset.class_names):
        text = f"the classes of this run are numbered in the order of texts, in which it was begun: {classes(dataset)}"
        dataset = dataclasses.replace(dataset, warnings=(*dataset.warnings, text))
    return dataset


def check_names(experiment: Experiment, dataset: data.Dataset, workdir: Workdir) -> None:
    """Makes sure that the classes of a class-conditional run have the names that are stored with it.

    Raises:
        UserError: they have others.
    """
    names = workdir.class_names()
    if not (experiment.num_classes and names and dataset.class_names):
        return
    for number, (old, new) in enumerate(zip(names, dataset.class_names, strict=False)):
        if old != new:
            raise UserError(
                f"data.source={experiment.data.source!r}: class {number} is {quoted(new)} here and {quoted(old)} in the run "
                f"{workdir.path}, so that the model takes classes for others"
            )


def class_order(workdir: Workdir | None) -> str:
    """The order of a run's class names: that of texts for runs with checkpoints from before names were stored."""
    if workdir is None:
        return "natural"
    stored = workdir.read_data()
    return stored.get("class_order", "natural" if stored or not workdir.has_checkpoint() else "text")


def _wrong_number_of_classes(experiment: Experiment, dataset: data.Dataset) -> str:
    has = f"{dataset.num_classes:,} classes ({classes(dataset)})" if dataset.num_classes else "no classes"
    message = f"model.num_classes={experiment.num_classes}: data.source={experiment.data.source!r} has {has}"
    missing, count = dataset.untrained_classes()
    if missing == [0] and count == 1 and experiment.num_classes == dataset.num_classes - 1:
        message += "; its labels begin at 1: number them from 0"
    elif dataset.num_classes:
        message += f": set --config.model.num_classes={dataset.num_classes}"
    message += "; 0 trains an unconditional model"
    return "; ".join([message, *(text for text in dataset.warnings if "class" in text or "label" in text)])


def check_training(experiment: Experiment, dataset: data.Dataset) -> None:
    """Makes sure that every class that samples are drawn of is trained, and that the evaluation at the end can be made.

    Raises:
        UserError: a class has no training images, or a split is too small or has equal images alone.
    """
    if experiment.num_classes and (text := untrained(dataset)):
        raise UserError(
            f"data.source={experiment.data.source!r}: {text}, and samples of them would be noise: number the classes that "
            "have images from 0 on, or set model.num_classes=0 for an unconditional model"
        )
    check_evaluation(experiment, dataset)


def check_evaluation(experiment: Experiment, dataset: data.Dataset) -> None:
    """Makes sure that there are enough images, and different ones, to compare samples with.

    Raises:
        UserError: there are not; the message names the key that helps.
    """
    needed = NEIGHBOURS + 1
    for name in ("test", "train"):
        count = len(dataset.splits[name])
        if count < needed:
            raise UserError(
                f"data.source={experiment.data.source!r} has {count} {SPLITS[name]} images, and the evaluation at the end "
                f"of training needs {needed} or more: {_advice(experiment, dataset, name, needed)}"
            )
    name = "train" if experiment.compares_with_training else "test"
    reference = dataset.splits[name]
    if _are_equal(reference):
        raise UserError(
            f"data.source={experiment.data.source!r}: all {len(reference)} {SPLITS[name]} images are equal, so that the "
            f"evaluation at the end of training has no scale: give the {SPLITS[name]} split different images"
        )


def _are_equal(images: data.Source) -> bool:
    """Returns True if all images have equal pixels; decodes only as many as it takes to find two that differ."""
    first = images.pixels(np.arange(1))
    blocks = (np.arange(start, min(start + COMPARED, len(images))) for start in range(1, len(images), COMPARED))
    return all((images.pixels(block) == first).all() for block in blocks)


def _advice(experiment: Experiment, dataset: data.Dataset, name: str, needed: int) -> str:
    """The setting that gives a split as many images as are needed."""
    divided = [part for split, part in dataset.splits.items() if split == "train" or split in dataset.by_hash]
    if len(dataset.by_hash) and (name == "train" or name in dataset.by_hash):
        u = np.sort(np.concatenate([uniform(part.identities()) for part in divided]))
        if name == "test" and len(u) >= 2 * needed:
            fraction = math.ceil(100 * (u[needed - 1] + 1e-9)) / 100
            if (u < fraction).sum() <= len(u) - needed and fraction < 1:
                fits = fraction + ("validation" in dataset.by_hash) * experiment.data.validation_fraction < 1
                smaller = "" if fits else f" and choose data.validation_fraction below {1 - fraction:g}"
                return f"set --config.data.test_fraction={fraction:g}{smaller}"
        if name == "train" and len(u) >= 2 * needed:
            key = max((f"{split}_fraction" for split in dataset.by_hash), key=lambda key: getattr(experiment.data, key))
            return f"choose data.{key}={getattr(experiment.data, key):g} smaller"
        return "give more images"
    return f"give more images to its split {name!r}"


def untrained(dataset: data.Dataset) -> str:
    """Says which classes have no training images; an empty text where all have some."""
    missing, count = dataset.untrained_classes()
    if not count:
        return ""
    found = [dataset.class_name(number) for number in missing]
    named = listed(found[:10]) + (f" and {count - 10:,} more" if count > 10 else "")
    return f"{count:,} of {dataset.num_classes:,} classes {'has' if count == 1 else 'have'} no training images: {named}"


def classes(dataset: data.Dataset, limit: int = 12) -> str:
    """The classes by number and name, the first ones if there are many."""
    if dataset.class_names is None:
        return f"0 to {dataset.num_classes - 1}" if dataset.num_classes > 1 else "0"
    numbers = range(min(len(dataset.class_names), limit))
    more = len(dataset.class_names) - limit
    return ", ".join(dataset.class_name(n) for n in numbers) + (f" and {more:,} more" if more > 0 else "")


def summary(experiment: Experiment, dataset: data.Dataset) -> str:
    """One line: images by split, their shape, classes by name, and what is left out and why."""
    counts = []
    for name, part in dataset.splits.items():
        if len(part):
            fraction = getattr(experiment.data, f"{name}_fraction", None)
            origin = f" (data.{name}_fraction={fraction:g})" if name in dataset.by_hash else ""
            counts.append(f"{len(part):,} {SPLITS[name]}{origin}")
    noun, shape = experiment.medium.noun, "x".join(map(str, dataset.train.image_shape))
    parts = [f"{', '.join(counts)} {noun} of {shape}"]
    if dataset.num_classes:
        per_class = dataset.class_counts("train").values()
        fewest, most = min(per_class), max(per_class)
        images = f"{f'{fewest:,} to {most:,}' if fewest < most else f'{most:,}'} training images each"
        unused = "" if experiment.num_classes else "; not used, as model.num_classes=0"
        parts.append(f"{counted(dataset.num_classes, 'class', 'classes')} ({classes(dataset)}; {images}{unused})")
    else:
        parts.append("no classes")
    parts.append(f"left out: {'; '.join(dataset.left_out)}" if dataset.left_out else "nothing left out")
    return f"Data of {shown(experiment.data.source)}: {'; '.join(parts)}"


def warnings(experiment: Experiment, dataset: data.Dataset) -> list[str]:
    """Findings that a user might not expect, a line each."""
    found = list(dataset.warnings)
    if absent := [quoted(name) for name in dataset.class_names or () if name.strip().lower() in MISSING]:
        found.append(f"{listed(absent)} is a class, and looks like a missing label: leave images without a class out")
    alike: dict[str, list[str]] = {}
    for name in dataset.class_names or ():
        alike.setdefault(" ".join(name.casefold().split()), []).append(name)
    if same := [name for names in alike.values() if len(names) > 1 for name in names]:
        found.append(f"classes whose names differ in case or spaces alone: {listed([quoted(name) for name in same])}")
    if text := untrained(dataset):
        found.append(text)
    return found


def announce(experiment: Experiment, dataset: data.Dataset) -> None:
    """Prints the summary and the warnings."""
    print(summary(experiment, dataset), flush=True)
    for text in warnings(experiment, dataset):
        print(f"warning: {text}", flush=True)


def describe(experiment: Experiment, dataset: data.Dataset, order: str) -> dict[str, Any]:
    """The content of `data.json`.

    Args:
        experiment: its objects.
        dataset: its images.
        order: of its class names, one of `names.ORDERS`.
    """
    found = {
        "source": experiment.data.source,
        "summary": summary(experiment, dataset),
        "warnings": warnings(experiment, dataset),
        "left_out": list(dataset.left_out),
        "images": {name: len(part) for name, part in dataset.splits.items()},
        "by_hash": list(dataset.by_hash),
        "image_shape": list(map(int, dataset.train.image_shape)),
        "num_classes": dataset.num_classes,
        "class_names": None if dataset.class_names is None else list(dataset.class_names),
        "class_order": order,
    }
    if 0 < dataset.num_classes <= MAX_COUNTED:
        found["class_counts"] = {
            name: [counted.get(number, 0) for number in range(dataset.num_classes)]
            for name in dataset.splits
            if (counted := dataset.class_counts(name))
        }
    return found


def store(experiment: Experiment, dataset: data.Dataset, workdir: Workdir) -> None:
    """Writes `data.json` into a run's folder."""
    text = strict_json.dumps(describe(experiment, dataset, class_order(workdir))) + "\n"
    if not workdir.data.is_file() or workdir.data.read_text() != text:
        replace_text(workdir.data, text)
