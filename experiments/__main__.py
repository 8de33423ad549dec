"""The command line: `python -m experiments {prepare,train,sample,restore,edit,evaluate,...}`; see `cli/`.

Errors print one line: invalid input exits with code 2 (`UserError`), a run that has to stop with code 1 (`RunError`).
"""

import argparse
import contextlib
import errno
import io
import os
import signal
import sys
from importlib import metadata
from pathlib import Path

from experiments.cli import COMMANDS, arguments
from experiments.errors import RunError, UserError


class _PrintCompletion(argparse.Action):
    """Prints the shell completion script of `ornstein` and exits."""

    def __call__(self, parser, namespace, values, option_string=None):
        import shtab

        print(shtab.complete(_parsers("ornstein")[0], values))
        parser.exit()


def _parsers(prog: str = "python -m experiments") -> tuple[arguments.Parser, dict[str, arguments.Parser]]:
    """Returns the main parser and the parsers of the commands by name."""
    parser = arguments.Parser(
        prog=prog,
        description="Train score-based diffusion models, sample from them and evaluate them.",
        epilog="Start with: python -m experiments train --config=configs/digits.py --workdir=runs/digits",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ornstein {metadata.version('ornstein')}")
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=("bash", "zsh", "tcsh"),
        help="print a shell completion script for the commands and flags of `ornstein`",
    )
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        sub = parsers.add_parser(
            name,
            help=command.SUMMARY,
            description=command.SUMMARY,
            epilog=f"Example: {command.EXAMPLE}",
            allow_abbrev=False,
        )
        command.add_arguments(sub)
    return parser, parsers.choices


def _require_known_flags(texts: list[str], parser: arguments.Parser, commands: dict[str, arguments.Parser]) -> None:
    """Checks that the command defines every flag; argparse alone would report a misspelt flag as a missing one.

    Raises:
        UserError: a flag is unknown.
    """
    command = next((text for text in texts if not text.startswith("-")), None)
    parser = parser if command is None else commands.get(command)
    if parser is None:
        return  # argparse refuses the unknown command
    known = {flag for action in parser._actions for flag in action.option_strings}
    for text in texts:
        if text.startswith("--") and text != "--" and text.partition("=")[0] not in known:
            raise arguments.unknown_argument(parser, text)


def _parse(texts: list[str]) -> argparse.Namespace:
    """Returns the parsed arguments, with `overrides` as (key, text) pairs and `texts`, the raw texts after the command.

    Raises:
        UserError: an argument is invalid.
    """
    rest, overrides = arguments.split_overrides(texts)
    parser, commands = _parsers()
    command = next((text for text in rest if not text.startswith("-")), None)
    if hasattr(COMMANDS.get(command), "extend"):
        COMMANDS[command].extend(commands[command], rest)
    _require_known_flags(rest, parser, commands)
    options, unknown = parser.parse_known_args(rest)
    if unknown:
        raise arguments.unknown_argument(commands[options.command], unknown[0])
    if getattr(options, "evaluations", None):
        overrides.append(("sampling.evaluations", str(options.evaluations)))
    if getattr(options, "sampler", None):
        overrides.append(("sampling.sampler", options.sampler))
    if getattr(options, "steps", None):
        overrides.append(("sampling.steps", str(options.steps)))
    overrides += arguments.guidance_overrides(options)
    options.overrides = overrides
    options.texts = texts[1:]
    return options


def _use_compilation_cache() -> None:
    """Caches compiled programs on disk, in JAX_COMPILATION_CACHE_DIR or the user's cache folder."""
    import jax

    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(home / "ornstein" / "jax"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _use_threaded_convolutions() -> None:
    """Makes XLA run convolutions on all CPU cores (Eigen); must be called before JAX is used.

    jaxlib 0.10 runs each convolution on one core by default (YNNPACK fusion). XLA aborts the process on an unknown
    flag, so the flag is set only for releases that are known to define it.
    """
    name = "--xla_cpu_experimental_ynn_fusion_type"
    release = tuple(map(int, metadata.version("jaxlib").split(".")[:2]))
    flags = os.environ.get("XLA_FLAGS", "")
    if (0, 10) <= release <= (0, 12) and name not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {name}=".strip()


def _check_environment() -> None:
    """Validates the environment variables that the networks read.

    Raises:
        UserError: a variable has an unknown value.
    """
    if os.environ.get("ORNSTEIN_CONV"):  # flax is imported only if the variable is set
        from models.layers import convolution

        try:
            convolution.implementation()
        except ValueError as error:
            raise UserError(str(error)) from error


def main_or_raise(texts: list[str]) -> int:
    """Runs a command line; returns the exit code.

    Raises:
        UserError, RunError: as the command does.
    """
    options = _parse(texts)
    _check_environment()
    _use_threaded_convolutions()
    _use_compilation_cache()
    first = arguments.join_processes(options)
    with contextlib.nullcontext() if first else contextlib.redirect_stdout(io.StringIO()):
        return COMMANDS[options.command].run(options)


def main(texts: list[str]) -> int:
    """Runs a command line, prints an error as one line, and returns the exit code."""
    try:
        return main_or_raise(texts)
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


def run() -> None:
    """The console script `ornstein`: runs the command line of the process and exits with its code."""
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe, as in `list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit succeeds
        code = 128 + signal.SIGPIPE
    sys.exit(code)


if __name__ == "__main__":
    run()
