"""Safe reading of PyTorch files and pickled networks as tensors and plain values, without PyTorch.

A pickle is a program that can call functions of any installed module. This reader accepts only the names in the tables
below, each of which builds a tensor, a dictionary or a `Record` (the class name and the attributes of an object, as
data); every other name raises an error that states the name. No code in a file is executed.

Memory and time are proportional to the size of the file (`bounded_pickle.py`), and objects that a file references many
times ("billion laughs") are converted once.

Three formats contain tensors:

    zip      torch.save since 1.6: data.pkl and one entry per storage
    legacy   torch.save before 1.6, and with _use_new_zipfile_serialization=False: pickles, then the storages
    pickle   a pickled network, as published by EDM and EDM2; its storages are nested legacy files

Source: PyTorch's writer, https://github.com/pytorch/pytorch/blob/main/torch/serialization.py.
"""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import ml_dtypes  # noqa: F401
import numpy as np

from models.pretrained.bounded_pickle import (
    SHOWN,
    BrokenFileError,
    Budget,
    File,
    Unpickler,
    UnsafeFileError,
    printable,
    require_keys,
    shown,
    text,
)  # fmt: skip

# NumPy's dtype of each storage; the import of ml_dtypes registers "bfloat16".
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
CONTAINERS = ("ModuleDict", "ModuleList", "Sequential")

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001


@dataclass(frozen=True)
class Record:
    """An object of the file, as data: the name of its class and its attributes."""

    class_name: str
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Storage:
    """One-dimensional array of numbers, of which tensors are views."""

    numbers: np.ndarray


class _Dict(dict):
    """A dictionary; attributes that the file sets on the dictionary (`_metadata`) are ignored."""

    def __init__(self, pairs=()):
        pairs = list(pairs.items() if isinstance(pairs, dict) else pairs)
        require_keys(key for key, _ in pairs)
        super().__init__(pairs)

    def __setstate__(self, state):
        pass


class _Builder:
    """A function that the file may call, without attributes that the file could set."""

    __slots__ = ("_build",)

    def __init__(self, build: Callable[..., Any]):
        object.__setattr__(self, "_build", build)

    def __call__(self, *args):
        return self._build(*args)

    def __setstate__(self, state):
        raise UnsafeFileError("it sets attributes of a function")

    def __setattr__(self, name, value):
        raise UnsafeFileError("it sets attributes of a function")


class _Module:
    """An object that is read as its attributes, such as a container of PyTorch."""

    def __setstate__(self, state):
        self.state = _attributes(state)


def _attributes(state: Any) -> dict[str, Any]:
    if not isinstance(state, dict):
        raise BrokenFileError(f"the attributes of an object are a {type(state).__name__}")
    return state


class _NumpyDType:
    """NumPy's dtype, restricted to numbers."""

    def __init__(self, code, *_):
        self.code = text(code)

    def __setstate__(self, state):
        if state[1] == ">":
            raise BrokenFileError("its numbers are big-endian")

    def read(self, data: bytes | str) -> np.ndarray:
        """Converts bytes to numbers; a string contains the bytes as Latin-1, as written by Python 2."""
        dtype = np.dtype(self.code)
        if dtype.kind not in "biufc":
            raise UnsafeFileError(f"it holds a NumPy array of {self.code[:SHOWN]}, not of numbers")
        if not isinstance(data, bytes | bytearray | str):
            raise BrokenFileError(f"the numbers of an array are a {type(data).__name__}")
        return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype)


class _NumpyArray:
    """NumPy's array, set by its state."""

    def __init__(self, *_):
        self.array = np.zeros(0)

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        self.array = dtype.read(data).reshape(shape, order="F" if fortran else "C")


def _tensor(storage, offset, size, stride, *_) -> np.ndarray:
    """Returns a strided view of the storage. Raises BrokenFileError if it extends beyond the storage."""
    numbers, size, stride = storage.numbers, tuple(map(int, size)), tuple(map(int, stride))
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or (0 not in size and last >= len(numbers)):
        raise BrokenFileError(f"a tensor of shape {size} reaches beyond its {len(numbers)} numbers")
    if 0 in size:
        return np.zeros(size, numbers.dtype)
    # A view, not a copy: with strides of 0, a small storage can have a view of any size.
    return np.lib.stride_tricks.as_strided(
        numbers[offset:], size, [step * numbers.itemsize for step in stride], writeable=False
    )


