"""Arguments that several commands have, and the parser whose errors are one line."""

import argparse
import importlib.util
import math
import textwrap
from collections.abc import Iterable
from pathlib import Path

from experiments.config import records
from experiments.errors import UserError, nearest
from experiments.files import Results

# The largest count and the largest seed; experiments/config/ranges.py has the same, and a test holds them together.
INT32, SEEDS = 2**31 - 1, 2**32 - 1

OVERRIDES = "any key of configs/base.py can be set: --config.data.batch_size=64"


# Where the modules are that name the components of a key: package, folder in it, attributes.
NAMED = {
    "sde.name": ("sde_lib", "", "PROCESSES"),
    "model.name": ("models", "", "NETWORKS", "CLASSIFIERS"),
    "objective.name": ("experiments", "objectives", "OBJECTIVES"),
    "data.source": ("experiments", "data/sources", "SOURCES"),
    "sampling.sampler": ("sde_lib", "sampling", "SAMPLERS"),
    "sampling.guidance.name": ("sde_lib", "guidance", "GUIDANCES"),
    "evaluation.metrics": ("experiments", "metrics", "METRICS"),
}
WIDTH = 100  # of the lines of names


class Parser(argparse.ArgumentParser):
    """Errors in one line, with the nearest match of an unknown choice; --help ends with the names of components.

    Attributes:
        named: keys of `NAMED` whose components --help names.
    """

    named: tuple[str, ...] = ()

    def format_help(self) -> str:
        """The text of --help."""
        if not self.named:
            return super().format_help()
        lines = [f"--config.{key}: {', '.join(component_names(key))}" for key in self.named]
        wrapped = [textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="      ") for line in lines]
        heading = "Names, which `list` and `describe` explain; module:name is a component of your own:"
        return "\n".join([super().format_help(), heading, *wrapped, ""])

    def error(self, message: str):
        """Raises a UserError with the message; argparse would print the usage and end the process."""
        raise UserError(f"{self.prog}: {message} (see --help)")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Raises an ArgumentError for a value, a command among them, that is none of the choices."""
        if action.choices is not None and value not in action.choices:
            allowed = list(map(str, action.choices))
            raise argparse.ArgumentError(
                action, f"invalid choice: {value!r} (choose from {', '.join(allowed)}){nearest(str(value), allowed)}"
            )


def component_names(key: str) -> list[str]:
    """Returns the names of the components of a key of `NAMED`; imports none of them."""
    package, folder, *attributes = NAMED[key]
    path = Path(importlib.util.find_spec(package).submodule_search_locations[0], folder)
    return [name for attribute in attributes for name in records.names(path, attribute)]


def positive(text: str) -> int:
    """An integer from 1, which fits int32."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    if value > INT32:
        raise argparse.ArgumentTypeError(f"{text} must be at most {INT32}")
    return value


def seed(text: str) -> int:
    """A seed: an integer from 0 to 2^32 - 1. JAX keys of other integers repeat the keys of these."""
    value = int(text)
    if not 0 <= value <= SEEDS:
        raise argparse.ArgumentTypeError(f"{text} must be at least 0 and at most {SEEDS}")
    return value


def number(text: str) -> float:
    """A finite number."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} must be a finite number")
    return value


def seconds(text: str) -> float:
    """A time of more than 0, of at most what threads can wait for."""
    value = number(text)
    if not 0 < value <= 1e9:
        raise argparse.ArgumentTypeError(f"{text} must be more than 0 and at most 1e9")
    return value


def exit_code(text: str) -> int:
    """An exit code of a process, 0 to 255."""
    value = int(text)
    if not 0 <= value <= 255:
        raise argparse.ArgumentTypeError(f"{text} must be at least 0 and at most 255")
    return value


def share(text: str) -> float:
    """A number in (0, 1]."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} must be more than 0 and at most 1")
    return value


def folder(text: str) -> Path:
    """A folder, there or to be made."""
    if Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text} is a file: a folder is needed")
    return Path(text)


