"""Settings of a config that are plain values, read once."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

Settings = TypeVar("Settings")


def read(kind: type[Settings], *sections: Mapping[str, Any]) -> Settings:
    """Returns settings of a kind, each from the first section that has a key of its name."""
    merged = {name: value for section in reversed(sections) for name, value in section.items()}
    return kind(**{field.name: merged[field.name] for field in dataclasses.fields(kind)})


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """The section `data` of configs/base.py, where each key is explained; the shape is that of the medium."""

    source: str
    resize: str
    background: str
    white: float
    batch_size: int
    test_fraction: float
    validation_fraction: float
    memory_gb: float
    random_flip: bool
    workers: int
    worker_timeout: float


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """The section `training` of configs/base.py, with `optim.accumulate` and `data.batch_size`."""

    num_steps: int
    steps_per_call: int
    checkpoint_every: int
    keep_checkpoints: int
    log_every: int
    sample_every: int
    writers: tuple[str, ...]
    tracking_project: str
    measure_peak: bool
    ema_snapshot_every: int
    ema_snapshot_dtype: str
    max_skips: int
    t_min: float
    seed: int
    accumulate: int
    batch_size: int


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
    """The keys of `sampling` of configs/base.py that no object of the library holds."""

    ema: str
    ema_std: float
    label: int
    batch_size: int
    steps: int
    rho: float
    t_min: float


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """The section `evaluation` of configs/base.py."""

    num_samples: int
    features: str
    statistics: str
    neighbours: int
    training_images: int
    noise_levels: int
    t_min: float
    likelihood_images: int
    likelihood_t_min: float
    likelihood_probes: int
    likelihood_tolerance: float
    seed: int
