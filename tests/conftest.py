"""Tests run on one CPU device, those that are marked `devices` on 8 virtual ones.

Programs for one of several devices take a fifth longer to compile and to run. Compilation is most of the time that tests
take, so programs are compiled with fewer optimizations (the test of speed turns them on again), and kept: for the other
worker, for child processes and for the next run of the tests.
"""

import ctypes
import gc
import os
from importlib import metadata

# Eight devices take turns on few cores: a device may have to wait long for the others at an average, and XLA would end
# the process after 40 seconds of it. The other flags halve the compilation time once more; later releases do not know the
# first of them, and an unknown flag ends the process.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_cpu_collective_call_terminate_timeout_seconds=600",
        *(
            ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
            if metadata.version("jaxlib").startswith("0.10.")
            else []
        ),
    ]
)

# As variables, they hold in child processes too; the command line would keep only what takes half a second to compile.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# Threads of BLAS and torch, of which each worker would have one for each core, spin while they wait for a core.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import jax
import pytest
from jax.extend.backend import clear_backends

from experiments.training import utilization
from tests import durations

jax.config.update("jax_num_cpu_devices", 1)


def pytest_configure(config):
    """Compiled programs lie in pytest's cache folder unless JAX_COMPILATION_CACHE_DIR says otherwise."""
    folder = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.rootpath / ".pytest_cache" / "jax"))
    jax.config.update("jax_compilation_cache_dir", folder)


# Workers take groups in the order of collection (setup.cfg: --no-loadscope-reorder). These last minutes; one that began
# last would leave the other workers idle.
RUNS = ("tiny_run", "digits_run")  # fixtures that train a model for tests of several modules
LONGEST = (*RUNS, "test_choices", "test_resume", "test_first_steps", "test_distributed", "test_networks")


@pytest.hookimpl(tryfirst=True)  # xdist and -m read the marks in hooks of the same name
def pytest_collection_modifyitems(items):
    """Marks the tiers, and groups the tests: each module goes to one worker, which compiles its programs once.

    All tests of one trained run are one group. Those of `tiny_run`, which is trained on 8 devices, need these. A test is e2e
    if its module says so or it needs a trained run, and thorough if it says so or is slow (see `durations`).

    pytest 9.2 loses the groups silently (https://github.com/pytest-dev/pytest-xdist/issues/1386): setup.cfg stays below it.
    """
    slow = durations.slow()
    for item in items:
        if "tiny_run" in item.fixturenames:
            item.add_marker(pytest.mark.devices)
        if not {*RUNS, "extended"}.isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.e2e)
        elif f"{item.module.__name__}.{item.originalname}" in slow and not item.get_closest_marker("e2e"):
            item.add_marker(pytest.mark.thorough)
    groups = {item: next((run for run in RUNS if run in item.fixturenames), item.path.stem) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    several = {groups[item] for item in items if item.get_closest_marker("devices")}
    ranks = {group: place for place, group in enumerate(LONGEST)}
    items.sort(key=lambda item: (ranks.get(groups[item], len(LONGEST)), groups[item] not in several))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Gives a test the number of devices that it needs, before its fixtures are made."""
    needed = 8 if item.get_closest_marker("devices") else 1
    if jax.device_count() != needed:
        clear_backends()
        jax.config.update("jax_num_cpu_devices", needed)


LARGE = 4096  # MiB of a worker


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """A large worker forgets compiled programs after a module, of no use to the next; else it grows to ten gigabytes."""
    if nextitem is not None and nextitem.path != item.path and utilization.memory()["memory_mib"] > LARGE:
        jax.clear_caches()
        gc.collect()
        if hasattr(ctypes.CDLL(None), "malloc_trim"):
            ctypes.CDLL(None).malloc_trim(0)  # glibc would keep what is freed
