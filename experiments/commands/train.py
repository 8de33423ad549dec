"""The command `train`."""

import argparse
import signal
from pathlib import Path

from experiments.commands import arguments
from experiments.errors import UserError

SUMMARY = "Train an experiment, or go on with it; at the end evaluate it and write report.html."
EXAMPLE = "python -m experiments train --config=configs/digits.py:ve --workdir=runs/ve --config.optim.lr=1e-3"


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
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
        "--interrupted_code",
        type=int,
        default=0,
        metavar="CODE",
        help="exit code after SIGTERM, when all is saved, for schedulers that start again what ends with it (0)",
    )
    arguments.add_distributed(parser)


def run(options: argparse.Namespace) -> int:
    """Trains; the exit code."""
    from experiments import config
    from experiments.train import train
    from experiments.workdir import Workdir

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
