"""Writers for the tracking services Weights & Biases and trackio. Their packages are imported when a run starts.

`tracking.json` in the run's folder stores the id of the run at the service, so that a resumed run continues it. Neither
service deletes rows: rows after the checkpoint from which a run is resumed are there twice, with different wall times.

Sources: https://docs.wandb.ai/ref/python/init, https://huggingface.co/docs/trackio.
"""

import json
import secrets

import numpy as np
from ml_collections import ConfigDict

from experiments.files import replace_text
from experiments.runs.workdir import Workdir


def run_id(workdir: Workdir) -> str:
    """Returns the id of the run at the service, which is created once and stored in the run's folder."""
    path = workdir.path / "tracking.json"
    if not path.exists():
        replace_text(path, json.dumps({"id": secrets.token_hex(4)}) + "\n")
    return json.loads(path.read_text())["id"]


def _image(picture: np.ndarray) -> np.ndarray:
    """Returns the picture as RGB, (height, width, 3)."""
    return np.broadcast_to(picture, (*picture.shape[:2], 3))


class WeightsAndBiases:
    """A run of wandb; environment variables of wandb set its mode, entity and key."""

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
        # wandb's step counter cannot decrease, but the step of a resumed run can.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes one row, with the names `train/NAME`."""
        self._run.log({"step": step} | {f"train/{name}": value for name, value in values.items()})

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """Writes one row with the picture."""
        self._run.log({"step": step, name: self._wandb.Image(_image(picture))})

    def close(self) -> None:
        """Finishes the run at the service."""
        self._run.finish()


class Trackio:
    """A run of trackio, stored on this machine unless trackio's environment variables name a Space."""

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
        """Writes one row, with the names `train/NAME`."""
        self._run.log({f"train/{name}": value for name, value in values.items()}, step=step)

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """Writes one row with the picture."""
        self._run.log({name: self._trackio.Image(_image(picture))}, step=step)

    def close(self) -> None:
        """Finishes the run at the service."""
        self._run.finish()
