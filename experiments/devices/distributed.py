"""Multi-process runs with `jax.distributed`: start, agreement between processes, and output by the first process only.

Every process runs the same program on its own devices. A condition that only one process observes (a signal, a full
disk, a folder that contains another experiment) is communicated at points that all processes pass, so that no process
waits for one that has stopped. With one process, none of these functions communicates.
"""

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.errors import RunError, UserError

T = TypeVar("T")

WAIT = 600  # seconds until all processes must have joined: machines of a cluster may start minutes apart


def start(
    coordinator_address: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the processes of this run; must be called before JAX is used. Returns when all processes have joined.

    Without arguments, JAX reads their values from the environment of SLURM, Kubernetes, Open MPI or a TPU pod.

    Args:
        coordinator_address: HOST:PORT of process 0, the same in all processes.
        num_processes: the number of processes.
        process_id: the index of this process, from 0.

    Raises:
        UserError: only some arguments are passed, an argument is invalid, process 0 does not answer, or no cluster is
            found.

    Source: https://docs.jax.dev/en/latest/multi_process.html.
    """
    arguments = {"coordinator_address": coordinator_address, "num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name}" for name, value in arguments.items() if value is None]
    if missing and len(missing) < len(arguments):
        raise UserError(
            f"{' and '.join(missing)} missing: pass all of {', '.join(f'--{name}' for name in arguments)}, or none"
        )
    if not missing:
        if not re.fullmatch(r".+:\d+", coordinator_address):
            raise UserError(f"--coordinator_address={coordinator_address}: must be HOST:PORT, of process 0")
        if not 0 <= process_id < num_processes:
            raise UserError(
                f"--process_id={process_id}: with --num_processes={num_processes} they are 0 to {num_processes - 1}"
            )
        if process_id:
            _await(coordinator_address)
    # `experiments/runs/interruption.py` handles signals: JAX's preemption service would intercept SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)
    patience = threading.Timer(30, print, ["waiting for the other processes of this run"], {"file": sys.stderr})
    patience.daemon = True
    patience.start()
    try:
        # With explicit arguments, cluster detection is disabled: it could restrict the devices of this process.
        method = None if missing else "deactivate"
        jax.distributed.initialize(
            coordinator_address, num_processes, process_id, cluster_detection_method=method, initialization_timeout=WAIT
        )
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())
        if missing and "coordinator_address" in reason:
            raise UserError(
                "--distributed: no cluster found (SLURM's srun, Kubernetes with the package `kubernetes`, Open MPI, a TPU "
                f"pod): pass {', '.join(f'--{name}' for name in arguments)}"
            ) from error
        raise UserError(f"--distributed: the processes of this run cannot be joined: {reason[:300]}") from error
    finally:
        patience.cancel()


def _await(address: str) -> None:
    """Waits until process 0 answers: without an answer, JAX would abort this process with a C++ stack trace.

    Raises:
        UserError: process 0 has not answered for `WAIT` seconds.
    """
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + WAIT
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"--coordinator_address={address}: process 0 does not answer there after {WAIT} s ({error})"
                ) from error
            time.sleep(min(1, WAIT / 10))


def is_first() -> bool:
    """Returns True in the process that prints and writes files."""
    return jax.process_index() == 0


def any_process(flag: bool) -> bool:
    """Returns True if `flag` is True in any process. A collective: all processes must call it at the same point."""
    return flag if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def together(action: Callable[[], T]) -> T:
    """Runs the action in every process and returns its value in this process.

    All processes continue when all actions are complete; if one action raises, every process raises.

    Raises:
        UserError, RunError: as the action; a process whose action succeeded raises a RunError that another process has
            stopped.
    """
    value, error = None, None
    try:
        value = action()
    except (UserError, RunError) as caught:
        error = caught
    if any_process(error is not None):
        raise error or RunError("another process stopped with an error, which it has printed")
    return value


def first_process_does(action: Callable[[], object]) -> None:
    """Runs the action in the first process only; all processes continue when it is complete, or raise if it raises.

    Raises:
        UserError, RunError: in the first process as the action; in the other processes a RunError.
    """
    together(lambda: action() if is_first() else None)


def first_tells(action: Callable[[], T]) -> T:
    """Runs the action in the first process only and broadcasts its value to all processes.

    Args:
        action: returns a value that JSON can represent; with one process, any value.

    Raises:
        UserError, RunError: in the first process as the action; in the other processes a RunError.
    """
    if jax.process_count() == 1:
        return action()
    text = together(lambda: json.dumps(action()).encode() if is_first() else b"")
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.frombuffer(text.ljust(length), np.uint8)
    return json.loads(multihost_utils.broadcast_one_to_all(padded).astype(np.uint8).tobytes())
