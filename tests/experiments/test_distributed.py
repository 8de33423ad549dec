"""Topologies: one device, eight, and two real processes of four; all of them train alike and go on from each other."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from experiments.__main__ import main
from experiments.devices import distributed
from experiments.devices.parallel import Fsdp, Pmap
from experiments.evaluation.evaluate import Judge
from tests.experiments.tiny import ROOT, flags, history
from tests.experiments.two_processes import Toy

pytestmark = [pytest.mark.e2e, pytest.mark.devices]

# Sums in another order: each of six steps rounds anew, in float32.
TOLERANCE = 2e-6

ONE_PROCESS = {
    "one_process_alone": lambda: Pmap(jax.devices()[:1]),
    "one_process_pmap": Pmap,
    "one_process_fsdp": Fsdp,
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def both(*arguments: str, devices: int = 4) -> list[subprocess.Popen]:
    """Two children of one command line, which has PORT and INDEX where theirs go."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    port = str(free_port())
    return [
        subprocess.Popen(
            [sys.executable, "-m", *(str(a).replace("PORT", port).replace("INDEX", str(index)) for a in arguments)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for index in range(2)
    ]  # fmt: skip


def ended(processes, timeout=400) -> list[tuple[int, str, str]]:
    """(exit code, output, errors) of each; none is left behind."""
    try:
        texts = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]


@pytest.fixture(scope="module")
def topologies(tmp_path_factory):
    """(losses of steps 1 to 3 by topology, losses of 4 to 6 by pair of topologies, what each process saw)."""
    folder = tmp_path_factory.mktemp("topologies")
    toys = {name: Toy(strategy()) for name, strategy in ONE_PROCESS.items()}
    losses = {name: toy.first_half(folder / name) for name, toy in toys.items()}
    for code, _, error in ended(both("tests.experiments.two_processes", "PORT", "INDEX", folder)):
        assert code == 0, error
    seen = [json.loads((folder / f"seen_by_{index}.json").read_text()) for index in range(2)]
    resumed = {
        f"{name} after {saved.name}": toy.second_half(saved)
        for name, toy in toys.items()
        for saved in sorted(folder.glob("*_process*"))
    }
    return losses | seen[0]["losses"], resumed | seen[0]["resumed"], seen


def test_every_topology_has_the_same_losses(topologies):
    losses, _, seen = topologies
    assert len(losses) == 5
    for name, values in losses.items():
        np.testing.assert_allclose(values, losses["one_process_alone"], rtol=TOLERANCE, err_msg=name)
    assert seen[0]["losses"] == seen[1]["losses"]


def test_a_checkpoint_of_any_topology_resumes_on_any_other(topologies):
    """Weights, optimizer, average and position in the data: steps 4 to 6 are those of one device that never stopped."""
    _, resumed, _ = topologies
    assert len(resumed) == 3 * 5 + 4 + 5
    expected = Toy(Pmap(jax.devices()[:1])).undisturbed()[3:]
    for pair, values in resumed.items():
        np.testing.assert_allclose(values, expected, rtol=TOLERANCE, err_msg=pair)


def test_processes_agree_and_gather(topologies):
    """What one of them says all know; results come from all devices in the order of examples."""
    _, _, seen = topologies
    for index in range(2):
        assert seen[index]["agreement"]["any"] == [True, True, False]
        assert seen[index]["agreement"]["together"] == index
        assert seen[index]["agreement"]["told"] == {"who": 0, "figures": [0.1, None]}
        for name in ("pmap", "fsdp"):
            expected = {"joined": [place + 108 for place in range(16)], "total": sum(range(16))}
            expected["features"] = [2.0 * number for number in range(35)]
            assert seen[index]["gathered"][name] == expected
    assert seen[0]["agreement"]["refused"] == "UserError: the folder is taken"
    assert seen[1]["agreement"]["refused"] == "RunError: another process stopped with an error, which it has printed"


JOIN = ("--coordinator_address=127.0.0.1:PORT", "--num_processes=2", "--process_id=INDEX")


def test_a_signal_to_one_process_stops_both_and_another_topology_finishes(tiny_run, tmp_path, capsys):
    """fsdp on two processes until the second gets SIGTERM; then pmap on eight devices, with the losses of `tiny_run`."""
    workdir = tmp_path / "run"
    arguments = ["train", f"--config={ROOT}/configs/digits.py", f"--workdir={workdir}"]
    changes = flags(parallel__strategy="fsdp")
    processes = both("experiments", *arguments, *changes, "--interrupted_code=75", *JOIN, devices=2)
    deadline = time.monotonic() + 400
    while not (workdir / "checkpoints" / "8").exists():
        assert all(process.poll() is None for process in processes), ended(processes)
        assert time.monotonic() < deadline
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    (code, first, error), (other_code, second, _) = ended(processes)
    assert code == other_code == 75, error
    saved = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert saved < 40 and f"Interrupted by SIGTERM at step {saved}: saved" in first
    assert "Interrupted" not in second and "step/s" not in second
    assert main([*arguments, *flags(), "--resume_with_changes"]) == 0
    assert "Training is complete (step 40)" in capsys.readouterr().out
    for mine, theirs in zip(history(workdir), history(tiny_run), strict=True):
        assert mine.keys() == theirs.keys()
        np.testing.assert_allclose([*mine.values()], [*theirs.values()], rtol=1e-4)


def test_two_processes_sample_as_one_does(tiny_run, tmp_path):
    """The first writes and speaks; samples are the same ones, to the rounding of a rare pixel."""
    out = tmp_path / "out"
    sample = ("sample", f"--workdir={tiny_run}", "--num_samples=21", f"--out={out}/INDEX.npz")
    (code, first, error), (other_code, second, other_error) = ended(both("experiments", *sample, *JOIN, devices=2))
    assert code == other_code == 0, error + other_error
    assert "21 samples by heun" in first and "samples by" not in second
    assert sorted(path.name for path in out.iterdir()) == ["0.npz", "grid.png"]
    assert main(["sample", f"--workdir={tiny_run}", "--num_samples=21", f"--out={out}/alone.npz"]) == 0
    two, one = (np.load(out / name, allow_pickle=False)["samples"] for name in ("0.npz", "alone.npz"))
    difference = np.abs(two.astype(int) - one.astype(int))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_two_processes_restore_and_edit_as_one_does(tiny_run, tmp_path):
    """Five digits with three answers each, on four devices of which the last call fills some with repeats."""
    np.savez(tmp_path / "truth.npz", images=np.rint(load_digits().images[:5] * 255 / 16).astype(np.uint8)[..., None])
    commands = {
        "restore": ("--task=inpaint", f"--truth={tmp_path}/truth.npz", "--method=ddnm", "--config.sampling.steps=4"),
        "edit": (f"--input={tmp_path}/truth.npz", "--strength=0.4"),
    }
    for command, flags_of in commands.items():
        arguments = (command, f"--workdir={tiny_run}", *flags_of, "--answers=3", "--config.sampling.batch_size=2")
        out = tmp_path / command
        processes = both("experiments", *arguments, f"--out={out}/INDEX", *JOIN, devices=2)
        (code, first, error), (other_code, second, other_error) = ended(processes)
        assert code == other_code == 0, error + other_error
        assert "evaluations each" in first and "evaluations each" not in second
        assert [path.name for path in out.iterdir()] == ["0"]
        assert main([*arguments, f"--out={out}/alone"]) == 0
        two, one = (np.load(out / name / "answers.npz", allow_pickle=False) for name in ("0", "alone"))
        assert two.files == one.files and two["answers"].shape == (5, 3, 8, 8, 1)
        for name in set(two.files) - {"names"}:
            np.testing.assert_allclose(two[name], one[name], atol=2e-4, err_msg=name)


def said(out):
    """The lines of ours; the library of the CPU's collectives prints some of its own."""
    return [line for line in out.splitlines() if not line.startswith("[Gloo]")]


def test_two_processes_evaluate_as_one_does(tiny_run, tmp_path, monkeypatch):
    """They go on with the samples that one process has drawn before."""
    run = shutil.copytree(tiny_run, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Judge, "clean_up", lambda *arguments: None)
        assert main(["evaluate", f"--workdir={run}", "--config.evaluation.num_samples=32"]) == 0
    (run / "metrics.json").unlink()
    processes = both("experiments", "evaluate", f"--workdir={run}", *JOIN, devices=2)
    (code, first, error), (other_code, second, other_error) = ended(processes)
    assert code == other_code == 0, error + other_error
    assert "32 of 64 samples were drawn before: going on with the other 32" in first
    assert said(second) == [] and "sampling" not in other_error
    mine, alone = (json.loads((folder / "metrics.json").read_text()) for folder in (run, tiny_run))
    assert mine.keys() == alone.keys() and mine["step"] == alone["step"]
    assert mine["samples"] == pytest.approx(alone["samples"], rel=0.02)
    assert mine["memorisation"]["samples"] == pytest.approx(alone["memorisation"]["samples"], rel=0.02)
    assert mine["held_out_loss"] == [pytest.approx(row, rel=1e-3) for row in alone["held_out_loss"]]
    left = {path.name.split("_perceptron")[0] for path in (run / "evaluation").iterdir()}
    assert left == {"held_out", "training"}  # of samples nothing


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--distributed"], "--distributed: no cluster found (SLURM's srun, Kubernetes"),
        (["--num_processes=2"], "--coordinator_address and --process_id missing: pass all of --coordinator_address, "),
        (
            ["--coordinator_address=host", "--num_processes=2", "--process_id=0"],
            "--coordinator_address=host: must be HOST:PORT",
        ),
        (
            ["--coordinator_address=h:1", "--num_processes=2", "--process_id=2"],
            "--process_id=2: with --num_processes=2 they are 0 to 1",
        ),
    ],
)
def test_processes_that_cannot_be_joined_are_told_in_one_line(fails, monkeypatch, arguments, expected):
    monkeypatch.setattr(jax._src.xla_bridge, "backends_are_initialized", lambda: False)
    assert expected in fails("evaluate", "--workdir=nowhere", *arguments)


def test_a_coordinator_that_does_not_answer_is_told_in_one_line(fails, monkeypatch):
    monkeypatch.setattr(distributed, "WAIT", 0.1)
    address = f"127.0.0.1:{free_port()}"
    arguments = (f"--coordinator_address={address}", "--num_processes=2", "--process_id=1")
    line = fails("evaluate", "--workdir=nowhere", *arguments)
    assert line.startswith(f"--coordinator_address={address}: process 0 does not answer there after 0.1 s")


def test_a_batch_that_the_devices_do_not_divide_is_told_in_one_line(fails, tmp_path):
    arguments = ["train", f"--config={ROOT}/configs/digits.py", f"--workdir={tmp_path}/run"]
    line = fails(*arguments, "--config.data.batch_size=12", "--config.parallel.strategy=fsdp")
    assert line == "data.batch_size=12 cannot be shared by 8 devices: choose a multiple of 8"
    assert not (tmp_path / "run").exists()
