"""The command `edit`."""

import argparse
import dataclasses

from experiments.commands import arguments
from experiments.errors import UserError

SUMMARY = (
    "Edit images by a trained model: noise is added, and the model takes it away its own way (SDEdit). Inside of a mask, "
    "from strokes of paint, towards a class, in the style of another image."
)
EXAMPLE = (
    "python -m experiments edit --workdir=runs/digits --input=photos --strokes=strokes.png --strength=0.4 --out=edited"
)


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    arguments.add_workdir(parser, "config.sampling")
    arguments.add_images(parser)
    arguments.add_strength(parser, 0.5, "how much is changed: 0.3 keeps outlines, 0.6 keeps little, 1 nothing")
    parser.add_argument("--mask", metavar="PNG", help="only what is white in it changes; by default all")
    parser.add_argument(
        "--strokes", metavar="PNG", help="paint on a transparent picture, which covers the input before noise is added"
    )
    parser.add_argument("--label", type=int, help="class-conditional models: the class to become")
    parser.add_argument(
        "--guidance",
        type=float,
        help="classifier-free guidance to --label: 1 is none, 2 to 4 usual; needs class dropout",
    )
    parser.add_argument(
        "--style", metavar="IMAGE", help="whose mean and covariance of 3x3 patches the answers shall have"
    )
    parser.add_argument(
        "--style_std",
        type=float,
        help="how far a pixel's figures may be from the style's; less pulls more (default 0.25)",
    )
    parser.add_argument("--answers", type=arguments.positive, default=4, help="how many for each input (default 4)")
    parser.add_argument(
        "--seed", type=int, default=0, help="answer k of input i depends on it, i and k alone (default 0)"
    )
    arguments.add_method(parser)
    arguments.add_distributed(parser)


def run(options: argparse.Namespace) -> int:
    """Edits; the exit code."""
    if options.guidance is not None and options.label is None:
        raise UserError(f"--guidance={options.guidance:g}: does nothing without a class to guide to: add --label")
    if options.style_std is not None and options.style is None:
        raise UserError(f"--style_std={options.style_std:g}: does nothing without --style")
    if options.style_std is None:
        options.style_std = 0.25
    if not options.style_std > 0:
        raise UserError(f"--style_std={options.style_std:g}: must be more than 0")
    from experiments.tasks.edit import Edit, edit

    print(edit(Edit(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Edit)})))
    return 0
