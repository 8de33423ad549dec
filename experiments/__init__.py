"""What is launched: `python -m experiments {train,sample,evaluate,benchmark}`; and `load_run` for notebooks."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.runs import Run


def load_run(path: str) -> "Run":
    """Opens a trained run: see `experiments.runs.load_run`."""
    from experiments.runs import load_run  # here, so that `--help` need not wait for JAX

    return load_run(path)
