"""The command `benchmark`: speed of an experiment, of its data and of its training at scale, accuracy of the methods, for
samples and for answers to inverse problems, size and speed of networks."""

import argparse
from pathlib import Path

from experiments.cli import arguments
from experiments.errors import UserError, unknown_name

SUMMARY = (
    "Measure an experiment's speed on this machine (compilation, training, network, sampler, memory), that of its data "
    "pipeline, what training costs beside (devices, checkpoints, start), what guidance costs beside sampling, how accurate "
    "the sampling methods are on two mixtures whose answer is known, how near the methods for inverse problems come to "
    "exact posteriors, or how large and fast the networks are."
)
EXAMPLE = "python -m experiments benchmark --config=configs/digits.py"


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--suite",
        choices=("speed", "data", "training", "guidance", "methods", "inverse", "networks"),
        default="speed",
        help="speed (default), data, training and guidance take --config; methods takes none, and an hour or two; inverse "
        "and networks none, and 15 to 20 minutes",
    )
    arguments.add_config(parser)
    parser.add_argument(
        "--families", help="networks: some of them, as --families=unet,dit, instead of all (names: see models/)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="methods, inverse, networks: a Markdown file for all rows; of methods the best ones are printed, of inverse "
        "the means",
    )


def run(options: argparse.Namespace) -> int:
    """Measures what `--suite` says and prints it; the exit code."""
    if options.families is not None and options.suite != "networks":
        raise UserError(f"--families={options.families}: is for --suite=networks")
    if options.suite in ("speed", "data", "training", "guidance"):
        return _of_experiment(options)
    if options.config or options.overrides:
        raise UserError(
            f"--suite={options.suite} takes no config: what it measures is fixed, so that figures can be compared"
        )
    if options.out is not None and options.out.suffix != ".md":
        raise UserError(f"--out={options.out}: must end in .md")
    return _networks(options) if options.suite == "networks" else _accuracy(options)


def _networks(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from experiments.benchmarks import networks
    from experiments.files import replace_text

    names = None if options.families is None else options.families.split(",")
    for name in names or ():
        if name not in networks.families():
            raise unknown_name("--families", name, networks.families())
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    suite = networks.Suite(names)
    lines = [suite.heading()]
    tqdm.write(lines[0])
    for row in suite.rows():
        lines.append(networks.line(row))
        tqdm.write(lines[-1])
        if options.out is not None:  # after each row: what is interrupted keeps what it found
            replace_text(options.out, "\n".join([*lines, ""]))
    return 0


def _accuracy(options: argparse.Namespace) -> int:
    from experiments.benchmarks import inverse, methods
    from experiments.files import replace_text

    suites = {"methods": (methods, (methods.best,)), "inverse": (inverse, (inverse.summary, inverse.claims))}
    suite, conclusions = suites[options.suite]
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in suite.benchmark():
        rows.append(row)
        if options.out is not None:  # after each row: what is interrupted keeps what it found
            replace_text(options.out, suite.markdown(rows))
    for conclusion in conclusions:
        print(conclusion(rows))
    if options.out is not None:
        print(f"All {len(rows)} rows: {options.out}")
    return 0


def _of_experiment(options: argparse.Namespace) -> int:
    from experiments import factory
    from experiments.benchmarks import data, guidance, speed, training
    from experiments.config import files as config
    from experiments.factory import check
    from experiments.factory.experiment import Experiment

    if options.config is None:
        raise UserError(
            f"--suite={options.suite} measures an experiment: pass --config=configs/digits.py, or --suite=methods, "
            "inverse or networks"
        )
    if options.out is not None:
        raise UserError(f"--out={options.out}: is for --suite=methods, inverse and networks")
    loaded = factory.complete(config.load(options.config, options.overrides))
    if options.suite == "training":
        training.use_virtual_devices()
    the_same = arguments.without(options.texts, ["--suite"])
    # What runs, and the subjects of the config that it reads.
    suites = {
        "speed": (speed.benchmark, ("model", "data", "training", "sampling")),
        "data": (data.benchmark, ("model", "data", "training")),
        "training": (lambda experiment: training.benchmark(experiment, the_same), check.EVERYTHING),
        "guidance": (guidance.benchmark, ("model", "flow")),
    }
    suite, uses = suites[options.suite]
    print(suite(Experiment.from_config(loaded, *uses, overrides=options.overrides)))
    return 0