# Kinds of flags that records name; `float` flags are finite numbers.
KINDS = {"count": positive, "seed": seed, "number": number, "text": str, float: number}


def add_config(parser: Parser) -> None:
    """`--config`."""
    parser.add_argument("--config", metavar="FILE[:ARG]", help=f"a config, such as configs/digits.py:ve; {OVERRIDES}")


def add_workdir(parser: Parser, sections: str) -> None:
    """`--workdir` of a trained run."""
    parser.add_argument(
        "--workdir", type=Path, required=True, help=f"folder of a trained run; keys of {sections} can be overridden"
    )


def add_distributed(parser: Parser) -> None:
    """`--distributed`, and the three that say where the processes are."""
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="one of several processes on any number of hosts: found in the environment of SLURM, Kubernetes or a TPU pod",
    )
    parser.add_argument("--coordinator_address", metavar="HOST:PORT", help="instead of --distributed: of process 0")
    parser.add_argument("--num_processes", type=positive, help="instead of --distributed: how many there are")
    parser.add_argument("--process_id", type=int, help="instead of --distributed: which one this is, from 0")


def join_processes(options: argparse.Namespace) -> bool:
    """Joins the other processes if the options say so; whether this is the first one, which speaks for all.

    Raises:
        UserError: they cannot be joined.
    """
    explicit = [getattr(options, name, None) for name in ("coordinator_address", "num_processes", "process_id")]
    if not getattr(options, "distributed", False) and all(value is None for value in explicit):
        return True
    if getattr(options, "sweep", None) is not None:
        return True  # the runs of a sweep join those of the other hosts, one after the other
    from experiments.devices import distributed

    distributed.start(*explicit)
    return distributed.is_first()


def add_method(parser: Parser) -> None:
    """`--evaluations`, `--sampler` and `--steps`."""
    parser.named += ("sampling.sampler",)
    parser.add_argument(
        "--evaluations",
        type=positive,
        help="of the network for each sample, by the recommended sampler and times for that number, in place of --sampler "
        "and --steps; short for --config.sampling.evaluations",
    )
    parser.add_argument(
        "--sampler",
        help="a sampler, as `list sampler` prints them, or module:name of your own (the run's own by default); short for "
        "--config.sampling.sampler",
    )
    parser.add_argument("--steps", type=positive, help="short for --config.sampling.steps")


def add_guidance(parser: Parser) -> None:
    """`--guidance`, `--guidance_interval` and `--guide`."""
    parser.named += ("sampling.guidance.name",)
    parser.add_argument(
        "--guidance",
        dest="guidance_scale",
        metavar="SCALE",
        type=number,
        help="guide samples: D_weak + SCALE (D - D_weak); 1 disables. Without --guide the weak model is the model itself "
        "without its class, which needs condition.label.dropout; short for --config.sampling.guidance.scale",
    )
    parser.add_argument(
        "--guidance_interval",
        metavar="LOW,HIGH",
        help="guide where LOW < sigma / alpha <= HIGH alone; short for --config.sampling.guidance.low and .high",
    )
    parser.add_argument(
        "--guide",
        metavar="RUN[@STEP]",
        help="folder of another run: the weak model (autoguidance), or a classifier to whose class samples are guided; "
        "short for --config.sampling.guidance.guide",
    )


def require_class(options: argparse.Namespace) -> None:
    """Makes sure that `--guidance` without another run comes with a class.

    Raises:
        UserError: it does not.
    """
    if options.guidance_scale is not None and options.guide is None and options.label is None:
        raise UserError(f"--guidance={options.guidance_scale:g}: does nothing without a class to guide to: add --label")


