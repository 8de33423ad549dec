"""The stream of training batches: endless, shuffled anew each epoch, and resumable at the exact position.

Image number p of the stream is image `permutation(seed, p // N)[p % N]` of the N there are, so that each epoch shows
every image once; batch number i holds the images i B ... i B + B - 1 and spans epochs where B does not divide N.
So a batch is a function of (seed, i) alone, and i is the whole state of the iterator.
"""

import functools
import sys

import grain
import numpy as np

from experiments.data.sources import Source
from experiments.errors import UserError

# Batches made ahead by the prefetch thread: enough to ride out a slow one, small beside the data set itself.
PREFETCHED_BATCHES = 4


class _ShuffledBatches:
    """A random-access source whose elements are whole batches.

    Grain usually handles one example at a time, at some 60 us each: 10 % of a core at 1,500 images/s. Gathering a batch
    with one numpy index costs a twentieth of that, and leaves grain what it does best: prefetch and checkpoints.
    """

    def __init__(self, images: Source, batch_size: int, seed: int):
        self._images = images
        self._batch_size = batch_size
        self._seed = seed
        # A batch needs two epochs at their border; the reader may be a batch behind after `set_state`.
        self._permutation = functools.lru_cache(maxsize=2)(self._new_permutation)

    def _new_permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, epoch)).permutation(len(self._images))

    def __len__(self) -> int:
        return sys.maxsize // self._batch_size  # endless, for any run that ends

    def __getitem__(self, index) -> dict[str, np.ndarray]:
        position = int(index) * self._batch_size
        end = position + self._batch_size
        parts = []
        while position < end:
            epoch, start = divmod(position, len(self._images))
            parts.append(self._permutation(epoch)[start : start + end - position])
            position += len(parts[-1])
        return self._images.gather(np.concatenate(parts))


def _flip_half(batch: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Mirrors each image left to right with probability 1/2; `rng` is grain's, fixed by the seed and batch number."""
    image = batch["image"]  # a fresh array, gathered for this batch: writing to it changes no data
    flipped = rng.random(len(image)) < 0.5
    image[flipped] = image[flipped, :, ::-1]
    return batch


def training_batches(images: Source, *, batch_size: int, seed: int, flip: bool) -> grain.DatasetIterator:
    """Returns an endless iterator over batches `{"image": uint8 (B, H, W, C), "label": int32 (B,)}`.

    `"label"` is absent where the images have none. `get_state()` and `set_state()`, and grain's checkpoint handlers for
    Orbax, save and restore the position: the batches that follow are the same ones, bit for bit.

    Args:
        images: the N training images; N may be smaller than the batch.
        batch_size: B, images per batch, over all devices.
        seed: of the order and of the flips.
        flip: whether to mirror images left to right, each with probability 1/2. Not for digits or letters.

    Raises:
        UserError: the batch size is not positive, or the seed not in [0, 2^32).
    """
    if batch_size < 1:
        raise UserError(f"data.batch_size={batch_size} is not allowed: choose 1 or more")
    if not 0 <= seed < 2**32:
        raise UserError(f"training.seed={seed} is not allowed: choose from 0 to 2^32 - 1")
    batches = grain.MapDataset.source(_ShuffledBatches(images, batch_size, seed))
    if flip:
        batches = batches.random_map(_flip_half, seed=seed)
    # One thread: a second one would only contend for the interpreter with the train loop.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=PREFETCHED_BATCHES)
    return iter(batches.to_iter_dataset(options))
