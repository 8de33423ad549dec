"""Posterior methods, one `METHOD` in each file of this folder."""

from experiments.config.records import records
from experiments.inverse.records import Method

METHODS: dict[str, Method] = records(__name__, __path__, "METHOD")
