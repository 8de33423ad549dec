"""The flags that `restore` and `reconstruct` share, and what they ask for."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.cli import arguments

SHARED = ("workdir", "overrides", "input", "truth", "out", "answers", "seed", "limit")


def add_arguments(
    parser: arguments.Parser, *, kind: str, measured: str, truth: str, out: str, each: str, inputs: str, method: str
) -> None:
    """`--input`, `--truth`, `--out`, `--answers`, `--seed`, `--limit`, `--method` and `--steps`.

    Args:
        parser: of the command.
        kind: of file that --input and --truth name.
        measured, truth, out, method: what --input, --truth, --out and --method say in --help.
        each, inputs: one of what there are answers for, and several.
    """
    parser.add_argument("--input", metavar=kind, help=measured)
    parser.add_argument("--truth", metavar=kind, help=truth)
    parser.add_argument("--out", type=Path, required=True, help=out)
    parser.add_argument("--answers", type=arguments.positive, default=4, help=f"how many for each {each} (default 4)")
    parser.add_argument(
        "--seed", type=arguments.seed, default=0, help=f"answer k of {each} i depends on it, i and k alone (default 0)"
    )
    parser.add_argument("--limit", type=arguments.positive, help=f"only the first so many {inputs}")
    parser.add_argument("--method", dest="posterior", metavar="NAME[:SETTING=VALUE]", help=method)
    parser.add_argument("--steps", type=arguments.positive, help="short for --config.sampling.steps")


def given(options: argparse.Namespace, flags: Iterable[str]) -> dict[str, Any]:
    """Of these flags, those on the command line."""
    return {flag: value for flag in flags if (value := getattr(options, flag)) is not None}


def shared(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the fields of `inverse.request.Request` that both commands take from their flags, and the method."""
    if options.label is not None:
        options.overrides.append(("sampling.label", options.label))
    return {flag: getattr(options, flag) for flag in SHARED} | {"method": options.posterior}