def guidance_overrides(options: argparse.Namespace) -> list[tuple[str, str]]:
    """The (key, text) overrides of the flags of guidance.

    Raises:
        UserError: the interval is not two numbers.
    """
    found = []
    if getattr(options, "guidance_scale", None) is not None:
        found.append(("sampling.guidance.scale", str(options.guidance_scale)))
    if getattr(options, "guidance_interval", None) is not None:
        low, _, high = options.guidance_interval.partition(",")
        try:
            float(low), float(high)
        except ValueError:
            raise UserError(
                f"--guidance_interval={options.guidance_interval}: must be two numbers, LOW,HIGH, such as 0.2,2"
            ) from None
        found += [("sampling.guidance.low", low), ("sampling.guidance.high", high)]
    if getattr(options, "guide", None) is not None:
        found.append(("sampling.guidance.guide", options.guide))
    return found


def add_label(parser: Parser, meaning: str, flag: str = "--label") -> None:
    """`--label`, or another flag that takes a class."""
    parser.add_argument(flag, metavar="CLASS", help=f"class-conditional models: {meaning}, by its name or number")


def add_images(parser: Parser) -> None:
    """`--input`, `--limit` and `--out` of a task."""
    parser.add_argument(
        "--input",
        required=True,
        metavar="IMAGES",
        help="an image file, a folder of them, or FILE.npz[:ARRAY]; cropped and resized to the model's size",
    )
    parser.add_argument("--limit", type=positive, help="only the first so many images")
    parser.add_argument(
        "--out", type=folder, required=True, help="folder to write sheet.png, PNGs, answers.npz, results.json"
    )


def add_strength(parser: Parser, default: float, meaning: str) -> None:
    """`--strength` of an edit."""
    parser.add_argument(
        "--strength",
        type=share,
        default=default,
        help=f"in (0, 1]: {meaning}; the time of the VP process, so noise / signal is 0.34 at 0.1, 1.2 at 0.3, 3.4 at 0.5, "
        f"25 at 0.8, for every process (default {default:g})",
    )


def split_overrides(arguments: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Takes `--config.KEY=VALUE` and `--config.KEY VALUE` out of the arguments.

    Raises:
        UserError: a value is missing.
    """
    rest, overrides = [], []
    remaining = iter(arguments)
    for argument in remaining:
        if not argument.startswith("--config."):
            rest.append(argument)
            continue
        key, equals, value = argument.removeprefix("--config.").partition("=")
        if not equals:
            value = next(remaining, None)
            if value is None or value.startswith("--"):
                raise UserError(f"--config.{key}: a value is missing, as in --config.{key}=VALUE")
        overrides.append((key, value))
    return rest, overrides


def without(texts: list[str], flags: Iterable[str]) -> list[str]:
    """The arguments without these flags (`--flag=VALUE`, `--flag VALUE`, or `--flag` alone before another)."""
    rest, skip = [], False
    for text in texts:
        if skip and not text.startswith("--"):
            skip = False
        elif text.partition("=")[0] in flags:
            skip = "=" not in text
        else:
            rest.append(text)
            skip = False
    return rest


def unknown_argument(parser: Parser, argument: str) -> UserError:
    """The error for an argument that the command does not have."""
    flags = [flag for action in parser._actions for flag in action.option_strings]
    name = argument.partition("=")[0]
    return UserError(f"{parser.prog}: unknown argument {name}{nearest(name, flags)}")


def open_run(options: argparse.Namespace, *allowed: str, uses: tuple[str, ...]):
    """The run with the overrides applied that this command allows, checked.

    Args:
        options: with `workdir`, `overrides` and `command`.
        allowed: what the keys that may be overridden begin with.
        uses: the subjects of the config that the command reads, of `check.SUBJECTS`.

    Raises:
        UserError: no run is there, or a key may not be overridden or has a value that cannot work.
    """
    from experiments.config import files as config
    from experiments.factory import check
    from experiments.loading import runs

    stored = runs.read_config(options.workdir)
    overrides = runs.by_number(options.workdir, stored, options.overrides)
    changed = config.apply(stored, overrides, allowed=allowed, command=options.command)
    check.check(changed, *uses, overrides=overrides)
    return runs.load_run(options.workdir, changed)


def tell(results: Results) -> int:
    """Prints the summary of what a command has made; the exit code. Processes other than the first have none."""
    if results.summary:
        print(results.summary)
    return 0
