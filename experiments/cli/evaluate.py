"""The command `evaluate`."""

import argparse

from experiments.cli import arguments
from experiments.errors import UserError

SUMMARY = "Measure a trained run against held-out images; writes metrics.json and report.html in its folder."
EXAMPLE = "python -m experiments evaluate --workdir=runs/digits --method=ddim --steps=50"


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    arguments.add_workdir(parser, "experiment.sampling, experiment.evaluation and experiment.data.source")
    arguments.add_method(parser)
    parser.add_argument(
        "--sweep-checkpoints", action="store_true", help="measure every kept checkpoint; the figures are the best one's"
    )
    parser.add_argument("--metric", help="by which a checkpoint is the best (default: the Frechet distance)")
    arguments.add_distributed(parser)


def run(options: argparse.Namespace) -> int:
    """Evaluates; the exit code."""
    if options.metric and not options.sweep_checkpoints:
        raise UserError(f"--metric={options.metric}: chooses among checkpoints, so it needs --sweep-checkpoints")
    from experiments.evaluation.evaluate import evaluate_run, sweep_checkpoints
    from experiments.loading.dataset import announce, check_evaluation, check_names, load_data
    from experiments.reports import report

    uses = ("model", "average", "sampling", "data", "evaluation")
    reading = ("data.source", "data.background", "data.white")
    trained = arguments.open_run(options, "sampling.", "evaluation.", *reading, uses=uses)
    dataset, strategy = load_data(trained.experiment, trained.workdir), trained.experiment.strategy
    check_names(trained.experiment, dataset, trained.workdir)
    announce(trained.experiment, dataset)
    check_evaluation(trained.experiment, dataset)
    if options.sweep_checkpoints:
        sweep_checkpoints(trained, dataset, strategy, report.publish, options.metric)
    else:
        evaluate_run(trained, dataset, strategy, report.publish)
    return 0
