"""The bounded unpickler: what a file may copy, which keys and indices it may use, and how its faults are shown."""

import pickle

import pytest

from models.pretrained.bounded_pickle import Budget, File, printable, shown
from models.pretrained.torch_file import BrokenFileError, Record, UnsafeFileError, read
from tests.models.pretrained import opcodes as op


def test_a_budget_is_spent_to_the_last_byte_and_not_beyond():
    """Eight times the file and one MiB, which a small file may need."""
    for length in (0, 1000):
        budget = Budget(length)
        budget.spend(8 * length)
        budget.spend(2**20)
        with pytest.raises(BrokenFileError, match=f"it would grow to many times its {length:,} bytes"):
            budget.spend(1)


LENGTH = 2**18
TEXT = b"X" + LENGTH.to_bytes(4, "little") + b"a" * LENGTH + b"q\x090"  # kept in the memo, and taken from the stack
ENCODE, DICT = op.name("_codecs", "encode"), op.name("collections", "OrderedDict")
ARRAY = op.call(op.name("numpy.core.multiarray", "_reconstruct"), op.name("numpy", "ndarray"), op.value((0,)))
STATE = op.value(1) + op.value((LENGTH,)) + op.call(op.name("numpy", "dtype"), op.value("u1")) + op.value(False)
COPIES = {
    "a function is called": ENCODE + b"h\x09\x85R",
    "a function is called as a class": b"(" + ENCODE + b"h\x09o",
    "an object is made": DICT + b"h\x09\x85\x81",
    "a state is set": ARRAY + b"(" + STATE + b"h\x09tb",
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES.keys())
def test_whatever_copies_a_text_spends_its_length(copy):
    """A quarter of a MiB: eleven copies are within eight times the file and one MiB, and twenty are not."""
    few, many = (op.whole(b"(" + TEXT + copy * count + b"l") for count in (11, 20))
    assert len(read(few)) == 11
    with pytest.raises(BrokenFileError, match="it would grow to many times its"):
        read(many)


def test_plain_values_and_tuples_of_them_are_keys_and_nothing_else():
    plain = ["text", b"bytes", 7, 1.5, True, None, ("a", 3, b"c")]
    for key in plain:
        for container in ({key: 1}, {key}, frozenset([key])):
            assert read(pickle.dumps(container, 4)) == container
    assert read(pickle.dumps(dict.fromkeys(plain, 2), 4)) == dict.fromkeys(plain, 2)
    for key in (("a", ("b",)), frozenset([1]), 1j):
        for container in ({key: 1}, {1: 2, key: 1}, {key}, frozenset([key])):
            with pytest.raises((BrokenFileError, UnsafeFileError)):
                read(pickle.dumps(container, 4))


@pytest.mark.parametrize("put, get", [(b"r%s", b"j%s"), (b"p%s\n", b"g%s\n")])
def test_the_memo_has_an_index_for_each_byte_of_the_file(put, get):
    def file(index):
        text = index.to_bytes(4, "little") if put[:1] == b"r" else b"%02d" % index
        return op.whole(b"]" + put % text + b"K\x05a0" + get % text)

    length = len(file(0))
    for index in (0, 1, length - 1):
        assert read(file(index)) == [5]
    with pytest.raises(BrokenFileError, match=f"value number {length}, more than its {length} bytes can hold"):
        read(file(length))
    with pytest.raises(BrokenFileError, match="value number -1, more than"):
        read(op.whole(b"]p-1\n"))


@pytest.mark.parametrize("module", ["copyreg", "copy_reg"])
@pytest.mark.parametrize("builtins", ["builtins", "__builtin__"])
def test_modules_have_their_names_of_python_2_as_well(module, builtins):
    made = op.call(op.name(module, "_reconstructor"), DICT, op.name(builtins, "object"), op.value(None))
    assert read(op.whole(made)) == {}
    assert read(op.whole(op.call(op.name(builtins, "set"), op.value([1, 2])))) == {1, 2}


def test_values_are_shown_in_one_short_line():
    assert (
        shown("a" * 81) == repr("a" * 80) and shown(b"a" * 81) == repr(b"a" * 80) and shown("a" * 80) == repr("a" * 80)
    )
    assert (shown(7), shown(None), shown(1.5), shown([1])) == ("7", "None", "1.5", "list")
    assert printable("a\nb\tc\x1b[31m d\u200be") == "a?b?c?[31m d?e"
    with pytest.raises(
        UnsafeFileError, match=r"it asks for a\?b\.c\?\[2J, which is neither a tensor nor a plain value"
    ):
        read(b"\x80\x04" + op.value("a\nb") + op.value("c\x1b[2J") + b"\x93.")
    with pytest.raises(UnsafeFileError) as error:
        read(op.whole(op.value(("module", "net.py", 3, "unseen")) + b"Q"))
    assert str(error.value) == "it refers to something outside it: 'module', 'net.py', 3"


