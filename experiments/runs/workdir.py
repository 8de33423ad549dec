"""A run's folder: what lies where, and the guard that one folder holds one experiment.

config.json     the experiment          checkpoints/   Orbax, the newest ones      metrics.jsonl  the loss over steps
samples/        grids over training     events.*       TensorBoard                 metrics.json   the evaluation
report.html     everything on one page  train.lock     while it trains: which process
data.json       the images it is of: counts by split, class names, what is left out
evaluation/     features of samples while they are drawn; statistics of real images
ema_snapshots/  power averages of the weights, all of them, if they are kept
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
    """The paths in a run's folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The experiment's config."""
        return self.path / "config.json"

    @property
    def data(self) -> Path:
        """The description of the images (`experiments/loading/dataset.py`)."""
        return self.path / "data.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of Orbax's checkpoints."""
        return self.path / "checkpoints"

    @property
    def ema_snapshots(self) -> Path:
        """The folder of power averages of the weights (`experiments/learning/posthoc.py`)."""
        return self.path / "ema_snapshots"

    @property
    def samples(self) -> Path:
        """The folder of sample grids made in training."""
        return self.path / "samples"

    def grid(self, step: int) -> Path:
        """The grid of samples made after so many steps."""
        return self.samples / f"step_{step:08d}.png"

    @property
    def strip(self) -> Path:
        """The picture of noise becoming images."""
        return self.samples / "from_noise.png"

    @property
    def history(self) -> Path:
        """One JSON line per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def metrics(self) -> Path:
        """What `evaluate` measured."""
        return self.path / "metrics.json"

    @property
    def evaluation(self) -> Path:
        """What `evaluate` keeps while it works, and the statistics of the real images."""
        return self.path / "evaluation"

    @property
    def report(self) -> Path:
        """The page with everything on it."""
        return self.path / "report.html"

    @property
    def lock(self) -> Path:
        """Says which process trains here; there only while one does."""
        return self.path / "train.lock"

    def claim(self, config: ConfigDict, *, resume_with_changes: bool = False) -> None:
        """Makes the folder this experiment's, or makes sure that it holds this one; `lock` is held.

        Raises:
            UserError: another experiment is in it (the keys that differ are named), or it cannot be written.
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
            for left in (*self.path.glob("*.tmp"), *self.samples.glob("*.tmp")):  # of a process that was killed
                left.unlink()
            if changed:
                replace_text(self.config, configs.to_json(config))
        except OSError as error:
            raise UserError(f"--workdir={self.path} cannot be written: {error.strerror}") from error

    def require_same(self, config: ConfigDict) -> None:
        """Makes sure that this process sees the folder that the first one has claimed, for the same experiment.

        Raises:
            UserError: it sees another one, or none.
        """
        if not self.config.exists():
            raise UserError(
                f"--workdir={self.path}: must lie on a file system that all processes share; here it is empty"
            )
        if changed := configs.differences(self.read_config(), config):
            raise UserError(
                f"--workdir={self.path}: the first process runs another config; these differ: {'; '.join(changed)}"
            )

    def is_evaluated(self, step: int) -> bool:
        """Whether the model of this step was evaluated, and the report made after that."""
        try:
            measured = json.loads(self.metrics.read_text())["step"]
            return measured == step and self.report.stat().st_mtime_ns >= self.metrics.stat().st_mtime_ns
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def has_checkpoint(self) -> bool:
        """Returns True if there is a checkpoint."""
        return any(path.name.isdigit() for path in self.checkpoints.glob("*"))

    def read_data(self) -> dict[str, Any]:
        """The stored description of the images; empty for a run from before it was stored.

        Raises:
            UserError: it is not JSON.
        """
        if not self.data.is_file():
            return {}
        try:
            stored = json.loads(self.data.read_text())
        except ValueError as error:
            raise UserError(f"{self.data} is not valid JSON: {error}") from error
        return stored if isinstance(stored, dict) else {}

    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes by number; None without names, or for a run from before they were stored."""
        names = self.read_data().get("class_names")
        return None if names is None else tuple(names)

    def read_config(self, flag: str = "--workdir") -> ConfigDict:
        """The stored config.

        Args:
            flag: that the folder was given to, for messages.

        Raises:
            UserError: there is none, or it is not JSON.
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
            raise UserError(f"{self.config} is no config: {error}") from error
