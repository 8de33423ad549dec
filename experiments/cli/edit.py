"""The command `edit`."""

import argparse
import dataclasses

from experiments.cli import arguments
from experiments.editing import edits
from experiments.errors import UserError, unknown_name
from experiments.inverse import problems

SUMMARY = (
    "Edit images by a trained model: noise is added, and the model takes it away its own way (SDEdit). Inside of a mask, "
    "from strokes of paint, towards a class, in the style of another image."
)
EXAMPLE = (
    "python -m experiments edit --workdir=runs/digits --input=photos --strokes=strokes.png --strength=0.4 --out=edited"
)

# Nearest to real images of what was tried on digits whose right half was another digit's; see the README.
DEFAULT_MASKED_BY = "pigdm"


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    arguments.add_workdir(parser, "config.sampling")
    arguments.add_images(parser)
    arguments.add_strength(parser, 0.5, "how much is changed: 0.3 keeps outlines, 0.6 keeps little, 1 nothing")
    parser.add_argument("--mask", metavar="PNG", help="only what is white in it changes; by default all")
    parser.add_argument(
        "--masked_by",
        metavar="NAME[:SETTING=VALUE]",
        help=f"what keeps the rest: {', '.join(edits.MASKED_BY)} (as of restore's --method; default {DEFAULT_MASKED_BY})",
    )
    parser.add_argument(
        "--strokes", metavar="PNG", help="paint on a transparent picture, which covers the input before noise is added"
    )
    arguments.add_label(parser, "the class to become")
    arguments.add_guidance(parser)
    parser.add_argument(
        "--style", metavar="IMAGE", help="whose mean and covariance of --style_features the answers shall have"
    )
    parser.add_argument(
        "--style_features",
        help=" or ".join(f"{name} ({features.summary})" for name, features in edits.STYLES.items()),
    )
    parser.add_argument(
        "--style_std",
        type=arguments.number,
        help="how far the figures may be from the style's; less pulls more "
        f"(default {', '.join(f'{name} {std:g}' for name, std in edits.STYLE_STD.items())})",
    )
    parser.add_argument("--answers", type=arguments.positive, default=4, help="how many for each input (default 4)")
    parser.add_argument(
        "--seed", type=arguments.seed, default=0, help="answer k of input i depends on it, i and k alone (default 0)"
    )
    arguments.add_method(parser)
    arguments.add_distributed(parser)


def run(options: argparse.Namespace) -> int:
    """Edits; the exit code."""
    arguments.require_class(options)
    for flag, other in (("style_features", "style"), ("style_std", "style"), ("masked_by", "mask")):
        value = getattr(options, flag)
        if value is not None and getattr(options, other) is None:
            shown = f"{value:g}" if isinstance(value, float) else value
            raise UserError(f"--{flag}={shown}: does nothing without --{other}")
    options.style_features = options.style_features or "patches"
    if options.style_features not in edits.STYLE_STD:
        raise unknown_name("--style_features", options.style_features, edits.STYLE_STD)
    if options.style_std is None:
        options.style_std = edits.STYLE_STD[options.style_features]
    if not options.style_std > 0:
        raise UserError(f"--style_std={options.style_std:g}: must be more than 0")
    options.masked_by, options.settings = problems.named_settings(
        "--masked_by", options.masked_by or DEFAULT_MASKED_BY, edits.MASKED_BY
    )
    asked = edits.Edit(**{field.name: getattr(options, field.name) for field in dataclasses.fields(edits.Edit)})
    from experiments.editing.edit import edit

    return arguments.tell(edit(asked))
