"""The two implementations of the convolution, selected by ORNSTEIN_CONV, against each other and against NumPy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from models.layers.attention import Attention
from models.layers.convolution import VARIABLE, Conv, convolution, implementation, transposed_convolution
from models.layers.magnitude import CosineAttention
from models.layers.refinenet import DilatedBlock, pool5
from models.layers.resampling import ResamplingConv, resample
from models.layers.residual import ResidualBlock
from models.layers.trilinear import trilinear_p
from tests.models.arrays import close, normal

pytestmark = pytest.mark.devices

GEOMETRIES = [
    # input, kernel, stride, dilation, padding
    ((7,), (3,), 1, 1, "SAME"),
    ((9,), (4,), 3, 2, ((5, 1),)),
    ((8, 7), (3, 3), 2, 1, "SAME"),
    ((7, 6), (2, 3), (1, 2), (2, 1), ((0, 3), (1, 0))),
    ((3, 4, 5), (1, 2, 3), 1, 1, "VALID"),
    ((5, 4, 3), (3, 2, 2), (2, 1, 1), (1, 2, 1), ((1, 0), (2, 1), (0, 2))),
]


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def of_both(monkeypatch, function, *arguments):
    """The results of a function, traced anew, with the primitive and with `lax.conv_general_dilated`."""
    results = []
    for name, primitive in (("loop", trilinear_p), ("lax", lax.conv_general_dilated_p)):
        monkeypatch.setenv(VARIABLE, name)
        jaxpr = jax.make_jaxpr(lambda *arguments: function(*arguments))(*arguments)
        assert f" {primitive.name}[" in str(jaxpr)
        results.append(jax.jit(lambda *arguments: function(*arguments))(*arguments))
    return results


def all_derivatives(f, x, kernel):
    """Value, gradients, the Hessian times a direction in both orders, and `vmap` over x, over the kernel, over both."""
    direction = normal(2, *x.shape), normal(3, *kernel.shape)

    def loss(x, kernel):
        return jnp.sum(jnp.sin(f(x, kernel)))

    def slope(x, kernel):
        return jax.jvp(loss, (x, kernel), direction)[1]

    gradient = jax.grad(loss, (0, 1))
    xs, kernels = jnp.stack([x, x[::-1] ** 2]), jnp.stack([kernel, -2 * kernel[::-1]], -1)
    return (
        f(x, kernel),
        jax.jvp(gradient, (x, kernel), direction),
        jax.grad(slope, (0, 1))(x, kernel),
        jax.vmap(gradient, (0, None))(xs, kernel),
        jax.vmap(gradient, (None, -1))(x, kernels),
        jax.vmap(gradient, (0, -1))(xs, kernels),
    )


@pytest.mark.parametrize("size, window, stride, dilation, padding", GEOMETRIES[1::2])
def test_both_implementations_agree_in_every_derivative_and_under_vmap(
    x64, monkeypatch, size, window, stride, dilation, padding
):
    def f(x, kernel):
        return convolution(x, kernel, stride=stride, dilation=dilation, padding=padding)

    x, kernel = normal(0, 2, *size, 3), normal(1, *window, 3, 4)
    close(*of_both(monkeypatch, lambda x, kernel: all_derivatives(f, x, kernel), x, kernel))


@pytest.mark.parametrize("size, window, stride, dilation, padding", GEOMETRIES[::2])
def test_both_implementations_agree_with_named_paddings(x64, monkeypatch, size, window, stride, dilation, padding):
    def gradients(x, kernel):
        y, pullback = jax.vjp(
            lambda x, k: convolution(x, k, stride=stride, dilation=dilation, padding=padding), x, kernel
        )
        return y, *pullback(jnp.sin(y))

    close(*of_both(monkeypatch, gradients, normal(0, 2, *size, 3), normal(1, *window, 3, 4)))


@pytest.mark.parametrize("size, window, stride", [((5,), (3,), 3), ((2, 3, 2), (2, 1, 3), (1, 3, 2))])
def test_both_transposed_convolutions_agree_in_every_derivative_and_under_vmap(x64, monkeypatch, size, window, stride):
    def f(x, kernel):
        return transposed_convolution(x, kernel, stride=stride)

    x, kernel = normal(0, 2, *size, 3), normal(1, *window, 3, 4)
    close(*of_both(monkeypatch, lambda x, kernel: all_derivatives(f, x, kernel), x, kernel))


def sum_of_products(x, kernel, stride, dilation, padding):
    """y[n, i, d] = sum over a and c of x[n, stride i + dilation a - low, c] k[a, c, d], written out in NumPy."""
    rank = x.ndim - 2
    stride, dilation = np.broadcast_to(stride, rank), np.broadcast_to(dilation, rank)
    x = np.pad(x, ((0, 0), *padding, (0, 0)))
    window = kernel.shape[:-2]
    sizes = (np.array(x.shape[1:-1]) - dilation * (np.array(window) - 1) - 1) // stride + 1
    y = np.zeros((len(x), *sizes, kernel.shape[-1]))
    for i in itertools.product(*map(range, sizes)):
        for a in itertools.product(*map(range, window)):
            place = tuple(stride * i + dilation * a)
            y[(slice(None), *i)] += x[(slice(None), *place)] @ kernel[a]
    return y


@pytest.mark.parametrize("name", ["loop", "lax"])
@pytest.mark.parametrize("size, window, stride, dilation, padding", GEOMETRIES[1::2])
def test_odd_geometries_are_the_sum_of_products(x64, monkeypatch, name, size, window, stride, dilation, padding):
    """The value, and the cotangents as the sums that make <g, y> bilinear: <dx, x> = <dk, k> = <g, y>, for any x and k."""
    monkeypatch.setenv(VARIABLE, name)
    x, kernel = normal(0, 2, *size, 3), normal(1, *window, 3, 4)
    y, pullback = jax.vjp(lambda x, k: convolution(x, k, stride=stride, dilation=dilation, padding=padding), x, kernel)
    close(y, sum_of_products(np.asarray(x), np.asarray(kernel), stride, dilation, padding))
    g = normal(2, *y.shape)
    dx, dkernel = pullback(g)
    other = np.asarray(normal(3, *x.shape)), np.asarray(normal(4, *kernel.shape))
    along = sum_of_products(other[0], np.asarray(kernel), stride, dilation, padding)
    close(jnp.sum(dx * other[0]), jnp.sum(g * along))
    along = sum_of_products(np.asarray(x), other[1], stride, dilation, padding)
    close(jnp.sum(dkernel * other[1]), jnp.sum(g * along))


@pytest.mark.parametrize("size", [(7,), (3, 4, 2)], ids=str)
def test_bfloat16_rounds_the_float32_result_in_both(monkeypatch, size):
    x, kernel = normal(0, 2, *size, 8, dtype=jnp.bfloat16), normal(1, *(3,) * len(size), 8, 8, dtype=jnp.bfloat16)

    def gradients(x, kernel):
        y, pullback = jax.vjp(convolution, x, kernel)
        return y, *pullback(jnp.ones_like(y))

    exact = gradients(x.astype(jnp.float32), kernel.astype(jnp.float32))
    for rounded in of_both(monkeypatch, gradients, x, kernel):
        for value, reference in zip(rounded, exact, strict=True):
            assert value.dtype == jnp.bfloat16
            scale = float(jnp.std(reference))
            np.testing.assert_allclose(value.astype(jnp.float32), reference, rtol=2**-7, atol=2**-7 * scale)


def test_the_default_follows_the_default_device(monkeypatch):
    """Traced again when the default device changes; the variable precedes the device, an empty variable is unset."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    traced = []

    @jax.jit
    def f(x):
        traced.append(implementation())
        return x

    f(1.0)
    with jax.default_device(jax.devices("cpu")[1]):
        f(1.0)
    with jax.default_device("cpu"):
        assert implementation() == "loop"
    monkeypatch.setenv(VARIABLE, "")
    assert [*traced, implementation()] == ["lax", "loop", "lax"]
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert implementation() == "loop"
    monkeypatch.setenv(VARIABLE, "lax")
    assert implementation() == "lax"


