"""The command line: `python -m experiments {train,sample,evaluate,import,export,benchmark}`.

Errors that a user can mend are one line and exit code 2; a run that cannot go on is one line and exit code 1.
"""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from experiments.errors import RunError, UserError, nearest

# The formats of `experiments/pretrained.py`, said here so that --help need not wait for JAX; a test holds them together.
IMPORTS = (
    "ornstein", "diffusers", "dit", "edm", "edm2", "score_sde", "score_sde_jax", "guided_diffusion", "guided_diffusion_64",
)  # fmt: skip
EXPORTS = ("ornstein", "diffusers")

OVERRIDES = "any key of configs/base.py can be set: --config.data.batch_size=64"


class _Parser(argparse.ArgumentParser):
    """Errors in one line."""

    def error(self, message: str):
        raise UserError(f"{self.prog}: {message} (see --help)")


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m experiments",
        description="Train score-based diffusion models, sample from them and judge them.",
        epilog="Start with: python -m experiments train --config=configs/digits.py --workdir=runs/digits",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable, summary: str, example: str) -> _Parser:
        sub = commands.add_parser(
            name, help=summary, description=summary, epilog=f"Example: {example}", allow_abbrev=False
        )
        sub.set_defaults(run=run)
        return sub

    train = command(
        "train",
        _train,
        "Train an experiment, or go on with it; at the end evaluate it and write report.html.",
        "python -m experiments train --config=configs/digits.py:ve --workdir=runs/ve --config.optim.lr=1e-3",
    )
    _add_config(train, required=False)
    train.add_argument(
        "--workdir",
        type=Path,
        required=True,
        help="folder of the run; one that exists needs no --config; made otherwise",
    )
    train.add_argument(
        "--resume_with_changes", action="store_true", help="go on with the run in --workdir though the config differs"
    )

    sample = command(
        "sample",
        _sample,
        "Draw samples from a trained run into an .npz file, with a grid.png beside it.",
        "python -m experiments sample --workdir=runs/digits --num_samples=1000 --method=ddim --steps=50",
    )
    _add_workdir(sample, "config.sampling")
    sample.add_argument("--num_samples", type=_positive, default=64, help="how many (default 64)")
    sample.add_argument("--seed", type=int, default=0, help="sample i depends on the seed and i alone (default 0)")
    sample.add_argument(
        "--out",
        type=Path,
        default=Path("samples.npz"),
        help="file for `samples`, uint8 (N, H, W, C), or float32 of a model of latents (samples.npz)",
    )
    _add_method(sample)

    evaluate = command(
        "evaluate",
        _evaluate,
        "Measure a trained run against held-out images; writes metrics.json and report.html in its folder.",
        "python -m experiments evaluate --workdir=runs/digits --method=ddim --steps=50",
    )
    _add_workdir(evaluate, "config.sampling, config.evaluation and config.data.source")
    _add_method(evaluate)
    evaluate.add_argument(
        "--sweep-checkpoints", action="store_true", help="measure every kept checkpoint; the figures are the best one's"
    )
    evaluate.add_argument("--metric", help="by which a checkpoint is the best (default: the Frechet distance)")

    importing = command(
        "import",
        _import,
        "Make a run of a model from another code base, or from a file of `export`: sample, evaluate and train it on.",
        "python -m experiments import --from=model.safetensors --format=ornstein --workdir=runs/imported",
    )
    importing.add_argument("--from", dest="source", type=Path, required=True, help="the file or folder of the model")
    importing.add_argument("--format", required=True, help=f"whose it is: {', '.join(IMPORTS)}")
    importing.add_argument("--workdir", type=Path, required=True, help="folder of the run; must not hold one")
    _add_config(importing, required=False)

    export = command(
        "export",
        _export,
        "Write a trained run's EMA weights, with its config, to a file that `import` reads.",
        "python -m experiments export --workdir=runs/digits --out=digits.safetensors",
    )
    export.add_argument("--workdir", type=Path, required=True, help="folder of a trained run")
    export.add_argument("--format", default="ornstein", help=f"{', '.join(EXPORTS)} (default ornstein)")
    export.add_argument("--out", type=Path, required=True, help="the file or folder to write; must not exist")

    benchmark = command(
        "benchmark",
        _benchmark,
        "Measure an experiment's speed on this machine (compilation, training, network, sampler, memory), how accurate the "
        "sampling methods are on two mixtures whose answer is known, or how large and fast the networks are.",
        "python -m experiments benchmark --config=configs/digits.py",
    )
    benchmark.add_argument(
        "--suite",
        choices=("speed", "methods", "networks"),
        default="speed",
        help="speed (default) takes --config; methods takes none, and an hour or two; networks none, and 15 minutes",
    )
    _add_config(benchmark, required=False)
    benchmark.add_argument(
        "--families", help="networks: some of them, as --families=unet,dit, instead of all (names: see models/)"
    )
    benchmark.add_argument(
        "--out", type=Path, help="methods, networks: a Markdown file for all rows; of methods the best ones are printed"
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return value


def _add_config(parser: _Parser, *, required: bool = True) -> None:
    parser.add_argument(
        "--config", required=required, metavar="FILE[:ARG]", help=f"a config, such as configs/digits.py:ve; {OVERRIDES}"
    )


def _add_workdir(parser: _Parser, sections: str) -> None:
    parser.add_argument(
        "--workdir", type=Path, required=True, help=f"folder of a trained run; keys of {sections} can be overridden"
    )


def _add_method(parser: _Parser) -> None:
    parser.add_argument(
        "--method",
        help="heun, ddim, dpm_solver, dpm_solver_singlestep, unipc, deis, probability_flow, ancestral, euler_maruyama, "
        "reverse_diffusion, langevin, predictor_corrector, adaptive, sscs "
        "(the run's own by default); short for --config.sampling.method",
    )
    parser.add_argument("--steps", type=_positive, help="short for --config.sampling.steps")


def _split_overrides(arguments: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Takes `--config.KEY=VALUE` and `--config.KEY VALUE` out of the arguments."""
    rest, overrides = [], []
    remaining = iter(arguments)
    for argument in remaining:
        if not argument.startswith("--config."):
            rest.append(argument)
            continue
        key, equals, value = argument.removeprefix("--config.").partition("=")
        if not equals:
            value = next(remaining, None)
            if value is None:
                raise UserError(f"--config.{key}: a value is missing, as in --config.{key}=VALUE")
        overrides.append((key, value))
    return rest, overrides


def _parse(arguments: list[str]) -> argparse.Namespace:
    """The arguments, with `overrides` as (key, text) pairs.

    Raises:
        UserError: something is wrong with them.
    """
    rest, overrides = _split_overrides(arguments)
    parser = _parser()
    options, unknown = parser.parse_known_args(rest)
    if unknown:
        flags = [
            s for a in parser._subparsers._group_actions[0].choices[options.command]._actions for s in a.option_strings
        ]
        name = unknown[0].partition("=")[0]
        raise UserError(f"python -m experiments {options.command}: unknown argument {name}{nearest(name, flags)}")
    if getattr(options, "method", None):
        overrides.append(("sampling.method", options.method))
    if getattr(options, "steps", None):
        overrides.append(("sampling.steps", str(options.steps)))
    options.overrides = overrides
    return options


def _train(options: argparse.Namespace) -> int:
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
    )
    return 0 if interrupted_by is None else 128 + interrupted_by


def _open_run(options: argparse.Namespace, *allowed: str):
    """The run with the overrides applied that this command allows, checked."""
    import dataclasses

    from experiments import check, config, runs

    stored = runs.read_config(options.workdir)
    changed = config.apply(stored, options.overrides, allowed=allowed, command=options.command)
    check.check(changed)
    return dataclasses.replace(runs.load_run(options.workdir), config=changed)


def _sample(options: argparse.Namespace) -> int:
    import numpy as np

    from experiments import build, pictures
    from experiments.sampler import Sampler

    if options.out.suffix != ".npz":
        raise UserError(f"--out={options.out}: must end in .npz")
    run = _open_run(options, "sampling.")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sampler = Sampler(run.config, build.parallel(run.config), options.num_samples)
    images = sampler(run.variables, options.num_samples, options.seed, progress=True)
    np.savez_compressed(options.out, samples=images)
    shown = "float32 latents, which the decoder of the model's publisher makes images of"
    if run.transform.gives_images:
        shown = options.out.with_name("grid.png")
        pictures.save(shown, pictures.grid(images[:100]), run.config.data.image_size)
    print(
        f"{len(images)} samples by {run.config.sampling.method}, {run.config.sampling.steps} steps, "
        f"{sampler.nfe or 'its own number of'} evaluations each, from step {run.step}: {options.out}, {shown}"
    )
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from experiments import build
    from experiments.evaluate import evaluate_run, sweep_checkpoints
    from experiments.train import load_data

    if options.metric and not options.sweep_checkpoints:
        raise UserError(f"--metric={options.metric}: chooses among checkpoints, so it needs --sweep-checkpoints")
    run = _open_run(options, "sampling.", "evaluation.", "data.source")
    dataset, strategy = load_data(run.config), build.parallel(run.config)
    if options.sweep_checkpoints:
        sweep_checkpoints(run, dataset, strategy, options.metric)
    else:
        evaluate_run(run, dataset, strategy)
    return 0


def _import(options: argparse.Namespace) -> int:
    from experiments import config
    from experiments.pretrained import import_run

    if options.overrides and options.config is None:
        key, text = options.overrides[0]
        raise UserError(f"--config.{key}={text}: overrides need --config=FILE, which they change")
    loaded = config.load(options.config, options.overrides) if options.config else None
    run = import_run(options.source, options.format, options.workdir, loaded)
    print(
        f"Imported {options.source} to {options.workdir}: model {run.config.model.name}, process {run.config.sde.name}, "
        f"{run.config.data.image_size} px. Next: python -m experiments sample --workdir={options.workdir}"
    )
    return 0


def _export(options: argparse.Namespace) -> int:
    from experiments.pretrained import export_run
    from experiments.runs import load_run

    if options.overrides:
        key, text = options.overrides[0]
        raise UserError(f"--config.{key}={text}: a run is exported as it is; export takes no overrides")
    if options.out.exists():
        raise UserError(f"--out={options.out}: exists already; choose another name")
    run = load_run(options.workdir)
    export_run(run, options.out, options.format)
    print(f"Exported step {run.step} of {options.workdir} to {options.out}")
    return 0


def _benchmark(options: argparse.Namespace) -> int:
    from experiments.benchmarks.command import run

    return run(options)


def _use_compilation_cache() -> None:
    """Keeps compiled programs between starts, in JAX_COMPILATION_CACHE_DIR or the user's cache folder."""
    import jax

    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(home / "ornstein" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _use_threaded_convolutions() -> None:
    """Has XLA run convolutions on all CPU cores, by Eigen; must come before JAX is used.

    jaxlib 0.10 hands them to a library that runs each on one core. An unknown flag ends the process, so only releases
    that are known to have it get it.
    """
    name = "--xla_cpu_experimental_ynn_fusion_type"
    release = tuple(map(int, metadata.version("jaxlib").split(".")[:2]))
    flags = os.environ.get("XLA_FLAGS", "")
    if (0, 10) <= release <= (0, 12) and name not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {name}=".strip()


def main(arguments: list[str]) -> int:
    """Runs a command; returns the exit code."""
    try:
        options = _parse(arguments)
        _use_threaded_convolutions()
        _use_compilation_cache()
        return options.run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        print(f"error: {error.filename or 'a file'} cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. What was saved stays; run the same command to go on.", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
