"""Objectives: what is trained, by which loss, and how it is shown and judged. One file for each; see `objective.py`."""

from experiments.objectives.classification import Classification
from experiments.objectives.denoising import Denoising
from experiments.objectives.objective import Objective

__all__ = ["Classification", "Denoising", "Objective"]
