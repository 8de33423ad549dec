"""The trained model that a task works with, as far as its config tells: checked before weights are read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

import sde_lib
from experiments.config import files as config
from experiments.data.inputs import images
from experiments.data.sources.rendering import Rendering
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.loading import runs
from experiments.media import Medium
from experiments.runs.workdir import Workdir


@dataclass(frozen=True)
class Model:
    """The experiment of a run, before its weights are read.

    Attributes:
        flag: that the folder was given to, for messages.
        workdir: the folder.
        experiment: its objects, with the overrides.
    """

    flag: str
    workdir: Path
    experiment: Experiment

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        return self.medium.event_shape

    @property
    def medium(self) -> Medium:
        """The type of one datum: its shape, and its scale for the model."""
        return self.experiment.medium

    @property
    def rendering(self) -> Rendering:
        """From the user's image files to grey levels."""
        return self.experiment.rendering

    @property
    def sde(self) -> sde_lib.Process:
        """The process, from sampling's smallest time on."""
        return self.experiment.sde(self.experiment.sampling.t_min)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes by number, where they are stored with the run."""
        return Workdir(self.workdir).class_names()

    def has_plain_states(self) -> bool:
        """Whether states are noisy images, and nothing beside."""
        return self.sde.has_scalar_noise

    def require_plain_states(self, what: str) -> None:
        """UserError unless states are noisy images, and nothing beside, as `what` needs."""
        if not self.has_plain_states():
            raise UserError(
                f"{self.flag}={self.workdir}: {what} needs states that are noisy images; those of "
                f"sde.name={self.experiment.sde_name!r} have a velocity beside"
            )

    def read(self, flag: str, text: str, limit: int | None = None) -> images.Images:
        """Clean images of the user, made to fit the model."""
        return images.read(flag, text, self.shape, self.medium.forward, limit=limit, rendering=self.rendering)

    def load(self, guide: runs.Run | None = None) -> runs.Run:
        """Returns the run with its weights.

        Raises:
            UserError: the guide has the same weights.
        """
        run = runs.load_run(self.workdir, self.experiment.config)
        runs.require_other_weights(run, guide)
        return run


def open_model(
    flag: str,
    workdir: Path,
    overrides: list[tuple[str, str]],
    command: str,
    allowed: tuple[str, ...] = ("sampling.", *images.KEYS),
    *,
    uses: tuple[str, ...],
    change: Callable[[ConfigDict], ConfigDict] = lambda stored: stored,
) -> Model:
    """The model of a run.

    Args:
        flag: that the folder was given to, for messages.
        workdir: the folder.
        overrides: (key, text) pairs.
        command: its name, for messages.
        allowed: what the keys that may be overridden begin with.
        uses: the subjects of the config that the command reads, of `check.SUBJECTS`.
        change: what the command makes of the stored config, before the overrides.

    Raises:
        UserError: no run is there, a key may not be overridden or has a value that cannot work, or it makes no images.
    """
    stored = change(runs.read_config(workdir, flag))
    overrides = runs.by_number(workdir, stored, overrides)
    changed = config.apply(stored, overrides, allowed=allowed, command=command)
    model = Model(flag, workdir, Experiment.from_config(changed, *uses, overrides=overrides))
    if not model.medium.has_pixels:
        raise UserError(f"{flag}={workdir}: this model makes {model.medium.noun}; {command} needs one of images")
    return model
