"""A trained run, opened again: its config, its Denoiser with the EMA weights, its data transform."""

import dataclasses
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import sde_lib
from experiments import build
from experiments.checkpoint import Checkpoints
from experiments.data import DataTransform, LatentTransform
from experiments.errors import UserError
from experiments.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Run:
    """What `load_run` and `load_pretrained` give.

    Attributes:
        workdir: its folder; None for a model that was read from a file.
        config: the experiment.
        step: of the checkpoint.
        variables: the network's EMA weights.
    """

    workdir: Workdir | None
    config: ConfigDict
    step: int
    variables: Any

    @property
    def transform(self) -> DataTransform | LatentTransform:
        """Between images in uint8 and what the model sees; latents stay as they are."""
        return build.transform(self.config)

    @property
    def denoiser(self) -> sde_lib.NetworkDenoiser:
        """The trained Denoiser, from sampling's smallest time on."""
        return build.denoiser(self.config, self.variables, self.config.sampling.t_min)

    @property
    def event_shape(self) -> tuple[int, int, int]:
        """The shape (H, W, C) of one image, for `sde_lib.sample`."""
        return (self.config.data.image_size, self.config.data.image_size, self.config.data.num_channels)


def read_config(path: str | Path) -> ConfigDict:
    """The config of the run in a folder.

    Raises:
        UserError: there is no run in the folder, or no checkpoint yet.
    """
    workdir = Workdir(Path(path))
    config = workdir.read_config()
    if not any(path.name.isdigit() for path in workdir.checkpoints.glob("*")):
        raise UserError(f"--workdir={workdir.path} has no checkpoint yet: run `train` on it first")
    return config


def load_run(path: str | Path, step: int | None = None) -> Run:
    """Opens a checkpoint in a run's folder, which may be in training: that of `step`, by default the newest good one.

    Nothing in the folder is changed.

    In a notebook:

        run = load_run("runs/digits")
        x = sde_lib.sample(keys, run.denoiser, Heun(), karras_times(run.denoiser.sde, 18), run.event_shape)
        images = run.transform.inverse(x)

    Raises:
        UserError: there is no run in the folder, or no checkpoint yet.
        RunError: all its checkpoints are broken.
    """
    workdir, config = Workdir(Path(path)), read_config(path)
    with Checkpoints(workdir.checkpoints, config.training.keep_checkpoints, read_only=True) as checkpoints:
        step, variables = checkpoints.restore_ema(build.abstract_variables(config), step)
    return Run(workdir, config, step, variables)
