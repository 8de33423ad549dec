"""Types of data: the shape of one datum, its scale for the model, and its display."""

from experiments.media.array import ArrayMedium
from experiments.media.base import Medium
from experiments.media.image import ImageMedium
from experiments.media.latent import LATENTS, LatentMedium

__all__ = ["LATENTS", "ArrayMedium", "ImageMedium", "LatentMedium", "Medium"]
