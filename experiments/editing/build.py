"""Names of `edit` -> the features of a style, and the posterior that keeps the pixels outside of a mask.

`edits.py` has the same names with their defaults.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sde_lib
from experiments.config.choices import choose
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.inverse.build import Shape, conditioned, noise
from experiments.metrics import feature_maps
from sde_lib import editing, inverse

PATCH = 3  # pixels: the side of the patches whose statistics are the style
AT_ONCE = 16  # images in the network, so that its memory does not grow with the batch


def _patches(image: jax.Array, std: float) -> editing.Style:
    """The figures of one patch may be off by std each: those of all positions, by less."""
    positions = np.prod([side - PATCH + 1 for side in image.shape[:2]])
    figures = image.shape[-1] * PATCH**2
    return editing.Style.of(partial(editing.patches, size=PATCH), image, std * figures / np.sqrt(positions))


def _maps(variables: Any, scales: tuple[jax.Array, ...], images: jax.Array) -> tuple[jax.Array, ...]:
    @jax.checkpoint  # the network is run again for its gradient, and what it holds in between is let go
    def scaled(image):
        maps = feature_maps.of(variables, image[None], clip=False)
        return tuple(scale * features[0] for scale, features in zip(scales, maps, strict=True))

    return jax.lax.map(scaled, images, batch_size=AT_ONCE)


@jax.jit
def _moments(variables: Any, image: jax.Array) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """Means and covariances of the five maps of an image."""
    figures = [editing.moments(features) for features in feature_maps.of(variables, image[None], clip=False)]
    return tuple(mean[0] for mean, _ in figures), tuple(covariance[0] for _, covariance in figures)


def _perceptual(image: jax.Array, std: float) -> editing.Style:
    """Maps in units of the root of the style's own variance in all channels together, so that none outweighs the others."""
    variables = feature_maps.variables()
    means, covariances = _moments(variables, image)
    scales = tuple(1 / jnp.sqrt(jnp.trace(covariance)) for covariance in covariances)
    means = tuple(scale * mean for scale, mean in zip(scales, means, strict=True))
    covariances = tuple(scale**2 * covariance for scale, covariance in zip(scales, covariances, strict=True))
    return editing.Style(jax.tree_util.Partial(_maps, variables, scales), means, covariances, std)


STYLES = {"patches": _patches, "perceptual": _perceptual}


def style(features: str, image: np.ndarray, std: float) -> editing.Style:
    """The style of an image (H, W, C) in the features of that name, whose figures may be off by std.

    Raises:
        UserError: the name is unknown, or the features are not of images of C channels.
    """
    make = choose("--style_features", features, STYLES)
    if make is _perceptual and image.shape[-1] not in (1, 3):
        raise UserError(
            f"--style_features={features}: is of images of 1 or 3 channels, not {image.shape[-1]}; try patches"
        )
    return make(jnp.asarray(image), std)


def posterior(
    experiment: Experiment, name: str, settings: Mapping[str, Any], shape: Shape
) -> Callable[[sde_lib.Denoiser, inverse.LinearMeasurement, jax.Array], sde_lib.Denoiser] | None:
    """What `editing.sdedit` takes: the prior, what is kept and its values -> the Denoiser that knows them."""
    if name == "replacement":
        return None
    return lambda prior, kept, y: conditioned(experiment, name, settings, prior, kept, y, noise(0.0), shape)[0]
