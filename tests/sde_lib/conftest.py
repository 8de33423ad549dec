"""The mathematics is tested in float64, against closed forms; a test of float32 says so."""

import jax
import pytest


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield
