"""Five maps of an EfficientNet-lite0, at five resolutions."""

from experiments.editing.records import StyleFeatures
from experiments.errors import UserError

AT_ONCE = 16  # images in the network, so that its memory does not grow with the batch


def _maps(variables, scales, images):
    import jax

    from experiments.metrics import feature_maps

    @jax.checkpoint  # the network is run again for its gradient, and what it holds in between is let go
    def scaled(image):
        maps = feature_maps.of(variables, image[None], clip=False)
        return tuple(scale * features[0] for scale, features in zip(scales, maps, strict=True))

    return jax.lax.map(scaled, images, batch_size=AT_ONCE)


def _moments(variables, image):
    """Means and covariances of the five maps of an image."""
    from experiments.metrics import feature_maps
    from sde_lib import editing

    figures = [editing.moments(features) for features in feature_maps.of(variables, image[None], clip=False)]
    return tuple(mean[0] for mean, _ in figures), tuple(covariance[0] for _, covariance in figures)


def _make(image, std):
    """Maps in units of the root of the style's own variance in all channels together, so that none outweighs the others."""
    import jax
    import jax.numpy as jnp

    from experiments.metrics import feature_maps
    from sde_lib import editing

    if image.shape[-1] not in (1, 3):
        raise UserError(
            f"--style_features=perceptual: is of images of 1 or 3 channels, not {image.shape[-1]}; try patches"
        )
    variables = feature_maps.variables()
    means, covariances = jax.jit(_moments)(variables, image)
    scales = tuple(1 / jnp.sqrt(jnp.trace(covariance)) for covariance in covariances)
    means = tuple(scale * mean for scale, mean in zip(scales, means, strict=True))
    covariances = tuple(scale**2 * covariance for scale, covariance in zip(scales, covariances, strict=True))
    return editing.Style(jax.tree_util.Partial(_maps, variables, scales), means, covariances, std)


STYLE = StyleFeatures("five layers of EfficientNet-lite0, slower", 0.1, _make)
