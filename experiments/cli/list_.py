"""The command `list`."""

import argparse

from experiments.cli import arguments

SUMMARY = "List the components that a config or a flag can name: of a kind, or of all kinds."
EXAMPLE = "python -m experiments list sampler"


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    parser.add_argument("kind", metavar="KIND", nargs="?", help="process, network, sampler, ...; without it all kinds")


def run(options: argparse.Namespace) -> int:
    """Lists; the exit code."""
    from experiments.cli import catalogue

    chosen = None if options.kind is None else catalogue.standard(options.kind)
    kinds = catalogue.KINDS if chosen is None else {chosen: catalogue.kind(chosen)}
    for name, kind in kinds.items():
        entries = list(kind.entries())
        own = ", or module:name of your own" if kind.own is not None else ""
        print(f"{name} ({kind.usage('NAME') or 'chosen by its options'}{own})")
        width = max(len(entry.name) for entry in entries) + 2
        for entry in entries:
            print(f"  {entry.name:{width}}{entry.summary}")
    return 0
