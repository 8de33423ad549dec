"""Conditions: the leaves that a network receives beside the noisy data and the noise level."""

from experiments.conditions.augmentation import AugmentationCondition
from experiments.conditions.base import Condition, dropout_tag
from experiments.conditions.label import LabelCondition

CONDITIONS: dict[str, type[Condition]] = {record.name: record for record in (LabelCondition, AugmentationCondition)}

__all__ = ["CONDITIONS", "AugmentationCondition", "Condition", "LabelCondition", "dropout_tag"]
