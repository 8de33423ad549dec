"""One compiled program of a fixed batch per device, mapped over devices and called as often as needed.

The last call is filled up with examples that are thrown away, so every call has the same shape.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jax import Array
from tqdm import tqdm

from experiments.devices import distributed
from experiments.devices.parallel import BATCH, SAME, STATE, Strategy


class Drawing:
    """Makes images of numbered examples. Compiles at the first call; weights may differ from call to call.

    Args:
        program: (examples, same, variables) -> (B, ...), for one device: a pytree of arrays (B, ...), one that is the same
            for all examples, and the weights.
        strategy: the mapping over devices.
        batch_size: of one call on one device.
        most: no more will be asked for at once, so that the batch need not be larger.
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
        """Draws call by call: (the numbers of one call's examples, what the program gave for them), in every process.

        The devices draw the next call while the caller works on this one.

        Args:
            indices: the numbers of the examples.
            take: gives the examples with these numbers, a pytree of numpy arrays (B, ...).
            same: what all examples share.
            variables: the network's weights.
            progress: whether the first process shows a bar.
            unit: what the bar counts.
        """
        pending, variables = None, self._strategy.place(variables)
        mine = self._strategy.rows(self._batch_size)
        shown = progress and distributed.is_first()
        with tqdm(total=len(indices), unit=unit, desc="sampling", disable=not shown) as bar:
            for start in range(0, len(indices), self._batch_size):
                asked = indices[start : start + self._batch_size]
                examples = take(np.resize(asked, self._batch_size)[mine])
                drawing = self._program(self._strategy.shard(examples), same, variables)
                if pending is not None:
                    yield self._finish(*pending, bar)
                pending = asked, drawing
            if pending is not None:
                yield self._finish(*pending, bar)

    def _finish(self, indices: np.ndarray, drawing: Any, bar: tqdm) -> tuple[np.ndarray, np.ndarray]:
        drawn = self._strategy.gather(drawing)[: len(indices)]
        bar.update(len(drawn))
        return indices, drawn
