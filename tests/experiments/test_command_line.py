"""The command line itself: what a text of each kind may be, what is taken where nothing is said, and how it ends."""

import argparse
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

import models
from experiments import __main__ as command_line
from experiments.__main__ import main
from experiments.cli import COMMANDS, arguments
from experiments.cli import edit as edit_command
from experiments.config import named
from experiments.data import sources
from experiments.errors import RunError, UserError
from experiments.metrics import records as metric_records
from tests.experiments.tiny import ROOT

INT32, SEEDS = 2**31 - 1, 2**32 - 1

# For each kind of argument, the texts at both ends of its range with their values, and those just outside.
KINDS = [
    (arguments.positive, {"1": 1, "2": 2, str(INT32): INT32}, ["0", "-1", str(INT32 + 1), "1.5", "one"]),
    (arguments.seed, {"0": 0, str(SEEDS): SEEDS}, ["-1", str(SEEDS + 1), "0.5"]),
    (arguments.number, {"0": 0.0, "-1e300": -1e300, "2.5": 2.5}, ["inf", "-inf", "nan", "x"]),
    (arguments.seconds, {"1e-9": 1e-9, "1e9": 1e9, "0.5": 0.5}, ["0", "-1", "1.001e9", "inf", "nan"]),
    (arguments.exit_code, {"0": 0, "255": 255, "75": 75}, ["-1", "256", "0.5"]),
    (arguments.share, {"1e-9": 1e-9, "1": 1.0, "0.5": 0.5}, ["0", "-0.1", "1.0001", "nan"]),
]


@pytest.mark.parametrize("kind, allowed, refused", KINDS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_text_is_a_value_up_to_both_ends_of_its_range(kind, allowed, refused):
    for text, value in allowed.items():
        assert kind(text) == value and type(kind(text)) is type(value)
    for text in refused:
        with pytest.raises((argparse.ArgumentTypeError, ValueError)):
            kind(text)


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "file").touch()
    assert arguments.folder(str(tmp_path)) == tmp_path
    assert arguments.folder(str(tmp_path / "new")) == tmp_path / "new"
    with pytest.raises(argparse.ArgumentTypeError, match="file is a file: a folder is needed"):
        arguments.folder(str(tmp_path / "file"))


@pytest.mark.parametrize(
    "texts, rest, overrides",
    [
        (["--config.a.b=1", "x"], ["x"], [("a.b", "1")]),
        (["--config.a.b", "1", "x"], ["x"], [("a.b", "1")]),
        (["--config.a=b=c", "--config=f.py"], ["--config=f.py"], [("a", "b=c")]),
        (["--config.a=", "--config.b", "-1"], [], [("a", ""), ("b", "-1")]),
        (["--config.a=1", "--config.a=2"], [], [("a", "1"), ("a", "2")]),
        (["--configs.a=1"], ["--configs.a=1"], []),
    ],
)
def test_overrides_are_taken_out_in_their_order(texts, rest, overrides):
    assert arguments.split_overrides(texts) == (rest, overrides)


@pytest.mark.parametrize(
    "texts, left",
    [
        (["--a=1", "--b", "2", "--c"], ["--b", "2", "--c"]),
        (["--a", "1", "--b", "2"], ["--b", "2"]),
        (["--a", "--b", "2"], ["--b", "2"]),
        (["--a", "1", "x"], ["x"]),
        (["--a", "1", "2", "--a=3", "4"], ["2", "4"]),
        (["--ab=1", "x"], ["--ab=1", "x"]),
        (["x", "--a"], ["x"]),
        ([], []),
    ],
)
def test_flags_are_left_out_with_their_values(texts, left):
    assert arguments.without(texts, ["--a"]) == left


