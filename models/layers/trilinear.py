"""The convolution as a trilinear form, whose derivatives stay fast inside loops on CPU.

The convolution `y = x * k` is bilinear, so it is one leg of a trilinear form in an input `x`, a kernel `k` and a
cotangent `g` of the output:

    T(x, k, g) = sum  x[n, stride i + dilation a - low, c] k[a, c, d] g[n, i, d]     (over n, i, a, c, d)

where i (output position) and a (kernel tap) have one entry per spatial axis. Fix two of the three and the form is linear
in the third. Leaving `output` open gives the convolution, leaving `input` open its gradient with respect to the input,
leaving `kernel` open its gradient with respect to the kernel. Each of the three is bilinear again and has the other two as
its transposes. Hence one primitive, `trilinear_p`, whose parameter `open_leg` names the free leg, is closed under every
derivative: its tangent and transpose rules never leave the family, in whatever order and to whatever depth JAX applies
them.

Why not differentiate `jax.lax.conv_general_dilated`? XLA's CPU backend compiles its two gradients so differently inside
`scan`, `fori_loop` and `while_loop` that the kernel gradient is some seventy times slower there than outside. Written as
plain convolutions of transposed arrays the gradients cost the same in a loop and out of it, so the primitive is lowered to
these on CPU. Lowered for another platform, it becomes XLA's own convolution and gradients.

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

# By the number of spatial axes.
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


# ---- The three bilinear maps, in the form that each platform runs fastest ----


def convolved(x, kernel, g: Geometry):
    """(N, *input, I) and (*kernel, I, O) to (N, *output, O)."""
    return padded_convolution(x, kernel, g.stride, g.padding, rhs_dilation=g.dilation)


def _input_by_convolution(kernel, cotangent, g: Geometry):
    """(*kernel, I, O) and (N, *output, O) to (N, *input, I): each output spreads the flipped kernel over the input."""
    padding = []
    for n, k, o, s, d, (low, _) in _axes(g):
        before = d * (k - 1) - low
        padding.append((before, n + low - 1 - s * (o - 1)))
    ones = (1,) * len(padding)
    return padded_convolution(cotangent, flipped(kernel), ones, padding, g.stride, g.dilation)


def _kernel_by_convolution(x, cotangent, g: Geometry):
    """(N, *input, I) and (N, *output, O) to (*kernel, I, O): the cotangent is the kernel, the batch is summed over."""
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
    """The kernel mirrored along its spatial axes, with input and output channels exchanged."""
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


# ---- The primitive: operands are the two legs that are not open, in the order input, kernel, output ----

LEGS: tuple[Leg, ...] = ("input", "kernel", "output")
# The axis that a leg shares with each of the other two.
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
    rank = operands[position].ndim - 1  # of every leg, without the mapped axis
    folded = list(operands)
    folded[position] = _fold(operands[position], dims[position], SHARED_AXIS[leg, open_leg] % rank)
    axis = SHARED_AXIS[open_leg, leg] % rank
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