def _persistent_object(meta) -> Record:
    """Returns a network of EDM or EDM2 as a `Record`; its embedded source code is ignored."""
    return Record(text(meta["class_name"]), _attributes(meta.get("state") or {}))


def _nested_storage(data: bytes, budget: Budget) -> _Storage:
    storage = _read(data, budget)
    if not isinstance(storage, _Storage):
        raise BrokenFileError("a storage within the pickle holds something else")
    return storage


def _set(members=()) -> set:
    require_keys(members)
    return set(members)


def _object_of_class(cls, base, state, *_):
    """Replaces copyreg's constructor of objects; used only for containers."""
    return cls()


_NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Dict,
    ("dnnlib.util", "EasyDict"): _Dict,
    ("torch", "Size"): _Builder(tuple),
    ("torch", "device"): _Builder(lambda *args: text(args[0]) if args else ""),
    ("torch._utils", "_rebuild_tensor"): _Builder(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Builder(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Builder(lambda data, *_: data),
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Builder(_persistent_object),
    ("copyreg", "_reconstructor"): _Builder(_object_of_class),
    ("builtins", "object"): object(),
    ("builtins", "set"): _Builder(_set),
    ("numpy", "dtype"): _NumpyDType,
    ("numpy", "ndarray"): "ndarray",
    ("_codecs", "encode"): _Builder(lambda value, encoding="latin1": text(value).encode("latin1")),
    **{
        (f"numpy.{core}.multiarray", name): build
        for core in ("core", "_core")  # the latter since NumPy 2
        for name, build in (
            ("scalar", _Builder(lambda dtype, data: dtype.read(data)[0])),
            ("_reconstruct", _Builder(_NumpyArray)),
        )
    },
    **{
        (f"numpy.{core}.numeric", "_frombuffer"): _Builder(
            lambda data, dtype, shape, order: dtype.read(data).reshape(shape, order=order)
        )
        for core in ("core", "_core")
    },
    **{("torch", name): dtype for name, dtype in STORAGES.items()},
    **{("torch", dtype): dtype for dtype in STORAGES.values()},
    **{("torch.nn.modules.container", name): type(name, (_Module,), {}) for name in CONTAINERS},
    ("argparse", "Namespace"): type("Namespace", (_Module,), {}),  # the flags of a training script
}


class _Unpickler(Unpickler):
    """Unpickler with the names of the table, and with storages that `storage` returns for a persistent id."""

    def __init__(self, file: File, budget: Budget, storage: Callable[..., _Storage] | None = None):
        nested = _Builder(lambda data: _nested_storage(data, budget))
        super().__init__(file, {**_NAMES, ("torch.storage", "_load_from_bytes"): nested}, budget)
        self.storage = storage

    def persistent_load(self, pid):
        is_storage = type(pid) is tuple and pid and type(pid[0]) is str and pid[0] == "storage"
        if self.storage is None or not is_storage:
            return super().persistent_load(pid)
        return self.storage(*pid[1:])


def read(data: bytes) -> Any:
    """Returns the contents of a .pth, .pt, .ckpt or .pkl file.

    The contents consist of dictionaries, lists, numbers, strings, arrays and `Record`s.

    Args:
        data: the bytes of the file.

    Raises:
        UnsafeFileError: the file requires any other object; the message names the object.
        BrokenFileError: the file is truncated, or of none of the three formats.
    """
    return _read(data, Budget(len(data)))


def _read(data: bytes, budget: Budget) -> Any:
    try:
        if data[:4] == b"PK\x03\x04":
            return _plain(_read_zip(data, budget))
        if data[:1] == pickle.PROTO:
            return _plain(_read_pickles(data, budget))
        raise BrokenFileError("it is not a file of PyTorch, and not a pickle")
    except (UnsafeFileError, BrokenFileError):
        raise
    except Exception as error:  # a broken pickle can raise any exception; only the builders above have been called
        _broken(error)


def _dtype(name: Any) -> str:
    if text(name) not in STORAGES.values():
        raise BrokenFileError(f"its numbers are {shown(name)}")
    return name


def _read_zip(data: bytes, budget: Budget) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        root = next((name[: -len("data.pkl")] for name in names if name.endswith("data.pkl")), None)
        if root is None:
            raise BrokenFileError("it is a zip file, but holds no data.pkl as PyTorch's do")

        def entry(name):
            budget.spend(archive.getinfo(name).file_size)  # the uncompressed size that the archive states
            return archive.read(name)

        if f"{root}byteorder" in names and entry(f"{root}byteorder") != b"little":
            raise BrokenFileError("its numbers are big-endian")
        storages: dict[str, _Storage] = {}

        def storage(dtype, key, location, count, *_):
            if text(key) not in storages:
                storages[key] = _Storage(_numbers(entry(f"{root}data/{key}"), _dtype(dtype), count))
            return storages[key]

        return _Unpickler(File(entry(f"{root}data.pkl")), budget, storage).load()


def _read_pickles(data: bytes, budget: Budget) -> Any:
    file = File(data)
    first = _Unpickler(file, budget).load()
    if type(first) is not int or first != LEGACY_MAGIC:
        return first
    protocol = _Unpickler(file, budget).load()
    if type(protocol) is not int or protocol != LEGACY_PROTOCOL:
        raise BrokenFileError(f"its protocol is {shown(protocol)}, not {LEGACY_PROTOCOL}")
    _Unpickler(file, budget).load()  # sizes of C types
    storages: dict[str, _Storage] = {}

    def storage(dtype, key, location, count, view=None):
        if view is not None:
            raise BrokenFileError("it holds views of storages, which PyTorch no longer writes")
        require_keys([key])
        size = count * np.dtype(_dtype(dtype)).itemsize
        if not 0 <= size <= len(data):
            raise BrokenFileError(f"a storage of {shown(count)} numbers is larger than the file")
        if key not in storages:
            budget.spend(size)
            storages[key] = _Storage(np.zeros(count, dtype))
        return storages[key]

    # The numbers follow the object, so the object is read twice: first for the storages, then for the tensors.
    start = file.tell()
    _Unpickler(file, budget, storage).load()
    keys = _Unpickler(file, budget).load()
    require_keys(keys)
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        numbers = storages[key].numbers
        if count != len(numbers):
            raise BrokenFileError(f"a storage of {len(numbers)} numbers has {count}")
        storages[key] = _Storage(_numbers(file.read(numbers.nbytes), numbers.dtype, count))
    file.seek(start)
    return _Unpickler(file, budget, storage).load()


def _numbers(data: bytes, dtype: Any, count: int) -> np.ndarray:
    if type(count) is not int or not 0 <= count * np.dtype(dtype).itemsize <= len(data):
        raise BrokenFileError(f"a storage of {shown(count)} numbers has {len(data)} bytes")
    return np.frombuffer(data, dtype, count)


def _plain(value: Any) -> Any:
    """Converts the containers of the file to Python's; a container with several references is converted once."""
    converted: dict[int, Any] = {}
    open_containers: set[int] = set()

    def convert(value) -> Any:
        if not isinstance(value, Mapping | list | tuple | Record | _Module):
            return leaf(value)
        key = id(value)
        if key in open_containers:
            raise BrokenFileError("a container holds itself")
        if key not in converted:
            open_containers.add(key)
            converted[key] = container(value)
            open_containers.remove(key)
        return converted[key]

    def container(value):
        match value:
            case Mapping():
                return {key: convert(item) for key, item in value.items()}
            case list() | tuple():
                return type(value)(convert(item) for item in value)
            case Record():
                return Record(value.class_name, convert(value.state))
        return Record(type(value).__name__, convert(getattr(value, "state", {})))

    def leaf(value):
        match value:
            case _NumpyArray():
                return value.array
            case _Builder() | _NumpyDType() | type():
                raise UnsafeFileError("it holds a function")
        return value

    return convert(value)


def _broken(error: Exception) -> NoReturn:
    reason = printable(str(error)[: 2 * SHOWN])
    raise BrokenFileError(f"it is truncated or not a file of PyTorch ({type(error).__name__}: {reason})") from error


def module_tensors(module: Record, prefix: str = "") -> dict[str, np.ndarray]:
    """Returns the parameters and buffers of a pickled module, with the names of its `state_dict`."""
    tensors = {}
    for kind in ("_parameters", "_buffers"):
        for name, tensor in module.state.get(kind, {}).items():
            if tensor is not None:
                tensors[prefix + name] = tensor
    for name, child in module.state.get("_modules", {}).items():
        if child is not None:
            tensors |= module_tensors(child, f"{prefix}{name}.")
    return tensors
