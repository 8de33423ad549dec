"""Weights & Biases and trackio: services that show runs. Their packages are imported when a run starts, and not before.

`tracking.json` in the run's folder holds the run's id there, so that a run that goes on is the same run. Neither service
forgets rows: those past the checkpoint that a run goes on from are there twice, the later ones with the later wall time.

Sources: https://docs.wandb.ai/ref/python/init, https://huggingface.co/docs/trackio.
"""

import json
import secrets

import numpy as np
from ml_collections import ConfigDict

from experiments.files import replace_text
from experiments.runs.workdir import Workdir


def run_id(workdir: Workdir) -> str:
    """The id by which services know the run: made once, and kept in its folder."""
    path = workdir.path / "tracking.json"
    if not path.exists():
        replace_text(path, json.dumps({"id": secrets.token_hex(4)}) + "\n")
    return json.loads(path.read_text())["id"]


def _image(picture: np.ndarray) -> np.ndarray:
    """As the services take it: (height, width, 3)."""
    return np.broadcast_to(picture, (*picture.shape[:2], 3))


class WeightsAndBiases:
    """A run of wandb; its mode, entity and key are what its environment variables say."""

    def __init__(self, workdir: Workdir, config: ConfigDict, step: int):
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=config.training.tracking_project,
            id=run_id(workdir),
            name=workdir.path.resolve().name,
            dir=str(workdir.path),
            config=config.to_dict(),
            resume="allow",
        )
        # Its own count of steps never goes back, as a run that is resumed may.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One row, as `train/NAME`."""
        self._run.log({"step": step} | {f"train/{name}": value for name, value in values.items()})

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """One row with the picture."""
        self._run.log({"step": step, name: self._wandb.Image(_image(picture))})

    def close(self) -> None:
        """Ends the run there."""
        self._run.finish()


class Trackio:
    """A run of trackio, on this machine unless its environment variables name a Space."""

    def __init__(self, workdir: Workdir, config: ConfigDict, step: int):
        import trackio

        self._trackio = trackio
        self._run = trackio.init(
            project=config.training.tracking_project,
            name=f"{workdir.path.resolve().name}-{run_id(workdir)}",
            config=config.to_dict(),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One row, as `train/NAME`."""
        self._run.log({f"train/{name}": value for name, value in values.items()}, step=step)

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """One row with the picture."""
        self._run.log({name: self._trackio.Image(_image(picture))}, step=step)

    def close(self) -> None:
        """Ends the run there."""
        self._run.finish()
