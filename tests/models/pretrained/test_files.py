"""Weight files: each kind is known by its first bytes, and a broken one is named as such."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

from models.pretrained.files import read, read_safetensors, write_safetensors
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
        with pytest.raises(BrokenFileError, match="none of safetensors"):
            read(path)
    path.write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    with pytest.raises(UnsafeFileError, match=r"os\.system"):
        read(path)
