"""The command `evaluate`."""

import argparse

from experiments.cli import arguments
from experiments.errors import UserError

SUMMARY = "Measure a trained run against held-out images; writes metrics.json and report.html in its folder."
EXAMPLE = "python -m experiments evaluate --workdir=runs/digits --sampler=ddim --steps=50"


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    arguments.add_workdir(parser, "experiment.sampling, experiment.evaluation and experiment.data.source")
    arguments.add_label(
        parser,
        "the class of all samples (default: classes in the proportions of the reference); short for "
        "--config.sampling.label",
    )
    arguments.add_method(parser)
    arguments.add_guidance(parser)
    parser.named += ("evaluation.metrics",)
    parser.add_argument(
        "--sweep-checkpoints", action="store_true", help="measure every kept checkpoint; the figures are the best one's"
    )
    parser.add_argument(
        "--sweep-guidance", metavar="SCALE,SCALE", help="measure at several scales of guidance, such as 1,1.5,2,3"
    )
    parser.add_argument("--metric", help="by which a checkpoint or a scale is the best (default: the Frechet distance)")
    arguments.add_distributed(parser)


def run(options: argparse.Namespace) -> int:
    """Evaluates; the exit code."""
    scales = _scales(options.sweep_guidance)
    if options.label is not None:
        options.overrides.append(("sampling.label", options.label))
    if options.sweep_checkpoints and scales:
        raise UserError("--sweep-guidance and --sweep-checkpoints: choose one of them")
    if scales and any(key == "sampling.guidance.scale" for key, _ in options.overrides):
        raise UserError("--sweep-guidance and --guidance: choose one of them")
    if scales:
        options.overrides.append(("sampling.guidance.scale", str(next((s for s in scales if s != 1), 1))))
    if options.metric and not (options.sweep_checkpoints or scales):
        raise UserError(
            f"--metric={options.metric}: chooses among checkpoints or scales, so it needs --sweep-checkpoints or "
            "--sweep-guidance"
        )
    from experiments.evaluation.evaluate import evaluate_run, sweep_checkpoints, sweep_guidance
    from experiments.loading.dataset import announce, check_evaluation, check_names, load_data
    from experiments.loading.runs import draws_samples
    from experiments.reports import report

    uses = ("model", "average", "sampling", "data", "evaluation")
    reading = ("evaluation.", "data.source", "data.background", "data.white")
    if draws_samples(options.workdir):
        trained = arguments.open_run(options, "sampling.", *reading, uses=uses)
    elif options.sweep_checkpoints or scales:
        raise UserError(
            f"--workdir={options.workdir}: no samples are drawn from this run, and a sweep compares samples"
        )
    else:
        trained = arguments.open_run(options, *reading, uses=tuple(use for use in uses if use != "sampling"))
    dataset, strategy = load_data(trained.experiment, trained.workdir), trained.experiment.strategy
    check_names(trained.experiment, dataset, trained.workdir)
    announce(trained.experiment, dataset)
    check_evaluation(trained.experiment, dataset)
    if options.sweep_checkpoints:
        sweep_checkpoints(trained, dataset, strategy, report.publish, options.metric)
    elif scales:
        sweep_guidance(trained, dataset, strategy, report.publish, scales, options.metric)
    else:
        evaluate_run(trained, dataset, strategy, report.publish)
    return 0


def _scales(text: str | None) -> list[float]:
    """The scales of --sweep-guidance, in rising order.

    Raises:
        UserError: it is not different numbers with commas between.
    """
    if text is None:
        return []
    try:
        scales = [float(part) for part in text.split(",")]
    except ValueError:
        scales = []
    if not scales or len(set(scales)) < len(scales) or not all(0 <= scale <= 10_000 for scale in scales):
        raise UserError(
            f"--sweep-guidance={text}: must be different numbers from 0 with commas between, such as 1,1.5,2,3"
        )
    return sorted(scales)
