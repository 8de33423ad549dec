"""A trained run, opened again: its config, its Denoiser with the EMA weights, its medium."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import sde_lib
from experiments import factory
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.learning import posthoc
from experiments.media import Medium
from experiments.runs.checkpoint import Checkpoints
from experiments.runs.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Run:
    """What `load_run` and `load_pretrained` give.

    Attributes:
        workdir: its folder; None for a model that was read from a file.
        experiment: its objects.
        step: of the checkpoint.
        variables: the network's weights, of the average that the config chooses.
        average: which one that is, and how it was made; empty for a model that was read from a file.
    """

    workdir: Workdir | None
    experiment: Experiment
    step: int
    variables: Any
    average: str = ""

    @property
    def config(self) -> ConfigDict:
        """The config of the experiment."""
        return self.experiment.config

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes by number, where they are stored with the run."""
        return None if self.workdir is None else self.workdir.class_names()

    @property
    def medium(self) -> Medium:
        """The type of one datum: its shape, and its scale for the model."""
        return self.experiment.medium

    @property
    def denoiser(self) -> sde_lib.NetworkDenoiser:
        """The trained Denoiser, from sampling's smallest time on."""
        return self.denoiser_of(self.variables)

    def denoiser_of(self, variables: Any) -> sde_lib.NetworkDenoiser:
        """The same with weights that a program was handed as an argument."""
        return self.experiment.denoiser(variables)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one datum, (H, W, C) of an image, for `sde_lib.sample`."""
        return self.experiment.event_shape


def read_config(path: str | Path, flag: str = "--workdir") -> ConfigDict:
    """The config of the run in a folder.

    Args:
        path: the folder.
        flag: that it was given to, for messages.

    Raises:
        UserError: there is no run in the folder, or no checkpoint yet.
    """
    workdir = Workdir(Path(path))
    config = workdir.read_config(flag)
    if not workdir.has_checkpoint():
        raise UserError(f"{flag}={workdir.path} has no checkpoint yet: run `train` on it first")
    return config


def draws_samples(path: str | Path) -> bool:
    """Returns True if samples can be drawn from the run in a folder.

    Raises:
        UserError: as `read_config`.
    """
    return factory.draws_samples(read_config(path))


def by_number(path: str | Path, config: ConfigDict, overrides: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The (key, text) overrides of a run with the class of `sampling.label` by number, where it is given by name.

    Args:
        path: the run's folder.
        config: of the run.
        overrides: as `config.apply` takes them.

    Raises:
        UserError: the model has no such class.
    """
    names, overrides = Workdir(Path(path)).class_names(), list(overrides)
    guide = dict(overrides).get("sampling.guidance.guide", config.sampling.guidance.guide).partition("@")[0]

    def number(key: str, text: str) -> str:
        if key != "sampling.label" or text == "-1":
            return text
        if guide and not factory.num_classes(config):  # of a classifier's classes
            other = read_config(guide, "--guide")
            return str(factory.class_number(other, key, text, Workdir(Path(guide)).class_names()))
        return str(factory.class_number(config, key, text, names))

    return [(key, number(key, text)) for key, text in overrides]


def load_run(
    path: str | Path,
    config: ConfigDict | None = None,
    *,
    step: int | None = None,
    ema: str | None = None,
    ema_std: float | None = None,
) -> Run:
    """Opens a checkpoint in a run's folder, which may be in training; with `sampling.ema_std`, the newest snapshot up to it.

    Nothing in the folder is changed.

    In a notebook:

        run = load_run("runs/digits")
        x = sde_lib.sample(keys, run.denoiser, Heun(), karras_times(run.denoiser.sde, 18), run.event_shape)
        images = run.medium.inverse(x)

    Args:
        path: the folder.
        config: the run's own by default; another may differ from it in how to sample and evaluate.
        step: of the checkpoint; the newest good one by default.
        ema: one of the run's averages of the weights, as "power:0.1"; `sampling.ema` by default.
        ema_std: the width of a power average to make of the run's snapshots; `sampling.ema_std` by default.

    Raises:
        UserError: there is no run in the folder, no checkpoint yet, or no such average.
        RunError: all its checkpoints are broken, or that of `step` is.
    """
    workdir, stored = Workdir(Path(path)), read_config(path)
    config = (stored if config is None else config).copy_and_resolve_references()
    if ema is not None or ema_std is not None:
        config.sampling.update(ema=ema or "", ema_std=ema_std or 0.0)
    experiment = Experiment.from_config(config, "average")
    with Checkpoints(workdir.checkpoints, experiment.training.keep_checkpoints, read_only=True) as checkpoints:
        place, std = experiment.sampling_ema, experiment.sampling.ema_std
        if not std:
            step, weights = checkpoints.restore_ema(experiment.abstract_average(place), step, place=place)
            variables = experiment.objective.network_variables(weights)
            return Run(workdir, experiment, step, variables, experiment.ema_names[place])
        step = checkpoints.latest_step() if step is None else step
    shapes = experiment.abstract_average(next(iter(experiment.power_emas), place))
    made = posthoc.reconstruct(workdir.ema_snapshots, shapes, std, latest=step)
    variables = experiment.objective.network_variables(made.variables)
    name = f"power:{std}, made of {made.count} snapshots (its profile is off by {made.error:.2g})"
    return Run(workdir, experiment, made.step, variables, name)


