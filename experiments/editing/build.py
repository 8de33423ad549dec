"""Names of `edit` -> a style in the features of that name, and the posterior that keeps the pixels outside of a mask.

`edits.py` has the same names with their defaults.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sde_lib
from experiments.config.choices import choose
from experiments.editing.styles import STYLES
from experiments.factory.experiment import Experiment
from experiments.inverse.build import Shape, conditioned, noise
from sde_lib import editing, inverse


def style(features: str, image: np.ndarray, std: float) -> editing.Style:
    """The style of an image (H, W, C) in the features of that name, whose figures may be off by std.

    Raises:
        UserError: the name is unknown, or the features are not of images of C channels.
    """
    return choose("--style_features", features, STYLES).make(jnp.asarray(image), std)


def posterior(
    experiment: Experiment, name: str, settings: Mapping[str, Any], shape: Shape
) -> Callable[[sde_lib.Denoiser, inverse.LinearMeasurement, jax.Array], sde_lib.Denoiser] | None:
    """What `editing.sdedit` takes: the prior, what is kept and its values -> the Denoiser that knows them."""
    if name == "replacement":
        return None
    return lambda prior, kept, y: conditioned(experiment, name, settings, prior, kept, y, noise(0.0), shape)[0]