def test_misfits_are_named(monkeypatch):
    with pytest.raises(ValueError, match=r"stride=\(2, 1\) must have 1 entries"):
        convolution(jnp.zeros((1, 4, 3)), jnp.zeros((3, 3, 4)), stride=(2, 1))
    with pytest.raises(ValueError, match=r"padding=\(\(1, 1\),\) must have 2 entries"):
        convolution(jnp.zeros((1, 4, 4, 3)), jnp.zeros((3, 3, 3, 4)), padding=((1, 1),))
    with pytest.raises(ValueError, match="with 1, 2 or 3 spatial axes"):
        Conv(4).init(jax.random.key(0), jnp.zeros((1, 2, 2, 2, 2, 3)))
    with pytest.raises(ValueError, match=r"transposed_convolution takes .* not \(1, 4, 3\) and \(3, 2, 4\)"):
        transposed_convolution(jnp.zeros((1, 4, 3)), jnp.zeros((3, 2, 4)))
    monkeypatch.setenv(VARIABLE, "xla")
    for kernel in (jnp.zeros((3, 3, 4)), jnp.zeros((1, 3, 4))):
        with pytest.raises(ValueError, match="ORNSTEIN_CONV='xla': must be loop or lax"):
            convolution(jnp.zeros((1, 4, 3)), kernel)


