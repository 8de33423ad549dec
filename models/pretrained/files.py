"""Weight files by what they begin with: safetensors, PyTorch's, pickled networks, Flax's msgpack.

Whatever the kind, reading executes nothing: see `torch_file.py` for pickles; the others hold data alone.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from flax import serialization

from models.pretrained import torch_file
from models.pretrained.torch_file import BrokenFileError


def read(path: Path) -> Any:
    """What the file holds: for safetensors its tensors by name, else the tree of dictionaries, lists and arrays.

    Raises:
        UnsafeFileError: a pickle asks for more than tensors and plain values; the message names it.
        BrokenFileError: it is truncated, or of no kind that is known.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(9)
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
        return torch_file.read(path.read_bytes())
    if start[8:] == b"{":
        return read_safetensors(path)[0]
    if start and (0x81 <= start[0] <= 0x8F or start[0] in (0xDE, 0xDF)):
        return _read_msgpack(path.read_bytes())
    raise BrokenFileError("it is none of safetensors, PyTorch's files, pickled networks and Flax's msgpack")


def _read_msgpack(data: bytes) -> Any:
    try:
        return serialization.msgpack_restore(data)
    except Exception as error:  # msgpack has many: all of them say that the bytes do not fit
        raise BrokenFileError(f"it is truncated or not Flax's msgpack ({type(error).__name__}: {error})") from error


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(tensors by name, the file's metadata). bfloat16 becomes float32, which holds it exactly.

    Raises:
        BrokenFileError: it is truncated or not a safetensors file.
        ImportError: the package is not installed; the message says how to.
    """
    _need_safetensors()
    import safetensors

    tensors = {}
    try:
        with safetensors.safe_open(path, framework="flax") as file:
            metadata = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118
                tensor = np.asarray(file.get_tensor(name))
                tensors[name] = tensor.astype(np.float32) if tensor.dtype.name == "bfloat16" else tensor
    except safetensors.SafetensorError as error:
        raise BrokenFileError(f"it is truncated or not a safetensors file ({error})") from error
    return tensors, metadata


def read_safetensors_metadata(path: Path) -> dict[str, str]:
    """Returns the metadata of a safetensors file; errors as in `read_safetensors`."""
    _need_safetensors()
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise BrokenFileError(f"it is truncated or not a safetensors file ({error})") from error


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes tensors by name, with metadata, so that a reader sees the whole file or none of it."""
    _need_safetensors()
    import safetensors.numpy

    temporary = path.with_name(path.name + ".tmp")
    contiguous = {
        name: np.asarray(tensor, order="C") for name, tensor in tensors.items()
    }  # memory is written as it lies
    safetensors.numpy.save_file(contiguous, temporary, metadata)
    temporary.replace(path)


def _need_safetensors() -> None:
    if importlib.util.find_spec("safetensors") is None:
        raise ImportError("safetensors is not installed: pip install 'ornstein[pretrained]'")
