"""All tests run on 8 virtual CPU devices.

Programs are compiled with fewer optimizations, in half the time; the test of speed turns them on again.
"""

import os

# Eight devices take turns on few cores: a device may have to wait long for the others at an average, and XLA would end
# the process after 40 seconds of it.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_collective_call_terminate_timeout_seconds=600"

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", True)


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in a hook of the same name
def pytest_collection_modifyitems(items):
    """Each module goes to one worker, which compiles its programs once; so do all tests of the one trained run."""
    for item in items:
        group = "tiny_run" if "tiny_run" in item.fixturenames else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
