"""The command `interpolate`."""

import argparse
import dataclasses

from experiments.cli import arguments
from experiments.errors import UserError

SUMMARY = "Make images between two by a trained model: both are encoded, mixed on a great circle and decoded."
EXAMPLE = "python -m experiments interpolate --workdir=runs/digits --input=a.png --to=b.png --images=7 --out=between"


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    arguments.add_workdir(parser, "config.sampling (steps, rho, t_min, batch_size, ema)")
    arguments.add_images(parser)
    parser.add_argument("--to", required=True, metavar="IMAGES", help="as many as --input, and taken in their order")
    arguments.add_strength(
        parser, 1.0, "up to which noise images are encoded: less mixes more of the images themselves"
    )
    parser.add_argument("--images", type=arguments.positive, default=7, help="how many, both ends included (default 7)")
    arguments.add_label(parser, "the class of both")
    parser.add_argument("--steps", type=arguments.positive, help="of Heun's method, each way; 2 evaluations each")
    arguments.add_distributed(parser)


def run(options: argparse.Namespace) -> int:
    """Interpolates; the exit code."""
    if options.images < 3:
        raise UserError(f"--images={options.images}: both ends are counted; there is something between from 3 on")
    from experiments.editing.translate import Interpolation, interpolate

    return arguments.tell(
        interpolate(Interpolation(**{f.name: getattr(options, f.name) for f in dataclasses.fields(Interpolation)}))
    )
