"""FLOP count of a function: floating-point operations of its matrix products and convolutions.

A multiply-add counts as two operations (FLOP, not MAC). The count is that of the traced program before compilation,
over `dot_general`, `conv_general_dilated` and the convolution of `models/layers/trilinear.py`. Kernel taps on padding
count; taps between the pixels of a dilated image do not. Both implementations of a convolution (ORNSTEIN_CONV) and of
its gradients therefore have the same count, with one exception: for the input gradient of an unpadded convolution of
stride 1, `conv_general_dilated` has a higher count because of taps on padding. Norms, activations and sums (a few
percent of the total) are not counted, nor are filters that are written as sums of shifted images. PyTorch's
`FlopCounterMode` follows the same rule, so the counts are comparable.

Source: https://github.com/pytorch/pytorch/blob/main/torch/utils/flop_counter.py.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from models.layers.trilinear import trilinear_p


def flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Returns the number of operations of one call with arguments of these shapes; traces the function only.

    Args:
        function: the function.
        arguments: arrays, or their shapes and dtypes.

    Raises:
        ValueError: a loop of unknown length contains matrix products or convolutions.
    """
    return _total(jax.make_jaxpr(function)(*arguments).jaxpr)


def _total(jaxpr: Jaxpr) -> int:
    return sum(_count(equation) for equation in jaxpr.eqns)


def _count(equation: JaxprEqn) -> int:
    shapes = [variable.aval.shape for variable in equation.invars if hasattr(variable.aval, "shape")]
    params = equation.params
    if equation.primitive is lax.dot_general_p:
        (contracted, _), _ = params["dimension_numbers"]
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shapes[0][axis] for axis in contracted)
    if equation.primitive is lax.conv_general_dilated_p:
        return _convolution(*shapes, equation.outvars[0].aval.shape, params)
    if equation.primitive is trilinear_p:
        return _trilinear(*shapes, params["open_leg"], params["geometry"])
    inner = [_total(jaxpr) for jaxpr in _inner(params)]
    if equation.primitive.name == "scan":
        return params["length"] * sum(inner)
    if equation.primitive.name == "cond":
        return max(inner)
    if equation.primitive.name == "while" and any(inner):
        raise ValueError("a while loop, whose length is unknown, has matrix products or convolutions")
    return sum(inner)


def _convolution(x, kernel, output, params) -> int:
    """Returns the operations of `conv_general_dilated`: two per example, pair of channels, tap and position.

    Positions are output positions or, if the input is dilated (a transposed convolution, the input gradient of a
    strided convolution), input positions. In the kernel gradient of a transposed convolution, the kernel is the output
    and an image takes the role of the kernel; JAX writes kernel gradients with the batch axis as channel axis.
    """
    layout = params["dimension_numbers"]
    products = math.prod(kernel[axis] for axis in layout.rhs_spec[:2]) * output[layout.out_spec[0]]
    axes = zip(layout.lhs_spec[2:], layout.rhs_spec[2:], layout.out_spec[2:], params["lhs_dilation"], strict=True)
    for x_axis, kernel_axis, output_axis, dilation in axes:
        if dilation == 1:
            products *= kernel[kernel_axis] * output[output_axis]
        elif layout.lhs_spec[0] == 0:
            products *= kernel[kernel_axis] * x[x_axis]
        else:
            products *= output[output_axis] * x[x_axis]
    return 2 * products


def _trilinear(a, b, open_leg, geometry) -> int:
    """Returns the operations of a bilinear map: two per example, output position, tap and pair of channels."""
    images = b[0] if open_leg == "input" else a[0]
    channels = {"output": b[-2:], "input": a[-2:], "kernel": (a[-1], b[-1])}[open_leg]
    return 2 * images * math.prod((*geometry.output_size, *geometry.kernel_size, *channels))


def _inner(params: dict[str, Any]) -> Iterator[Jaxpr]:
    """Yields the inner programs of an equation: of jit, remat, custom derivatives, loops and branches."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item
