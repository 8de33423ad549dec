"""Objectives: what is trained, by which loss, and how it is shown and judged. One file for each; see `objective.py`."""

import sys

from experiments.config.records import named
from experiments.objectives.classification import Classification
from experiments.objectives.denoising import Denoising
from experiments.objectives.objective import Objective

OBJECTIVES: dict[str, type[Objective]] = named(sys.modules[__name__], "OBJECTIVES")

__all__ = ["OBJECTIVES", "Classification", "Denoising", "Objective"]
