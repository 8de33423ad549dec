"""Where images come from (`sources`), how they reach the train step (`pipeline`), and on which scale (`transform`)."""

from experiments.data.pipeline import training_batches
from experiments.data.sources import Dataset, Images, Source, load
from experiments.data.transform import LATENTS, DataTransform, LatentTransform

__all__ = ["LATENTS", "DataTransform", "Dataset", "Images", "LatentTransform", "Source", "load", "training_batches"]
