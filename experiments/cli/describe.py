"""The command `describe`."""

import argparse
import textwrap

from experiments.cli import arguments

SUMMARY = (
    "Describe a component that a config or a flag can name: its options with their defaults, what it is, its source."
)
EXAMPLE = "python -m experiments describe sampler heun"


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    parser.add_argument("kind", metavar="KIND", help="as `list` prints them: process, network, sampler, ...")
    parser.add_argument("name", metavar="NAME", help="of the component, or the import path of your own")


def run(options: argparse.Namespace) -> int:
    """Describes; the exit code."""
    from experiments.cli import catalogue

    name = catalogue.standard(options.kind)
    kind, entry = catalogue.kind(name), catalogue.entry(name, options.name)
    usage = kind.usage(entry.form or entry.name)
    print(f"{name} {entry.name}{usage and f': {usage}'}\n\n{textwrap.indent(entry.document, '  ')}\n")
    print("Options" if entry.options else "No options")
    arguments_ = list(kind.arguments(entry))
    width = max((len(argument) for argument, _ in arguments_), default=0) + 2
    for argument, meaning in arguments_:
        print(f"  {argument:{width}}{meaning}".rstrip())
    return 0
