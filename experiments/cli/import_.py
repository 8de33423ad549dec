"""The command `import`."""

import argparse
from pathlib import Path

from experiments.cli import arguments
from experiments.config import records
from experiments.errors import UserError

FORMATS = records.names(Path(__file__).parents[1] / "loading", "FORMATS")  # --help need not wait for JAX

SUMMARY = "Make a run of a model from another code base, or from a file of `export`: sample, evaluate and train it on."
EXAMPLE = "python -m experiments import --from=model.safetensors --format=ornstein --workdir=runs/imported"


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    parser.add_argument("--from", dest="source", type=Path, required=True, help="the file or folder of the model")
    parser.add_argument("--format", required=True, help=f"whose it is: {', '.join(FORMATS)}")
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the run; must not hold one")
    arguments.add_config(parser)


def run(options: argparse.Namespace) -> int:
    """Imports; the exit code."""
    from experiments.config import files as config
    from experiments.config import ranges
    from experiments.loading.pretrained import import_run

    if options.overrides and options.config is None:
        key, text = options.overrides[0]
        raise UserError(f"--config.{key}={text}: overrides need --config=FILE, which they change")
    loaded = config.load(options.config, options.overrides) if options.config else None
    if loaded is not None:
        ranges.check_keys(loaded, [key for key, _ in options.overrides])
    imported = import_run(options.source, options.format, options.workdir, loaded)
    model, process = imported.experiment.model_name, imported.experiment.sde_name
    medium = imported.medium
    print(
        f"Imported {options.source} to {options.workdir}: model {model}, process {process}, "
        f"{medium.noun} of {medium.described}. Next: python -m experiments sample --workdir={options.workdir}"
    )
    return 0
