"""The command `rank`."""

import argparse
from pathlib import Path

from experiments.cli import arguments
from experiments.errors import UserError, unknown_name
from experiments.inverse.cases import CASES

SUMMARY = (
    "Rank the methods of restore and reconstruct on held-out images, by every task that a trained model can do: one table, "
    "with classical baselines."
)
EXAMPLE = "python -m experiments rank --workdir=runs/mnist32 --truth=mnist.npz:x_test --limit=16 --out=ranking"


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    arguments.add_workdir(parser, "config.sampling")
    parser.add_argument("--truth", metavar="IMAGES", required=True, help="clean images, which are measured with noise")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder: table.md, and a folder of each restoration; what is there already is not made again",
    )
    parser.add_argument("--cases", help=f"some of {', '.join(CASES)}, with commas between (default: all)")
    parser.add_argument("--methods", help="some of the methods of restore, with commas between (default: all)")
    parser.add_argument("--limit", type=arguments.positive, default=16, help="so many images (default 16)")
    parser.add_argument("--answers", type=arguments.positive, default=4, help="for each of them (default 4)")


def run(options: argparse.Namespace) -> int:
    """Ranks; the exit code."""
    from experiments.inverse import problems

    cases = _chosen("--cases", options.cases, CASES)
    methods = _chosen("--methods", options.methods, problems.METHODS)
    if options.answers < 2:
        raise UserError(f"--answers={options.answers}: must be at least 2, of which the deviation is")
    from experiments.inverse import ranking

    shared = ("workdir", "overrides", "truth", "limit", "answers", "out")
    return arguments.tell(
        ranking.rank(ranking.Ranking(**{name: getattr(options, name) for name in shared}), cases, methods)
    )


def _chosen(flag: str, text: str | None, known: dict) -> list[str]:
    names = list(known) if text is None else text.split(",")
    for name in names:
        if name not in known:
            raise unknown_name(flag, name, known)
    return names
