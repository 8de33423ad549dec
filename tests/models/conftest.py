"""What the tests of the networks share."""

import jax
import pytest


@pytest.fixture(scope="module")
def quick_compilation():
    """Compiles with fewer optimizations, in half the time: for tests of values, not of speed."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
