"""What a training process imports, for the server that forks those of `kills.py`."""

import matplotlib.figure
import sklearn.datasets

import experiments.evaluation.evaluate
import experiments.reports.report
import experiments.training.train
import tests.experiments.kills

__all__ = ["experiments", "matplotlib", "sklearn", "tests"]
