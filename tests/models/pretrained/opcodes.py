"""Pickles by their opcodes: what hostile files and peers' files hold is not what Python's own pickler would write."""

import pickle


def value(item):
    """The opcodes that push a plain value."""
    return pickle.dumps(item, 2)[2:-1]


def name(module, function):
    """Pushes a global."""
    return f"c{module}\n{function}\n".encode()


def call(function, *arguments):
    """Pushes what the function returns; all are opcodes."""
    return function + b"(" + b"".join(arguments) + b"tR"


def dictionary(**items):
    """Pushes a dictionary of opcodes."""
    return b"}" + b"".join(value(key) + item + b"s" for key, item in items.items())


def whole(opcodes):
    """A pickle."""
    return b"\x80\x02" + opcodes + b"."


def storage(count, *more):
    """Pushes the storage "0" of float32 numbers."""
    entries = (value("storage"), name("torch", "FloatStorage"), value("0"), value("cpu"), value(count), *more)
    return b"(" + b"".join(entries) + b"tQ"


def tensor(storage, offset, size, stride):
    arguments = (value(offset), value(size), value(stride), value(False), value({}))
    return call(name("torch._utils", "_rebuild_tensor_v2"), storage, *arguments)


def module(class_name, source="", **state):
    """Pushes a pickled network, or a part of one, as EDM's code writes it; the state is of opcodes."""
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": class_name}
    meta = dictionary(state=dictionary(**state), **{key: value(item) for key, item in meta.items()})
    return call(name("torch_utils.persistence", "_reconstruct_persistent_obj"), meta)
