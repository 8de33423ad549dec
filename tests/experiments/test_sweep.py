"""Sweeps: which runs a text stands for, and that they are made in order whatever becomes of one; the children are real."""

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import time

import pytest

from configs.parts.sde import PROCESSES
from experiments.__main__ import main
from experiments.config import files as config
from experiments.errors import UserError
from experiments.runs.workdir import Workdir
from experiments.training import sweep
from tests.experiments.tiny import ROOT

DIGITS = f"{ROOT}/configs/digits.py"
NO_ARGUMENT = """
from configs import base
def get_config():
    return base.get_config()
"""


def test_every_combination_in_the_order_of_the_text():
    found = sweep.children(DIGITS, [], "optim.lr=1e-4,2e-4;training.seed=0,1,2")
    expected = [(lr, seed) for lr in ("1e-4", "2e-4") for seed in ("0", "1", "2")]
    assert [c.overrides for c in found] == [(("optim.lr", a), ("training.seed", b)) for a, b in expected]
    assert [c.name for c in found] == [f"lr={a},seed={b}" for a, b in expected]


def test_commas_in_brackets_are_the_values_own():
    found = sweep.children(DIGITS, [], "model.channel_multipliers=(1,2),(1,2,2); model.channels=8")
    assert [c.overrides[0][1] for c in found] == ["(1,2)", "(1,2,2)"]
    assert [c.name for c in found] == ["channel_multipliers=1-2,channels=8", "channel_multipliers=1-2-2,channels=8"]


def test_keys_of_one_name_keep_their_sections():
    (child,) = sweep.children(DIGITS, [], "training.ema_decay=0.5;sampling.t_min=0.1;evaluation.t_min=0.2")
    assert child.name == "ema_decay=0.5,sampling.t_min=0.1,evaluation.t_min=0.2"


@pytest.mark.parametrize("process", PROCESSES)
def test_sde_is_the_configs_own_argument(process):
    """So what goes with a process comes along: edm's t_max, critically_damped's method."""
    (child,) = sweep.children(f"{DIGITS}:subvp", [], f"sde={process}")
    swept = config.load(child.spec, child.overrides)
    assert config.differences(swept, config.load(f"{DIGITS}:{process}")) == []


@pytest.mark.parametrize(
    "spec, process, expected",
    [
        ("cifar10.py:ve,ncsnpp,deep", "vp", "vp,ncsnpp,deep"),
        ("cifar10.py:ncsnpp,ve", "vp", "ncsnpp,vp"),
        ("mnist.py", "ve", "ve"),
    ],
)
def test_the_process_takes_the_place_of_the_one_in_the_argument(spec, process, expected):
    (child,) = sweep.children(f"{ROOT}/configs/{spec}", [], f"sde={process}")
    assert child.spec.partition(":")[2] == expected


def test_short_names_are_the_sections_names(tmp_path):
    (tmp_path / "plain.py").write_text(NO_ARGUMENT)
    found = sweep.children(f"{tmp_path}/plain.py", [], "sde=ve;model=mlp,unet")
    assert [c.overrides for c in found] == [(("sde.name", "ve"), ("model.name", m)) for m in ("mlp", "unet")]
    assert [c.name for c in found] == ["sde=ve,model=mlp", "sde=ve,model=unet"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("optim.lrr=1", "--sweep: --config.optim.lrr=1: unknown key; did you mean 'optim.lr'?"),
        ("lr=1e-4", "--sweep: --config.lr=1e-4: unknown key; did you mean 'optim.lr'?"),
        ("optim.lr=1e-4,fast", "--sweep: --config.optim.lr=fast: expected a number, such as 0.002"),
        ("sde=vpp", "--sweep: sde='vpp' is unknown: choose from"),
        ("sde=vpp", "did you mean 'vp'?"),
        ("optim.lr", "--sweep=optim.lr: expected KEY=VALUE,VALUE, as in"),
        ("optim.lr=1,", "--sweep=optim.lr=1,: expected KEY=VALUE,VALUE"),
        ("optim.lr=1;optim.lr=2", "--sweep=optim.lr=2: the key is there twice"),
        ("optim.lr=1,2,1", "--sweep=optim.lr=1,2,1: a value is there twice"),
        (";", "--sweep is empty"),
        ("optim.lr=1e-3,-1", "--sweep, lr=-1: optim.lr=-1.0: must be more than 0"),
        ("sampling.sampler=ddim,huen", "--sweep, sampler=huen: sampling.sampler='huen' is unknown"),
    ],
)
def test_what_cannot_be_is_named_before_anything_starts(fails, tmp_path, text, message, monkeypatch):
    monkeypatch.setattr("experiments.factory.check_network", lambda config: None)
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("started"))
    assert message in fails("train", f"--config={DIGITS}", f"--workdir={tmp_path}/sweep", f"--sweep={text}")
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_needs_its_config_and_its_values(fails, tmp_path):
    assert "--sweep needs --config" in fails("train", f"--workdir={tmp_path}", "--sweep=optim.lr=1")
    assert "--sweep_print needs --sweep" in fails(
        "train", f"--config={DIGITS}", f"--workdir={tmp_path}", "--sweep_print"
    )


