"""The subcommands, one file each: `SUMMARY` and `EXAMPLE` for --help, `add_arguments(parser)`, and `run(options)`.

A command's module imports JAX only inside `run`, so that --help and errors of the arguments need not wait for it.
"""

from experiments.cli import (
    benchmark,
    compare,
    describe,
    edit,
    evaluate,
    export,
    import_,
    interpolate,
    list_,
    prepare,
    rank,
    reconstruct,
    restore,
    sample,
    train,
    translate,
)

# In the order of --help.
COMMANDS = {
    "prepare": prepare,
    "train": train,
    "sample": sample,
    "restore": restore,
    "reconstruct": reconstruct,
    "edit": edit,
    "translate": translate,
    "interpolate": interpolate,
    "rank": rank,
    "evaluate": evaluate,
    "compare": compare,
    "import": import_,
    "export": export,
    "benchmark": benchmark,
    "list": list_,
    "describe": describe,
}
