"""The base of every dataclass of the library: JAX must be able to tell two classes apart; and functions as their fields."""

import inspect
from collections.abc import Callable

import jax
from flax import struct


class Struct:
    """A dataclass with its own class among its static fields, so that no compiled program of another class is used for it.

    `flax.struct.dataclass` registers classes with `jax.tree_util.register_dataclass`, and tree structures that come from
    it compare equal for any two classes with equal static fields (seen from jax 0.10.2 to 0.12.0). `jax.jit` finds its
    compiled programs by hash and comparison, so by an accident of hashing, about once in a hundred pairs of classes, it
    would run the program of one process for another. https://github.com/cusp-ai-oss/kUPS/pull/114 met the same.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        # Before the decorator reads the class's annotations.
        cls.__annotations__ = {**inspect.get_annotations(cls), "_class": type}
        cls._class = struct.field(default=cls, pytree_node=False, repr=False, kw_only=True)


def as_pytree(function: Callable) -> Callable:
    """The function as a pytree, so that it can be a field of a `Struct` and an argument of `jit`.

    A pytree (a `Struct` with `__call__`, a `jax.tree_util.Partial`) is itself, and its arrays are leaves. Of a bound method
    the object is the pytree where it can be one. Any other function is static: a new function object compiles anew.
    """
    if not callable(function) or not jax.tree_util.all_leaves([function]):
        return function
    if hasattr(function, "__func__") and not jax.tree_util.all_leaves([function.__self__]):
        return jax.tree_util.Partial(function.__func__, function.__self__)
    return jax.tree_util.Partial(function)
