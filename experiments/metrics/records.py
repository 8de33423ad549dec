"""Records of metrics: what an evaluation computes beside the metrics of `names`, given by import path.

    VENDI = Metric("vendi", "Vendi score", vendi, meaning="effective number of different samples", less=False)

`evaluate --config.evaluation.metrics=my_metric:VENDI` computes it of samples, and of real images for comparison.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from experiments.config import components
from experiments.errors import UserError
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
            return float(value), None if error is None else float(error)
        except UserError:
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
            raise UserError(
                f"evaluation.metrics: {self.key}: {reason}; compute(samples, real) takes features (N, d) and (M, d) and "
                "returns a number, or a number and its standard error"
            ) from error


def load(text: str, taken: list[str]) -> tuple[Metric, ...]:
    """Returns the metrics at import paths with commas between.

    Args:
        text: of the config; empty for none.
        taken: keys that others have.

    Raises:
        UserError: one cannot be imported, is no `Metric`, or has a key that is taken.
    """
    found: list[Metric] = []
    for path in filter(None, (part.strip() for part in text.split(","))):
        if not components.is_path(path):
            raise UserError(f"evaluation.metrics={text}: {path!r} is no import path, as my_metrics:VENDI")
        metric = components.load("evaluation.metrics", path)
        missing = [name for name in ("key", "title", "compute", "described") if not hasattr(metric, name)]
        if missing or not callable(metric):
            raise UserError(
                f"evaluation.metrics={path}: {type(metric).__name__} has no {(missing or ['compute'])[0]}; a metric is an "
                "experiments.metrics.records.Metric(key, title, compute)"
            )
        if metric.key in (*taken, *(other.key for other in found)):
            raise UserError(f"evaluation.metrics={path}: another metric has the key {metric.key!r}")
        metric(*(np.random.default_rng(0).normal(size=(count, 8)) for count in (16, 24)))  # refused before any sample
        found.append(metric)
    return tuple(found)
