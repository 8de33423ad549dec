"""The stream of training batches: endless, shuffled anew each epoch, and resumable at the exact position.

    batch i (`batches`), in this process or in others (`workers`)  ->  flips  ->  a few batches ahead  ->  the training loop

A batch is a function of the seed and its number i, and i is the whole state of the iterator. It does not depend on the
number of hosts, of which number h of n reads the rows h B / n ... (h + 1) B / n - 1 of every batch, nor on that of the
worker processes. A position that was saved with some of them goes on with any other number.

What else is random is done on the device, with the keys of the examples (`augmentation`, and see `factory.preparation`).
The loop calls the device without waiting for it, so the batches of the next call are gathered and sent while it computes;
there is no buffer on the device besides (`benchmark --suite=data` measures what is left of that time).
"""

import functools
from collections.abc import Sequence
from typing import Any, Self

import grain
import numpy as np

from experiments.data.batches import ShuffledBatches
from experiments.data.sources import Source
from experiments.data.workers import WorkerBatches
from experiments.errors import UserError


def batches_ahead(workers: int) -> int:
    """How many are made ahead: enough to ride out a slow one, small beside the data set itself."""
    return max(4, 2 * workers)


def _flip_half(
    batch_size: int, rows: slice, fields: Sequence[str], batch: dict[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Mirrors each example left to right with probability 1/2; `rng` is grain's, fixed by the seed and batch number."""
    flipped = (rng.random(batch_size) < 0.5)[rows]
    for field in fields:
        image = batch[field]  # a fresh array, gathered for this batch: writing to it changes no data
        image[flipped] = image[flipped, :, ::-1]
    return batch


class Batches(grain.DatasetIterator):
    """The iterator of `training_batches`: grain's, with the processes that it reads from.

    Leaving `with` ends them; so does the end of the program, whatever ends it.
    """

    def __init__(self, iterator: grain.DatasetIterator, workers: WorkerBatches | None):
        super().__init__(iterator)
        self._workers = workers

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self._parent)

    def get_state(self) -> dict[str, Any]:
        """The position: the number of the next batch."""
        return self._parent.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position."""
        self._parent.set_state(state)

    def close(self) -> None:
        """Ends what runs in the background."""
        if self._workers:
            self._workers.close()
        self._parent.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def training_batches(
    images: Source,
    *,
    batch_size: int,
    seed: int,
    flip: bool,
    host: int = 0,
    hosts: int = 1,
    workers: int = 0,
    worker_timeout: float = 300.0,
    in_plane: Sequence[str] = ("image",),
) -> Batches:
    """Returns an endless iterator over batches `{"image": uint8 (B / hosts, H, W, C), "label": int32 (B / hosts,)}`.

    `"label"` is absent where the images have none. `get_state()` and `set_state()`, and grain's checkpoint handlers for
    Orbax, save and restore the position: the batches that follow are the same ones, bit for bit.

    Args:
        images: the N training images; N may be smaller than the batch.
        batch_size: B, images per batch, over all devices of all hosts.
        seed: of the order and of the flips.
        flip: whether to mirror examples left to right, each with probability 1/2. Not for digits or letters.
        host, hosts: which rows of each batch to give: those of number `host` of so many.
        workers: processes that read; 0 reads in a thread, which is best for images in memory (each process would get a
            copy of them).
        worker_timeout: seconds for a process to make a batch.
        in_plane: the fields (B, H, W, ...) that are mirrored together.

    Raises:
        UserError: the batch size is not positive or not divisible by the hosts, or the seed not in [0, 2^32).
        RunError: on `next`, a worker takes too long, or they die again and again.
    """
    if batch_size < 1:
        raise UserError(f"data.batch_size={batch_size} is not allowed: choose 1 or more")
    if batch_size % hosts:
        raise UserError(
            f"data.batch_size={batch_size} cannot be shared by {hosts} hosts: choose a multiple of {hosts}, such as "
            f"{-(-batch_size // hosts) * hosts}"
        )
    if not 0 <= seed < 2**32:
        raise UserError(f"training.seed={seed} is not allowed: choose from 0 to 2^32 - 1")
    share = batch_size // hosts
    rows = slice(host * share, (host + 1) * share)
    make = functools.partial(ShuffledBatches, images, batch_size, rows, seed)
    remote = WorkerBatches(make, workers, worker_timeout) if workers else None
    batches = grain.MapDataset.source(remote or make())
    if flip:
        batches = batches.random_map(functools.partial(_flip_half, batch_size, rows, in_plane), seed=seed)
    # A thread for each process, which waits for it. Else one: more would contend for the interpreter with the loop.
    options = grain.ReadOptions(num_threads=max(workers, 1), prefetch_buffer_size=batches_ahead(workers))
    return Batches(iter(batches.to_iter_dataset(options)), remote)
