"""Where images come from. Each kind of source has a file here, which names it; `load` finds it and gives the splits.

    digits              scikit-learn's handwritten digits               digits.py
    npz:PATH            arrays in a file                                npz.py, and arrays.py for data other than images
    folder:PATH         image files, classes by sub-folder or table     folder.py
    hf:NAME, hf:PATH    Hugging Face's data sets                        huggingface.py
    arrayrecord:PATTERN what `prepare` wrote, read from the disk        arrayrecord.py
    MODULE:FUNCTION     a function of the user, (wanted) -> `Source` or `Parts`

All are read through the interface of `base.Source`. What it lacks of splits is decided by a hash (`splits`).
"""

import dataclasses
import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from experiments.config import components, sizes
from experiments.config.components import has_module, is_path
from experiments.config.records import named
from experiments.data.sources.arrays import Arrays
from experiments.data.sources.base import Dataset, Images, Parts, Source
from experiments.data.sources.decoding import Wanted
from experiments.data.sources.reading import cropped
from experiments.data.sources.splits import check_fractions, split
from experiments.errors import UserError, nearest
from experiments.media import LATENTS

__all__ = ["Arrays", "Dataset", "Images", "Parts", "Source", "Wanted", "load", "read"]

# name: (function that loads it, form of data.source), of images and of arrays of numbers
KINDS: dict[str, tuple[Callable[[str, Wanted], Source | Parts], str]] = named(sys.modules[__name__], "SOURCES")
ARRAYS: dict[str, tuple[Callable[[str, Arrays], Source | Parts], str]] = named(
    sys.modules[__name__], "SOURCES_OF_ARRAYS"
)


def load(
    source: str,
    *,
    image_size: int | str | sizes.Size,
    num_channels: int,
    test_fraction: float,
    validation_fraction: float = 0.0,
    resize: str = "none",
    memory_gb: float = 4.0,
    class_order: str = "natural",
    background: str = "white",
    white: float = 0.0,
    arrays: Arrays | None = None,
) -> Dataset:
    """Loads the data set that config key `data.source` names.

    Args:
        source: `digits`, or KIND:PATH; see the files of this package.
        image_size: height and width that every image must have, or gets (`data.image_size`); see `sizes.parse`.
        num_channels: 1 for grey levels, 3 for RGB, 4 with alpha (`data.num_channels`). Image files are converted to it.
        test_fraction: fraction of the images held out, in (0, 1), where the source has no test images of its own.
        validation_fraction: fraction set apart, in [0, 1), where the source has no validation images of its own.
        resize: what becomes of images of another size (`data.resize`): "none" refuses them, "center_crop" makes them fit.
        memory_gb: images are kept in memory, decoded, if all of them take no more than this (in 1e9 bytes), and are else
            read anew in each epoch (`data.memory_gb`); then a bad one is found when it is met.
        class_order: of class names that the source does not number itself, one of `names.ORDERS`.
        background: colour behind transparent pixels of image files (`data.background`).
        white: level that is white in images that are not of 8 bits (`data.white`); 0 refuses these.
        arrays: the arrays of numbers to load instead of images; the arguments of images are then not read.

    Raises:
        UserError: anything wrong with the source, named with its file and, where it exists, the setting that fits.
    """
    check_fractions(test_fraction, validation_fraction)
    if memory_gb < 0:
        raise UserError(f"data.memory_gb={memory_gb} is not allowed: choose 0 (nothing is kept in memory) or more")
    if arrays is None:
        parts = read(
            source,
            Wanted(
                image_size,
                num_channels,
                resize,
                test_fraction,
                class_order=class_order,
                background=background,
                white=white,
            ),
        )
    else:
        parts = _read_arrays(source, arrays)
    dataset = split(source, parts, test_fraction=test_fraction, validation_fraction=validation_fraction)
    splits = dataset.splits
    if sum(len(part) * math.prod(part.image_shape) for part in splits.values()) <= memory_gb * 1e9:
        splits = {name: part.in_memory() for name, part in splits.items()}
    warnings = (*dataset.warnings, *shared_images(splits))
    return dataclasses.replace(dataset, **splits, warnings=warnings)


def shared_images(splits: dict[str, Source]) -> list[str]:
    """Warnings for images that are in the training split and in another; none where files would have to be read."""
    digests, warnings = {name: part.digests() for name, part in splits.items()}, []
    if any(found is None for found in digests.values()):
        return []
    trained = {row.tobytes() for row in digests["train"]}
    for name in ("validation", "test"):
        shared = sum(row.tobytes() in trained for row in digests[name])
        if shared:
            warnings.append(
                f"{shared:,} of {len(digests[name]):,} {name} images are training images too (equal pixels), so that "
                "figures of them count memorized images"
            )
    return warnings


