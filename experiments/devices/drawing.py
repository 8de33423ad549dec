"""Batched evaluation: one compiled program with a fixed batch per device, mapped over devices and called repeatedly.

The last batch is padded with repeated examples whose results are dropped, so all calls have the same shape.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jax import Array
from tqdm import tqdm

from experiments.devices import distributed
from experiments.devices.parallel import BATCH, SAME, STATE, Strategy


class Drawing:
    """Evaluates a program for numbered examples, batch by batch; compiles at the first call. Weights may change later.

    Args:
        program: (examples, same, variables) -> (B, ...), for one device. `examples` is a pytree of arrays (B, ...),
            `same` a pytree that all examples share, `variables` the weights.
        strategy: the mapping over devices.
        batch_size: examples per device and call.
        most: upper bound of the number of examples of one call; the batch is reduced to it.
    """

    def __init__(
        self, program: Callable[[Any, Any, Any], Array], strategy: Strategy, batch_size: int, most: int | None = None
    ):
        self._strategy = strategy
        share = batch_size if most is None else min(batch_size, -(-most // strategy.num_devices))
        self._batch_size = strategy.num_devices * share
        self._program = strategy.map(program, (BATCH, SAME, STATE), BATCH)

    def __call__(
        self,
        indices: np.ndarray,
        take: Callable[[np.ndarray], Any],
        same: Any,
        variables: Any,
        *,
        progress: bool = False,
        unit: str = "img",
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (indices, results) of each batch, in every process.

        The devices compute the next batch while the caller processes the current one.

        Args:
            indices: the numbers of the examples.
            take: indices (B,) -> examples, a pytree of numpy arrays (B, ...).
            same: the pytree that all examples share.
            variables: the network's weights.
            progress: whether the first process shows a progress bar.
            unit: unit of the progress bar.
        """
        pending, variables = None, self._strategy.place(variables)
        mine = self._strategy.rows(self._batch_size)
        shown = progress and distributed.is_first()
        with tqdm(total=len(indices), unit=unit, desc="sampling", disable=not shown) as bar:
            for start in range(0, len(indices), self._batch_size):
                batch = indices[start : start + self._batch_size]
                examples = take(np.resize(batch, self._batch_size)[mine])
                results = self._program(self._strategy.shard(examples), same, variables)
                if pending is not None:
                    yield self._finish(*pending, bar)
                pending = batch, results
            if pending is not None:
                yield self._finish(*pending, bar)

    def _finish(self, indices: np.ndarray, results: Any, bar: tqdm) -> tuple[np.ndarray, np.ndarray]:
        gathered = self._strategy.gather(results)[: len(indices)]
        bar.update(len(gathered))
        return indices, gathered
