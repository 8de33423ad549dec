"""The command `translate`."""

import argparse
import dataclasses
from pathlib import Path

from experiments.cli import arguments
from experiments.errors import UserError

SUMMARY = (
    "Translate images from what one model knows to what another does, or from one class to another: encoded by the first, "
    "decoded by the second (dual diffusion implicit bridges). Measures whether the way back ends where it began."
)
EXAMPLE = "python -m experiments translate --workdir=runs/digits --to=runs/inverted --input=photos --out=translated"


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    arguments.add_workdir(parser, "config.sampling (steps, rho, t_min, batch_size, ema)")
    parser.add_argument(
        "--to", type=Path, metavar="RUN", help="folder of the other run, of any process (default: the same)"
    )
    arguments.add_images(parser)
    arguments.add_strength(parser, 1.0, "up to which noise images are encoded: less keeps more of them")
    arguments.add_label(parser, "the class of the input, in --workdir", "--from_label")
    arguments.add_label(parser, "the class to become, in the other model")
    arguments.add_guidance(parser)
    parser.add_argument(
        "--steps", type=arguments.positive, help="of Heun's method, each way; 4 evaluations of each model"
    )
    arguments.add_distributed(parser)


def run(options: argparse.Namespace) -> int:
    """Translates; the exit code."""
    arguments.require_class(options)
    if options.to is None and options.label is None:
        raise UserError("--to=RUN is needed, or --label of the class to become: otherwise images come back as they are")
    if options.to is None and options.label == options.from_label and options.guidance_scale is None:
        raise UserError(f"--label={options.label}: is --from_label too: images would come back as they are")
    from experiments.editing.translate import Translation, translate

    return arguments.tell(
        translate(Translation(**{f.name: getattr(options, f.name) for f in dataclasses.fields(Translation)}))
    )
