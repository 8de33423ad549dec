"""Where images come from (`sources`) and how they reach the train step (`pipeline`).

A name is loaded when it is first asked for: worker processes want their source without JAX and grain.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.data.pipeline import training_batches
    from experiments.data.sources import Arrays, Dataset, Images, Source, load

__all__ = ["Arrays", "Dataset", "Images", "Source", "load", "training_batches"]

FILES = {
    "pipeline": ("training_batches",),
    "sources": ("Arrays", "Dataset", "Images", "Source", "load"),
}


def __getattr__(name: str) -> Any:
    for file, names in FILES.items():
        if name in names:
            return getattr(importlib.import_module(f"experiments.data.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
