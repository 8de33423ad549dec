"""Records of metrics: what an evaluation computes in addition to the metrics of `names`, given by name or import path.

    VENDI = Metric("vendi", "Vendi score", vendi, meaning="effective number of different samples", less=False)

`evaluate --config.evaluation.metrics=my_metric:VENDI` computes it of samples, and of real images for comparison. A module of
this package names its own: `METRICS = {"vendi": VENDI}`.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from experiments.config import components
from experiments.config.records import named
from experiments.errors import UserError, unknown_name
from experiments.metrics.names import LESS, MORE


@dataclass(frozen=True)
class Metric:
    """A metric of samples in the features of a network.

    Attributes:
        key: in metrics.json, and for --metric.
        title: for tables.
        compute: features (N, d) of samples and (M, d) of real images, float64 -> the value, or (value, standard error).
        meaning: for tables; by default which direction is better.
        less: whether less is better.
    """

    key: str
    title: str
    compute: Callable[[np.ndarray, np.ndarray], float | tuple[float, float]]
    meaning: str = ""
    less: bool = True

    @property
    def described(self) -> dict[str, str | bool]:
        """What a report needs to know."""
        return {"title": self.title, "meaning": self.meaning or (LESS if self.less else MORE), "less": self.less}

    def __call__(self, samples: np.ndarray, real: np.ndarray) -> tuple[float, float | None]:
        """Returns the value and its standard error, None where it is unknown.

        Raises:
            UserError: `compute` raises, or returns something else.
        """
        try:
            found = self.compute(samples, real)
            value, error = found if isinstance(found, tuple) else (found, None)
            value, error = float(value), None if error is None else float(error)
            if error is not None and error < 0:
                raise ValueError(f"the standard error is {error:g}")
            return value, error
        except UserError:
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
            raise UserError(
                f"evaluation.metrics: {self.key}: {reason}; compute(samples, real) takes features (N, d) and (M, d) and "
                "returns a number, or a number and its standard error"
            ) from error


def known() -> dict[str, Metric]:
    """Returns the metrics that have names."""
    return named(importlib.import_module("experiments.metrics"), "METRICS")


def load(text: str, taken: list[str]) -> tuple[Metric, ...]:
    """Returns the metrics of names and import paths with commas between.

    Args:
        text: of the config; empty for none.
        taken: keys that others have.

    Raises:
        UserError: one is unknown, cannot be imported, is no `Metric`, or has a key that is taken.
    """
    found: list[Metric] = []
    named_metrics = known()
    for path in filter(None, (part.strip() for part in text.split(","))):
        if path not in named_metrics and not components.is_path(path):
            error = unknown_name("evaluation.metrics", path, named_metrics)
            raise UserError(f"{error}; or give an import path, as my_metrics:VENDI")
        metric = named_metrics[path] if path in named_metrics else components.load("evaluation.metrics", path)
        missing = [name for name in ("key", "title", "compute", "described") if not hasattr(metric, name)]
        if missing or not callable(metric):
            raise UserError(
                f"evaluation.metrics={path}: {type(metric).__name__} has no {(missing or ['compute'])[0]}; a metric is an "
                "experiments.metrics.records.Metric(key, title, compute)"
            )
        if not (isinstance(metric.key, str) and isinstance(metric.title, str)):
            raise UserError(
                f"evaluation.metrics={path}: its key and title are {metric.key!r}, {metric.title!r}; texts are needed"
            )
        if metric.key in (*taken, *(other.key for other in found)):
            raise UserError(f"evaluation.metrics={path}: another metric has the key {metric.key!r}")
        metric(*(np.random.default_rng(0).normal(size=(count, 8)) for count in (16, 24)))  # refused before any sample
        found.append(metric)
    return tuple(found)
