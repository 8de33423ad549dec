"""Types of data: the shape of one datum, its scale for the model, and its display."""

from experiments.media.base import Medium
from experiments.media.image import ImageMedium
from experiments.media.latent import LATENTS, LatentMedium

__all__ = ["LATENTS", "ImageMedium", "LatentMedium", "Medium"]
