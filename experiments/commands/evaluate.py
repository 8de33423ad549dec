"""The command `evaluate`."""

import argparse

from experiments.commands import arguments

SUMMARY = "Measure a trained run against held-out images; writes metrics.json and report.html in its folder."
EXAMPLE = "python -m experiments evaluate --workdir=runs/digits --method=ddim --steps=50"


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    arguments.add_workdir(parser, "config.sampling, config.evaluation and config.data.source")
    arguments.add_method(parser)
    arguments.add_distributed(parser)


def run(options: argparse.Namespace) -> int:
    """Evaluates; the exit code."""
    from experiments import build
    from experiments.evaluate import evaluate_run
    from experiments.train import load_data

    trained = arguments.open_run(options, "sampling.", "evaluation.", "data.source")
    evaluate_run(trained, load_data(trained.config), build.parallel(trained.config))
    return 0
