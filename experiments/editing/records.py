"""Records of the features whose mean and covariance are a style; read before anything slow is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StyleFeatures:
    """Features of a style.

    Attributes:
        summary: for --help.
        std: deviation from the style that is allowed to each statistic, if --style_std does not set it.
        make: (image (H, W, C), std) -> `editing.Style`. It raises a UserError for images that have no such features.
        name: by default that of the file, with - for _.
    """

    summary: str
    std: float
    make: Callable[[Any, float], Any]
    name: str = ""
