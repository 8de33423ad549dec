"""Storages and arrays within PyTorch's files: every number type, every layout, and what does not fit its bytes."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from models.pretrained.torch_file import BrokenFileError, Record, UnsafeFileError, module_tensors, read
from tests.models.pretrained import opcodes as op
from tests.models.pretrained.test_torch_file import zipped

NUMBERS = {
    "float64": [0.1, -1e300],
    "float32": [0.1, -3e38],
    "float16": [0.1, -6e4],
    "bfloat16": [1.5, -3e38],
    "int64": [2**40, -(2**62)],
    "int32": [70000, -(2**31)],
    "int16": [300, -(2**15)],
    "int8": [100, -128],
    "uint8": [200, 255],
    "bool": [True, False],
}


@pytest.mark.parametrize("legacy", [False, True])
def test_every_number_type_of_torch_is_read_exactly(tmp_path, legacy):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[interop]'")
    tensors = {name: torch.tensor(values, dtype=getattr(torch, name)) for name, values in NUMBERS.items()}
    value = {"tensors": tensors, "dtypes": [tensor.dtype for tensor in tensors.values()]}
    torch.save(value, tmp_path / "file", _use_new_zipfile_serialization=not legacy)
    found = read((tmp_path / "file").read_bytes())
    assert found["dtypes"] == list(NUMBERS)
    for name, tensor in tensors.items():
        array = found["tensors"][name]
        assert array.dtype.name == name
        np.testing.assert_array_equal(array.astype(np.float64), tensor.double().numpy())


LEGACY = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})


def legacy(count=4, written=None, view=None, header=LEGACY, numbers=b"", keys=("0",)):
    """A file from before 1.6 with the numbers 0, 1, ... in one storage, of which each part can be another."""
    written = count if written is None else written
    whole = b"".join(op.whole(op.value(part)) for part in header)
    whole += op.whole(op.tensor(op.storage(count, op.value(view)), 0, (2,), (1,))) + op.whole(op.value(list(keys)))
    return whole + np.int64(written).tobytes() + (numbers or np.arange(written, dtype=np.float32).tobytes())


def test_a_legacy_file_fits_its_header_and_its_counts():
    np.testing.assert_array_equal(read(legacy()), [0, 1])
    for faulty, message in (
        (legacy(header=(LEGACY[0], 1000, {})), "its protocol is 1000, not 1001"),
        (legacy(header=(LEGACY[0], "1001", {})), "its protocol is '1001', not 1001"),
        (legacy(view=("key", 0, 2)), "it holds views of storages"),
        (legacy(written=3), "a storage of 4 numbers has 3"),
        (legacy(written=5), "a storage of 4 numbers has 5"),
        (legacy(count=-1, written=4), "a storage of -1 numbers is larger than the file"),
        (legacy(count=10**6, written=4), "a storage of 1000000 numbers is larger than the file"),
        (legacy(numbers=bytes(15)), "expected 16 more bytes, found 15"),
        (legacy(keys=("1",)), "truncated or not a file of PyTorch"),
    ):
        with pytest.raises(BrokenFileError, match=message):
            read(faulty)
    assert read(op.whole(op.value(LEGACY[0] + 1))) == LEGACY[0] + 1  # any other first value is the whole file


def test_a_storage_has_as_many_bytes_as_its_numbers_and_a_known_type():
    def file(count, storage, data=bytes(16)):
        return zipped(**{"data.pkl": op.whole(op.tensor(storage(count), 0, (1,), (1,))), "data/0": data})

    def other(kind):
        return lambda count: (
            b"(" + b"".join((op.value("storage"), kind, op.value("0"), op.value(""), op.value(count))) + b"tQ"
        )

    assert read(file(4, op.storage)) == read(file(3, op.storage)) == [0]
    for count, storage, message in (
        (5, op.storage, "a storage of 5 numbers has 16 bytes"),
        (-1, op.storage, "a storage of -1 numbers has 16 bytes"),
        (1.0, op.storage, "a storage of 1.0 numbers has 16 bytes"),
        (1, other(op.value("object")), "its numbers are 'object'"),
        (1, other(op.value(3)), "a text is a int"),
    ):
        with pytest.raises(BrokenFileError, match=message):
            read(file(count, storage))


def test_tensors_of_the_first_releases_and_storages_in_two_tensors():
    storage = op.storage(6)
    old = op.call(op.name("torch._utils", "_rebuild_tensor"), storage, op.value(1), op.value((2, 2)), op.value((2, 1)))
    both = op.whole(op.dictionary(old=old, new=op.tensor(op.storage(6), 0, (3,), (2,))))
    found = read(zipped(**{"data.pkl": both, "data/0": np.arange(6, dtype=np.float32).tobytes()}))
    np.testing.assert_array_equal(found["old"], [[1, 2], [3, 4]])
    np.testing.assert_array_equal(found["new"], [0, 2, 4])
    assert np.shares_memory(found["old"], found["new"])


@pytest.mark.parametrize("core", ["core", "_core"])
def test_bytes_of_an_array_are_bytes_or_the_latin_1_of_python_2(core):
    def array(data, fortran=False, shape=(2, 128), dtype="u1"):
        made = op.call(op.name(f"numpy.{core}.multiarray", "_reconstruct"), op.name("numpy", "ndarray"), op.value((0,)))
        kind = op.call(op.name("numpy", "dtype"), op.value(dtype))
        return op.whole(made + b"(" + op.value(1) + op.value(shape) + kind + op.value(fortran) + data + b"tb")

    text = op.value("".join(map(chr, range(256))))
    expected = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(read(array(text)), expected.reshape(2, 128))
    np.testing.assert_array_equal(read(array(text, True)), expected.reshape(128, 2).T)
    scalar = op.call(
        op.name(f"numpy.{core}.multiarray", "scalar"), op.call(op.name("numpy", "dtype"), op.value("u1")), text
    )
    assert read(op.whole(scalar)) == 0
    with pytest.raises(BrokenFileError, match="the numbers of an array are a int"):
        read(array(op.value(3)))
    with pytest.raises(UnsafeFileError, match="it holds a NumPy array of S1, not of numbers"):
        read(array(text, dtype="S1"))


def test_arrays_of_numbers_alone_are_read():
    for array in (np.array([1 + 2j]), np.array([True]), np.array([-3], np.int16), np.array([2.5], np.float16)):
        np.testing.assert_array_equal(read(pickle.dumps(array)), array)
        assert read(pickle.dumps(array)).dtype == array.dtype
    for array in (np.array([b"abc"]), np.array(["abc"]), np.array(["2020-01-01"], "M8[D]"), np.zeros(2, "V3")):
        with pytest.raises(UnsafeFileError, match="not of numbers"):
            read(pickle.dumps(array))


def test_buffers_are_tensors_of_a_module_as_well_and_what_is_none_is_not():
    def module(parameters, buffers, **children):
        return Record("Module", {"_parameters": parameters, "_buffers": buffers, "_modules": children})

    one, two = np.ones(1), np.full(2, 2)
    inner = module({"weight": one, "bias": None}, {"running_mean": two, "steps": None})
    tensors = module_tensors(module({}, {"sigmas": two}, norm=inner, empty=Record("Module")))
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        "sigmas": [2, 2],
        "norm.weight": [1],
        "norm.running_mean": [2, 2],
    }


def test_a_function_or_a_class_is_no_value():
    dtype = op.call(op.name("numpy", "dtype"), op.value("f4"))
    for opcodes in (op.name("torch", "Size"), op.name("collections", "OrderedDict"), op.name("numpy", "dtype"), dtype):
        with pytest.raises(UnsafeFileError, match="it holds a function"):
            read(op.whole(op.dictionary(x=opcodes)))
        with pytest.raises(UnsafeFileError, match="it holds a function"):
            read(op.whole(b"(" + opcodes + b"l"))


def test_the_data_of_a_zip_file_stand_in_any_folder():
    data = {"data.pkl": op.whole(op.tensor(op.storage(2), 0, (2,), (1,))), "data/0": np.float32([3, 4]).tobytes()}
    for root in ("archive", "a/b", "epoch.9"):
        np.testing.assert_array_equal(read(zipped(root, **data)), [3, 4])
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in data.items():
            archive.writestr(name, content)
    np.testing.assert_array_equal(read(file.getvalue()), [3, 4])


def test_a_storage_within_a_pickle_is_a_storage():
    load = op.name("torch.storage", "_load_from_bytes")
    inner = op.whole(op.value([1, 2]))
    with pytest.raises(BrokenFileError, match="a storage within the pickle holds something else"):
        read(op.whole(op.call(load, b"B" + len(inner).to_bytes(4, "little") + inner)))


def test_no_axis_leads_out_of_a_storage():
    numbers = np.arange(4, dtype=np.float32).tobytes()

    def file(*shape):
        return zipped(**{"data.pkl": op.whole(op.tensor(op.storage(4), *shape)), "data/0": numbers})

    for shape, expected in (
        ((3, (1,), (1,)), [3]),
        ((0, (2, 2), (2, 1)), [[0, 1], [2, 3]]),
        ((1, (2, 2), (0, 2)), [[1, 3], [1, 3]]),
        ((3, (), ()), 3),
        ((9, (2, 0), (1, 1)), np.zeros((2, 0))),
    ):
        np.testing.assert_array_equal(read(file(*shape)), expected)
    for shape in ((-1, (1,), (1,)), (4, (), ()), (0, (-1,), (1,)), (0, (0, -1), (1, 1)), (2, (2, 2), (1, 1))):
        with pytest.raises(BrokenFileError, match="reaches beyond its 4 numbers"):
            read(file(*shape))
    with pytest.raises(BrokenFileError, match="truncated or not a file of PyTorch"):
        read(file(0, (2, 2), (1,)))


@pytest.mark.parametrize("pid", [("module", "net.py"), ("Storage", 1, 2, 3, 4), (), "storage", 7])
def test_references_other_than_to_storages_are_refused_where_there_are_storages(pid):
    with pytest.raises(UnsafeFileError, match="it refers to something outside it"):
        read(zipped(**{"data.pkl": op.whole(op.value(pid) + b"Q")}))
