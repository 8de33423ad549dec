"""Dataclasses of equal fields are different to JAX."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

import sde_lib
from sde_lib import SDE, VPSDE, SubVPSDE
from sde_lib.struct import Struct, as_pytree


def test_no_program_of_another_class_is_run():
    """With tree structures that compare equal, some of 60 classes get the program of an earlier one."""

    def make(i):
        return struct.dataclass(type("Mine", (SDE,), {"sigma": lambda self, t: i * t}))

    run = jax.jit(lambda sde: sde.sigma(1.0))
    assert [int(run(make(i)())) for i in range(60)] == list(range(60))


@struct.dataclass
class Line(Struct):
    slope: jax.Array

    def __call__(self, x):
        return self.slope * x

    def steeper(self, x):
        return 2 * self.slope * x


class Plain:
    def method(self, x):
        return x + 1


def test_functions_as_fields_keep_the_arrays_that_they_hold():
    """Of a pytree and of its bound method the arrays are leaves, so that one program serves all; others are static."""
    line = Line(np.float64(3.0))
    assert as_pytree(line) is line and as_pytree(None) is None
    for function, leaves, value in ((line.steeper, [3.0], 12.0), (Plain().method, [], 3.0), (lambda x: x - 1, [], 1.0)):
        made = as_pytree(function)
        assert jax.tree.leaves(made) == leaves and made(2.0) == value
    traces = []

    @jax.jit
    def run(function, x):
        traces.append(1)
        return function(x)

    assert [float(run(as_pytree(Line(jnp.float32(slope)).steeper), 1.0)) for slope in (1, 2, 3)] == [2, 4, 6]
    assert len(traces) == 1


def test_structures_of_two_processes_differ():
    structures = [jax.tree.structure(sde) for sde in (VPSDE(), SubVPSDE(), VPSDE(beta_max=10.0))]
    assert structures[0] == structures[2]
    assert structures[0] != structures[1]


def test_every_dataclass_of_the_library_is_told_apart():
    found = [
        value for value in vars(sde_lib).values() if isinstance(value, type) and hasattr(value, "__dataclass_fields__")
    ]
    assert len(found) > 40
    assert [cls for cls in found if not issubclass(cls, Struct)] == []
    assert all(a._class is not b._class for a, b in itertools.combinations(found, 2))
