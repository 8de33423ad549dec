"""Convolution as a trilinear form, with derivatives that are fast inside loops on CPU.

The convolution `y = x * k` is bilinear, so it belongs to a trilinear form in an input `x`, a kernel `k` and a cotangent
`g` of the output:

    T(x, k, g) = sum  x[n, stride i + dilation a - low, c] k[a, c, d] g[n, i, d]     (over n, i, a, c, d)

where i (output position) and a (kernel tap) have one entry per spatial axis. For two fixed arguments, the form is
linear in the third. Its coefficients with respect to g are the convolution (open leg `output`), with respect to x the
gradient by the input (open leg `input`), and with respect to k the gradient by the kernel (open leg `kernel`). Each of
these three maps is bilinear, and its transposes are the other two maps. The primitive `trilinear_p`, whose parameter
`open_leg` selects the map, is therefore closed under differentiation: its tangent and transpose rules consist of the
same primitive, for derivatives of any order and in any mode.

The reason for not differentiating `jax.lax.conv_general_dilated`: in `scan`, `fori_loop` and `while_loop`, XLA's CPU
backend compiles its kernel gradient to code that is about seventy times slower than outside of loops. Gradients that
are written as convolutions of transposed arrays have the same cost inside and outside of loops, so the primitive is
lowered to such convolutions on CPU. For other platforms, it is lowered to XLA's convolution and its gradients.

Layouts: arrays (N, *spatial, C), "NWC", "NHWC" or "NDHWC"; kernels (*spatial, C_in, C_out), "WIO", "HWIO" or "DHWIO".
"""

import functools
from typing import Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

# (x, kernel, y) layouts by number of spatial axes.
LAYOUTS = {
    1: ("NWC", "WIO", "NWC"),
    2: ("NHWC", "HWIO", "NHWC"),
    3: ("NDHWC", "DHWIO", "NDHWC"),
}

Leg = Literal["input", "kernel", "output"]
Sizes = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]  # (low, high) for each spatial axis


class Geometry(NamedTuple):
    """The spatial shape of a convolution: every field has one entry per spatial axis."""

    stride: Sizes
    dilation: Sizes
    padding: Pads
    input_size: Sizes
    kernel_size: Sizes
    output_size: Sizes


# ---- The three bilinear maps, in the fastest form for each platform ----


def convolved(x, kernel, g: Geometry):
    """Convolution: (N, *input, I) and (*kernel, I, O) to (N, *output, O)."""
    return padded_convolution(x, kernel, g.stride, g.padding, rhs_dilation=g.dilation)


def _input_by_convolution(kernel, cotangent, g: Geometry):
    """Gradient by the input: (*kernel, I, O) and (N, *output, O) to (N, *input, I), a transposed convolution."""
    padding = []
    for n, k, o, s, d, (low, _) in _axes(g):
        before = d * (k - 1) - low
        padding.append((before, n + low - 1 - s * (o - 1)))
    ones = (1,) * len(padding)
    return padded_convolution(cotangent, flipped(kernel), ones, padding, g.stride, g.dilation)


def _kernel_by_convolution(x, cotangent, g: Geometry):
    """Gradient by the kernel: (N, *input, I) and (N, *output, O) to (*kernel, I, O).

    A convolution of x by the cotangent, in which the batch takes the role of the input channels.
    """
    padding = []
    for n, k, o, s, d, (low, _) in _axes(g):
        padding.append((low, d * (k - 1) + s * (o - 1) + 1 - n - low))
    spatial = tuple(range(1, x.ndim - 1))
    batch_last = x.transpose(x.ndim - 1, *spatial, 0)
    y = padded_convolution(
        batch_last, cotangent.transpose(*spatial, 0, x.ndim - 1), g.dilation, padding, None, g.stride
    )
    return y.transpose(*spatial, 0, x.ndim - 1)


def flipped(kernel):
    """Flips the kernel along its spatial axes and swaps its input and output channels."""
    return jnp.flip(kernel, range(kernel.ndim - 2)).swapaxes(-2, -1)


