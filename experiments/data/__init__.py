"""Where images come from (`sources`), how they reach the train step (`pipeline`), and on which scale (`transform`).

A name is loaded when it is first asked for: worker processes want their source without JAX and grain.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.data.pipeline import training_batches
    from experiments.data.sources import Dataset, Images, Source, load
    from experiments.data.transform import LATENTS, DataTransform, LatentTransform

__all__ = ["LATENTS", "DataTransform", "Dataset", "Images", "LatentTransform", "Source", "load", "training_batches"]

FILES = {
    "pipeline": ("training_batches",),
    "sources": ("Dataset", "Images", "Source", "load"),
    "transform": ("LATENTS", "DataTransform", "LatentTransform"),
}


def __getattr__(name: str) -> Any:
    for file, names in FILES.items():
        if name in names:
            return getattr(importlib.import_module(f"experiments.data.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
