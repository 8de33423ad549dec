"""What a training process imports, for the server that forks those of `kills.py`."""

import matplotlib.figure
import sklearn.datasets

import experiments.evaluate
import experiments.report
import experiments.train
import tests.experiments.kills

__all__ = ["experiments", "matplotlib", "sklearn", "tests"]