def read(source: str, wanted: Wanted) -> Parts:
    """What a source has, undivided or by its own splits.

    Raises:
        UserError: as `load`, of what concerns the source alone.
    """
    load, path = _loader(source, KINDS)
    parts = _parts(load(path, wanted))
    return dataclasses.replace(parts, sources={name: cropped(part, wanted) for name, part in parts.sources.items()})


def _read_arrays(source: str, wanted: Arrays) -> Parts:
    """As `read`, of arrays of numbers."""
    load, path = _loader(source, ARRAYS)
    return _parts(load(path, wanted))


def _parts(found: Source | Parts) -> Parts:
    """Returns the parts of what a source has given: `Parts`, or one `Source` undivided."""
    return found if hasattr(found, "sources") else Parts({"all": found})


def _loader(source: str, kinds: dict[str, tuple[Callable, str]]) -> tuple[Callable, str]:
    """The function of the source's kind, and the path after the colon."""
    kind, _, path = source.partition(":")
    if source == LATENTS:
        raise UserError(
            f"data.source={source!r}: the model is of an autoencoder's latents, and no encoder is here that makes them of "
            "images: it can be sampled from, not trained or evaluated"
        )
    if kind in kinds and ":" in kinds[kind][1] and not path:
        needed = "name" if kinds[kind][1].endswith("NAME") else "path"
        raise UserError(f"data.source={source!r}: a {needed} is needed after the colon, as in {kinds[kind][1]}")
    if kind not in kinds and is_path(source) and has_module(kind):
        return partial(_of_user, source), path
    if kind not in kinds:
        hint = f"; did you mean 'npz:{source}'?" if source.endswith(".npz") and kind == source else ""
        hint = hint or nearest(kind, kinds)
        forms = ", ".join(form for _, form in kinds.values())
        wrong = "has no arrays of numbers" if kind in KINDS else "is unknown"
        raise UserError(f"data.source={source!r} {wrong}: choose from {forms}, or module:function{hint}")
    return kinds[kind][0], path


def _of_user(source: str, path: str, wanted: Any) -> Parts:
    """What the function at an import path returns for what is wanted of the data.

    Raises:
        UserError: it cannot be imported or called, or returns something else than a `Source` or `Parts`.
    """
    function = components.load("data.source", source)
    if not callable(function):
        raise UserError(
            f"data.source={source}: {type(function).__name__} is no function of the wanted images, as f(wanted)"
        )
    try:
        found = function(wanted)
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise UserError(
            f"data.source={source}: {reason}; a source is called as f(wanted), whose "
            "wanted.image_size is (height, width) and wanted.num_channels a number, each None for the size of the data"
        ) from error
    parts = _parts(found)
    unknown = [name for name in parts.sources if name not in ("all", "train", "validation", "test")]
    if unknown or not {"all", "train"} & parts.sources.keys():
        raise UserError(
            f"data.source={source}: the splits are {', '.join(map(repr, parts.sources))}: name 'all', or 'train' with "
            "'validation', 'test' or neither"
        )
    for part in parts.sources.values():
        needed = ("pixels", "take", "identities", "fingerprint", "image_shape", "labels", "gather", "__len__")
        missing = [name for name in needed if not hasattr(part, name)]
        if missing:
            raise UserError(
                f"data.source={source}: returns {type(part).__name__}, which has no {missing[0]}: return a data.Images, "
                "another data.Source, or data.sources.Parts of them"
            )
        try:
            _check_part(source, part, wanted)
        except UserError:
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
            raise UserError(f"data.source={source}: its images cannot be read: {reason}") from error
    if parts.class_names is not None and len(parts.class_names) < parts.num_classes:
        raise UserError(
            f"data.source={source}: {len(parts.class_names)} class_names for {parts.num_classes} classes; name each, or none"
        )
    return parts


def _check_part(source: str, part: Source, wanted: Any) -> None:
    """Raises a UserError unless a source of the user has images of the wanted shape, and a class for each or none."""
    if hasattr(wanted, "check_arrays"):
        pixels = part.pixels(np.arange(min(len(part), 1)))
        if pixels.dtype != np.uint8 or pixels.ndim != 4:
            raise UserError(
                f"data.source={source}: its images are {pixels.dtype} {pixels.shape}, not uint8 (N, H, W, C)"
            )
        wanted.check_arrays(source, (len(part), *pixels.shape[1:]))
    labels = part.labels
    if labels is not None:
        labels = np.asarray(labels)
        whole = labels.dtype.kind in "iu"
        if labels.shape != (len(part),) or not whole or labels.min(initial=0) < 0:
            least = f" from {labels.min(initial=0)}" if whole else ""
            raise UserError(
                f"data.source={source}: its labels are {labels.dtype} {labels.shape}{least}; whole numbers from 0 are "
                f"needed, one for each of the {len(part)} images; names of classes are Parts(..., class_names=...)"
            )
