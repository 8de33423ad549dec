"""An unpickler with memory and time proportional to the file size, restricted to a table of allowed names.

A pickle is a program for a stack machine. CPython's C unpickler allocates memory for each memo index and for some
lengths that a program states, so nine bytes can allocate gigabytes. This module uses the Python reference
implementation: its memo is a dictionary, no read extends beyond the file (`File`), and a budget (`Budget`) bounds the
bytes that functions of the table copy. Keys of dictionaries must be plain values or tuples of plain values, since the
hash of nested tuples that contain the next tuple twice takes exponential time.
"""

# The stubs of the standard library lack the attributes of pickle._Unpickler.
# pyright: reportAttributeAccessIssue=false

import io
import pickle
import struct
from collections.abc import Iterable, Mapping
from typing import Any

KEYS = (str, bytes, int, float, bool, type(None))  # allowed types of keys of dictionaries and members of sets
SHOWN = 80  # maximal number of characters of a value in a message


class UnsafeFileError(ValueError):
    """The file requires objects other than tensors and plain values."""


class BrokenFileError(ValueError):
    """The file is truncated or of an unknown format."""


class Budget:
    """Limit of the bytes and container items that functions may copy, a multiple of the length of the file."""

    def __init__(self, length: int):
        self.length = length
        self.left = 8 * length + 2**20

    def spend(self, count: int) -> None:
        """Subtracts `count` from the remaining budget.

        Raises:
            BrokenFileError: the budget is exceeded.
        """
        self.left -= count
        if self.left < 0:
            raise BrokenFileError(f"it would grow to many times its {self.length:,} bytes")


def _size(value: Any) -> int:
    return 1 + len(value) if isinstance(value, str | bytes | bytearray | list | tuple | dict | set | frozenset) else 1


def require_keys(keys: Iterable[Any]) -> None:
    """Raises BrokenFileError if a key is neither a plain value nor a tuple of plain values."""
    for key in keys:
        if type(key) not in KEYS and not (type(key) is tuple and all(type(part) in KEYS for part in key)):
            raise BrokenFileError(f"a key of a dictionary or set is a {type(key).__name__}")


def shown(value: Any) -> str:
    """Returns the shortened text of a plain value, or the type name of any other value, whose text may be huge."""
    if type(value) in (str, bytes):
        value = value[:SHOWN]
    return repr(value) if type(value) in KEYS else type(value).__name__


def printable(text: str) -> str:
    """Returns the text on one line, with ? for nonprintable characters."""
    return "".join(character if character.isprintable() else "?" for character in text)


def text(value: Any) -> str:
    """Returns the value if it is a string.

    Raises:
        BrokenFileError: the value is not a string.
    """
    if type(value) is not str:
        raise BrokenFileError(f"a text is a {type(value).__name__}")
    return value


_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # module names of Python 2 in old pickles


class File(io.BytesIO):
    """An in-memory file that raises EOFError on incomplete reads."""

    def read(self, size=-1):
        """Reads `size` bytes. Raises EOFError if fewer bytes are left."""
        data = super().read(size)
        if len(data) < size:
            raise EOFError(f"expected {size} more bytes, found {len(data)}")
        return data

    def readline(self, size=-1):
        """Reads a line with its line break. Raises EOFError if the line break is missing."""
        line = super().readline(size)
        if not line.endswith(b"\n"):
            raise EOFError("a line has no end")
        return line


class Unpickler(pickle._Unpickler):
    """Python's reference unpickler, whose opcodes are methods, restricted to a table of names.

    Args:
        file: the file, positioned at the pickle; afterwards it is positioned at the end of the pickle.
        names: the object for each allowed (module, name) of the pickle.
        budget: limit of the bytes that functions may copy, shared by all pickles of a file.
    """

    def __init__(self, file: File, names: Mapping[tuple[str, str], Any], budget: Budget):
        super().__init__(file, encoding="utf-8")
        self.names, self.budget, self.length = names, budget, len(file.getbuffer())

    def find_class(self, module, name):
        """Returns the object for a name. Raises UnsafeFileError for names outside of the table."""
        module = _PYTHON_2.get(module, module)
        if (module, name) not in self.names:
            requested = printable(f"{module}.{name}"[:SHOWN])
            raise UnsafeFileError(f"it asks for {requested}, which is neither a tensor nor a plain value")
        return self.names[module, name]

    def persistent_load(self, pid):
        """Raises UnsafeFileError: references to objects outside of the file are not supported."""
        parts = pid if type(pid) is tuple else (pid,)
        shown_parts = ", ".join(map(shown, parts[:3]))
        raise UnsafeFileError(f"it refers to something outside it: {printable(shown_parts[:SHOWN])}")

    def _spend(self, *values):
        self.budget.spend(sum(map(_size, values)))

    dispatch: dict[int, Any] = dict(pickle._Unpickler.dispatch)  # by opcode

    def load_bytearray8(self):
        """Reads bytes without allocating memory for more bytes than the file has."""
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))

    def load_long_binput(self):
        """Stores a value in the memo."""
        (index,) = struct.unpack("<I", self.read(4))
        self._remember(index)

    def load_put(self):
        """Stores a value in the memo, at an index given in decimal digits."""
        self._remember(int(self.readline()[:-1]))

    def _remember(self, index):
        if not 0 <= index < self.length:  # each memo entry takes at least one byte of the file
            raise BrokenFileError(f"it keeps value number {index:,}, more than its {self.length:,} bytes can hold")
        self.memo[index] = self.stack[-1]

    def load_reduce(self):
        """Calls a function."""
        self._spend(*self.stack[-1])
        super().load_reduce()

    def load_build(self):
        """Sets the state of an object."""
        state = self.stack[-1]
        self._spend(state, *(state if isinstance(state, tuple) else ()))
        super().load_build()

    def load_newobj(self):
        """Creates an object of a class."""
        self._spend(*self.stack[-1])
        super().load_newobj()

    def load_newobj_ex(self):
        """Raises UnsafeFileError: no class of the table takes keyword arguments."""
        raise UnsafeFileError("it makes an object with keyword arguments")

    def _instantiate(self, klass, args):
        self._spend(*args)
        super()._instantiate(klass, args)

    def load_setitem(self):
        """Sets an entry of a dictionary."""
        require_keys([self.stack[-2]])
        super().load_setitem()

    def load_setitems(self):
        """Sets entries of a dictionary."""
        require_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self):
        """Creates a dictionary from entries."""
        require_keys(self.stack[::2])
        super().load_dict()

    def load_additems(self):
        """Adds members to a set."""
        require_keys(self.stack)
        super().load_additems()

    def load_frozenset(self):
        """Creates a set from members."""
        require_keys(self.stack)
        super().load_frozenset()

    for code, method in (
        (pickle.BYTEARRAY8, load_bytearray8),
        (pickle.LONG_BINPUT, load_long_binput),
        (pickle.PUT, load_put),
        (pickle.REDUCE, load_reduce),
        (pickle.BUILD, load_build),
        (pickle.NEWOBJ, load_newobj),
        (pickle.NEWOBJ_EX, load_newobj_ex),
        (pickle.SETITEM, load_setitem),
        (pickle.SETITEMS, load_setitems),
        (pickle.DICT, load_dict),
        (pickle.ADDITEMS, load_additems),
        (pickle.FROZENSET, load_frozenset),
    ):
        dispatch[code[0]] = method
    del code, method
