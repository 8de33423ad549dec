"""Two-dimensional convolution whose derivatives stay fast inside loops on CPU.

The convolution `y = x * k` is bilinear, so it is one leg of a trilinear form in an input `x`, a kernel `k` and a
cotangent `g` of the output:

    T(x, k, g) = sum  x[n, stride i + dilation a - low, c] k[a, c, d] g[n, i, d]     (over n, i, a, c, d)

Fix two of the three and the form is linear in the third. Leaving `output` open gives the convolution, leaving `input`
open its gradient with respect to the input, leaving `kernel` open its gradient with respect to the kernel. Each of the
three is bilinear again and has the other two as its transposes. Hence one primitive, `trilinear_p`, whose parameter
`open_leg` names the free leg, is closed under every derivative: its tangent and transpose rules never leave the
family, in whatever order and to whatever depth JAX applies them.

Why not differentiate `jax.lax.conv_general_dilated`? On GPU and TPU that is what the primitive lowers to. XLA's CPU
backend, however, compiles the two gradients so differently inside `scan`, `fori_loop` and `while_loop` that the kernel
gradient is some seventy times slower there than outside. Written as plain convolutions of transposed arrays they cost
the same in a loop and out of it, so that is how they are lowered on CPU.

Layouts: images (N, H, W, C) "NHWC", kernels (kernel height, kernel width, C_in, C_out) "HWIO".
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

LAYOUT = ("NHWC", "HWIO", "NHWC")

Leg = Literal["input", "kernel", "output"]
Pair = tuple[int, int]


class Geometry(NamedTuple):
    """The spatial shape of a convolution: every field holds one entry for height and one for width."""

    stride: Pair
    dilation: Pair
    padding: tuple[Pair, Pair]  # (low, high) for each axis
    input_size: Pair
    kernel_size: Pair
    output_size: Pair


def convolution(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int | Pair = 1,
    dilation: int | Pair = 1,
    padding: str | Sequence[Pair] = "SAME",
) -> jax.Array:
    """Convolves images with a kernel as `jax.lax.conv_general_dilated` does; differentiable to any order in any mode.

    Args:
        x: images of shape (N, H, W, C_in).
        kernel: of shape (kernel height, kernel width, C_in, C_out), in the dtype of `x`.
        stride: step between output pixels, one number or (height, width).
        dilation: step between kernel taps, one number or (height, width).
        padding: "SAME" (the output has ceil(size / stride) pixels), "VALID" (none), or ((low, high), (low, high)).

    Returns:
        Array of shape (N, H', W', C_out) in the dtype of `x`.

    Raises:
        ValueError: where the shapes do not fit each other, or leave no output.
        TypeError: where the dtypes differ.
    """
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[2]:
        shapes = f"{x.shape} and {kernel.shape}"
        raise ValueError(f"convolution takes x (N, H, W, C_in) and kernel (height, width, C_in, C_out), not {shapes}")
    if x.dtype != kernel.dtype:
        raise TypeError(f"convolution takes x and kernel of one dtype, not {x.dtype} and {kernel.dtype}")
    geometry = _geometry(x.shape[1:3], kernel.shape[:2], _pair(stride), _pair(dilation), padding)
    if geometry == _pointwise(geometry.input_size):
        return per_position(lambda x: x @ kernel[0, 0], x)
    return trilinear_p.bind(x, kernel, open_leg="output", geometry=geometry)


def per_position(product: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Applies a matrix product to the channels of each pixel or token: `product` maps (M, C) to (M, O), x is (..., C).

    The same as the product of x itself. XLA's CPU backend, however, copies x and the cotangent, transposed, for the gradient
    with respect to the matrix where x has more than two axes, which doubles the time that the gradient takes.
    """
    return product(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


def transposed_convolution(x: jax.Array, kernel: jax.Array, *, stride: int | Pair = 2) -> jax.Array:
    """Convolves images with `stride - 1` zeros put between their pixels: every pixel spreads the flipped kernel.

    Differentiable as `convolution` is, of which it is the gradient with respect to the input (nothing is padded or cut).

    Args:
        x: images of shape (N, H, W, C_in).
        kernel: of shape (kernel height, kernel width, C_in, C_out), in the dtype of `x`; as `convolution` would see it.
        stride: one number or (height, width).

    Returns:
        Array of shape (N, stride (H - 1) + kernel height, stride (W - 1) + kernel width, C_out) in the dtype of `x`.
    """
    stride = _pair(stride)
    size = tuple(s * (n - 1) + k for n, s, k in zip(x.shape[1:3], stride, kernel.shape[:2], strict=True))
    geometry = _geometry(size, kernel.shape[:2], stride, (1, 1), "VALID")
    return trilinear_p.bind(jnp.flip(kernel, (0, 1)).swapaxes(2, 3), x, open_leg="input", geometry=geometry)


class Conv(nn.Module):
    """Convolution with a bias and the initialization of DDPM.

    Kernels are drawn from U(-a, a) with a = sqrt(3 init_scale / mean(fan_in, fan_out)), biases are zero.
    Source: Ho et al. (2020), https://github.com/hojonathanho/diffusion/blob/master/diffusion_tf/nn.py.

    Attributes:
        features: channels of the output.
        kernel_size: side of the square kernel.
        padding: "SAME", "VALID" or ((low, high), (low, high)). "SAME" gives an image of even size, at stride 2, a row of
            zeros below and a column to its right, as TensorFlow does; PyTorch's `padding=1` is ((1, 1), (1, 1)).
        init_scale: variance of the kernel relative to Glorot's; 0 starts the layer at zero, as the last layer of a
            residual branch wants it.
        fan: "fan_avg", the mean above; or "fan_in" or "fan_out" to scale by one of them alone. PyTorch's default kernel is
            "fan_in" at 1/3, and He's initialization is either at 2.
        dtype: of the computation; parameters are float32.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    init_scale: float = 1.0
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32
    padding: str | tuple[Pair, Pair] = "SAME"
    fan: Literal["fan_avg", "fan_in", "fan_out"] = "fan_avg"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (N, H, W, C) to (N, H', W', features); "SAME" makes H' and W' ceil(H / stride) and ceil(W / stride)."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", scaled_init(self.init_scale, self.fan), shape, jnp.float32)
        options = {"stride": self.stride, "dilation": self.dilation, "padding": self.padding}
        y = convolution(x.astype(self.dtype), kernel.astype(self.dtype), **options)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        return y


def scaled_init(scale: float, fan: Literal["fan_avg", "fan_in", "fan_out"] = "fan_avg") -> nn.initializers.Initializer:
    """DDPM's initializer: uniform, variance `scale / mean(fan_in, fan_out)`, or over `fan`; all zeros for `scale` 0."""
    return nn.initializers.variance_scaling(scale, fan, "uniform") if scale else nn.initializers.zeros


def _pair(value: int | Sequence[int]) -> Pair:
    return (value, value) if isinstance(value, int) else cast(Pair, tuple(value))


def _geometry(input_size, kernel_size, stride, dilation, padding: Any) -> Geometry:
    extents = [d * (k - 1) + 1 for d, k in zip(dilation, kernel_size, strict=True)]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(input_size, extents, stride, padding)
    padding = tuple((int(low), int(high)) for low, high in padding)
    output_size = tuple(
        (n + low + high - extent) // s + 1
        for n, (low, high), extent, s in zip(input_size, padding, extents, stride, strict=True)
    )
    if min(output_size) < 1:
        sizes = f"image {tuple(input_size)} with padding {padding}, kernel {tuple(extents)}"
        raise ValueError(f"convolution: the padded image is smaller than the dilated kernel: {sizes}")
    return Geometry(stride, dilation, padding, tuple(input_size), tuple(kernel_size), output_size)


def _pointwise(size: Pair) -> Geometry:
    """The geometry of a 1x1 convolution: a matrix product per pixel, fast in loops as it is."""
    return Geometry((1, 1), (1, 1), ((0, 0), (0, 0)), size, (1, 1), size)


# ---- The three bilinear maps, in the form that each platform runs fastest ----


def _output(x, kernel, g: Geometry):
    """(N, H, W, I) and (h, w, I, O) to (N, H', W', O)."""
    return lax.conv_general_dilated(x, kernel, g.stride, g.padding, rhs_dilation=g.dilation, dimension_numbers=LAYOUT)


def _input_by_convolution(kernel, cotangent, g: Geometry):
    """(h, w, I, O) and (N, H', W', O) to (N, H, W, I): each output pixel spreads the flipped kernel over the input."""
    padding = []
    for n, k, o, s, d, (low, _) in _axes(g):
        before = d * (k - 1) - low
        padding.append((before, n + low - 1 - s * (o - 1)))
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    return _padded_convolution(cotangent, flipped, (1, 1), padding, lhs_dilation=g.stride, rhs_dilation=g.dilation)


def _kernel_by_convolution(x, cotangent, g: Geometry):
    """(N, H, W, I) and (N, H', W', O) to (h, w, I, O): the cotangent is the kernel, the batch is summed over."""
    padding = []
    for n, k, o, s, d, (low, _) in _axes(g):
        padding.append((low, d * (k - 1) + s * (o - 1) + 1 - n - low))
    y = _padded_convolution(
        x.transpose(3, 1, 2, 0), cotangent.transpose(1, 2, 0, 3), g.dilation, padding, rhs_dilation=g.stride
    )
    return y.transpose(1, 2, 0, 3)


def _axes(g: Geometry):
    return zip(g.input_size, g.kernel_size, g.output_size, g.stride, g.dilation, g.padding, strict=True)


def _padded_convolution(x, kernel, stride, padding, lhs_dilation=(1, 1), rhs_dilation=(1, 1)):
    return lax.conv_general_dilated(x, kernel, stride, padding, lhs_dilation, rhs_dilation, LAYOUT)


def _input_by_xla(kernel, cotangent, g: Geometry):
    x = jax.ShapeDtypeStruct((cotangent.shape[0], *g.input_size, kernel.shape[2]), cotangent.dtype)
    (gradient,) = jax.linear_transpose(lambda x: _output(x, kernel, g), x)(cotangent)
    return gradient


def _kernel_by_xla(x, cotangent, g: Geometry):
    kernel = jax.ShapeDtypeStruct((*g.kernel_size, x.shape[3], cotangent.shape[3]), cotangent.dtype)
    (gradient,) = jax.linear_transpose(lambda kernel: _output(x, kernel, g), kernel)(cotangent)
    return gradient


ON_CPU = {"output": _output, "input": _input_by_convolution, "kernel": _kernel_by_convolution}
ELSEWHERE = {"output": _output, "input": _input_by_xla, "kernel": _kernel_by_xla}


# ---- The primitive: operands are the two legs that are not open, in the order input, kernel, output ----

LEGS: tuple[Leg, ...] = ("input", "kernel", "output")
# The axis that a leg shares with each of the other two.
SHARED_AXIS = {
    ("input", "kernel"): 3,
    ("input", "output"): 0,
    ("kernel", "input"): 2,
    ("kernel", "output"): 3,
    ("output", "input"): 0,
    ("output", "kernel"): 3,
}

trilinear_p = Primitive("convolution")


def _operands(open_leg: Leg) -> tuple[Leg, Leg]:
    first, second = (leg for leg in LEGS if leg != open_leg)
    return cast(tuple[Leg, Leg], (first, second))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _run(a, b, open_leg, geometry):
    return trilinear_p.bind(a, b, open_leg=open_leg, geometry=geometry)


@trilinear_p.def_impl
def _impl(a, b, *, open_leg, geometry):
    return _run(a, b, open_leg, geometry)


@trilinear_p.def_abstract_eval
def _abstract(a, b, *, open_leg, geometry):
    match open_leg:
        case "input":
            shape = (b.shape[0], *geometry.input_size, a.shape[2])
        case "kernel":
            shape = (*geometry.kernel_size, a.shape[3], b.shape[3])
        case "output":
            shape = (a.shape[0], *geometry.output_size, b.shape[3])
    return ShapedArray(shape, a.dtype)


def _transpose_to(position: int):
    """The rule for the transpose with respect to operand `position`: the same form with that operand's leg open."""

    def rule(cotangent, a, b, *, open_leg, geometry):
        legs = _operands(open_leg)
        known = {open_leg: cotangent, legs[1 - position]: (a, b)[1 - position]}
        first, second = (known[leg] for leg in _operands(legs[position]))
        return trilinear_p.bind(first, second, open_leg=legs[position], geometry=geometry)

    return rule


ad.defbilinear(trilinear_p, _transpose_to(0), _transpose_to(1))


def _batch(operands, dims, *, open_leg, geometry):
    """Under `vmap`, one mapped operand is folded into the axis that it shares with the result: still one convolution.

    Two mapped operands (a kernel per example, or a kernel's gradient per example) run one after another.
    """
    bind = functools.partial(trilinear_p.bind, open_leg=open_leg, geometry=geometry)
    if None not in dims:
        a, b = (jnp.moveaxis(operand, dim, 0) for operand, dim in zip(operands, dims, strict=True))
        return lax.map(lambda ab: bind(*ab), (a, b)), 0
    position = 0 if dims[1] is None else 1
    leg = _operands(open_leg)[position]
    size = operands[position].shape[dims[position]]
    axis = SHARED_AXIS[leg, open_leg]
    folded = list(operands)
    folded[position] = _fold(operands[position], dims[position], axis)
    axis = SHARED_AXIS[open_leg, leg]
    result = bind(*folded)
    shape = result.shape
    return result.reshape(*shape[:axis], size, shape[axis] // size, *shape[axis + 1 :]), axis


def _fold(array, source, axis):
    """Merges axis `source` of `array` into the axis that is number `axis` without it, as the slower varying part."""
    array = jnp.moveaxis(array, source, axis)
    shape = array.shape
    return array.reshape(*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])


batching.primitive_batchers[trilinear_p] = _batch


def _lowering(forms):
    def lowered(a, b, *, open_leg, geometry):
        return forms[open_leg](a, b, geometry)

    return mlir.lower_fun(lowered, multiple_results=False)


mlir.register_lowering(trilinear_p, _lowering(ON_CPU), platform="cpu")
mlir.register_lowering(trilinear_p, _lowering(ELSEWHERE))
