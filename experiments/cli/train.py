"""The command `train`."""

import argparse
import signal
from pathlib import Path

from experiments.cli import arguments
from experiments.errors import UserError

SUMMARY = "Train an experiment, or go on with it; at the end evaluate it and write report.html."
EXAMPLE = "python -m experiments train --config=configs/digits.py:ve --workdir=runs/ve --config.optim.lr=1e-3"


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    parser.named = tuple(arguments.NAMED)
    arguments.add_config(parser)
    parser.add_argument(
        "--workdir",
        type=Path,
        required=True,
        help="folder of the run; one that exists needs no --config; made otherwise",
    )
    parser.add_argument(
        "--resume_with_changes", action="store_true", help="go on with the run in --workdir though the config differs"
    )
    parser.add_argument(
        "--deadline",
        type=arguments.seconds,
        default=0.0,
        metavar="SECONDS",
        help="end at most so long after SIGTERM, saved or not; less than the scheduler waits before it kills (no deadline)",
    )
    parser.add_argument(
        "--sweep",
        metavar="KEY=VALUE,VALUE;KEY=VALUE",
        help="a run for each combination of values, one after the other, in folders below --workdir; sde=vp,ve chooses the "
        "process as the config's argument does",
    )
    parser.add_argument(
        "--sweep_print", action="store_true", help="print the commands of the --sweep, one a line, and run none of them"
    )
    parser.add_argument(
        "--interrupted_code",
        type=arguments.exit_code,
        default=0,
        metavar="CODE",
        help="exit code after SIGTERM, when all is saved, for schedulers that start again what ends with it (0)",
    )
    arguments.add_distributed(parser)


def run(options: argparse.Namespace) -> int:
    """Trains; the exit code."""
    from experiments.config import files as config
    from experiments.runs.workdir import Workdir
    from experiments.training.train import train

    if options.sweep is not None or options.sweep_print:
        return _sweep(options)
    if options.config is not None:
        loaded = config.load(options.config, options.overrides)
    elif Workdir(options.workdir).config.exists():
        loaded = config.apply(Workdir(options.workdir).read_config(), options.overrides)
    else:
        raise UserError(f"--workdir={options.workdir} holds no run yet: say which with --config, as configs/digits.py")
    interrupted_by = train(
        loaded,
        options.workdir,
        resume_with_changes=options.resume_with_changes,
        deadline=options.deadline,
        interrupted_code=options.interrupted_code,
    )
    if interrupted_by is None:
        return 0
    return 128 + interrupted_by if interrupted_by is signal.SIGINT else options.interrupted_code


def _sweep(options: argparse.Namespace) -> int:
    """Makes the runs of `--sweep`, or prints their commands; the exit code."""
    import jax

    if options.sweep is None:
        raise UserError('--sweep_print needs --sweep, as in --sweep="optim.lr=1e-4,2e-4;sde=vp,ve"')
    if options.config is None:
        raise UserError("--sweep needs --config, as configs/digits.py, of which its runs are made")
    jax.config.update("jax_platforms", "cpu")  # the runs, which are processes of their own, have the accelerators

    from experiments import factory
    from experiments.config import files as config
    from experiments.factory import check
    from experiments.training import sweep

    runs = sweep.children(options.config, options.overrides, options.sweep)
    for child in runs:
        try:
            check.check(factory.complete(config.load(child.spec, [*options.overrides, *child.overrides])))
        except UserError as error:
            raise UserError(f"--sweep, {child.name}: {error}") from error
    passed = arguments.without(options.texts, ("--sweep", "--sweep_print", "--config", "--workdir"))
    if options.sweep_print:
        print("\n".join(sweep.command(child, options.workdir, passed) for child in runs))
        return 0
    return sweep.Sweep(runs, options.workdir, options.overrides, passed).run()
