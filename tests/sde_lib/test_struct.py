"""Dataclasses of equal fields are different to JAX."""

import itertools

import jax
from flax import struct

import sde_lib
from sde_lib import SDE, VPSDE, SubVPSDE
from sde_lib.struct import Struct


def test_no_program_of_another_class_is_run():
    """With tree structures that compare equal, some of 60 classes get the program of an earlier one."""

    def make(i):
        return struct.dataclass(type("Mine", (SDE,), {"sigma": lambda self, t: i * t}))

    run = jax.jit(lambda sde: sde.sigma(1.0))
    assert [int(run(make(i)())) for i in range(60)] == list(range(60))


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
