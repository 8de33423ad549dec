"""The command `restore`."""

import argparse
from collections.abc import Iterable, Mapping

from experiments.cli import answers, arguments
from experiments.config.components import is_path
from experiments.errors import UserError
from experiments.inverse import problems, requests

SUMMARY = (
    "Restore images by a trained model: missing pixels, low resolution, blur, noise, lost colours. Nothing is trained for "
    "it; several answers show what the measurement leaves open."
)
EXAMPLE = "python -m experiments restore --workdir=runs/digits --task=superres --factor=2 --truth=photos --out=restored"

EPILOG = """\
Tasks, which say what is measured of an image:

{tasks}

Methods, as --method=NAME or --method=NAME:SETTING=VALUE,... with the settings in brackets:

{methods}

{proportional}
IMAGES is an image file, a folder of them, or FILE.npz[:ARRAY] with uint8 or with floats in [0, 1], (N, H, W, C).

  {example}
  python -m experiments restore --workdir=runs/digits --task=inpaint --mask=hole.png --input=photo.png --out=restored
  python -m experiments restore --workdir=runs/digits --task=deblur --method=dps:zeta=1 --truth=a.npz --out=restored
"""


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    methods = "\n".join(_method_line(name, spec) for name, spec in problems.METHODS.items())
    proportional = "\n".join(
        f"{name} takes {', '.join(spec.proportional)} for images of 256 pixels, in proportion to the side for others."
        for name, spec in problems.METHODS.items()
        if spec.proportional
    )
    parser.epilog = EPILOG.format(
        tasks=problems.table(problems.TASKS), methods=methods, proportional=proportional, example=EXAMPLE
    )
    arguments.add_workdir(parser, "config.sampling")
    parser.add_argument("--task", required=True, help="what is measured; see below")
    answers.add_arguments(
        parser,
        kind="IMAGES",
        measured="what was measured: of exactly the measured size",
        truth="clean images to compare with; without --input they are measured, with noise",
        out="folder to write sheet.png, PNGs, answers.npz, results.json",
        each="input",
        inputs="images",
        method=f"how answers are drawn; see below ({requests.DEFAULT_METHOD})",
    )
    noise = parser.add_argument_group("the noise of what is measured")
    noise.add_argument(
        "--noise", type=arguments.number, help="standard deviation, black to white being 2 (default by task)"
    )
    noise.add_argument("--noise_kind", default="gaussian", help="gaussian (default) or poisson")
    noise.add_argument("--peak", type=arguments.number, help="poisson: the expected count of a white pixel")
    tasks = parser.add_argument_group("what tasks are made with")
    _add_flags(tasks, problems.flags(), problems.TASKS)
    arguments.add_label(parser, "the class of all answers (default: each in turn); short for --config.sampling.label")
    arguments.add_guidance(parser)
    arguments.add_distributed(parser)


def extend(parser: arguments.Parser, texts: list[str]) -> None:
    """Adds the flags of a task that the command line names by import path."""
    name = next((text.partition("=")[2] for text in texts if text.startswith("--task=")), "")
    if "--task" in texts[:-1]:
        name = texts[texts.index("--task") + 1]
    if not is_path(name):
        return
    task = problems.task_of(name)
    known = {flag for action in parser._actions for flag in action.option_strings}
    new = [flag for flag in task.flags if flag not in problems.flags()]
    for flag in new:
        if f"--{flag}" in known:
            raise UserError(f"--task={name}: its flag --{flag} is one of restore itself; give it another name")
    _add_flags(parser.add_argument_group(f"what {name} is made with"), new, {name: task})


def _add_flags(group: argparse._ArgumentGroup, flags: Iterable[str], tasks: Mapping[str, problems.Task]) -> None:
    """Adds flags of tasks, with their types and meanings."""
    for flag in flags:
        kind = problems.kind(flag, tasks)
        group.add_argument(f"--{flag}", type=arguments.KINDS.get(kind, kind), help=problems.meaning(flag, tasks))


def _method_line(name: str, spec: problems.Method) -> str:
    settings = f" [{', '.join(f'{key}={value}' for key, value in spec.settings.items())}]" if spec.settings else ""
    return f"  {name:13}{spec.summary}; {spec.sampling['steps']} steps{settings}"


def run(options: argparse.Namespace) -> int:
    """Restores; the exit code."""
    request = _request(options)
    from experiments.inverse.restore import restore

    return arguments.tell(restore(request))


def _request(options: argparse.Namespace) -> problems.Restoration:
    """Returns the request.

    Raises:
        UserError: as of `requests.restoration`.
    """
    return requests.restoration(
        options.task,
        answers.given(options, dict.fromkeys([*problems.flags(), *problems.task_of(options.task).flags])),
        noise=options.noise,
        noise_kind=options.noise_kind,
        peak=options.peak,
        **answers.shared(options),
    )
