"""The command `compare`."""

import argparse
from pathlib import Path

from experiments.cli import arguments
from experiments.errors import UserError

SUMMARY = (
    "Draw runs together in one page: losses on one axis, where their configs differ, figures and samples side by side."
)
EXAMPLE = "python -m experiments compare runs/vp runs/ve --out=compare.html"


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs, trained or in training")
    parser.add_argument("--out", type=Path, default=Path("compare.html"), help="the page to write (compare.html)")


def run(options: argparse.Namespace) -> int:
    """Writes the page; the exit code."""
    from experiments.reports import compare

    if options.overrides:
        key, text = options.overrides[0]
        raise UserError(f"--config.{key}={text}: runs are compared as they are; compare takes no overrides")
    if options.out.suffix != ".html":
        raise UserError(f"--out={options.out}: must end in .html")
    compare.write(options.runs, options.out)
    print(f"{len(options.runs)} runs: {options.out}")
    return 0
