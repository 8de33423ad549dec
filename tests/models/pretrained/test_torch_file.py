"""Files of PyTorch: what torch.save wrote is read without torch, and hostile files execute nothing."""

import io
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from models.pretrained.torch_file import BrokenFileError, Record, UnsafeFileError, module_tensors, read
from tests.models.pretrained import opcodes as op


def zipped(root="archive", **entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(f"{root}/{name}", data)
    return file.getvalue()


@pytest.mark.parametrize("legacy", [False, True])
def test_what_torch_saves_is_read_without_it(legacy):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[interop]'")
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    value = {
        "model": OrderedDict(a=base, slice=base[1:3, ::2], transposed=base.T, scalar=torch.tensor(7)),
        "parameter": torch.nn.Parameter(torch.ones(2, 3)),
        "bfloat16": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "half": torch.tensor([0.5], dtype=torch.float16),
        "empty": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
        "ema": {"decay": 0.999, "shadow_params": [base * 2, base[0]], "size": base.shape, "dtype": torch.float32},
        "step": 5,
    }
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not legacy)
    got = read(file.getvalue())
    assert list(got) == list(value) and list(got["model"]) == list(value["model"])
    for name, tensor in value["model"].items():
        np.testing.assert_array_equal(got["model"][name], tensor.numpy())
        assert got["model"][name].dtype == tensor.numpy().dtype
    np.testing.assert_array_equal(got["parameter"], np.ones((2, 3)))
    np.testing.assert_array_equal(got["bfloat16"].astype(np.float32), [1.5, -2.0])
    np.testing.assert_array_equal(got["half"], np.float16([0.5]))
    assert got["empty"].shape == (0, 3) and got["flags"].tolist() == [True, False]
    np.testing.assert_array_equal(got["ema"]["shadow_params"][1], base[0].numpy())
    assert got["ema"]["decay"] == 0.999 and got["ema"]["size"] == (4, 6) and got["ema"]["dtype"] == "float32"
    assert got["step"] == 5


def test_every_prefix_of_a_file_is_broken_and_nothing_worse():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[interop]'")
    for legacy in (False, True):
        file = io.BytesIO()
        torch.save({"w": torch.ones(50)}, file, _use_new_zipfile_serialization=not legacy)
        data = file.getvalue()
        for size in range(0, len(data) - 1, 37):
            with pytest.raises(BrokenFileError):
                read(data[:size])


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_numpy_s_numbers_are_read_and_its_objects_are_not(protocol):
    array = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    value = {"scalar": np.float64(0.5), "array": array, "columns": np.asfortranarray(array), "set": {1, 2}}
    got = read(pickle.dumps(value, protocol))
    assert got["scalar"] == 0.5 and got["set"] == {1, 2}
    for name in ("array", "columns"):
        np.testing.assert_array_equal(got[name], array)
    with pytest.raises(UnsafeFileError, match="not of numbers"):
        read(pickle.dumps(np.array([{}, None]), protocol))


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2"])
def test_big_endian_numbers_are_refused_not_misread(dtype):
    """In either container; one byte has no order."""
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(BrokenFileError, match="its numbers are big-endian"):
            read(pickle.dumps(np.arange(3).astype(dtype), protocol))
    little = pickle.dumps(np.arange(3, dtype="<f4"))
    assert read(zipped(**{"data.pkl": little, "byteorder": b"little"})).tolist() == [0, 1, 2]
    with pytest.raises(BrokenFileError, match="its numbers are big-endian"):
        read(zipped(**{"data.pkl": little, "byteorder": b"big"}))
    assert read(pickle.dumps(np.arange(3, dtype=">u1"))).tolist() == [0, 1, 2]


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: zipped(**{"data.pkl": data})], ids=["pickle", "zip"])
@pytest.mark.parametrize(
    "module, function, arguments",
    [
        ("os", "system", ("touch {mark}",)),
        ("posix", "system", ("touch {mark}",)),
        ("builtins", "eval", ("open('{mark}', 'w')",)),
        ("builtins", "open", ("{mark}", "w")),
        ("builtins", "getattr", ({}, "clear")),
        ("torch", "load", ("{mark}",)),
        ("numpy", "fromfile", ("{mark}",)),
    ],
)
def test_a_hostile_pickle_is_refused_by_name_and_executes_nothing(tmp_path, wrap, module, function, arguments):
    mark = tmp_path / "mark"
    arguments = [op.value(arg.format(mark=mark) if isinstance(arg, str) else arg) for arg in arguments]
    with pytest.raises(UnsafeFileError, match=f"{module}.{function}"):
        read(wrap(op.whole(op.dictionary(model=op.call(op.name(module, function), *arguments)))))
    assert not mark.exists()