# What each command needs, as little as it takes.
NEEDED = {
    "prepare": ["--source=digits", "--out=records"],
    "train": ["--workdir=run"],
    "sample": ["--workdir=run"],
    "restore": ["--workdir=run", "--task=inpaint", "--out=out"],
    "reconstruct": ["--workdir=run", "--modality=mri", "--out=out"],
    "edit": ["--workdir=run", "--input=a.png", "--out=out"],
    "translate": ["--workdir=run", "--input=a.png", "--out=out"],
    "interpolate": ["--workdir=run", "--input=a.png", "--to=b.png", "--out=out"],
    "rank": ["--workdir=run", "--truth=a.png", "--out=out"],
    "evaluate": ["--workdir=run"],
    "compare": ["runs/a"],
    "import": ["--from=a", "--format=edm", "--workdir=run"],
    "export": ["--workdir=run", "--out=a"],
    "benchmark": [],
    "list": [],
    "describe": ["sampler", "heun"],
}
# What is taken where nothing is said; all other flags are None or False then.
DEFAULTS = {
    "prepare": {"resize": "none", "background": "white", "white": 0.0, "shard_mb": 256},
    "train": {"deadline": 0.0, "interrupted_code": 0},
    "sample": {"num_samples": 64, "seed": 0, "out": Path("samples.npz")},
    "restore": {"answers": 4, "seed": 0, "noise_kind": "gaussian"},
    "reconstruct": {"answers": 4, "seed": 0},
    "edit": {"strength": 0.5, "answers": 4, "seed": 0},
    "translate": {"strength": 1.0},
    "interpolate": {"strength": 1.0, "images": 7},
    "rank": {"limit": 16, "answers": 4},
    "compare": {"out": Path("compare.html")},
    "export": {"format": "ornstein"},
    "benchmark": {"suite": "speed"},
}


def test_every_command_takes_its_defaults():
    assert list(NEEDED) == list(COMMANDS)
    for command, needed in NEEDED.items():
        options = vars(command_line._parse([command, *needed]))
        given = {text[2:].partition("=")[0] for text in needed} | {
            "runs",
            "command",
            "overrides",
            "texts",
            "source",
            "kind",
            "name",
        }
        expected = DEFAULTS.get(command, {})
        said = {name: value for name, value in options.items() if name not in given and value not in (None, False)}
        assert said | {name: options[name] for name in expected} == expected, command
        assert all(type(options[name]) is type(value) for name, value in expected.items()), command


def test_the_help_of_a_flag_tells_its_default():
    """Where a number or a word stands after "default" in the help of a flag, the parser has it."""
    _, parsers = command_line._parsers()
    seen = 0
    for command, parser in parsers.items():
        for action in parser._actions:
            told = re.search(r"\(default:? ([^\s()]+)\)$", action.help or "")
            if told and action.default is not None and told[1] != "refused":
                seen += 1
                value = action.default
                known = f"{value:g}" if isinstance(value, float) else str(value)
                assert told[1] == known, (command, action.dest)
    assert seen > 15


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_of_a_command_can_be_parsed(command):
    """As it stands in the help, and by the command that shows it."""
    words = COMMANDS[command].EXAMPLE.split()
    assert words[:4] == ["python", "-m", "experiments", command]
    assert command_line._parse(words[3:]).command == command


def test_short_flags_of_the_sampler_are_keys():
    flags = {"--evaluations=9": ("sampling.evaluations", "9"), "--steps=7": ("sampling.steps", "7")}
    flags |= {"--sampler=ddim": ("sampling.sampler", "ddim")}
    for flag, override in flags.items():
        options = command_line._parse(["sample", "--workdir=run", "--config.sampling.rho=5", flag])
        assert options.overrides == [("sampling.rho", "5"), override]
        assert options.texts == ["--workdir=run", "--config.sampling.rho=5", flag]


ERRORS = [
    (UserError("wrong"), 2, "error: wrong"),
    (RunError("stopped"), 1, "error: stopped"),
    *(
        (OSError(number, os.strerror(number), "a/b"), 1, f"error: a/b cannot be written: {os.strerror(number)}")
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
    ),
    (OSError(errno.ENOSPC, "full"), 1, "error: a file cannot be written: full"),
    (KeyboardInterrupt(), 128 + signal.SIGINT, "Interrupted. What was saved stays; run the same command to go on."),
]


@pytest.mark.parametrize("error, code, line", ERRORS, ids=lambda value: repr(value)[:30])
def test_what_ends_a_command_is_one_line_and_a_code(monkeypatch, capsys, error, code, line):
    def fails(texts):
        raise error

    monkeypatch.setattr(command_line, "main_or_raise", fails)
    assert main([]) == code
    assert capsys.readouterr() == ("", f"{line}\n")


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "none"), OSError(errno.EIO, "disk"), ValueError("bug")]
)
def test_what_nobody_foresaw_is_shown_whole(monkeypatch, error):
    def fails(texts):
        raise error

    monkeypatch.setattr(command_line, "main_or_raise", fails)
    with pytest.raises(type(error)):
        main([])


