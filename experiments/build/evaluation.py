"""What samples are compared in, and with: the network of features, and the images of reference."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import data, metrics
from experiments.build.choices import choose
from experiments.build.images import transform
from experiments.build.model import sde
from experiments.errors import UserError
from experiments.metrics import feature_networks


def _perceptron(config: ConfigDict, train: data.Source) -> metrics.Perceptron:
    return metrics.Perceptron(metrics.fit_features(train))


def _published(config: ConfigDict, train: data.Source) -> feature_networks.FeatureNetwork:
    return feature_networks.load(config.evaluation.features, _path(config.evaluation.feature_weights))


def _path(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


FEATURES = {"perceptron": _perceptron} | dict.fromkeys(feature_networks.names(), _published)


def feature_network(config: ConfigDict, train: data.Source) -> Any:
    """The network in whose features samples are compared; the perceptron is fitted to the training images.

    Raises:
        UserError: the name is unknown, or the weights are missing, or of another network.
    """
    return choose("evaluation.features", config.evaluation.features, FEATURES)(config, train)


def check_features(config: ConfigDict) -> None:
    """Raises `UserError` where `feature_network` or `reference` cannot work; reads no weights."""
    name, weights = config.evaluation.features, config.evaluation.feature_weights
    published = choose("evaluation.features", name, FEATURES) is _published
    if weights and not published:
        raise UserError(f"evaluation.feature_weights={weights}: {name} takes none, it is fitted to the training images")
    for key in ("feature_weights", "statistics"):
        path = config.evaluation[key]
        if path and not Path(path).expanduser().is_file():
            raise UserError(f"evaluation.{key}={path}: no such file")
    if published and not weights and feature_networks.KINDS[name].packaged_file is None:
        raise UserError(
            f"evaluation.features={name!r} needs evaluation.feature_weights: the file "
            f"{feature_networks.KINDS[name].published_as}"
        )
    reference(config)


def check_likelihood(config: ConfigDict) -> None:
    """Makes sure that the model has bits per dimension, if they are measured; compiles nothing.

    Raises:
        UserError: the data is not of 8 bits, or the process has no such likelihood.
    """
    number, size = config.evaluation.likelihood_images, config.data.image_size
    if not number:
        return
    if not transform(config).gives_images:
        raise UserError(
            f"evaluation.likelihood_images={number}: bits per dimension are of images of 8 bits, which "
            f"data.source={config.data.source!r} has not; set 0"
        )
    shape = (size, size, config.data.num_channels)
    if sde(config, config.evaluation.likelihood_t_min).state_shape(shape) != shape:
        raise UserError(
            f"evaluation.likelihood_images={number}: the states of sde.name={config.sde.name!r} are more than an image, and "
            "their density is not the image's; set 0"
        )


def reference(config: ConfigDict) -> bool:
    """Whether samples are compared with the training images rather than the held-out ones."""
    return choose("evaluation.reference", config.evaluation.reference, {"training": True, "held_out": False})