def test_the_functions_of_the_reader_cannot_be_changed():
    """A pickle that sets an attribute of what it may name is refused, and the reader reads on as before."""
    size = op.name("torch", "Size")
    for target in (size, op.name("collections", "OrderedDict"), op.name("torch.nn.modules.container", "ModuleList")):
        with pytest.raises((UnsafeFileError, BrokenFileError)):
            read(op.whole(target + op.value(({}, {"_build": 1, "__setstate__": 1})) + b"b"))
    with pytest.raises(UnsafeFileError, match="a function"):
        read(op.whole(op.dictionary(model=size)))
    assert read(op.whole(op.call(size, op.value((1, 2))))) == (1, 2)


def test_a_reference_to_something_outside_the_file_is_refused():
    with pytest.raises(UnsafeFileError, match="outside it"):
        read(op.whole(op.value(("module", "net.py")) + b"Q"))


@pytest.mark.parametrize(
    "size, stride, offset", [((5,), (1,), 0), ((2, 2), (3, 1), 0), ((1,), (1,), 4), ((2,), (-1,), 3)]
)
def test_a_tensor_cannot_reach_beyond_its_storage(size, stride, offset):
    numbers = np.arange(4, dtype=np.float32)

    def file(*shape):
        return zipped(**{"data.pkl": op.whole(op.tensor(op.storage(4), *shape)), "data/0": numbers.tobytes()})

    np.testing.assert_array_equal(read(file(0, (2, 2), (1, 2))), [[0, 2], [1, 3]])
    with pytest.raises(BrokenFileError, match="reaches beyond"):
        read(file(offset, size, stride))
    with pytest.raises(BrokenFileError, match="a storage of 40 numbers has 16 bytes"):
        read(zipped(**{"data.pkl": op.whole(op.tensor(op.storage(40), 0, (1,), (1,))), "data/0": numbers.tobytes()}))


def test_a_pickled_network_is_a_record_of_tensors_and_its_source_stays_unread(tmp_path):
    numbers = np.float32([1, 2, 3, 4, 5, 6])
    legacy = b"".join(op.whole(op.value(part)) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    legacy += (
        op.whole(op.storage(6, op.value(None))) + op.whole(op.value(["0"])) + np.int64(6).tobytes() + numbers.tobytes()
    )

    source = f"open({str(tmp_path / 'mark')!r}, 'w')"
    nested = op.call(op.name("torch.storage", "_load_from_bytes"), b"B" + len(legacy).to_bytes(4, "little") + legacy)
    kernel = op.tensor(nested, 0, (2, 3), (3, 1))
    parameters = op.dictionary(weight=kernel, bias=op.value(None))
    conv = op.module("Conv2d", source, _parameters=parameters, _buffers=op.value({}), _modules=op.value({}))
    net = op.module(
        "Net",
        source,
        sigma=op.value(0.5),
        _parameters=op.value({}),
        _buffers=op.value({}),
        _modules=op.dictionary(conv=conv),
    )
    got = read(op.whole(op.dictionary(ema=net)))["ema"]
    assert isinstance(got, Record) and got.class_name == "Net" and got.state["sigma"] == 0.5
    tensors = module_tensors(got)
    assert tensors.keys() == {"conv.weight"}
    np.testing.assert_array_equal(tensors["conv.weight"], [[1, 2, 3], [4, 5, 6]])
    assert not (tmp_path / "mark").exists()


def test_other_files_are_named_as_such():
    with pytest.raises(BrokenFileError, match="holds no data"):
        read(zipped(**{"readme.txt": b""}))
    for data in (b"", b"\x89PNG\r\n\x1a\n" + bytes(100), b"<html>"):
        with pytest.raises(BrokenFileError, match="not a file of PyTorch"):
            read(data)
    with pytest.raises(BrokenFileError, match="truncated"):
        read(op.whole(op.value([1, 2, 3]))[:-3])


def test_names_of_tensors_are_paths_of_modules():
    """As a `state_dict` has them, below the second level too."""

    def module(tensors, **children):
        return Record("Module", {"_parameters": tensors, "_buffers": {}, "_modules": children})

    inner = module({"weight": np.ones(2)}, none=None)
    tensors = module_tensors(module({"scale": np.ones(1)}, a=module({}, b=inner), c=inner), prefix="ema.")
    assert tensors.keys() == {"ema.scale", "ema.a.b.weight", "ema.c.weight"}