def test_a_read_ends_with_the_file():
    file = File(b"abc\nd")
    assert file.read(2) == b"ab" and file.readline() == b"c\n"
    with pytest.raises(EOFError, match="a line has no end"):
        file.readline()
    file.seek(3)
    assert file.read(2) == b"\nd" and file.read(0) == b""
    file.seek(3)
    with pytest.raises(EOFError, match="expected 3 more bytes, found 2"):
        file.read(3)
    data = b"\x96" + (5).to_bytes(8, "little") + b"hello"
    assert read(b"\x80\x05" + data + b".") == b"hello"


CONTAINERS = [("torch.nn.modules.container", name) for name in ("ModuleDict", "ModuleList", "Sequential")]


@pytest.mark.parametrize("module, kind", [*CONTAINERS, ("argparse", "Namespace")])
def test_objects_without_code_of_their_own_are_records(module, kind):
    made = op.name(module, kind) + b")\x81"
    state = op.dictionary(_modules=op.value({"0": None}), training=op.value(False))
    expected = Record(kind, {"_modules": {"0": None}, "training": False})
    assert read(op.whole(made + state + b"b")) == expected
    assert read(op.whole(made)) == Record(kind, {})
    with pytest.raises(BrokenFileError, match="the attributes of an object are a list"):
        read(op.whole(made + op.value([1]) + b"b"))


@pytest.mark.parametrize("module, kind", [("collections", "OrderedDict"), ("dnnlib.util", "EasyDict")])
def test_dictionaries_of_any_class_are_dictionaries_without_attributes(module, kind):
    made = op.name(module, kind)
    for opcodes in (op.call(made, op.value([("a", 1), ("b", 2)])), op.call(made) + op.value("a") + op.value(1) + b"s"):
        found = read(op.whole(opcodes + op.value({"_metadata": 3}) + b"b"))
        assert type(found) is dict and found == {"a": 1, **({"b": 2} if len(found) > 1 else {})}


def test_what_a_file_holds_twice_is_one_object_and_kinds_of_containers_stay():
    inner = [1, (2, {"a": 3})]
    found = read(pickle.dumps({"first": inner, "second": (inner, inner)}))
    assert found == {"first": inner, "second": (inner, inner)}
    assert found["first"] is found["second"][0] is found["second"][1]


def test_devices_and_persistent_objects_are_plain():
    device = op.name("torch", "device")
    assert read(op.whole(op.call(device, op.value("cuda"), op.value(1)))) == "cuda"
    assert read(op.whole(op.call(device))) == ""
    build = op.name("torch_utils.persistence", "_reconstruct_persistent_obj")
    for state in (None, {}):
        assert read(op.whole(op.call(build, op.value({"class_name": "Net", "state": state})))) == Record("Net", {})
    assert read(op.whole(op.call(build, op.value({"class_name": "Net"})))) == Record("Net", {})
    with pytest.raises(BrokenFileError, match="a text is a int"):
        read(op.whole(op.call(build, op.value({"class_name": 3}))))


NESTED = op.value(("a", ("b",)))
PAIR = b"]" + NESTED + b"K\x01\x86a"  # [(nested, 1)]
KEYED = {
    "one entry": b"}" + NESTED + b"K\x01s",
    "entries": b"}(K\x05K\x06" + NESTED + b"K\x01u",
    "a dictionary": b"(" + NESTED + b"K\x01d",
    "the second of a dictionary": b"(K\x05K\x06" + NESTED + b"K\x01d",
    "members": b"\x8f(K\x05" + NESTED + b"\x90",
    "a frozen set": b"(K\x05" + NESTED + b"\x91",
    "an ordered dictionary": op.call(DICT, PAIR),
    "a set": op.call(op.name("builtins", "set"), b"]" + NESTED + b"a"),
}


@pytest.mark.parametrize("opcodes", KEYED.values(), ids=KEYED.keys())
def test_every_way_to_make_a_key_is_watched(opcodes):
    with pytest.raises(BrokenFileError, match="a key of a dictionary or set is a tuple"):
        read(op.whole(opcodes))
    assert read(op.whole(opcodes.replace(NESTED, op.value(("a", "b")))))


def test_objects_take_no_keyword_arguments():
    with pytest.raises(UnsafeFileError, match="it makes an object with keyword arguments"):
        read(b"\x80\x04" + DICT + b")}\x92.")


def test_texts_of_python_2_are_utf_8():
    assert read(b"\x80\x02U\x02\xc3\xa9.") == "\u00e9"
    with pytest.raises(BrokenFileError, match=r"truncated or not a file of PyTorch \(UnicodeDecodeError"):
        read(b"\x80\x02U\x01\xe9.")
