"""Weight files: each kind is known by its first bytes, and a broken one is named as such."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

from models.pretrained import files
from models.pretrained.files import read, read_safetensors, read_safetensors_metadata, write_safetensors
from models.pretrained.torch_file import BrokenFileError, UnsafeFileError

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float16([0.5])}


def test_safetensors_come_back_with_their_metadata(tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed: pip install -e '.[pretrained]'")
    path = tmp_path / "weights.bin"
    write_safetensors(path, ARRAYS, {"config": "{}"})
    tensors, metadata = read_safetensors(path)
    assert metadata == {"config": "{}"} and tensors.keys() == read(path).keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(tensors[name], array)
        assert tensors[name].dtype == array.dtype
    assert [file.name for file in tmp_path.iterdir()] == ["weights.bin"]


def test_bfloat16_is_widened_without_loss(tmp_path):
    flax = pytest.importorskip(
        "safetensors.flax", reason="safetensors is not installed: pip install -e '.[pretrained]'"
    )
    values = jnp.array([1.5, -3e38, 1e-38], jnp.bfloat16)
    flax.save_file({"x": values}, tmp_path / "x")
    np.testing.assert_array_equal(read(tmp_path / "x")["x"], values.astype(jnp.float32))


def test_flax_checkpoints_are_read_as_trees(tmp_path):
    tree = {"params_ema": {"Dense_0": {"kernel": ARRAYS["a.weight"]}}, "step": 7, "ema_rate": 0.999}
    path = tmp_path / "checkpoint_26"
    path.write_bytes(serialization.msgpack_serialize(tree))
    got = read(path)
    np.testing.assert_array_equal(got["params_ema"]["Dense_0"]["kernel"], ARRAYS["a.weight"])
    assert got["step"] == 7 and got["ema_rate"] == 0.999


def test_truncated_files_are_named_as_such(tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed: pip install -e '.[pretrained]'")
    path = tmp_path / "file"
    write_safetensors(path, ARRAYS, {})
    whole = {
        "safetensors": path.read_bytes(),
        "msgpack": serialization.msgpack_serialize({"a": np.ones(50), "b": np.ones(50)}),
    }
    for kind, data in whole.items():
        path.write_bytes(data[:-20])
        with pytest.raises(BrokenFileError, match=f"truncated or not.*{kind}"):
            read(path)


def test_unknown_kinds_and_hostile_pickles_are_refused(tmp_path):
    path = tmp_path / "file"
    for data in (b"", b"GIF89a" + bytes(20), b"<html></html>"):
        path.write_bytes(data)
        with pytest.raises(BrokenFileError, match="it is not a safetensors file, PyTorch file"):
            read(path)
    path.write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    with pytest.raises(UnsafeFileError, match=r"os\.system"):
        read(path)


@pytest.mark.parametrize(
    "head", [b"\x81", b"\xde\x00\x01", b"\xdf\x00\x00\x00\x01"], ids=["fixmap", "map 16", "map 32"]
)
def test_each_form_of_a_map_begins_a_flax_checkpoint(tmp_path, head):
    (tmp_path / "x").write_bytes(head + b"\xa1a\x07")
    assert read(tmp_path / "x") == {"a": 7}


@pytest.mark.parametrize("size", [1, 15, 16])
def test_flax_checkpoints_hold_any_number_of_entries_but_none(tmp_path, size):
    tree = {f"{i}": i for i in range(size)}
    (tmp_path / "x").write_bytes(serialization.msgpack_serialize(tree))
    assert read(tmp_path / "x") == tree
    for other in ([1, 2], 3, "text"):
        (tmp_path / "x").write_bytes(serialization.msgpack_serialize(other))
        with pytest.raises(BrokenFileError, match="it is not a safetensors file, PyTorch file"):
            read(tmp_path / "x")


def test_tensors_are_written_as_they_are_and_not_as_they_lie_in_memory(tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed: pip install -e '.[pretrained]'")
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    given = {"transposed": array.T, "strided": array[:, ::2, 1:], "reversed": array[::-1], "scalar": np.float32(3)}
    write_safetensors(tmp_path / "x", given, {})
    for name, tensor in read(tmp_path / "x").items():
        np.testing.assert_array_equal(tensor, given[name])
        assert tensor.shape == np.shape(given[name])


def test_a_write_that_fails_leaves_the_file_before_it(tmp_path, monkeypatch):
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    path = tmp_path / "x.safetensors"
    write_safetensors(path, ARRAYS, {"step": "1"})

    def half(tensors, file, metadata):
        assert file.parent == path.parent  # a file moves in one step within its folder alone
        file.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(safetensors, "save_file", half)
    with pytest.raises(OSError, match="no space left"):
        write_safetensors(path, {"c": np.ones(1)}, {})
    assert read(path).keys() == ARRAYS.keys() and read_safetensors_metadata(path) == {"step": "1"}


def test_metadata_are_read_without_tensors_and_may_be_absent(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    safetensors.save_file(ARRAYS, tmp_path / "x")
    assert read_safetensors_metadata(tmp_path / "x") == {} == read_safetensors(tmp_path / "x")[1]
    (tmp_path / "y").write_bytes((tmp_path / "x").read_bytes()[:-3])
    for function in (read_safetensors_metadata, read_safetensors):
        with pytest.raises(BrokenFileError, match="it is truncated or not a safetensors file"):
            function(tmp_path / "y")


def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None)
    for function in (
        lambda: read_safetensors(tmp_path / "x"),
        lambda: read_safetensors_metadata(tmp_path / "x"),
        lambda: write_safetensors(tmp_path / "x", ARRAYS, {}),
    ):
        with pytest.raises(ImportError, match=r"pip install 'ornstein\[pretrained\]'"):
            function()
