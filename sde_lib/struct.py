"""`Struct`, the base class of all dataclasses of the library: pytrees without a decorator, with functions as fields.

A subclass of `Struct` is a pytree:

    class Bridge(SDE):                  class Scaled(SDE):               class Table(SDE):
        def alpha(self, t): ...             rate: float = 2.0                def __init__(self, betas):
        def sigma(self, t): ...             def alpha(self, t): ...              super().__init__(t_max=0.9)
                                            def sigma(self, t): ...              self.betas = betas

Annotated names are the fields of a frozen dataclass. In a class with an `__init__`, the attributes of the object are
the fields. Numbers, arrays and pytrees are leaves, so that one compilation serves all their values. Strings, booleans,
functions and fields defined with `struct.field(pytree_node=False)` are static. The decorators `flax.struct.dataclass`
and `dataclasses.dataclass(frozen=True)` are supported, with any arguments; with the former, every field is a leaf
unless marked with `pytree_node=False`.
"""

import copy
import dataclasses
import inspect
from typing import TYPE_CHECKING, Any, Self

import jax
from flax import struct

# Attribute with the names of the leaves, for objects that were built by a JAX transformation: their leaves may have any
# type.
_LEAVES = "_names_of_leaves"


class Struct:
    """Base class of dataclasses that are pytrees; each has its class as a static field.

    The static field prevents a collision in the cache of `jax.jit`: `flax.struct.dataclass` registers classes with
    `jax.tree_util.register_dataclass`, whose tree structures compare equal for any two classes with equal static fields
    (observed in jax 0.10.2 to 0.12.0). `jax.jit` looks up compiled programs by hash and equality, so for about one in a
    hundred pairs of classes, on a hash collision, it would run the program of one process for another.
    https://github.com/cusp-ai-oss/kUPS/pull/114 reports the same problem.

    A subclass without a decorator is registered when its first object is created or its first subclass is defined,
    because decorators run after `__init_subclass__` and require the class as it was written.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for base in cls.__bases__:
            if "_has_init" in vars(base):  # a subclass of Struct
                _register(base)
        cls._has_init = "__init__" in vars(cls) or any(getattr(base, "_has_init", False) for base in cls.__bases__)
        # Before a decorator reads the class's annotations.
        annotations = inspect.get_annotations(cls)
        cls.__annotations__ = {**_new_defaults(cls), **annotations, "_class": type}
        cls._class = struct.field(default=cls, pytree_node=False, repr=False, kw_only=True)

    if TYPE_CHECKING:

        def replace(self, **updates: Any) -> Self:
            """Returns a copy with new values of some fields; defined when the class is registered."""
            raise NotImplementedError

    def __new__(cls, *args, **kwargs):
        """Registers the class as a pytree before its first object is created."""
        if "_flax_dataclass" not in vars(cls):
            _register(cls)
        return super().__new__(cls)


def _new_defaults(cls: type) -> dict[str, Any]:
    """Converts new values of inherited fields, such as `t_max = 0.9`, to defaults; returns their annotations.

    Otherwise a dataclass ignores a value without an annotation, and an annotated keyword-only field becomes positional.
    """
    annotated, annotations = inspect.get_annotations(cls), {}
    for field in _fields(cls.__mro__[1:]).values():
        value = vars(cls).get(field.name, dataclasses.MISSING)
        if value is dataclasses.MISSING or type(value) is dataclasses.Field or hasattr(value, "__get__"):
            continue
        if field.kw_only or field.name not in annotated:
            annotations[field.name] = field.type
            new = dataclasses.field(default=value, kw_only=field.kw_only, metadata=field.metadata)
            setattr(cls, field.name, new)
    return annotations


def _fields(classes: tuple[type, ...]) -> dict[str, dataclasses.Field]:
    """Returns the dataclass fields, by name, of classes given in method resolution order."""
    fields = {}
    for cls in reversed(classes):
        own = vars(cls).get("__dataclass_fields__", {})  # includes class variables, which may hide an inherited field
        fields = {name: field for name, field in fields.items() if name not in own}
        fields |= {field.name: field for field in (dataclasses.fields(cls) if own else ()) if field.name != "_class"}
    return fields


def _register(cls: type) -> None:
    """Registers a class without `flax.struct.dataclass` as a pytree; a no-op for registered classes."""
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
        attributes = vars(self)
        names = sorted(attributes.keys() - {_LEAVES, "_class"}) if cls._has_init else fields
        leaves = attributes.get(_LEAVES)
        if leaves is None:
            leaves = tuple(name for name in names if name not in static and _is_data(attributes[name]))
        rest = tuple((name, attributes[name]) for name in names if name not in leaves)
        return [(jax.tree_util.GetAttrKey(name), attributes[name]) for name in leaves], (leaves, rest)

    def unflatten(structure, values):
        leaves, rest = structure
        result = object.__new__(cls)
        vars(result).update({**dict(rest), **dict(zip(leaves, values, strict=True)), "_class": cls, _LEAVES: leaves})
        return result

    try:
        jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
    except ValueError as error:
        if "Duplicate" not in str(error):
            raise  # a duplicate means that the user has registered the class
    cls._flax_dataclass = True


def _open(cls: type) -> set[str]:
    """Allows `__init__` to assign attributes; returns the names marked with `struct.field(pytree_node=False)`."""
    static = set()
    for name, value in list(vars(cls).items()):
        if type(value) is dataclasses.Field:
            if not value.metadata.get("pytree_node", True):
                static.add(name)
            if value.default is dataclasses.MISSING:
                delattr(cls, name)
            else:
                setattr(cls, name, value.default)
    for method in ("__setattr__", "__delattr__", "__eq__", "__hash__"):  # not those of a frozen dataclass
        if method not in vars(cls):
            setattr(cls, method, getattr(object, method))
    return static


def _replace(self: Struct, **updates: Any) -> Struct:
    """Returns a copy of an object with new values of some attributes.

    Raises:
        TypeError: the object has no such attribute.
    """
    unknown = [name for name in updates if not hasattr(self, name)]
    if unknown:
        raise TypeError(f"{type(self).__name__} has no attribute {unknown[0]!r}")
    result = copy.copy(self)
    vars(result).pop(_LEAVES, None)
    vars(result).update(updates)
    return result


def _is_data(value: Any) -> bool:
    """Returns True for numbers, arrays and pytrees; False for strings, booleans, functions and other objects."""
    if not jax.tree_util.all_leaves([value]):
        return True
    if inspect.isclass(value):
        return False
    return type(value) in (int, float, complex) or hasattr(value, "dtype") or hasattr(value, "__jax_array__")


def as_pytree(function: Any) -> Any:
    """Returns a function as a pytree, valid as a field of a `Struct` and as an argument of `jit`.

    Callable pytrees (a `Struct` with `__call__`, a `jax.tree_util.Partial`) are returned unchanged; their arrays are
    leaves. For a bound method of a pytree, the object's arrays are leaves. Other functions are static, so each new
    function object is recompiled.
    """
    if not callable(function) or not jax.tree_util.all_leaves([function]):
        return function
    if hasattr(function, "__func__") and not jax.tree_util.all_leaves([function.__self__]):
        return jax.tree_util.Partial(function.__func__, function.__self__)
    return jax.tree_util.Partial(function)
