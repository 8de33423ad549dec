"""The medium of an experiment: the type of one datum."""

from ml_collections import ConfigDict

from experiments.media import LATENTS, ImageMedium, LatentMedium, Medium


def medium(config: ConfigDict) -> Medium:
    """Returns the medium: images, or latents where the source is a model's."""
    data = config.data
    kind = LatentMedium if data.source == LATENTS else ImageMedium
    return kind((data.image_size, data.image_size, data.num_channels))
