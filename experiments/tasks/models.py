"""The trained model that a task works with, as far as its config tells: checked before weights are read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

import sde_lib
from experiments import build, check, config, runs
from experiments.data import DataTransform
from experiments.data.sources.rendering import Rendering
from experiments.errors import UserError
from experiments.tasks import images
from experiments.workdir import Workdir


@dataclass(frozen=True)
class Model:
    """A run's config, and what follows from it.

    Attributes:
        flag: that the folder was given to, for messages.
        workdir: the folder.
        config: with the overrides.
    """

    flag: str
    workdir: Path
    config: ConfigDict

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        data = self.config.data
        return (data.image_size, data.image_size, data.num_channels)

    @property
    def transform(self) -> DataTransform:
        """Between grey levels and the model's range."""
        return build.transform(self.config)

    @property
    def rendering(self) -> Rendering:
        """From the user's image files to grey levels."""
        return build.rendering(self.config)

    @property
    def sde(self) -> sde_lib.Process:
        """The process, from sampling's smallest time on."""
        return build.sde(self.config, self.config.sampling.t_min)

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
                f"sde.name={self.config.sde.name!r} have a velocity beside"
            )

    def read(self, flag: str, text: str, limit: int | None = None) -> images.Images:
        """Clean images of the user, made to fit the model."""
        return images.read(flag, text, self.shape, self.transform.forward, limit=limit, rendering=self.rendering)

    def load(self) -> runs.Run:
        """The run with its weights."""
        return runs.load_run(self.workdir, self.config)


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
    check.check(changed, *uses, overrides=overrides)
    model = Model(flag, workdir, changed)
    if not model.transform.gives_images:
        raise UserError(f"{flag}={workdir}: this model makes latents; no decoder is here to make images of them")
    return model
