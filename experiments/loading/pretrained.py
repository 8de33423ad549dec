"""Models of other code bases, and of files, as runs of ours; and ours as files.

A file becomes a config and weights (`formats.py`). The config says all that there is to say of a model, so an imported
model is a run like any other: `sample`, `evaluate`, `train` (which goes on from its weights) and `export` work on it.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.errors import UserError, unknown_name
from experiments.factory import check
from experiments.factory.experiment import Experiment
from experiments.files import replace_text, strict_json
from experiments.loading.formats import FORMATS, Format, Model
from experiments.loading.runs import Run, load_run
from experiments.runs.checkpoint import Checkpoints
from experiments.runs.workdir import Workdir

LONGEST = 2000  # characters of a message


def _format(flag: str, name: str, allowed: dict[str, Format]) -> Format:
    if name not in allowed:
        raise unknown_name(flag, name, allowed)
    return allowed[name]


def _one_line(error: Exception) -> str:
    """The error's text, in which names from a damaged file may be long or have any characters."""
    shown = "".join(character if character.isprintable() else " " for character in str(error))
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."


def read(path: str | Path, format: str, config: ConfigDict | None = None) -> Model:
    """The config and the weights of a model in a file or folder.

    Args:
        path: what to read.
        format: a name of `FORMATS`.
        config: for a file that does not say its architecture.

    Raises:
        UserError: the format is unknown, the file is not of it, or its weights are not those of the network; they are named.
    """
    path, reader = Path(path), _format("--format", format, FORMATS)
    if reader.needs_config and config is None:
        raise UserError(
            f"--format={format}: its files do not say their architecture; pass --config=FILE, with overrides"
        )
    if config is not None and not (reader.needs_config or reader.takes_config):
        raise UserError(f"--format={format}: its files say their architecture; leave --config out")
    if not path.exists():
        raise UserError(f"--from={path}: there is no such file or folder")
    try:
        config, variables = reader.read(path, config)
    except (ImportError, OSError, ValueError) as error:  # what a file is not, in the reader's words
        raise UserError(f"--from={path}: {_one_line(error)}") from error
    except (AttributeError, LookupError, TypeError) as error:  # data of another shape than the format's
        raise UserError(
            f"--from={path}: it is not laid out as {format} is ({type(error).__name__}: {_one_line(error)})"
        ) from error
    check.check(config, "model", "average", "sampling")
    return config, jax.tree.map(np.asarray, variables)


def _read_classes(path: Path, format: str) -> dict[str, Any]:
    """The names of the classes in a file that `read` has read, as `data.json` stores them; empty without names."""
    if (reader := FORMATS[format].read_classes) is None:
        return {}
    try:
        return reader(path)
    except (OSError, ValueError) as error:
        raise UserError(f"--from={path}: {_one_line(error)}") from error


def load_pretrained(path: str | Path, format: str, config: ConfigDict | None = None) -> Run:
    """A published model, ready to sample from; the same as `load_run` gives for a run of ours, but without a folder.

        run = load_pretrained("ddpm-cifar10-32", "diffusers")
        x = sde_lib.sample(keys, run.denoiser, sde_lib.DDIM(), sde_lib.uniform_times(run.denoiser.sde, 50), run.event_shape)

    For the arguments and errors see `read`.
    """
    config, variables = read(path, format, config)
    return Run(None, Experiment(config), 0, variables)


def import_run(path: Path, format: str, workdir: Path, config: ConfigDict | None = None) -> Run:
    """Makes a run's folder of a published model: its config, a checkpoint of step 0 with its weights, names of its classes.

    Raises:
        UserError: as `read`; or the folder holds a run already, or cannot be written. Then nothing is written.
    """
    target = Workdir(workdir)
    if target.config.exists() or target.checkpoints.exists():
        raise UserError(f"--workdir={workdir} holds a run already: choose another folder")
    config, variables = read(path, format, config)
    classes = _read_classes(path, format)
    target.claim(config)
    if classes:
        replace_text(target.data, strict_json.dumps(classes) + "\n")
    with Checkpoints(target.checkpoints, config.training.keep_checkpoints) as checkpoints:
        checkpoints.save_weights(0, variables)
    return load_run(workdir)


def export_run(run: Run, path: Path, format: str = "ornstein") -> None:
    """Writes a run's weights, so that `read` of the format gives config and weights back.

    The config that is written chooses no average: there is one set of weights in the file.

    Raises:
        UserError: the format is unknown or cannot hold this network.
    """
    exportable = {name: known for name, known in FORMATS.items() if known.write}
    writer = _format("--format", format, exportable)
    path.parent.mkdir(parents=True, exist_ok=True)
    config = run.config.copy_and_resolve_references()
    config.sampling.ema, config.sampling.ema_std = "", 0.0
    run = dataclasses.replace(run, experiment=Experiment(config))
    try:
        writer.write(path, run)
    except (ImportError, ValueError) as error:
        raise UserError(f"--format={format}: {error}") from error
