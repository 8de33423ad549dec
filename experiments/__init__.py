"""The program `python -m experiments COMMAND`, and `load_run` and `load_pretrained` for notebooks."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from experiments.loading.runs import Run


def load_run(path: str | Path, config: "ConfigDict | None" = None, **average: str | float) -> "Run":
    """Opens a trained run: see `experiments.loading.runs.load_run`."""
    from experiments.loading.runs import load_run  # a local import, so that `--help` does not import JAX

    return load_run(path, config, **average)


def load_pretrained(path: str | Path, format: str, config: "ConfigDict | None" = None) -> "Run":
    """Opens a published model: see `experiments.loading.pretrained.load_pretrained`."""
    from experiments.loading.pretrained import load_pretrained

    return load_pretrained(path, format, config)