def _axes(g: Geometry):
    return zip(g.input_size, g.kernel_size, g.output_size, g.stride, g.dilation, g.padding, strict=True)


def padded_convolution(x, kernel, stride, padding, lhs_dilation=None, rhs_dilation=None):
    """`lax.conv_general_dilated` in the layouts of this module."""
    layout = LAYOUTS[x.ndim - 2]
    return lax.conv_general_dilated(x, kernel, stride, padding, lhs_dilation, rhs_dilation, layout)


def _input_by_xla(kernel, cotangent, g: Geometry):
    x = jax.ShapeDtypeStruct((cotangent.shape[0], *g.input_size, kernel.shape[-2]), cotangent.dtype)
    (gradient,) = jax.linear_transpose(lambda x: convolved(x, kernel, g), x)(cotangent)
    return gradient


def _kernel_by_xla(x, cotangent, g: Geometry):
    kernel = jax.ShapeDtypeStruct((*g.kernel_size, x.shape[-1], cotangent.shape[-1]), cotangent.dtype)
    (gradient,) = jax.linear_transpose(lambda kernel: convolved(x, kernel, g), kernel)(cotangent)
    return gradient


ON_CPU = {"output": convolved, "input": _input_by_convolution, "kernel": _kernel_by_convolution}
ELSEWHERE = {"output": convolved, "input": _input_by_xla, "kernel": _kernel_by_xla}


# ---- The primitive: its operands are the two legs other than `open_leg`, in the order input, kernel, output ----

LEGS: tuple[Leg, ...] = ("input", "kernel", "output")
# By (a, b): the axis of leg a that it shares with leg b (the batch, or channels).
SHARED_AXIS = {
    ("input", "kernel"): -1,
    ("input", "output"): 0,
    ("kernel", "input"): -2,
    ("kernel", "output"): -1,
    ("output", "input"): 0,
    ("output", "kernel"): -1,
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
            shape = (b.shape[0], *geometry.input_size, a.shape[-2])
        case "kernel":
            shape = (*geometry.kernel_size, a.shape[-1], b.shape[-1])
        case "output":
            shape = (a.shape[0], *geometry.output_size, b.shape[-1])
    return ShapedArray(shape, a.dtype)


def _transpose_to(position: int):
    """Returns the transpose rule for operand `position`: the trilinear form with the leg of this operand open."""

    def rule(cotangent, a, b, *, open_leg, geometry):
        legs = _operands(open_leg)
        values = {open_leg: cotangent, legs[1 - position]: (a, b)[1 - position]}
        first, second = (values[leg] for leg in _operands(legs[position]))
        return trilinear_p.bind(first, second, open_leg=legs[position], geometry=geometry)

    return rule


ad.defbilinear(trilinear_p, _transpose_to(0), _transpose_to(1))


def _batch(operands, dims, *, open_leg, geometry):
    """Batching rule: the mapped axis of one operand is folded into the axis shared with the result, in one convolution.

    If both operands are mapped (a kernel per example, or a kernel gradient per example), examples run sequentially.
    """
    bind = functools.partial(trilinear_p.bind, open_leg=open_leg, geometry=geometry)
    if None not in dims:
        a, b = (jnp.moveaxis(operand, dim, 0) for operand, dim in zip(operands, dims, strict=True))
        return lax.map(lambda ab: bind(*ab), (a, b)), 0
    position = 0 if dims[1] is None else 1
    leg = _operands(open_leg)[position]
    size = operands[position].shape[dims[position]]
    rank = operands[position].ndim - 1  # of every leg, without the mapped axis
    folded = list(operands)
    folded[position] = _fold(operands[position], dims[position], SHARED_AXIS[leg, open_leg] % rank)
    axis = SHARED_AXIS[open_leg, leg] % rank
    result = bind(*folded)
    shape = result.shape
    return result.reshape(*shape[:axis], size, shape[axis] // size, *shape[axis + 1 :]), axis


def _fold(array, source, axis):
    """Merges axis `source` of `array` into axis `axis` (numbered without `source`), as the slower varying part."""
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
