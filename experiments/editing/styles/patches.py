"""The pixels of all patches of an image."""

from functools import partial

from experiments.editing.records import StyleFeatures

PATCH = 3  # pixels: the side of the patches whose statistics are the style


def _make(image, std):
    """The statistics of one patch may deviate by std each: those of all positions, by less."""
    import numpy as np

    from sde_lib import editing

    positions = np.prod([side - PATCH + 1 for side in image.shape[:2]])
    figures = image.shape[-1] * PATCH**2
    return editing.Style.of(partial(editing.patches, size=PATCH), image, std * figures / np.sqrt(positions))


STYLE = StyleFeatures("of 3x3 pixels, default", 0.25, _make)