def test_the_runs_of_a_sweep_are_distributed_and_the_sweep_itself_is_not(tmp_path, capsys):
    flags = ["--coordinator_address=127.0.0.1:1", "--num_processes=2", "--process_id=1"]  # nobody answers there
    sweep = ["--sweep=optim.lr=1e-4", "--sweep_print"]
    assert main(["train", f"--config={DIGITS}", f"--workdir={tmp_path}", *sweep, *flags]) == 0
    assert set(flags) < set(shlex.split(capsys.readouterr().out))


def test_commands_are_printed_for_a_shell(tmp_path, capsys):
    """One a line; what the shell makes of a line are the arguments, with those of the whole sweep."""
    workdir = tmp_path / "my sweep"
    arguments = ["--config.training.num_steps", "20", "--resume_with_changes", "--sweep=sde=vp,ve;optim.lr=3e-4"]
    assert main(["train", f"--config={DIGITS}", "--workdir", str(workdir), *arguments, "--sweep_print"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [shlex.split(line) for line in lines] == [
        ["python", "-m", "experiments", "train", f"--config={DIGITS}:{p}", f"--workdir={workdir}/sde={p},lr=3e-4",
         "--config.training.num_steps", "20", "--resume_with_changes", "--config.optim.lr=3e-4"]
        for p in ("vp", "ve")
    ]  # fmt: skip
    assert not workdir.exists()


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """Stands for Python in the children: notes the folder; lr=3 fails, lr=9 waits for SIGTERM, others end well."""
    log, program = tmp_path / "log", tmp_path / "python"
    program.write_text(
        f"""#!{sys.executable} -S
import signal, sys, time
folder = next(a for a in sys.argv if a.startswith("--workdir=")).split("/")[-1]
open({str(log)!r}, "a").write(folder + "\\n")
if "lr=3" in folder:
    sys.exit("progress\\rerror: the loss is not finite")
if "lr=9" in folder:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("saved", flush=True)))
    print("waiting", flush=True)
    time.sleep(60)
"""
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(program))
    return lambda: log.read_text().splitlines() if log.exists() else []


def completed(folder, spec, *overrides):
    """A folder as a complete run leaves it."""
    workdir = Workdir(folder)
    workdir.samples.mkdir(parents=True)
    loaded = config.load(spec, overrides)
    workdir.config.write_text(config.to_json(loaded))
    workdir.metrics.write_text(json.dumps({"step": loaded.training.num_steps}))
    workdir.report.touch()


def test_complete_runs_are_passed_over_and_a_failing_one_holds_up_no_other(launched, tmp_path, capfd):
    """lr=1 is complete; lr=2 is complete of another config, as its own command will say; lr=3 fails; lr=4 goes well."""
    workdir = tmp_path / "sweep"
    completed(workdir / "lr=1", DIGITS, ("optim.lr", "1"))
    completed(workdir / "lr=2", DIGITS, ("optim.lr", "7"))
    runs = sweep.children(DIGITS, [], "optim.lr=1,2,3,4")
    assert sweep.Sweep(runs, workdir, [], []).run() == 1
    assert launched() == ["lr=2", "lr=3", "lr=4"]
    out, error = capfd.readouterr()
    assert "[1 of 4] lr=1: complete already" in out and "3 of 4 runs are complete." in out
    assert "failed: lr=3: the loss is not finite" in error
    assert "optim.lr" in (workdir / "compare.html").read_text()


def test_a_run_that_is_not_evaluated_yet_is_not_complete(tmp_path):
    (child,) = sweep.children(DIGITS, [], "optim.lr=1")
    completed(tmp_path / "lr=1", DIGITS, ("optim.lr", "1"))
    assert sweep.is_complete(child, tmp_path, [])
    Workdir(tmp_path / "lr=1").metrics.write_text('{"step": 12}')
    assert not sweep.is_complete(child, tmp_path, [])


def test_sigterm_is_handed_to_the_run_under_way_and_ends_the_sweep(launched, tmp_path, capfd):
    import threading

    def terminate():
        deadline = time.monotonic() + 30
        while launched() != ["lr=9"] and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=terminate)
    thread.start()
    code = sweep.Sweep(sweep.children(DIGITS, [], "optim.lr=9,10"), tmp_path / "sweep", [], []).run()
    thread.join()
    assert launched() == ["lr=9"] and code == 0  # the run's own code
    out, _ = capfd.readouterr()
    assert "waiting\nsaved\nInterrupted by SIGTERM in lr=9. Run the same command to go on." in out
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# ---- without processes ----


def test_a_key_may_begin_with_config_and_stand_between_spaces():
    assert sweep.parse(" config.optim.lr = 1 , 2 ;; sde=ve") == {"optim.lr": ["1", "2"], "sde": ["ve"]}


def test_a_process_is_chosen_once():
    with pytest.raises(UserError, match=r"sde and --config\.sde\.name both set the process"):
        sweep.children(DIGITS, [("sde.name", "ve")], "sde=vp,ve")
    assert len(sweep.children(DIGITS, [("sde.sigma_max", "9")], "sde=vp,ve")) == 2


@pytest.mark.parametrize(
    "text, name",
    [
        ("optim.lr=1e+2", "lr=1e+2"),
        ("optim.lr=1e-2", "lr=1e-2"),
        ("training.ema=power:0.05", "ema=power-0.05"),
        ("data.source=folder:/a b/c_d", "source=folder-a-b-c_d"),
        ("model.attention_resolutions=(4, 8)", "attention_resolutions=4-8"),
        ("model.attention_resolutions=[4]", "attention_resolutions=4"),
    ],
)
def test_a_folder_has_the_value_without_what_a_path_cannot_hold(text, name):
    assert [child.name for child in sweep.children(DIGITS, [], text)] == [name]


def test_two_runs_of_one_folder_are_refused():
    with pytest.raises(UserError, match="two runs would have the folder attention_resolutions=4: their values"):
        sweep.children(DIGITS, [], "model.attention_resolutions=(4),[4]")


def test_the_runs_own_values_come_after_those_of_all(tmp_path):
    """As on its command line, in which the later of two counts."""
    shared = [("optim.lr", "7"), ("training.num_steps", "3")]
    (child,) = sweep.children(DIGITS, shared, "optim.lr=1")
    completed(tmp_path / "lr=1", DIGITS, ("optim.lr", "1"), ("training.num_steps", "3"))
    assert sweep.is_complete(child, tmp_path, shared)
    assert not sweep.is_complete(child, tmp_path, [])
    assert not sweep.is_complete(child, tmp_path / "nowhere", shared)
    passed = ["--config.optim.lr=7"]
    assert sweep.arguments(child, tmp_path, passed)[-2:] == [*passed, "--config.optim.lr=1"]


@pytest.fixture
def codes(monkeypatch, tmp_path):
    """(code and last error of each run, the run that a signal reaches) -> the code of their sweep."""

    def sweep_of(ends, interrupted=None):
        runs = [sweep.Child(name, DIGITS, ()) for name in ends]
        made = sweep.Sweep(runs, tmp_path, [], [])

        def run_one(child):
            if child.name == interrupted:
                made._hand_on(sent, None)
            return ends[child.name]

        sent = signal.SIGINT if interrupted == "a" else signal.SIGTERM
        monkeypatch.setattr(made, "_run_one", run_one)
        monkeypatch.setattr(made, "_compare", lambda: None)
        return made.run()

    return sweep_of


def test_a_run_that_fails_without_a_word_has_its_code(codes, capsys):
    assert codes({"a": (0, ""), "b": (3, ""), "c": (4, "said")}) == 1
    out, error = capsys.readouterr()
    assert error == "failed: b: exit code 3\nfailed: c: said\n" and "1 of 3 runs are complete." in out
    assert "[2 of 3] b\n" in out
    assert codes({"a": (0, "error of before")}) == 0


@pytest.mark.parametrize("interrupted, code", [("a", 130), ("b", 7)])
def test_ctrl_c_is_130_and_sigterm_the_code_of_the_run(codes, capsys, interrupted, code):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert codes({"a": (0, "")} | {"b": (7, ""), "c": (0, "")}, interrupted) == code
    out, _ = capsys.readouterr()
    assert f"in {interrupted}. Run the same command to go on." in out and "[3 of 3]" not in out
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(
    "said, last",
    [
        (b"", ""),
        (b"10%\rerror: first\nerror: second\nbye\n", "second"),
        (b"an error: no\n", ""),
        (b"12%\rerror: after a bar", "after a bar"),
        (b"x" * 9000 + b"\nerror: " + b"y" * 3000, "y" * 3000),
        (b"error: \xff\n", "\ufffd"),
        (b"x" * 4090 + b"\nerror: " + b"y" * 100, "y" * 100),  # a line over two reads of the pipe
    ],
)
def test_the_last_error_of_a_run_is_kept_and_all_is_passed_on(capsys, said, last):
    read, write = os.pipe()
    echo, whole = sweep._Echo(read), said.decode(errors="replace")
    while said:
        said = said[os.write(write, said[:4096]) :]
    os.close(write)
    assert echo.last() == last
    os.close(read)
    assert capsys.readouterr().err == whole


def test_runs_that_have_begun_are_compared(monkeypatch, tmp_path, capsys):
    """One alone as well; a folder without a config is left out, and without any there is no page."""
    written = []
    monkeypatch.setattr(sweep.compare, "write", lambda *given: written.append(given))
    made = sweep.Sweep([sweep.Child(name, DIGITS, ()) for name in "abc"], tmp_path, [], [])
    for name in "ab":
        (tmp_path / name).mkdir()
    made._compare()
    assert written == [] and capsys.readouterr().out == ""
    for name, begun in (("b", [tmp_path / "b"]), ("a", [tmp_path / "a", tmp_path / "b"])):
        Workdir(tmp_path / name).config.write_text("{}")
        made._compare()
        assert written.pop() == (begun, tmp_path / "compare.html")
    assert capsys.readouterr().out.splitlines()[0] == f"Comparison of all runs: {tmp_path / 'compare.html'}"
