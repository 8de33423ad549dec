"""What samples are compared in, and with: the network of features, and the images of reference."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import data, metrics
from experiments.config.choices import choose
from experiments.errors import UserError
from experiments.factory.ends import check_ends
from experiments.factory.media import medium
from experiments.factory.model import sde, t_max
from experiments.metrics import feature_networks, names, records
from experiments.metrics.records import Metric
from experiments.metrics.statistics import Statistics


def _perceptron(config: ConfigDict, train: data.Source) -> metrics.Perceptron:
    return metrics.Perceptron(metrics.fit_features(train, raw_range=medium(config).raw_range))


def _published(config: ConfigDict, train: data.Source | None) -> feature_networks.FeatureNetwork:
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


def _is_published(config: ConfigDict) -> bool:
    return choose("evaluation.features", config.evaluation.features, FEATURES) is _published


def check_files(config: ConfigDict) -> None:
    """Reads the weights of the feature network and the statistics of the reference, as the evaluation does.

    Raises:
        UserError: a file is damaged, or is of another network or of images of another shape.
    """
    evaluation = config.evaluation
    network = _published(config, None) if _is_published(config) else None
    if not evaluation.statistics:
        return
    statistics, name = Statistics.load(evaluation.statistics), f"evaluation.statistics={evaluation.statistics}"
    if network is not None:
        statistics.check(name, network)
    if statistics.network != evaluation.features:
        raise UserError(
            f"{name}: its feature network is {statistics.network!r}, not evaluation.features={evaluation.features!r}"
        )
    shape = medium(config).event_shape
    if statistics.image_shape != shape:
        sizes = ["x".join(map(str, sizes)) for sizes in (statistics.image_shape, shape)]
        raise UserError(f"{name}: it is of images of {sizes[0]}, not of {sizes[1]}")


def check_features(config: ConfigDict) -> None:
    """Raises `UserError` where `feature_network` or `reference` cannot work; reads no weights."""
    name, weights = config.evaluation.features, config.evaluation.feature_weights
    published, data = _is_published(config), medium(config)
    if published and not data.has_pixels:
        raise UserError(f"evaluation.features={name!r} takes images, not {data.noun}; perceptron takes any")
    if published and config.data.num_channels not in feature_networks.CHANNELS:
        raise UserError(
            f"evaluation.features={name!r} takes images of 1 or 3 channels, not "
            f"data.num_channels={config.data.num_channels}; perceptron takes any"
        )
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
    user_metrics(config), reference(config)


def check_likelihood(config: ConfigDict) -> None:
    """Makes sure that the model has bits per dimension, if they are measured; compiles nothing.

    Raises:
        UserError: the data is not of 8 bits, or the process has no such likelihood.
    """
    number = config.evaluation.likelihood_images
    if not number:
        return
    if config.evaluation.likelihood_t_min >= t_max(config):
        raise UserError(
            f"evaluation.likelihood_t_min={config.evaluation.likelihood_t_min}: must be less than "
            f"sde.t_max={t_max(config)}"
        )
    if not medium(config).has_pixels:
        raise UserError(
            f"evaluation.likelihood_images={number}: bits per dimension are of images of 8 bits, which "
            f"data.source={config.data.source!r} has not; set 0"
        )
    check_ends(config, "evaluation.likelihood_t_min")
    if not sde(config, config.evaluation.likelihood_t_min).has_scalar_noise:
        raise UserError(
            f"evaluation.likelihood_images={number}: the states of sde.name={config.sde.name!r} are more than an image, and "
            "their density is not the image's; set 0"
        )


def user_metrics(config: ConfigDict) -> tuple[Metric, ...]:
    """The metrics of the user, which are computed beside those of the features.

    Raises:
        UserError: one cannot be imported or is no metric.
    """
    return records.load(config.evaluation.metrics, list(names.meanings(config.evaluation.features)))


def reference(config: ConfigDict) -> bool:
    """Whether samples are compared with the training images rather than the held-out ones."""
    return choose("evaluation.reference", config.evaluation.reference, {"training": True, "held_out": False})
