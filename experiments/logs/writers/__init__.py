"""Writers of training metrics and pictures by step.

`jsonl` (metrics.jsonl in the run's folder) and `tensorboard` are always installed. `wandb` and `trackio` are optional
packages (`pip install "ornstein[wandb]"`, `"ornstein[trackio]"`), configured by their own environment variables, such
as `WANDB_MODE=offline` and `TRACKIO_SPACE_ID`. A resumed run continues the same run of the service.
"""

import importlib.util
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from ml_collections import ConfigDict

from experiments.errors import UserError, unknown_name
from experiments.logs.writers.jsonl import Jsonl
from experiments.logs.writers.tensorboard import TensorBoard
from experiments.logs.writers.tracking import Trackio, WeightsAndBiases
from experiments.runs.workdir import Workdir


class Writer(Protocol):
    """Interface of writers. The constructor takes (workdir, config, step) and drops or hides rows of later steps."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes the metrics of one step by name; all are finite."""

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """Writes a picture, uint8 (height, width, C) with C = 1 or 3, if the writer supports pictures."""

    def close(self) -> None:
        """Writes buffered data and closes the writer."""


# Writers by their name in training.writers.
WRITERS: dict[str, type[Writer]] = {
    "jsonl": Jsonl,
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}
EXTRAS = ("wandb", "trackio")  # writers that need a package and an extra (optional dependency) of the same name


def check(names: Iterable[str]) -> None:
    """Checks that writers are available; imports none of their packages.

    Raises:
        UserError: a name is unknown or repeated, there are no names, or a package is not installed.
    """
    names = tuple(names)
    for name in names:
        if name not in WRITERS:
            raise unknown_name("training.writers", name, WRITERS)
        if name in EXTRAS and importlib.util.find_spec(name) is None:
            raise UserError(f'training.writers: {name} is not installed; pip install "ornstein[{name}]"')
    if not names or len(set(names)) < len(names):
        raise UserError(
            f"training.writers={','.join(names)}: must be one or more names, each once, of {', '.join(WRITERS)}"
        )


def open_all(workdir: Workdir, config: ConfigDict, step: int) -> list[Writer]:
    """Returns the writers of `training.writers`, for training that starts at `step`."""
    return [WRITERS[name](workdir, config, step) for name in config.training.writers]


__all__: Sequence[str] = [
    "WRITERS",
    "Jsonl",
    "TensorBoard",
    "Trackio",
    "WeightsAndBiases",
    "Writer",
    "check",
    "open_all",
]
