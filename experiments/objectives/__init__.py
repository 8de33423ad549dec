"""Training objectives: the trained weights, their loss, pictures and evaluation. One file each; see `objective.py`."""

from experiments.objectives.classification import Classification
from experiments.objectives.denoising import Denoising
from experiments.objectives.objective import Objective

__all__ = ["Classification", "Denoising", "Objective"]