NAME = "--xla_cpu_experimental_ynn_fusion_type"


@pytest.mark.parametrize(
    "version, before, after",
    [
        ("0.9.2", None, None),
        ("0.10.0", None, f"{NAME}="),
        ("0.10.1", "--other=1", f"--other=1 {NAME}="),
        ("0.12.3", "", f"{NAME}="),
        ("0.13.0", "--other=1", "--other=1"),
        ("1.10.0", None, None),
        ("0.11.0", f"{NAME}=2 --other=1", f"{NAME}=2 --other=1"),
    ],
)
def test_convolutions_are_threaded_in_releases_that_know_how(monkeypatch, version, before, after):
    monkeypatch.setattr(command_line.metadata, "version", {"jaxlib": version}.get)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if before is not None:
        monkeypatch.setenv("XLA_FLAGS", before)
    command_line._use_threaded_convolutions()
    assert os.environ.get("XLA_FLAGS") == after


@pytest.mark.parametrize(
    "known, variables, folder, least",
    [
        (None, {"XDG_CACHE_HOME": "/cache"}, "/cache/ornstein/jax", 0.5),
        (None, {"XDG_CACHE_HOME": "", "HOME": "/me"}, "/me/.cache/ornstein/jax", 0.5),
        (None, {"HOME": "/me"}, "/me/.cache/ornstein/jax", 0.5),
        ("/mine", {"XDG_CACHE_HOME": "/cache"}, None, 0.5),
        ("/mine", {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "3"}, None, None),
    ],
)
def test_compiled_programs_are_kept_where_the_user_says(monkeypatch, known, variables, folder, least):
    for name in ("XDG_CACHE_HOME", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    told = {}
    monkeypatch.setattr(jax, "config", SimpleNamespace(jax_compilation_cache_dir=known, update=told.__setitem__))
    command_line._use_compilation_cache()
    assert told.pop("jax_compilation_cache_dir", None) == folder
    assert told.pop("jax_persistent_cache_min_compile_time_secs", None) == least and not told


class Reached(Exception):
    """The arguments were accepted."""


@pytest.fixture
def reached(monkeypatch):
    """Runs a command up to its task, and gives what the task is asked for."""
    asked = []

    def stop(request, *more):
        asked.append(request)
        raise Reached

    for name in (
        "editing.edit.edit",
        "editing.translate.translate",
        "editing.translate.interpolate",
        "inverse.restore.restore",
        "inverse.reconstruct.reconstruct",
    ):
        monkeypatch.setattr(f"experiments.{name}", stop)

    def run(command, *texts):
        options = command_line._parse([command, *NEEDED[command], *texts])
        with pytest.raises(Reached):
            COMMANDS[command].run(options)
        return asked[-1]

    return run


def test_edits_are_asked_for_by_their_flags(reached):
    plain = reached("edit")
    assert (plain.strength, plain.answers, plain.seed, plain.style_features) == (0.5, 4, 0, "patches")
    assert plain.masked_by == edit_command.DEFAULT_MASKED_BY == "pigdm"
    assert plain.style_std == edit_command.edits.STYLE_STD["patches"]
    other = reached("edit", "--style=a.png", "--style_features=perceptual", "--strength=0.25", "--limit=2")
    assert (other.style, other.style_std) == ("a.png", edit_command.edits.STYLE_STD["perceptual"])
    assert (other.strength, other.limit) == (0.25, 2)
    assert reached("edit", "--style=a.png", "--style_std=0.001").style_std == 0.001


@pytest.mark.parametrize("std", ["0", "-1"])
def test_a_style_spreads(fails, std):
    message = fails("edit", *NEEDED["edit"], "--style=a.png", f"--style_std={std}")
    assert message == f"--style_std={std}: must be more than 0"


def test_a_translation_goes_somewhere(reached, fails):
    for texts in (
        ["--to=other"],
        ["--label=3"],
        ["--label=3", "--from_label=2"],
        ["--label=3", "--from_label=3", "--guidance=2"],
    ):
        assert reached("translate", *texts).strength == 1.0
    for texts, message in (
        ([], "--to=RUN is needed, or --label of the class to become"),
        (["--from_label=2"], "--to=RUN is needed, or --label"),
        (["--label=3", "--from_label=3"], "--label=3: is --from_label too"),
        (["--to=other", "--guidance=2"], "--guidance=2: does nothing without a class"),
    ):
        assert fails("translate", *NEEDED["translate"], *texts).startswith(message)


@pytest.mark.parametrize("images", [1, 2])
def test_between_two_images_there_is_one_at_least(reached, fails, images):
    assert fails("interpolate", *NEEDED["interpolate"], f"--images={images}").startswith(
        f"--images={images}: both ends"
    )
    assert reached("interpolate", "--images=3").images == 3


def test_answers_of_a_ranking_deviate(fails, monkeypatch):
    def stop(*asked):
        raise UserError(f"reached {asked[1:]}")

    monkeypatch.setattr("experiments.inverse.ranking.rank", stop)
    assert fails("rank", *NEEDED["rank"], "--answers=1").startswith("--answers=1: must be at least 2")
    chosen = fails("rank", *NEEDED["rank"], "--answers=2", "--cases=inpaint-box", "--methods=dps,pigdm")
    assert chosen == "reached (['inpaint-box'], ['dps', 'pigdm'])"


@pytest.mark.parametrize("white, allowed", [("0", False), ("-1", False), ("1e-6", True), ("4095", True)])
def test_white_is_an_intensity(reached, fails, white, allowed):
    texts = ("--input=scan.npz", f"--white={white}")
    if allowed:
        assert reached("reconstruct", *texts).white == float(white)
    else:
        message = fails("reconstruct", *NEEDED["reconstruct"], *texts)
        assert message == f"--white={float(white)}: must be more than 0"


def test_tasks_are_asked_for_by_their_flags(reached):
    """Of restoring and reconstructing: the default method, and what both have."""
    restored = reached("restore", "--truth=a.png", "--answers=3", "--seed=5")
    assert (restored.method, restored.answers, restored.seed, restored.task) == ("pigdm", 3, 5, "inpaint")
    scanned = reached("reconstruct", "--truth=a.png", "--limit=2")
    assert (scanned.modality, scanned.limit, scanned.answers, scanned.white) == ("mri", 2, 4, None)


@pytest.mark.parametrize(
    "flags, network",
    [([], None), (["--features=inception"], ("inception", None)), (["--feature_weights=w"], ("", Path("w")))],
)
def test_statistics_are_prepared_where_features_or_weights_are_named(monkeypatch, flags, network):
    made = []
    monkeypatch.setattr("experiments.metrics.feature_networks.load", lambda *named: made.append(named) or named)
    description = SimpleNamespace(image_shape=(8, 9, 3), splits={"train": [SimpleNamespace(count=1200)] * 2})
    asked = {}
    monkeypatch.setattr(
        "experiments.data.prepare.prepare", lambda *paths, **named: asked.update(named, paths=paths) or description
    )
    assert main(["prepare", *NEEDED["prepare"], *flags]) == 0
    statistics = asked["statistics"]
    assert (statistics and statistics.network) == network and asked["paths"] == ("digits", Path("records"))
    assert (asked["shard_mb"], asked["resize"], asked["background"], asked["white"], asked["stream"]) == (
        256, "none", "white", 0.0, False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "interrupted, code", [(None, 0), (signal.SIGINT, 130), (signal.SIGTERM, 75)], ids=["complete", "SIGINT", "SIGTERM"]
)
def test_the_code_of_an_interrupted_training(monkeypatch, tmp_path, interrupted, code):
    told = {}
    monkeypatch.setattr("experiments.training.train.train", lambda *a, **named: told.update(named) or interrupted)
    digits = Path(__file__).parents[2] / "configs" / "digits.py"
    flags = ["--interrupted_code=75", "--deadline=9", "--resume_with_changes"]
    assert main(["train", f"--config={digits}", f"--workdir={tmp_path}", *flags]) == code
    assert told == {"resume_with_changes": True, "deadline": 9.0, "interrupted_code": 75}


def test_each_suite_of_the_benchmark_checks_what_it_reads(monkeypatch, capsys):
    """The subjects of the config that each of them is checked for, before anything is measured."""
    checked = {}
    monkeypatch.setattr(
        "experiments.factory.check.check", lambda config, *uses, overrides: checked.update({suite: set(uses)})
    )
    monkeypatch.setattr("experiments.benchmarks.training.use_virtual_devices", lambda: None)
    digits = Path(__file__).parents[2] / "configs" / "digits.py"
    for suite in ("speed", "data", "training", "guidance"):
        monkeypatch.setattr(
            f"experiments.benchmarks.{suite}.benchmark", lambda *given, suite=suite: f"{suite} {given[1:]}"
        )
        assert main(["benchmark", f"--suite={suite}", f"--config={digits}", "--config.optim.lr=1"]) == 0
        given = "(['--config=" + str(digits) + "', '--config.optim.lr=1'],)" if suite == "training" else "()"
        assert capsys.readouterr().out == f"{suite} {given}\n"
    from experiments.factory.check import EVERYTHING

    assert checked == {
        "speed": {"model", "data", "training", "sampling"},
        "data": {"model", "data", "training"},
        "training": set(EVERYTHING),
        "guidance": {"model", "flow"},
    }


def test_a_suite_of_accuracy_prints_its_conclusions_and_writes_its_rows(monkeypatch, tmp_path, capsys):
    from experiments.benchmarks import inverse, methods

    for suite, conclusions in ((methods, ["best"]), (inverse, ["summary", "claims"])):
        name = suite.__name__.rpartition(".")[2]
        monkeypatch.setattr(suite, "benchmark", lambda: iter(["a", "b"]))
        monkeypatch.setattr(suite, "markdown", lambda rows: f"table of {rows}")
        for conclusion in conclusions:
            monkeypatch.setattr(suite, conclusion, lambda rows, conclusion=conclusion: f"{conclusion} of {rows}")
        out = tmp_path / "new" / f"{name}.md"
        assert main(["benchmark", f"--suite={name}", f"--out={out}"]) == 0
        told = [f"{conclusion} of ['a', 'b']" for conclusion in conclusions]
        assert capsys.readouterr().out.splitlines() == [*told, f"All 2 rows: {out}"]
        assert out.read_text() == "table of ['a', 'b']"


def test_the_console_script_is_the_command_line(monkeypatch, capsys):
    """`ornstein` as setup.cfg declares it: the arguments of the process, and the code of the command."""
    (script,) = (point for point in metadata.entry_points(group="console_scripts") if point.name == "ornstein")
    assert script.value == "experiments.__main__:run"
    monkeypatch.setattr("sys.argv", ["ornstein", "smaple", "--workdir=run"])
    with pytest.raises(SystemExit) as ended:
        script.load()()
    assert ended.value.code == 2 and "did you mean 'sample'?" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["ornstein", "--version"])
    with pytest.raises(SystemExit) as ended:
        script.load()()
    assert ended.value.code == 0 and capsys.readouterr().out == f"ornstein {metadata.version('ornstein')}\n"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    "typed, completed",
    [(["sam"], ["sample"]), (["sample", "--guid"], ["--guidance", "--guidance_interval", "--guide"]), (["smaple"], [])],
)
def test_bash_completes_commands_and_flags(capsys, tmp_path, typed, completed):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--print-completion", "bash"])
    assert ended.value.code == 0
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    script = f"source {tmp_path}/completion; COMP_WORDS=(ornstein {' '.join(typed)}); COMP_CWORD={len(typed)}"
    function = "$(complete -p ornstein | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
    command = f'{script}; {function}; echo "${{COMPREPLY[@]}}"'
    assert subprocess.run(["bash", "-c", command], capture_output=True, text=True).stdout.split() == completed


def test_a_reader_that_has_gone_ends_a_command_without_a_traceback():
    """As `list | head` does: the exit code of a process that SIGPIPE ends, and nothing on standard error."""
    command = [sys.executable, "-m", "experiments", "list"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 128 + signal.SIGPIPE


@pytest.mark.parametrize("key", arguments.NAMED)
def test_help_names_the_components_that_can_be_given(key, capsys):
    """Read from the text of the modules, they are those that the imported modules name."""
    tables = {
        "model.name": models.KNOWN,
        "data.source": sources.KINDS,
        "evaluation.metrics": metric_records.known(),
    }
    table = tables[key] if key in tables else named.table(key)
    assert sorted(arguments.component_names(key)) == sorted(table)
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert re.search(rf"^  --config\.{re.escape(key)}: ", capsys.readouterr().out, re.M)
