"""Feature statistics of prepared images, computed in advance for evaluations."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from configs import base
from experiments.data.records import Description
from experiments.data.sources import load
from experiments.metrics.statistics import compute_statistics

BLOCK_BYTES = 2**25  # bytes of pixels per block


@dataclasses.dataclass(frozen=True)
class FeatureStatistics:
    """Writes `training_NETWORK.npz` and `held_out_NETWORK.npz`, for `evaluation.statistics`, to a folder of records.

    The statistics are those of the training and held-out images of `data.source=arrayrecord:FOLDER` with the default
    fractions of configs/base.py; with other fractions, evaluation refuses the files.

    Attributes:
        network: the feature network.
    """

    network: Any

    @property
    def name(self) -> str:
        """The name of the feature network."""
        return self.network.name

    def __call__(self, folder: Path) -> list[Path]:
        """Returns the paths of the files written."""
        defaults, shape = base.get_config().data, Description.read(folder).image_shape
        dataset = load(
            f"arrayrecord:{folder}",
            image_size=shape[:2],
            num_channels=shape[2],
            test_fraction=defaults.test_fraction,
            validation_fraction=defaults.validation_fraction,
            memory_gb=0,
        )
        block, paths = max(1, BLOCK_BYTES // math.prod(shape)), []
        for name, part in (("training", dataset.train), ("held_out", dataset.test)):
            blocks = tqdm(range(0, len(part), block), f"statistics of {name} images", unit=" blocks")
            pixels = (part.pixels(np.arange(start, min(start + block, len(part)))) for start in blocks)
            paths.append(folder / f"{name}_{self.network.name}.npz")
            compute_statistics(pixels, self.network, fingerprint=part.fingerprint()).save(paths[-1])
        return paths
