"""Conditions: the inputs of a network in addition to the noisy data and the noise level."""

from experiments.conditions.augmentation import AugmentationCondition
from experiments.conditions.base import Condition, dropout_tag
from experiments.conditions.label import LabelCondition

__all__ = ["AugmentationCondition", "Condition", "LabelCondition", "dropout_tag"]
