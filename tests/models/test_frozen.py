"""Convolutions with a fixed batch norm: the formula, and the two ways to convolve channels by themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from models.layers.frozen import FrozenConv, FrozenDense, depthwise_convolution


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
