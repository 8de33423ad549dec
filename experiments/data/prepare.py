"""Writes any source as records (`records`), in a way that can be killed at any time and gone on with.

Everything is written into `OUT.partial`, which becomes `OUT` when it is complete: no folder looks complete that is not.
A shard that is whole stays; the one that was being written is written again. The same source gives the same bytes, however
often it was interrupted.
"""

import fcntl
import itertools
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from experiments.config import sizes
from experiments.data import records
from experiments.data.digests import digest, stack_digests
from experiments.data.records import INDEX, Description, Shard, ShardWriter
from experiments.data.sources import Wanted, huggingface, read
from experiments.data.sources.base import Source
from experiments.data.sources.decoding import PILLOW_MODES
from experiments.data.sources.huggingface import Stream
from experiments.data.sources.names import class_title, counted, listed
from experiments.errors import UserError
from experiments.files import replace_text

MB = 2**20  # bytes
PLAN = "plan.json"  # what the partial folder is of: another plan begins anew
LOCK = "lock"
BLOCK_BYTES = 2**25  # pixels read at once


class StatisticsWriter(Protocol):
    """Writes statistics of the images of a folder of records into it; `name` is that of the features."""

    name: str

    def __call__(self, folder: Path) -> object:
        """Writes the files."""


def prepare(
    source: str,
    out: Path,
    *,
    image_size: int | str | sizes.Size | None = None,
    num_channels: int | None = None,
    resize: str = "none",
    background: str = "white",
    white: float = 0.0,
    stream: bool = False,
    shard_mb: int = 256,
    statistics: StatisticsWriter | None = None,
) -> Description:
    """Writes a source's images, with its own splits or undivided, to a folder that `arrayrecord:OUT` reads.

    Args:
        source: as `data.source` names it.
        out: the folder to make; must not exist, or be empty.
        image_size: height and width in pixels, see `sizes.parse`; None: those of the first image, or with "center_crop"
            the square of its shorter side.
        num_channels: 1 for grey levels, 3 for RGB, 4 with alpha; None: as the first image has.
        resize: what becomes of images of another size; see `data.resize`.
        background: colour behind transparent pixels; see `data.background`.
        white: level that is white in images that are not of 8 bits; see `data.white`.
        stream: read `hf:NAME` from the hub while writing, and store nothing else.
        shard_mb: pixels in a shard, in 2^20 bytes before compression.
        statistics: writes statistics for evaluation into the complete folder (`metrics.prepared.FeatureStatistics`); None
            writes none.

    Returns:
        what is in the folder.

    Raises:
        UserError: something is wrong with the source or the folder; nothing that was there is changed.
        RunError: the folder cannot be written (a full disk); what is whole stays.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        kind = "holds prepared images already" if (out / records.DESCRIPTION).exists() else "exists already"
        raise UserError(f"--out={out}: {kind}; choose another folder")
    wanted = Wanted(image_size, num_channels, resize, flags="--", background=background, white=white)
    if stream:
        kind, _, name = source.partition(":")
        if kind != "hf" or not name:
            raise UserError(
                f"--stream: source={source!r} is no stream: hf:NAME is one, of a data set on Hugging Face's hub"
            )
        splits, class_names, left_out, warnings = huggingface.stream(name, wanted)
        total, content = None, dict.fromkeys(splits)
    else:
        parts = read(source, wanted)
        left_out, warnings = parts.left_out, parts.warnings
        for name, part in parts.sources.items():
            if len(part) == 0:
                raise UserError(f"--source={source} has no images in the split {name!r}")
        splits, class_names = {name: _Reading(part) for name, part in parts.sources.items()}, parts.class_names
        total, content = (
            sum(map(len, parts.sources.values())),
            {n: [len(p), p.fingerprint()] for n, p in parts.sources.items()},
        )
    for text in (*(f"left out: {text}" for text in left_out), *(f"warning: {text}" for text in warnings)):
        print(text)
    if class_names:
        titles = [class_title(number, name) for number, name in enumerate(class_names)]
        print(f"{counted(len(titles), 'class', 'classes')}: {listed(titles)}")
    shape = next(iter(splits.values())).image_shape
    if shape[2] > records.MOST_CHANNELS:
        raise UserError(f"--source={source} has {shape[2]} channels; records hold at most {records.MOST_CHANNELS}")
    size = max(1, shard_mb * MB // math.prod(shape))
    if statistics is not None and shape[2] not in PILLOW_MODES:
        raise UserError(
            f"--features={statistics.name} is of images of 1 or 3 channels; --source={source} has {shape[2]}"
        )
    plan = {"source": source, "stream": stream, "image_shape": shape, "resize": resize, "content": content}
    if wanted.rendering.stamp:
        plan |= {"background": background, "white": white}
    plan |= {"features": None if statistics is None else statistics.name}
    plan |= {"format": records.FORMAT, "records_per_shard": size}
    with _claimed(out, json.dumps(plan, indent=2)) as folder:
        shards, fingerprints = {}, {}
        with tqdm(desc="writing records", total=total, unit=" images") as progress:
            for name, split in splits.items():
                shards[name], index = _write_split(folder, name, split, size, progress)
                fingerprints[name] = records.fingerprint(shape, index)
        description = Description(
            source,
            shape,
            resize,
            class_names,
            shards,
            fingerprints,
            background=background,
            white=white,
            left_out=tuple(left_out),
            warnings=tuple(warnings),
        )
        description.write(folder)
        if statistics is not None:
            statistics(folder)
        records.flush(folder)
        folder.replace(out)
    for name in (PLAN, LOCK):
        (out / name).unlink()
    records.flush(out.parent)
    return description


@contextmanager
def _claimed(out: Path, plan: str) -> Iterator[Path]:
    """The partial folder, of this plan, which no other process writes to meanwhile; what is of another plan is removed.

    Raises:
        UserError: another process writes to it, it cannot be written, or it is not a folder of `prepare`.
    """
    folder = out.with_name(f"{out.name}.partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise UserError(f"--out={out} cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"--out={out}: another `prepare` is writing {folder}; wait for it, or end it") from error
        for path in folder.glob(".*.tmp" if (folder / PLAN).is_file() else f".{PLAN}.*.tmp"):
            path.unlink()  # of a process that was killed while it wrote the file
        there = [path for path in folder.iterdir() if path.name != LOCK]
        if there and not (folder / PLAN).is_file():
            raise UserError(f"--out={out}: {folder} holds other files; remove it, or choose another folder")
        if there and (folder / PLAN).read_text() != plan:
            print(f"{folder} is of another source or other settings: beginning anew")
            for path in sorted(there, key=lambda path: path.name == PLAN):  # the plan last
                path.unlink()
        replace_text(folder / PLAN, plan)
        yield folder


class _Reading:
    """A source, read from its start to its end."""

    def __init__(self, part: Source):
        self.image_shape = part.image_shape
        self._part = part
        self._identities = part.identities()

    def blocks(self, start: int, sizes: Iterator[int]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """As `huggingface.Stream.blocks`."""
        while start < len(self._part):
            places = np.arange(start, min(start + next(sizes), len(self._part)))
            batch = self._part.gather(places)
            yield batch["image"], batch.get("label", np.full(len(places), -1, np.int32)), self._identities[places]
            start += len(places)


def _write_split(
    folder: Path, name: str, split: _Reading | Stream, size: int, progress: tqdm
) -> tuple[tuple[Shard, ...], np.ndarray]:
    """Writes the shards of one split that are not there yet, each of `size` records; these shards, and their index."""
    shards, indices = [], []

    def add(shard: Shard) -> None:
        shards.append(shard)
        indices.append(records.read_index(folder / shard.index))

    while (shard := _there(folder, f"{name}-{len(shards):05}.array_record")) is not None:
        add(shard)
        progress.update(shard.count)
    start = sum(shard.count for shard in shards)
    block = max(1, BLOCK_BYTES // math.prod(split.image_shape))
    cuts = itertools.cycle([block] * (size // block) + [size % block] * (size % block > 0))  # none spans two shards
    writer, written = None, 0
    for pixels, labels, identities in split.blocks(start, cuts):
        if writer is None:
            writer, written = ShardWriter(folder, f"{name}-{len(shards):05}.array_record", split.image_shape), 0
        index = np.zeros(len(pixels), INDEX)
        index["label"], index["identity"] = labels, identities
        index["digest"] = stack_digests([digest(image) for image in pixels])
        writer.write(index, pixels)
        written += len(pixels)
        progress.update(len(pixels))
        if written == size:
            add(writer.close())
            writer = None
    if writer is not None:
        add(writer.close())
    return tuple(shards), np.concatenate(indices)


def _there(folder: Path, file: str) -> Shard | None:
    """The shard, if it is whole: its index is written after it."""
    shard = Shard(file, 0, 0)
    if not (folder / shard.index).is_file() or not (folder / file).is_file():
        return None
    return Shard(file, len(records.read_index(folder / shard.index)), (folder / file).stat().st_size)
