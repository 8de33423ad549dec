"""Conditions: the leaves that a network receives beside the noisy data and the noise level."""

import sys

from experiments.conditions.augmentation import AugmentationCondition
from experiments.conditions.base import Condition, dropout_tag
from experiments.conditions.label import LabelCondition
from experiments.config.records import named

CONDITIONS: dict[str, type[Condition]] = named(sys.modules[__name__], "CONDITIONS")

__all__ = ["CONDITIONS", "AugmentationCondition", "Condition", "LabelCondition", "dropout_tag"]