# ---- Layers over any number of spatial axes ----


LAYERS = [
    Conv(6, dilation=2),
    Attention(num_heads=2, init_scale=1.0),
    CosineAttention(num_heads=2),
    ResidualBlock(6, scale_shift=False, init_scale=1.0),
    DilatedBlock(6, dilation=2, change=True),
]


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_a_further_axis_of_size_1_meets_the_middle_taps_alone(layer, rank):
    """The layer of one rank is the layer of the next with an axis of size 1, where only the middle taps see data."""
    inputs = [normal(0, 2, *(5, 4)[:rank], 4, dtype=jnp.float32)]
    if isinstance(layer, ResidualBlock):
        inputs.append(normal(1, 2, 3, dtype=jnp.float32))
    higher = [inputs[0][..., None, :], *inputs[1:]]

    @jax.jit
    def both(key):
        y, variables = layer.init_with_output(key, *higher)
        lower = jax.tree.map(lambda w: w[..., w.shape[-3] // 2, :, :] if w.ndim == rank + 3 else w, variables)
        return y, layer.apply(lower, *inputs)

    y, expected = both(jax.random.key(0))
    assert float(jnp.abs(expected - inputs[0][..., :1]).max()) > 0.1
    np.testing.assert_allclose(y[..., 0, :], expected, atol=1e-5)


RESAMPLINGS = {
    "means": lambda x: resample(x, "down"),
    "repeats": lambda x: resample(x, "up"),
    "filter, down": lambda x: resample(x, "down", (1, 3, 3, 2)),
    "filter, up": lambda x: resample(x, "up", (1, 3, 3, 2)),
    "mean pool": lambda x: pool5(x, "mean"),
    "max pool": lambda x: pool5(x, "max"),
}


@pytest.mark.parametrize("sizes", [(6, 8), (6, 8, 4)], ids=str)
@pytest.mark.parametrize("name", RESAMPLINGS)
def test_resampling_a_product_is_the_product_of_resamplings(name, sizes):
    """x[i, j, ...] = a[i] b[j] ... with positive factors, each of which is resampled as an array of one axis."""
    vectors = [jnp.abs(normal(i, n, dtype=jnp.float32)) for i, n in enumerate(sizes)]

    def product(vectors):
        return functools.reduce(jnp.multiply.outer, vectors)

    @jax.jit
    def both(vectors):
        parts = [RESAMPLINGS[name](v[None, :, None])[0, :, 0] for v in vectors]
        return RESAMPLINGS[name](product(vectors)[None, ..., None])[0, ..., 0], product(parts)

    y, expected = both(vectors)
    np.testing.assert_allclose(y, expected, rtol=1e-5)


@pytest.mark.parametrize("fir_kernel", [None, (1, 3, 3, 1)], ids=str)
@pytest.mark.parametrize("direction, size", [("down", 5), ("up", 20)])
def test_resampling_convolutions_of_constants(direction, size, fir_kernel):
    """Away from the border, a constant is multiplied by the sum of the taps over all axes."""
    layer = ResamplingConv(2, direction, fir_kernel)
    variables = {"params": {"kernel": jnp.ones((3, 3, 3, 3, 2)) / 81, "bias": jnp.ones(2)}}
    y = jax.jit(layer.apply)(variables, jnp.ones((1, 10, 10, 10, 3)))
    assert y.shape == (1, size, size, size, 2)
    np.testing.assert_allclose(y[0, size // 2, size // 2, size // 2], 2, rtol=1e-5)
