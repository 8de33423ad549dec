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


class Own(Struct):
    """Attributes of every kind, assigned by an `__init__`."""

    mode: str = struct.field(pytree_node=False, default="a")
    fixed: jax.Array = struct.field(pytree_node=False, default=None)

    def __init__(self, value):
        self.value, self.kind, self.flag, self.text, self.number = value, VPSDE, True, "text", 3
        self.inner, self.function, self.nothing, self.type = VPSDE(), jnp.sin, None, np.float32
        self.fixed = np.float64(9.0)


def test_leaves_of_attributes_are_numbers_arrays_and_pytrees():
    """In the order of the names; classes, booleans, strings, functions and what is marked are static."""
    own = Own(2.5)
    leaves = jax.tree.leaves(own)
    assert leaves == [*jax.tree.leaves(VPSDE()), 3, 2.5]
    changed = jax.tree.map(lambda leaf: 2 * leaf, own)
    assert (changed.value, changed.number, changed.inner.beta_max) == (5.0, 6, 40.0)
    assert (changed.kind, changed.flag, changed.text, changed.nothing) == (VPSDE, True, "text", None)
    assert changed.fixed == 9.0 and changed.mode == "a" and changed.type is np.float32


def test_a_replaced_attribute_is_a_leaf_by_its_new_value():
    """Of an object that came out of a transformation too; the object itself stays as it was."""
    made = jax.tree.map(lambda leaf: leaf, Own(2.5))
    other = made.replace(text=1.5, value="now a text")
    assert jax.tree.leaves(other) == [*jax.tree.leaves(VPSDE()), 3, 1.5]
    assert jax.tree.leaves(made) == [*jax.tree.leaves(VPSDE()), 3, 2.5]
    assert (made.text, other.value) == ("text", "now a text")


def test_a_property_that_hides_a_field_stays_one():
    class Base(Struct):
        rate: float = 2.0
        kept: float = 1.0

    class Computed(Base):
        kept = 5.0

        def __init__(self):
            pass

        @property
        def rate(self):
            return self.kept + 2

    assert isinstance(Computed.rate, property)
    assert (Base().rate, Computed().rate) == (2.0, 7.0)