def _require_effect(experiment: Experiment, guide: Run, text: str) -> None:
    """Makes sure that the settings of guidance and the label have an effect with this guide.

    Raises:
        UserError: one has none, or the classifier has no such class.
    """
    label, classes = experiment.sampling.label, guide.experiment.num_classes
    if not guide.experiment.draws_samples:
        if experiment.guidance_rescale:
            raise UserError(
                f"sampling.guidance.rescale={experiment.guidance_rescale:g} has no effect with --guide={text}, a classifier"
            )
        if experiment.guidance_name != "linear":
            raise UserError(
                f"sampling.guidance.name={experiment.guidance_name} has no effect with --guide={text}, a classifier"
            )
        if not experiment.num_classes and label >= classes:
            raise UserError(f"sampling.label={label}: the classes of --guide={text} are 0 to {classes - 1}")
        return
    if experiment.guidance_scale == 1:
        raise UserError(
            f"--guide={text}: a weaker model has no effect at sampling.guidance.scale=1; set --guidance=SCALE"
        )
    if not experiment.num_classes and label >= 0:
        raise UserError(
            f"sampling.label={label}: this model has no classes (model.num_classes=0), and --guide={text} is no classifier"
        )


def require_other_weights(model: Run, guide: Run | None) -> None:
    """Makes sure that a guide, if there is one, is not the same checkpoint and average of the same folder as the model.

    Raises:
        UserError: it is; guidance would have no effect at twice the cost.
    """
    if guide is None or model.workdir is None or guide.workdir is None:
        return
    same_folder = model.workdir.path.resolve() == guide.workdir.path.resolve()
    if same_folder and (model.step, model.average) == (guide.step, guide.average):
        raise UserError(
            f"--guide={model.experiment.guide}: has the weights of the model (step {model.step}, average {model.average}), "
            "so that guidance has no effect; name an earlier step with --guide=RUN@STEP, or another run"
        )


def load_guide(experiment: Experiment, model: Run | None = None) -> Run | None:
    """Opens the run that `sampling.guidance.guide` names, RUN or RUN@STEP; None where none is named or nothing is guided.

    Args:
        experiment: of the model that is guided.
        model: the opened model, which must not be its own guide; None where it is not opened yet.

    Raises:
        UserError: there is no such run or checkpoint, it has the weights of the model, or its data or process differ from
            the experiment's.
    """
    text = experiment.guide
    if not text:
        return None
    folder, at, step = text.partition("@")
    if at and not step.isdecimal():
        raise UserError(f"--guide={text}: the step after @ must be a whole number, as in --guide=RUN@1000")
    flag = "--guide"
    read_config(folder, flag)
    steps = [int(path.name) for path in Workdir(Path(folder)).checkpoints.glob("*") if path.name.isdecimal()]
    if step and int(step) not in steps:
        raise UserError(
            f"--guide={text}: the run has no checkpoint of step {step}; it has {', '.join(map(str, sorted(steps)))}"
        )
    guide = load_run(folder, step=int(step) if step else None)
    _require_effect(experiment, guide, text)
    if guide.event_shape != experiment.event_shape:
        shapes = [other.medium.described for other in (guide, experiment)]
        raise UserError(f"--guide={text}: it is a model of {shapes[0]}, not of {shapes[1]}")
    if experiment.num_classes and guide.experiment.num_classes not in (0, experiment.num_classes):
        raise UserError(
            f"--guide={text}: it has {guide.experiment.num_classes} classes, and the model {experiment.num_classes}"
        )
    own, other = (e.record("sde")["sde"] for e in (experiment, guide.experiment))
    if differing := [f"sde.{key}" for key in own if own[key] != other.get(key)]:
        raise UserError(f"--guide={text}: its process differs in {', '.join(differing)}; both must be of one process")
    if model is not None:
        require_other_weights(model, guide)
    return guide
