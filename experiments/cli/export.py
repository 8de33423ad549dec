"""The command `export`."""

import argparse
from pathlib import Path

from experiments.cli import arguments
from experiments.errors import UserError

# The formats that `experiments/loading/pretrained.py` writes; a test holds them together.
FORMATS = ("ornstein", "diffusers")

SUMMARY = (
    "Write a trained run's EMA weights, with its config, to a file that `import` reads; of several averages "
    "--config.sampling.ema chooses one, and --config.sampling.ema_std makes one of any width."
)
EXAMPLE = "python -m experiments export --workdir=runs/digits --out=digits.safetensors"


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    parser.add_argument("--workdir", type=Path, required=True, help="folder of a trained run")
    parser.add_argument("--format", default="ornstein", help=f"{', '.join(FORMATS)} (default ornstein)")
    parser.add_argument("--out", type=Path, required=True, help="the file or folder to write; must not exist")


def run(options: argparse.Namespace) -> int:
    """Exports; the exit code."""
    from experiments.loading.pretrained import export_run

    if options.out.exists():
        raise UserError(f"--out={options.out}: exists already; choose another name")
    trained = arguments.open_run(options, "sampling.ema", uses=("model", "average"))
    export_run(trained, options.out, options.format)
    print(f"Exported step {trained.step} of {options.workdir}, average {trained.average}, to {options.out}")
    return 0
