"""The base of every dataclass of the library: a pytree without a decorator; and functions as fields.

A subclass of a `Struct` is a pytree:

    class Bridge(SDE):                  class Scaled(SDE):               class Table(SDE):
        def alpha(self, t): ...             rate: float = 2.0                def __init__(self, betas):
        def sigma(self, t): ...             def alpha(self, t): ...              super().__init__(t_max=0.9)
                                            def sigma(self, t): ...              self.betas = betas

Annotated names are the fields of a frozen dataclass. A class with an `__init__` has its attributes for fields. Numbers,
arrays and pytrees are leaves, so that one compilation serves all their values; strings, booleans, functions and fields made
with `struct.field(pytree_node=False)` are static. `flax.struct.dataclass` and `dataclasses.dataclass(frozen=True)` may be
used as well, with any arguments; with the former every field is a leaf that is not marked.
"""

import copy
import dataclasses
import inspect
from typing import TYPE_CHECKING, Any, Self

import jax
from flax import struct

# Attribute of an object made by a transformation, which may have put any values in the places of the leaves.
_LEAVES = "_names_of_leaves"


class Struct:
    """A dataclass with its own class among its static fields, so that no compiled program of another class is used for it.

    `flax.struct.dataclass` registers classes with `jax.tree_util.register_dataclass`, and tree structures that come from
    it compare equal for any two classes with equal static fields (seen from jax 0.10.2 to 0.12.0). `jax.jit` finds its
    compiled programs by hash and comparison, so by an accident of hashing, about once in a hundred pairs of classes, it
    would run the program of one process for another. https://github.com/cusp-ai-oss/kUPS/pull/114 met the same.

    A subclass without a decorator is registered when its first object is made or its first subclass is defined: decorators
    run after `__init_subclass__`, and must find the class as it was written.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for base in cls.__bases__:
            if "_has_init" in vars(base):  # a subclass of this one
                _register(base)
        cls._has_init = "__init__" in vars(cls) or any(getattr(base, "_has_init", False) for base in cls.__bases__)
        # Before a decorator reads the class's annotations.
        annotations = inspect.get_annotations(cls)
        cls.__annotations__ = {**_new_defaults(cls), **annotations, "_class": type}
        cls._class = struct.field(default=cls, pytree_node=False, repr=False, kw_only=True)

    if TYPE_CHECKING:

        def replace(self, **updates: Any) -> Self:
            """A copy with other values of some fields; added when the class is registered."""
            raise NotImplementedError

    def __new__(cls, *args, **kwargs):
        """An object whose class is a pytree."""
        if "_flax_dataclass" not in vars(cls):
            _register(cls)
        return super().__new__(cls)


def _new_defaults(cls: type) -> dict[str, Any]:
    """Turns new values of inherited fields, as `t_max = 0.9` in a class, into defaults; returns the fields' annotations.

    Without it a dataclass ignores a value without an annotation, and an annotated keyword-only field becomes positional.
    """
    annotated, found = inspect.get_annotations(cls), {}
    for field in _fields(cls.__mro__[1:]).values():
        value = vars(cls).get(field.name, dataclasses.MISSING)
        if value is dataclasses.MISSING or type(value) is dataclasses.Field or hasattr(value, "__get__"):
            continue
        if field.kw_only or field.name not in annotated:
            found[field.name] = field.type
            new = dataclasses.field(default=value, kw_only=field.kw_only, metadata=field.metadata)
            setattr(cls, field.name, new)
    return found


def _fields(classes: tuple[type, ...]) -> dict[str, dataclasses.Field]:
    """The dataclass fields of classes in the order of method resolution, by name."""
    found = {}
    for cls in reversed(classes):
        known = vars(cls).get("__dataclass_fields__", {})  # with class variables, which may hide an inherited field
        found = {name: field for name, field in found.items() if name not in known}
        found |= {field.name: field for field in (dataclasses.fields(cls) if known else ()) if field.name != "_class"}
    return found


def _register(cls: type) -> None:
    """Makes a class without `flax.struct.dataclass` a pytree; does nothing for any other."""
    if "_flax_dataclass" in vars(cls):
        return
    static = set()
    if "__dataclass_fields__" not in vars(cls):
        if cls._has_init:
            static = _open(cls)
        else:
            dataclasses.dataclass(frozen=True)(cls)
    cls.replace = _replace if cls._has_init else dataclasses.replace
    fields = _fields(cls.__mro__)
    static |= {name for name, field in fields.items() if not field.metadata.get("pytree_node", True)}

    def flatten(self):
        given = vars(self)
        names = sorted(given.keys() - {_LEAVES, "_class"}) if cls._has_init else fields
        leaves = given.get(_LEAVES)
        if leaves is None:
            leaves = tuple(name for name in names if name not in static and _is_data(given[name]))
        rest = tuple((name, given[name]) for name in names if name not in leaves)
        return [(jax.tree_util.GetAttrKey(name), given[name]) for name in leaves], (leaves, rest)

    def unflatten(structure, values):
        leaves, rest = structure
        made = object.__new__(cls)
        vars(made).update({**dict(rest), **dict(zip(leaves, values, strict=True)), "_class": cls, _LEAVES: leaves})
        return made

    try:
        jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
    except ValueError as error:
        if "Duplicate" not in str(error):
            raise  # else the user has registered the class
    cls._flax_dataclass = True


def _open(cls: type) -> set[str]:
    """Lets a user's `__init__` assign attributes; returns the names marked with `struct.field(pytree_node=False)`."""
    static = set()
    for name, value in list(vars(cls).items()):
        if type(value) is dataclasses.Field:
            if not value.metadata.get("pytree_node", True):
                static.add(name)
            if value.default is dataclasses.MISSING:
                delattr(cls, name)
            else:
                setattr(cls, name, value.default)
    for method in ("__setattr__", "__delattr__", "__eq__", "__hash__"):  # a frozen dataclass's otherwise
        if method not in vars(cls):
            setattr(cls, method, getattr(object, method))
    return static


def _replace(self: Struct, **updates: Any) -> Struct:
    """A copy of an object with other values of some attributes.

    Raises:
        TypeError: the object has no such attribute.
    """
    unknown = [name for name in updates if not hasattr(self, name)]
    if unknown:
        raise TypeError(f"{type(self).__name__} has no attribute {unknown[0]!r}")
    made = copy.copy(self)
    vars(made).pop(_LEAVES, None)
    vars(made).update(updates)
    return made


def _is_data(value: Any) -> bool:
    """Whether a value is a number, an array or a pytree, and not a string, a boolean, a function or another object."""
    if not jax.tree_util.all_leaves([value]):
        return True
    if inspect.isclass(value):
        return False
    return type(value) in (int, float, complex) or hasattr(value, "dtype") or hasattr(value, "__jax_array__")


def as_pytree(function: Any) -> Any:
    """The function as a pytree, so that it can be a field of a `Struct` and an argument of `jit`.

    A pytree (a `Struct` with `__call__`, a `jax.tree_util.Partial`) is itself, and its arrays are leaves. Of a bound method
    the object is the pytree where it can be one. Any other function is static: a new function object compiles anew.
    """
    if not callable(function) or not jax.tree_util.all_leaves([function]):
        return function
    if hasattr(function, "__func__") and not jax.tree_util.all_leaves([function.__self__]):
        return jax.tree_util.Partial(function.__func__, function.__self__)
    return jax.tree_util.Partial(function)
