"""Records of metrics that an evaluation computes in addition to those of `names`, selected by name or import path.

    VENDI = Metric("vendi", "Vendi score", vendi, meaning="effective number of different samples", less=False)

`evaluate --config.evaluation.metrics=my_metric:VENDI` computes the metric for samples, and for real images as a
baseline. A module of this package registers its metrics by name: `METRICS = {"vendi": VENDI}`.
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
        key: key in metrics.json, and value of --metric.
        title: title in tables.
        compute: (features of samples (N, d), features of real images (M, d)), float64 -> value, or (value, standard
            error).
        meaning: description in tables; by default the better direction.
        less: whether lower values are better.
    """

    key: str
    title: str
    compute: Callable[[np.ndarray, np.ndarray], float | tuple[float, float]]
    meaning: str = ""
    less: bool = True

    @property
    def described(self) -> dict[str, str | bool]:
        """Title, meaning and direction, for reports."""
        return {"title": self.title, "meaning": self.meaning or (LESS if self.less else MORE), "less": self.less}

    def __call__(self, samples: np.ndarray, real: np.ndarray) -> tuple[float, float | None]:
        """Returns the value and its standard error, or None if the error is unknown.

        Raises:
            UserError: `compute` raises, or returns a result of another type.
        """
        try:
            result = self.compute(samples, real)
            value, error = result if isinstance(result, tuple) else (result, None)
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
    """Returns the registered metrics by name."""
    return named(importlib.import_module("experiments.metrics"), "METRICS")


def load(text: str, taken: list[str]) -> tuple[Metric, ...]:
    """Returns the metrics of comma-separated names and import paths.

    Args:
        text: value of evaluation.metrics; empty for no metrics.
        taken: keys of other metrics.

    Raises:
        UserError: a metric is unknown, cannot be imported, is not a `Metric`, fails on random features, or has a key
            that is taken.
    """
    metrics: list[Metric] = []
    named_metrics = known()
    for path in filter(None, (part.strip() for part in text.split(","))):
        if path not in named_metrics and not components.is_path(path):
            error = unknown_name("evaluation.metrics", path, named_metrics)
            raise UserError(f"{error}; or give an import path, such as my_metrics:VENDI")
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
        if metric.key in (*taken, *(other.key for other in metrics)):
            raise UserError(f"evaluation.metrics={path}: another metric has the key {metric.key!r}")
        metric(*(np.random.default_rng(0).normal(size=(count, 8)) for count in (16, 24)))  # a trial, before any sample
        metrics.append(metric)
    return tuple(metrics)
