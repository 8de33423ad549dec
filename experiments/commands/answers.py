"""The flags that `restore` and `reconstruct` share, and what they ask for."""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments.commands import arguments
from experiments.errors import UserError
from experiments.tasks import problems


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


def is_measured(options: argparse.Namespace, kind: str) -> bool:
    """Whether there are measurements; UserError where there is nothing to measure either, of this kind of file."""
    if options.input is None and options.truth is None:
        raise UserError(f"--input={kind} is needed, or --truth={kind} to be measured")
    return options.input is not None


def given(options: argparse.Namespace, flags: Iterable[str]) -> dict[str, Any]:
    """Of these flags, those on the command line."""
    return {flag: value for flag in flags if (value := getattr(options, flag)) is not None}


def method(options: argparse.Namespace, default: str) -> tuple[str, dict[str, Any]]:
    """The name and the settings of the method.

    Raises:
        UserError: there is no such method or setting, or an override does nothing for it.
    """
    name, settings = problems.method(options.posterior or default)
    problems.check_overrides(name, options.overrides)
    return name, settings


def shared(
    options: argparse.Namespace, made: Mapping[str, Any], method: tuple[str, dict[str, Any]], noise: float
) -> dict[str, Any]:
    """The fields of `tasks.request.Request`.

    Args:
        options: the command line.
        made: how measurements are made.
        method: its name and settings.
        noise: standard deviation.
    """
    name, settings = method
    alike = ("workdir", "overrides", "input", "truth", "out", "answers", "seed", "limit")
    found = {flag: getattr(options, flag) for flag in alike}
    return {**found, "options": made, "method": name, "settings": settings, "noise": noise}
