"""Several processes as one run: started by `jax.distributed`, they agree, and the first one speaks and writes for all.

Every process runs the same program on its own devices. What is decided by one of them alone (a signal, a full disk, a
folder that holds another experiment) is told to the others at points that all of them pass, so that none waits for
a process that has stopped. Alone, every function here is free.
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

WAIT = 600  # seconds for all processes to come: machines of a cluster may start minutes apart


def start(
    coordinator_address: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the processes of this run; must come before JAX is used. Returns when all of them are there.

    Args:
        coordinator_address: HOST:PORT of process 0, for all. With none of the three, JAX finds them in the environment
            of SLURM, Kubernetes, Open MPI or a TPU pod.
        num_processes: how many there are.
        process_id: which one this is, from 0.

    Raises:
        UserError: some are given and some not, one cannot be, process 0 does not answer, or no cluster is found.

    Source: https://docs.jax.dev/en/latest/multi_process.html.
    """
    given = {"coordinator_address": coordinator_address, "num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if missing and len(missing) < len(given):
        raise UserError(
            f"{' and '.join(missing)} missing: pass all of {', '.join(f'--{name}' for name in given)}, or none"
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
    # Signals are the launcher's own business (`experiments/runs/interruption.py`): JAX's service would swallow SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)
    patience = threading.Timer(30, print, ["waiting for the other processes of this run"], {"file": sys.stderr})
    patience.daemon = True
    patience.start()
    try:
        # What is given is all there is to know: no look at the environment, which may restrict the devices.
        method = None if missing else "deactivate"
        jax.distributed.initialize(
            coordinator_address, num_processes, process_id, cluster_detection_method=method, initialization_timeout=WAIT
        )
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())
        if missing and "coordinator_address" in reason:
            raise UserError(
                "--distributed: no cluster found (SLURM's srun, Kubernetes with the package `kubernetes`, Open MPI, a TPU "
                f"pod): pass {', '.join(f'--{name}' for name in given)}"
            ) from error
        raise UserError(f"--distributed: the processes of this run cannot be joined: {reason[:300]}") from error
    finally:
        patience.cancel()


def _await(address: str) -> None:
    """Waits until process 0 answers: where it does not, JAX would end this process with a trace of C++.

    Raises:
        UserError: it has not for a long time.
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
    """Whether this process prints and writes for all."""
    return jax.process_index() == 0


def any_process(flag: bool) -> bool:
    """Whether any process says so; all must ask at the same point of the program. They wait for each other here."""
    return flag if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def together(action: Callable[[], T]) -> T:
    """Runs the action on every process and returns its value; all go on when all are done, or fail when one fails.

    Raises:
        UserError, RunError: the action's own; where it went well, that another process has stopped.
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
    """Runs the action on the first process; all go on when it is done, or fail when it fails.

    Raises:
        UserError, RunError: the action's own on the first process; on the others, that it has stopped.
    """
    together(lambda: action() if is_first() else None)


def first_tells(action: Callable[[], T]) -> T:
    """What the action gives on the first process, in every process; it runs on the first alone.

    Args:
        action: its value is one that JSON can hold; where there is one process it may be any.

    Raises:
        UserError, RunError: the action's own on the first process; on the others, that it has stopped.
    """
    if jax.process_count() == 1:
        return action()
    text = together(lambda: json.dumps(action()).encode() if is_first() else b"")
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.frombuffer(text.ljust(length), np.uint8)
    return json.loads(multihost_utils.broadcast_one_to_all(padded).astype(np.uint8).tobytes())
