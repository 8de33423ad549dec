"""The mathematics is tested in float64, against closed forms, with JAX looking for keys that are used twice.

A test of float32 says so; so does one that must use keys twice.
"""

import jax
import pytest


@pytest.fixture(autouse=True)
def float64_and_no_key_twice():
    with jax.enable_x64(True), jax.debug_key_reuse(True):
        yield
