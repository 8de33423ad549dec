"""Where the course of training is written: each writer takes rows of figures and pictures by their step.

`jsonl` (metrics.jsonl in the run's folder) and `tensorboard` come with the code base; `wandb` and `trackio` are packages of
their own (`pip install "ornstein[wandb]"`, `"ornstein[trackio]"`), configured by their own environment variables:
`WANDB_MODE=offline`, `TRACKIO_SPACE_ID`. A run that goes on writes to the same run there.
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
    """What a writer does; it is made of (workdir, config, step), and rows past that step are of no account any more."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes the figures of one step by name; all are finite."""

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """Writes a picture, uint8 (height, width, C) with C = 1 or 3, where the writer keeps any."""

    def close(self) -> None:
        """Writes what is left."""


# By their names in training.writers; each needs the package of that name, if one is given.
WRITERS: dict[str, type[Writer]] = {
    "jsonl": Jsonl,
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}
EXTRAS = ("wandb", "trackio")  # writers whose package, of the same name, is an extra of the same name


def check(names: Iterable[str]) -> None:
    """Makes sure that these writers can be had; imports none of their packages.

    Raises:
        UserError: a name is unknown or there twice, there is none, or a package is not installed.
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
    """The writers that `training.writers` names, for a run that goes on after `step`."""
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
