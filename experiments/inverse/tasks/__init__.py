"""Restore tasks, one `TASK` in each file of this folder."""

from experiments.config.records import records
from experiments.inverse.records import Task

TASKS: dict[str, Task] = records(__name__, __path__, "TASK")
