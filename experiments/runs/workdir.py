"""The folder of a run: its paths, and the check that a folder contains only one experiment.

config.json     configuration           checkpoints/   newest Orbax checkpoints    metrics.jsonl  training metrics by
step samples/        sample grids            events.*       TensorBoard                 metrics.json   results of
`evaluate` report.html     report of the run       train.lock     lock of the training process data.json
description of the data set: counts by split, class names, excluded images evaluation/     features of samples during an
evaluation; statistics of real images ema_snapshots/  snapshots of power averages of the weights, if enabled (none is
removed)
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.config import files as configs
from experiments.errors import UserError, nearest
from experiments.files import replace_text


@dataclasses.dataclass(frozen=True)
class Workdir:
    """Paths in the folder of a run."""

    path: Path

    @property
    def config(self) -> Path:
        """Config of the experiment."""
        return self.path / "config.json"

    @property
    def data(self) -> Path:
        """Description of the data set (`experiments/loading/dataset.py`)."""
        return self.path / "data.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the Orbax checkpoints."""
        return self.path / "checkpoints"

    @property
    def ema_snapshots(self) -> Path:
        """Folder of the snapshots of power averages (`experiments/learning/posthoc.py`)."""
        return self.path / "ema_snapshots"

    @property
    def samples(self) -> Path:
        """Folder of the sample grids of training."""
        return self.path / "samples"

    def grid(self, step: int) -> Path:
        """Returns the path of the sample grid after `step` steps."""
        return self.samples / f"step_{step:08d}.png"

    @property
    def strip(self) -> Path:
        """Picture of the generation of samples from noise."""
        return self.samples / "from_noise.png"

    @property
    def history(self) -> Path:
        """Training metrics: one JSON line per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def metrics(self) -> Path:
        """Results of `evaluate`."""
        return self.path / "metrics.json"

    @property
    def evaluation(self) -> Path:
        """Folder of the intermediate results of `evaluate` and of the statistics of real images."""
        return self.path / "evaluation"

    @property
    def report(self) -> Path:
        """HTML report of the run."""
        return self.path / "report.html"

    @property
    def lock(self) -> Path:
        """Lock file of the training process; it exists only during training."""
        return self.path / "train.lock"

    def claim(self, config: ConfigDict, *, resume_with_changes: bool = False) -> None:
        """Stores the config in a new folder, or checks that the folder contains this experiment; requires `lock`.

        Args:
            config: config of the experiment.
            resume_with_changes: replace the stored config if it differs, instead of raising.

        Raises:
            UserError: the folder contains another experiment (the message lists the keys that differ), or it cannot be
                written.
        """
        changed = ["config.json is new"]
        if self.config.exists():
            changed = configs.differences(self.read_config(), config)
            if changed and not resume_with_changes:
                raise UserError(
                    f"--workdir={self.path} holds another experiment; these keys differ: {'; '.join(changed)}. "
                    "Choose another workdir, or pass --resume_with_changes to go on with the new values"
                )
        elif self.checkpoints.exists():
            raise UserError(f"--workdir={self.path} has checkpoints but no config.json: choose another workdir")
        try:
            self.samples.mkdir(parents=True, exist_ok=True)
            for leftover in (*self.path.glob("*.tmp"), *self.samples.glob("*.tmp")):  # of a killed process
                leftover.unlink()
            if changed:
                replace_text(self.config, configs.to_json(config))
        except OSError as error:
            raise UserError(f"--workdir={self.path} cannot be written: {error.strerror}") from error

    def require_same(self, config: ConfigDict) -> None:
        """Checks that this process sees the folder that the first process has claimed, with the same config.

        Raises:
            UserError: the folder is empty here, or its config differs.
        """
        if not self.config.exists():
            raise UserError(
                f"--workdir={self.path}: must be on a file system that all processes share; here it is empty"
            )
        if changed := configs.differences(self.read_config(), config):
            raise UserError(
                f"--workdir={self.path}: the first process runs another config; these differ: {'; '.join(changed)}"
            )

    def is_evaluated(self, step: int) -> bool:
        """Returns True if the model of this step was evaluated and the report was written after the evaluation."""
        try:
            measured = json.loads(self.metrics.read_text())["step"]
            return measured == step and self.report.stat().st_mtime_ns >= self.metrics.stat().st_mtime_ns
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def has_checkpoint(self) -> bool:
        """Returns True if there is a checkpoint."""
        return any(path.name.isdigit() for path in self.checkpoints.glob("*"))

    def read_data(self) -> dict[str, Any]:
        """Returns the stored description of the data set; empty for an old run without it.

        Raises:
            UserError: the file is not JSON.
        """
        if not self.data.is_file():
            return {}
        try:
            stored = json.loads(self.data.read_text())
        except ValueError as error:
            raise UserError(f"{self.data} is not valid JSON: {error}") from error
        return stored if isinstance(stored, dict) else {}

    def class_names(self) -> tuple[str, ...] | None:
        """Returns the class names by class number; None without names, or for an old run that has not stored them."""
        names = self.read_data().get("class_names")
        return None if names is None else tuple(names)

    def read_config(self, flag: str = "--workdir") -> ConfigDict:
        """Returns the stored config.

        Args:
            flag: flag that specifies the folder, for messages.

        Raises:
            UserError: the file does not exist or is not a valid config.
        """
        if not self.config.is_file():
            siblings = [str(p.parent) for p in self.path.parent.glob("*/config.json")]
            hint = nearest(str(self.path), siblings)
            raise UserError(f"{flag}={self.path} holds no run (no config.json); `train` makes one{hint}")
        try:
            return configs.from_json(self.config.read_text())
        except json.JSONDecodeError as error:
            raise UserError(f"{self.config} is not valid JSON: {error}") from error
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{self.config} is not a valid config: {error}") from error
