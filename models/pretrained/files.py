"""Reading and writing of weight files: safetensors, PyTorch files, pickled networks and Flax's msgpack.

The format is detected from the first bytes. Reading executes no code of any file: see `torch_file.py` for pickles; the
other formats contain only data.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from flax import serialization

from models.pretrained import torch_file
from models.pretrained.torch_file import BrokenFileError


def read(path: Path) -> Any:
    """Reads a file: tensors by name for safetensors, otherwise the tree of dictionaries, lists and arrays.

    Raises:
        UnsafeFileError: a pickle requires objects other than tensors and plain values; the message names the first.
        BrokenFileError: the file is truncated or of an unknown format.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(9)
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
        return torch_file.read(path.read_bytes())
    if start[8:] == b"{":
        return read_safetensors(path)[0]
    if start and (0x81 <= start[0] <= 0x8F or start[0] in (0xDE, 0xDF)):
        return _read_msgpack(path.read_bytes())
    raise BrokenFileError("it is not a safetensors file, PyTorch file, pickled network or Flax msgpack file")


def _read_msgpack(data: bytes) -> Any:
    try:
        return serialization.msgpack_restore(data)
    except Exception as error:  # msgpack raises many types of exceptions for invalid bytes
        raise BrokenFileError(f"it is truncated or not Flax's msgpack ({type(error).__name__}: {error})") from error


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns (tensors by name, metadata) of a safetensors file. bfloat16 is converted to float32, which is exact.

    Raises:
        BrokenFileError: the file is truncated or not a safetensors file.
        ImportError: safetensors is not installed; the message gives the pip command.
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
    """Writes tensors by name, with metadata, atomically: a reader never sees an incomplete file."""
    _need_safetensors()
    import safetensors.numpy

    temporary = path.with_name(path.name + ".tmp")
    # safetensors writes the memory of an array without regard to its strides.
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    safetensors.numpy.save_file(contiguous, temporary, metadata)
    temporary.replace(path)


def _need_safetensors() -> None:
    if importlib.util.find_spec("safetensors") is None:
        raise ImportError("safetensors is not installed: pip install 'ornstein[pretrained]'")
