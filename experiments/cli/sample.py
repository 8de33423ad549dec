"""The command `sample`."""

import argparse
from pathlib import Path

from experiments.cli import arguments
from experiments.errors import UserError

SUMMARY = "Draw samples from a trained run into an .npz file, with a grid.png beside it."
EXAMPLE = "python -m experiments sample --workdir=runs/digits --num_samples=1000 --sampler=ddim --steps=50"


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    arguments.add_workdir(parser, "experiment.sampling")
    parser.add_argument("--num_samples", type=arguments.positive, default=64, help="how many (default 64)")
    parser.add_argument("--seed", type=arguments.seed, default=0, help="sample i depends on it and i alone (default 0)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("samples.npz"),
        help="file for `samples`, uint8 (N, H, W, C), or float32 of a model of latents or arrays (samples.npz)",
    )
    arguments.add_label(parser, "the class of all samples (default: each in turn); short for --config.sampling.label")
    arguments.add_method(parser)
    arguments.add_guidance(parser)
    arguments.add_distributed(parser)


def run(options: argparse.Namespace) -> int:
    """Draws; the exit code."""
    from experiments.generation import samples
    from experiments.loading.runs import load_guide

    if options.out.suffix != ".npz":
        raise UserError(f"--out={options.out}: must end in .npz")
    if options.label is not None:
        options.overrides.append(("sampling.label", options.label))
    trained = arguments.open_run(options, "sampling.", uses=("model", "average", "sampling"))
    guide = load_guide(trained.experiment, trained)
    return arguments.tell(
        samples.draw(trained, options.num_samples, options.seed, options.out, guide=guide, progress=True)
    )
