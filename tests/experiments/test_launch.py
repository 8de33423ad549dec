"""The launch scripts: our command line and JAX read what they pass, and what was interrupted is started again."""

import argparse
import inspect
import os
import re
import subprocess

import pytest
from jax._src.clusters import cloud_tpu_cluster, k8s_cluster, slurm_cluster

from experiments.__main__ import _parse
from experiments.cli.arguments import join_processes
from experiments.devices import distributed
from tests.experiments.tiny import ROOT

LAUNCH = ROOT / "experiments" / "launch"


def stub(folder, name, code=0):
    """A command that writes its arguments, one a line, and ends with a code."""
    path = folder / name
    path.write_text(f'#!/bin/sh\nfor a in "$@"; do echo "$a" >> {folder}/{name}.log; done\nexit {code}\n')
    path.chmod(0o755)


def submitted(folder, code):
    """The exit code of slurm.sh where srun's processes end with a code, srun's arguments and scontrol's."""
    stub(folder, "srun", code)
    stub(folder, "scontrol")
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    script = ["bash", LAUNCH / "slurm.sh", "--config=configs/cifar10.py:ve,ncsnpp", "--workdir=runs/ve"]
    done = subprocess.run(script, env=environment, timeout=60)
    logs = [folder / f"{name}.log" for name in ("srun", "scontrol")]
    return done.returncode, *(log.read_text().splitlines() if log.exists() else [] for log in logs)


def test_slurm_queues_again_what_was_interrupted_and_nothing_else(tmp_path):
    for code, (expected, requeued) in {75: (0, ["requeue", "17"]), 0: (0, []), 2: (2, []), 1: (1, [])}.items():
        folder = tmp_path / str(code)
        folder.mkdir()
        returned, _, scontrol = submitted(folder, code)
        assert (returned, scontrol) == (expected, requeued)


def test_slurm_runs_our_command_line_with_what_was_submitted(tmp_path):
    _, srun, _ = submitted(tmp_path, 0)
    options = _parse(srun[srun.index("experiments") + 1 :])
    assert options.command == "train" and options.distributed and options.interrupted_code == 75
    assert options.config == "configs/cifar10.py:ve,ncsnpp" and str(options.workdir) == "runs/ve"


def test_slurm_asks_for_a_process_per_gpu_and_a_signal_in_time():
    """JAX takes the GPU of the process's number on its node; srun's processes get the signal, not the script (no B:)."""
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", (LAUNCH / "slurm.sh").read_text(), re.MULTILINE))
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]
    assert re.fullmatch(r"TERM@\d+", asked["signal"])
    assert "requeue" in asked and asked["open-mode"] == "append"


def test_jax_finds_the_processes_of_srun(monkeypatch):
    """What srun sets on the second of two nodes with eight processes each."""
    variables = {"SLURM_JOB_ID": "17", "SLURM_STEP_NODELIST": "gpu[07,09]", "SLURM_NTASKS": "16", "SLURM_PROCID": "11"}
    for name, value in (variables | {"SLURM_LOCALID": "3"}).items():
        monkeypatch.setenv(name, value)
    cluster = slurm_cluster.SlurmCluster
    assert cluster.is_env_present()
    assert (cluster.get_process_count(), cluster.get_process_id(), cluster.get_local_process_id()) == (16, 11, 3)
    assert cluster.get_coordinator_address(timeout_secs=1, override_coordinator_port=None).startswith("gpu07:")


def test_variables_that_the_scripts_name_are_read_by_jax():
    sources = "".join(map(inspect.getsource, (slurm_cluster, k8s_cluster, cloud_tpu_cluster)))
    text = "".join(path.read_text() for path in LAUNCH.iterdir() if path.is_file())
    named = set(re.findall(r"\b(?:SLURM|TPU|JOB)_[A-Z_]+\b", text))
    assert {"SLURM_JOB_ID", "SLURM_LOCALID", "JOB_COMPLETION_INDEX", "TPU_WORKER_ID", "TPU_WORKER_HOSTNAMES"} <= named
    for name in named:
        assert f"'{name}'" in sources, name


@pytest.fixture
def kubernetes():
    """(service, job, the job's pod) of kubernetes.yaml."""
    yaml = pytest.importorskip("yaml")
    service, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    return service, job["spec"], job["spec"]["template"]["spec"], job["metadata"]["name"]


def test_kubernetes_gives_each_pod_its_index_and_the_coordinators_name(kubernetes):
    """Pod i of an indexed Job is JOB-i.SUBDOMAIN, where the headless service of that name selects it."""
    service, job, pod, name = kubernetes
    (container,) = pod["containers"]
    assert container["command"][:3] == ["python", "-m", "experiments"]
    arguments = [argument.replace("$(JOB_COMPLETION_INDEX)", "1") for argument in container["command"][3:]]
    assert arguments != container["command"][3:]
    options = _parse(arguments)
    (port,) = (p["containerPort"] for p in container["ports"])
    assert options.coordinator_address == f"{name}-0.{service['metadata']['name']}:{port}"
    assert (options.num_processes, options.process_id) == (job["completions"], 1)
    assert job["completionMode"] == "Indexed" and job["completions"] == job["parallelism"]
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["selector"] == {"job-name": name}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert any(str(options.workdir).startswith(mount["mountPath"] + "/") for mount in container["volumeMounts"])


def test_kubernetes_starts_again_what_was_interrupted_and_not_what_is_wrong(kubernetes):
    """Rules are tried in order; those of exit codes need pods that are not restarted in place."""
    _, job, pod, _ = kubernetes
    (container,) = pod["containers"]
    code = _parse([a for a in container["command"][3:] if "process_id" not in a]).interrupted_code
    by_code = {
        value: rule["action"]
        for rule in job["podFailurePolicy"]["rules"]
        if rule.get("onExitCodes", {}).get("containerName") == container["name"]
        for value in rule["onExitCodes"]["values"]
    }
    assert by_code == {2: "FailJob", code: "Ignore"}
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 60
    names = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == names


PLACE = dict.fromkeys(("coordinator_address", "num_processes", "process_id"))


@pytest.mark.parametrize(
    "options, passed",
    [
        ({}, None),  # of a command without these flags
        (PLACE | {"distributed": False}, None),
        (PLACE | {"distributed": True}, (None, None, None)),
        (PLACE | {"coordinator_address": "h:1"}, ("h:1", None, None)),
        (PLACE | {"num_processes": 2}, (None, 2, None)),
        (PLACE | {"process_id": 0}, (None, None, 0)),
        (PLACE | {"num_processes": 2, "process_id": 1}, (None, 2, 1)),
        ({"coordinator_address": "h:1", "num_processes": 2, "process_id": 0, "sweep": None}, ("h:1", 2, 0)),
        (PLACE | {"distributed": True, "sweep": "lr=1,2"}, None),
        ({"coordinator_address": "h:1", "num_processes": 2, "process_id": 0, "sweep": "lr=1,2"}, None),
    ],
    ids=str,
)
def test_one_flag_of_where_the_processes_are_is_enough_to_join_them(monkeypatch, options, passed):
    """An incomplete set of flags reaches `start`, which names the missing ones. The runs of a sweep join one by one."""
    joined = []
    monkeypatch.setattr(distributed, "start", lambda *place: joined.append(place))
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    assert join_processes(argparse.Namespace(**options)) == (passed is None)
    assert joined == ([] if passed is None else [passed])
