"""Writes any source as records (`records`), in a way that can be killed at any time and gone on with.

Everything is written into `OUT.partial`, which becomes `OUT` when it is complete: no folder looks complete that is not.
A shard that is whole stays; the one that was being written is written again. The same source gives the same bytes, however
often it was interrupted.
"""

import fcntl
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from experiments.data import records
from experiments.data.records import INDEX, Description, Shard, ShardWriter
from experiments.data.sources import Wanted, read
from experiments.data.sources.base import Parts, Source, content_fingerprint, digest, stack_digests
from experiments.errors import UserError
from experiments.workdir import replace_text

MB = 2**20  # bytes
PLAN = "plan.json"  # what the partial folder is of: another plan begins anew
LOCK = "lock"
BLOCK_BYTES = 2**25  # pixels read at once


def prepare(
    source: str,
    out: Path,
    *,
    image_size: int | None = None,
    num_channels: int | None = None,
    resize: str = "none",
    shard_mb: int = 256,
) -> Description:
    """Writes a source's images, with its own splits or undivided, to a folder that `arrayrecord:OUT` reads.

    Args:
        source: as `data.source` names it.
        out: the folder to make; must not exist, or be empty.
        image_size: height and width in pixels; None: those of the first image.
        num_channels: 1 for grey levels, 3 for RGB; None: as the first image has.
        resize: what becomes of images of another size; see `data.resize`.
        shard_mb: pixels in a shard, in 2^20 bytes before compression.

    Returns:
        what is in the folder.

    Raises:
        UserError: something is wrong with the source or the folder; nothing that was there is changed.
        RunError: the folder cannot be written (a full disk); what is whole stays.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        kind = "holds prepared images already" if (out / records.DESCRIPTION).exists() else "exists already"
        raise UserError(f"--out={out}: {kind}; choose another folder")
    wanted = Wanted(image_size, num_channels, resize, flags="--")
    parts = read(source, wanted)
    for name, part in parts.sources.items():
        if len(part) == 0:
            raise UserError(f"--source={source} has no images in the split {name!r}")
    shape = next(iter(parts.sources.values())).image_shape
    size = max(1, shard_mb * MB // math.prod(shape))
    plan = json.dumps(
        {"format": records.FORMAT, "source": source, "image_shape": shape, "records_per_shard": size,
         "parts": {name: [len(part), part.fingerprint()] for name, part in parts.sources.items()}}, indent=2,
    )  # fmt: skip
    with _claimed(out, plan) as folder:
        description = _write(folder, source, wanted, parts, size)
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
        there = [path for path in folder.iterdir() if path.name not in (LOCK, f"{PLAN}.tmp")]
        if there and not (folder / PLAN).is_file():
            raise UserError(f"--out={out}: {folder} holds other files; remove it, or choose another folder")
        if there and (folder / PLAN).read_text() != plan:
            print(f"{folder} is of another source or other settings: beginning anew")
            for path in sorted(there, key=lambda path: path.name == PLAN):  # the plan last
                path.unlink()
        replace_text(folder / PLAN, plan)
        yield folder


def _write(folder: Path, source: str, wanted: Wanted, parts: Parts, size: int) -> Description:
    """Writes the shards that are not there yet, each of `size` records, and the description."""
    shape = next(iter(parts.sources.values())).image_shape
    splits, fingerprints = {}, {}
    with tqdm(desc="writing records", total=sum(map(len, parts.sources.values())), unit=" images") as progress:
        for name, part in parts.sources.items():
            identities, shards, indices = part.identities(), [], []
            for number, start in enumerate(range(0, len(part), size)):
                places = np.arange(start, min(start + size, len(part)))
                file = f"{name}-{number:05}.array_record"
                shard = _there(folder, file, identities[places])
                if shard is None:
                    shard = _write_shard(ShardWriter(folder, file, shape), part, places, identities[places], progress)
                else:
                    progress.update(shard.count)
                shards.append(shard)
                indices.append(records.read_index(folder / shard.index))
            splits[name] = tuple(shards)
            fingerprints[name] = content_fingerprint(shape, np.concatenate(indices)["digest"], part.labels)
    description = Description(source, shape, wanted.resize, parts.class_names, splits, fingerprints)
    description.write(folder)
    return description


def _there(folder: Path, file: str, identities: np.ndarray) -> Shard | None:
    """The shard if it is whole and of these examples: its index is written after it."""
    shard = Shard(file, len(identities), 0)
    if not (folder / shard.index).is_file() or not (folder / file).is_file():
        return None
    if not np.array_equal(records.read_index(folder / shard.index)["identity"], identities):
        return None
    return Shard(file, len(identities), (folder / file).stat().st_size)


def _write_shard(
    writer: ShardWriter, part: Source, places: np.ndarray, identities: np.ndarray, progress: tqdm
) -> Shard:
    block = max(1, BLOCK_BYTES // math.prod(part.image_shape))
    for start in range(0, len(places), block):
        batch = part.gather(places[start : start + block])
        index = np.zeros(len(batch["image"]), INDEX)
        index["label"] = batch.get("label", -1)
        index["identity"] = identities[start : start + block]
        index["digest"] = stack_digests([digest(image) for image in batch["image"]])
        writer.write(index, batch["image"])
        progress.update(len(index))
    return writer.close()
