"""The config of a model that came from elsewhere: the defaults, with what its file says of network, process and images.

A model of latents, the codes of an autoencoder, has `data.source = "latents"`: no source of images, so that `train` and
`evaluate` say what is missing, and samples stay the numbers that they are (`experiments/media/latent.py`).
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

import models
from configs import base
from experiments.config import sizes
from experiments.media import LATENTS

Model = tuple[ConfigDict, Any]  # a config, and the network's variables
PICTURES = (1, 3)  # channels of what can be looked at; published models of others are of latents


def model_config(
    network: Any,
    name: str,
    image_size: int | sizes.Size,
    num_channels: int,
    *,
    latents: bool = False,
    **sections: Mapping[str, Any],
) -> ConfigDict:
    """A config for the network.

    Args:
        network: the Flax module.
        name: by which `models.create` knows it.
        image_size: height and width of the images, in pixels; see `sizes.parse`.
        num_channels: of the images; other than 1 and 3 are latents.
        latents: whether the images are latents whatever their channels.
        sections: changes to other sections, by name.
    """
    config = base.get_config()
    config.model = ConfigDict({"name": name} | {option: getattr(network, option) for option in models.options(name)})
    # `train` and `evaluate` want a source of images.
    source = LATENTS if latents or num_channels not in PICTURES else "npz:images.npz"
    size = sizes.written(sizes.parse(image_size))
    changes = {"data": {"source": source, "image_size": size, "num_channels": num_channels}} | sections
    for section, values in changes.items():
        config[section].update(values)
    return config


def smallest_time(value: float) -> dict[str, dict[str, float]]:
    """The sections with the same t_min for training, sampling and evaluation."""
    return {section: {"t_min": value} for section in ("training", "sampling", "evaluation")}


# The cosine's last betas take sigma / alpha from 80 to 20,291, by which a sampler would multiply the network's error in its
# first step; EDM, too, starts its sampler at step 992 of iDDPM's 1,000.
LAST = {"iddpm": 0.992}


def chain(name: str, num_steps: int, prediction: str = "noise", **process: float) -> dict[str, dict[str, Any]]:
    """The sections of a model of a discrete chain, whose network sees the index 0 ... num_steps - 1.

    Args:
        name: of the process.
        num_steps: of the chain.
        prediction: the parameterization.
        process: further keys of the process.
    """
    last = round(LAST.get(name, 1.0) * num_steps)
    sections = smallest_time(1 / num_steps) | {
        "sde": {"name": name, "num_steps": num_steps, "t_max": last / num_steps} | process,
        "parameterization": {"name": prediction, "time_scale": float(num_steps), "time_offset": -1.0},
        "loss": {"weighting": prediction, "times": "discrete", "discrete_levels": last},
    }
    sections["sampling"] |= {"sampler": "ddim", "times": "uniform", "steps": 50}
    return sections
