"""An unpickler whose memory and time are in proportion to the file, and that knows the names of a table alone.

A pickle is a program for a stack machine. CPython's own unpickler reserves room for each memo index that a program names,
and for some lengths, so nine bytes can take gigabytes. Here the reference implementation runs: its memo is a dictionary,
no read reaches beyond the file (`File`), and a budget (`Budget`) bounds what the functions of the table copy. Keys are plain
values, since the hash of nested tuples, each of which holds the next one twice, visits every path.
"""

# The stubs of the standard library lack the attributes of pickle._Unpickler.
# pyright: reportAttributeAccessIssue=false

import io
import pickle
import struct
from collections.abc import Iterable, Mapping
from typing import Any

KEYS = (str, bytes, int, float, bool, type(None))  # types of the keys of dictionaries and the members of sets
SHOWN = 80  # characters of a value in a message


class UnsafeFileError(ValueError):
    """The file asks for something other than tensors and plain values."""


class BrokenFileError(ValueError):
    """The file is truncated or not of a kind that is known."""


class Budget:
    """The bytes, or items of containers, that the functions may copy: a multiple of the file's length."""

    def __init__(self, length: int):
        self.length = length
        self.left = 8 * length + 2**20

    def spend(self, count: int) -> None:
        """Takes so many from what is left.

        Raises:
            BrokenFileError: there are not so many.
        """
        self.left -= count
        if self.left < 0:
            raise BrokenFileError(f"it would grow to many times its {self.length:,} bytes")


def _size(value: Any) -> int:
    return 1 + len(value) if isinstance(value, str | bytes | bytearray | list | tuple | dict | set | frozenset) else 1


def require_keys(keys: Iterable[Any]) -> None:
    """Raises BrokenFileError if a key is no plain value, or tuple of plain values."""
    for key in keys:
        if type(key) not in KEYS and not (type(key) is tuple and all(type(part) in KEYS for part in key)):
            raise BrokenFileError(f"a key of a dictionary or set is a {type(key).__name__}")


def shown(value: Any) -> str:
    """A plain value, shortened, or the type of any other, whose text may be long beyond measure."""
    if type(value) in (str, bytes):
        value = value[:SHOWN]
    return repr(value) if type(value) in KEYS else type(value).__name__


def printable(text: str) -> str:
    """The text in one line, with ? for what is no character of print."""
    return "".join(character if character.isprintable() else "?" for character in text)


def text(value: Any) -> str:
    """The value, which must be a text.

    Raises:
        BrokenFileError: it is not one.
    """
    if type(value) is not str:
        raise BrokenFileError(f"a text is a {type(value).__name__}")
    return value


_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # its names of modules, kept by old pickles


class File(io.BytesIO):
    """Bytes that end with an error where fewer are left than are read."""

    def read(self, size=-1):
        """So many bytes."""
        found = super().read(size)
        if len(found) < size:
            raise EOFError(f"{size} bytes are to follow, {len(found)} do")
        return found

    def readline(self, size=-1):
        """A line with its end."""
        found = super().readline(size)
        if not found.endswith(b"\n"):
            raise EOFError("a line has no end")
        return found


class Unpickler(pickle._Unpickler):
    """The reference implementation in Python, whose operations are methods, with a table of names.

    Args:
        file: the pickle; it is read up to its end and no further.
        names: what stands for (module, name) in the pickle.
        budget: of what the functions may copy; pickles of one file share it.
    """

    def __init__(self, file: File, names: Mapping[tuple[str, str], Any], budget: Budget):
        super().__init__(file, encoding="utf-8")
        self.names, self.budget, self.length = names, budget, len(file.getbuffer())

    def find_class(self, module, name):
        """What stands for a name."""
        module = _PYTHON_2.get(module, module)
        if (module, name) not in self.names:
            asked = printable(f"{module}.{name}"[:SHOWN])
            raise UnsafeFileError(f"it asks for {asked}, which is neither a tensor nor a plain value")
        return self.names[module, name]

    def persistent_load(self, pid):
        """Nothing: there is nothing outside the file."""
        parts = pid if type(pid) is tuple else (pid,)
        shown_parts = ", ".join(map(shown, parts[:3]))
        raise UnsafeFileError(f"it refers to something outside it: {printable(shown_parts[:SHOWN])}")

    def _spend(self, *values):
        self.budget.spend(sum(map(_size, values)))

    dispatch: dict[int, Any] = dict(pickle._Unpickler.dispatch)  # by the number of the operation

    def load_bytearray8(self):
        """Reads bytes; without room for more than are left."""
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))

    def load_long_binput(self):
        """Keeps a value in the memo."""
        (index,) = struct.unpack("<I", self.read(4))
        self._remember(index)

    def load_put(self):
        """Keeps a value in the memo, at an index in decimal digits."""
        self._remember(int(self.readline()[:-1]))

    def _remember(self, index):
        if not 0 <= index < self.length:  # each index costs an operation
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
        """Makes an object of a class."""
        self._spend(*self.stack[-1])
        super().load_newobj()

    def load_newobj_ex(self):
        """Makes an object of a class with keyword arguments, which none here has."""
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
        """Makes a dictionary of entries."""
        require_keys(self.stack[::2])
        super().load_dict()

    def load_additems(self):
        """Adds members to a set."""
        require_keys(self.stack)
        super().load_additems()

    def load_frozenset(self):
        """Makes a set of members."""
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
