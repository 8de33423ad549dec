"""Convolution over one, two or three spatial axes.

Two implementations agree up to rounding: the primitive of `trilinear.py`, whose gradients are fast inside loops on CPU,
and `jax.lax.conv_general_dilated`, for GPUs and TPUs. The environment variable ORNSTEIN_CONV selects; see
`implementation`.

Layouts: arrays (N, *spatial, C), kernels (*spatial, C_in, C_out).
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from models.layers.trilinear import LAYOUTS, Geometry, Pads, Sizes, convolved, flipped, padded_convolution, trilinear_p

VARIABLE = "ORNSTEIN_CONV"

Implementation = Literal["loop", "lax"]


def implementation() -> Implementation:
    """Returns the implementation of convolutions traced now: ORNSTEIN_CONV, or the default of the platform.

    - "loop": the primitive `trilinear_p` with its own derivative rules. The default if the default device is a CPU.
    - "lax": `lax.conv_general_dilated` with JAX's derivative rules. The default on GPUs and TPUs.

    Values agree up to rounding. The default device is the option `jax_default_device`, or a device of the default
    backend. Both are known during tracing, and `jit` retraces a function when `jax_default_device` changes, so the
    implementation matches the device on which `jit` runs the program. A program lowered for another platform (by
    `jax.export`, or for arguments committed to a device of another backend) is correct: a traced primitive lowers to
    XLA's convolutions on GPUs and TPUs; a traced `lax.conv_general_dilated` is slow in loops on CPU, which
    ORNSTEIN_CONV=loop avoids. `lax.platform_dependent` would select during lowering, but would trace and differentiate
    both implementations in every layer.

    The variable is read when a convolution is traced. A function that `jit` has already traced keeps its
    implementation.

    Raises:
        ValueError: ORNSTEIN_CONV is neither "loop" nor "lax". An empty value counts as unset.
    """
    value = os.environ.get(VARIABLE, "")
    if not value:
        return "loop" if _default_platform() == "cpu" else "lax"
    if value not in ("loop", "lax"):
        raise ValueError(
            f"{VARIABLE}={value!r}: must be loop or lax; unset, it is loop on CPUs and lax on GPUs and TPUs"
        )
    return cast(Implementation, value)


def _default_platform() -> str:
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


def convolution(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int | Sizes = 1,
    dilation: int | Sizes = 1,
    padding: str | Sequence[tuple[int, int]] = "SAME",
) -> jax.Array:
    """Convolves arrays with a kernel as `jax.lax.conv_general_dilated` does; differentiable to any order in any mode.

    Args:
        x: (N, *spatial, C_in) with one, two or three spatial axes.
        kernel: (*spatial, C_in, C_out), in the dtype of `x`.
        stride: step between output positions, one number or one per spatial axis.
        dilation: step between kernel taps, one number or one per spatial axis.
        padding: "SAME" (the output has ceil(size / stride) positions), "VALID" (none), or (low, high) per spatial axis.

    Returns:
        Array of shape (N, *spatial', C_out) in the dtype of `x`.

    Raises:
        ValueError: the shapes are incompatible, the output would be empty, or ORNSTEIN_CONV has an unknown value.
        TypeError: the dtypes differ.
    """
    rank = _rank("convolution", x, kernel)
    stride, dilation = _per_axis("stride", stride, rank), _per_axis("dilation", dilation, rank)
    geometry = _geometry(x.shape[1:-1], kernel.shape[:-2], stride, dilation, padding)
    selected = implementation()
    if geometry == _pointwise(geometry.input_size):
        return per_position(lambda x: x @ kernel[(0,) * rank], x)
    if selected == "lax":
        return convolved(x, kernel, geometry)
    return trilinear_p.bind(x, kernel, open_leg="output", geometry=geometry)


def per_position(product: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Applies a matrix product to the channels of each pixel or token: `product` maps (M, C) to (M, O), x is (..., C).

    The result equals product(x). The reshape is for speed: if x has more than two axes, XLA's CPU backend copies x and
    the cotangent, transposed, for the gradient with respect to the matrix, which doubles the time of the gradient.
    """
    return product(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


def transposed_convolution(x: jax.Array, kernel: jax.Array, *, stride: int | Sizes = 2) -> jax.Array:
    """Convolves arrays after the insertion of `stride - 1` zeros between their entries (transposed convolution).

    Each entry of x contributes a flipped kernel to the output. The transposed convolution is the gradient of a
    convolution with respect to its input, without padding or cropping. Differentiable to any order in any mode, as
    `convolution`.

    Args:
        x: (N, *spatial, C_in) with one, two or three spatial axes.
        kernel: (*spatial, C_in, C_out), in the dtype of `x`; not flipped, as for `convolution`.
        stride: one number or one per spatial axis.

    Returns:
        Array of shape (N, *spatial', C_out) in the dtype of `x`, where size' = stride (size - 1) + kernel size.

    Raises:
        ValueError: the shapes are incompatible, or ORNSTEIN_CONV has an unknown value.
        TypeError: the dtypes differ.
    """
    rank = _rank("transposed_convolution", x, kernel)
    stride, window, ones = _per_axis("stride", stride, rank), kernel.shape[:-2], (1,) * rank
    if implementation() == "lax":
        return padded_convolution(x, kernel, ones, [(k - 1, k - 1) for k in window], lhs_dilation=stride)
    size = tuple(s * (n - 1) + k for n, s, k in zip(x.shape[1:-1], stride, window, strict=True))
    geometry = _geometry(size, window, stride, ones, "VALID")
    return trilinear_p.bind(flipped(kernel), x, open_leg="input", geometry=geometry)


class Conv(nn.Module):
    """Convolution with a bias and the initialization of DDPM.

    Kernels are drawn from U(-a, a) with a = sqrt(3 init_scale / mean(fan_in, fan_out)), biases are zero.
    Source: Ho et al. (2020), https://github.com/hojonathanho/diffusion/blob/master/diffusion_tf/nn.py.

    Attributes:
        features: channels of the output.
        kernel_size: one number for all spatial axes, or one per axis.
        stride, dilation: one number for all spatial axes, or one per axis.
        padding: "SAME", "VALID" or (low, high) per spatial axis. For an image of even size and stride 2, "SAME" pads a
            row of zeros below and a column of zeros to the right, as TensorFlow does; PyTorch's `padding=1` is ((1, 1),
            (1, 1)).
        init_scale: variance of the kernel relative to Glorot's; 0 initializes the layer to zero, for example the last
            layer of a residual branch.
        use_bias: whether there is a bias.
        fan: "fan_avg" for the mean of fan_in and fan_out in the formula above; "fan_in" or "fan_out" for one of the
            two. PyTorch's default kernel is "fan_in" with init_scale 1/3; He's initialization is "fan_in" or "fan_out"
            with 2.
        dtype: dtype of the computation; parameters are float32.
    """

    features: int
    kernel_size: int | Sizes = 3
    stride: int | Sizes = 1
    dilation: int | Sizes = 1
    init_scale: float = 1.0
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32
    padding: str | Pads = "SAME"
    fan: Literal["fan_avg", "fan_in", "fan_out"] = "fan_avg"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (N, *spatial, C) to (N, *spatial', features), with one, two or three spatial axes.

        With padding "SAME", size' = ceil(size / stride).
        """
        shape = (*_per_axis("kernel_size", self.kernel_size, x.ndim - 2), x.shape[-1], self.features)
        kernel = self.param("kernel", scaled_init(self.init_scale, self.fan), shape, jnp.float32)
        options = {"stride": self.stride, "dilation": self.dilation, "padding": self.padding}
        y = convolution(x.astype(self.dtype), kernel.astype(self.dtype), **options)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        return y


def scaled_init(scale: float, fan: Literal["fan_avg", "fan_in", "fan_out"] = "fan_avg") -> nn.initializers.Initializer:
    """Returns DDPM's initializer: uniform, variance scale / mean(fan_in, fan_out) or scale / `fan`; 0 for scale 0."""
    return nn.initializers.variance_scaling(scale, fan, "uniform") if scale else nn.initializers.zeros


def _rank(name: str, x: jax.Array, kernel: jax.Array) -> int:
    """Checks shapes and dtypes; returns the number of spatial axes."""
    rank = x.ndim - 2
    if rank not in LAYOUTS or kernel.ndim != x.ndim or x.shape[-1] != kernel.shape[-2]:
        raise ValueError(
            f"{name} takes x (N, *spatial, C_in) and kernel (*spatial, C_in, C_out) with 1, 2 or 3 spatial axes, "
            f"not {x.shape} and {kernel.shape}"
        )
    if x.dtype != kernel.dtype:
        raise TypeError(f"{name} takes x and kernel of one dtype, not {x.dtype} and {kernel.dtype}")
    return rank


def _per_axis(name: str, value: int | Sequence[int], rank: int) -> Sizes:
    sizes = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(sizes) != rank:
        raise ValueError(
            f"convolution: {name}={sizes} must have {rank} entries, one for each spatial axis of the input"
        )
    return sizes


def _geometry(input_size, kernel_size, stride, dilation, padding: Any) -> Geometry:
    extents = [d * (k - 1) + 1 for d, k in zip(dilation, kernel_size, strict=True)]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(input_size, extents, stride, padding)
    padding = tuple((int(low), int(high)) for low, high in padding)
    if len(padding) != len(extents):
        raise ValueError(f"convolution: padding={padding} must have {len(extents)} entries, one for each spatial axis")
    output_size = tuple(
        (n + low + high - extent) // s + 1
        for n, (low, high), extent, s in zip(input_size, padding, extents, stride, strict=True)
    )
    if min(output_size) < 1:
        sizes = f"image {tuple(input_size)} with padding {padding}, kernel {tuple(extents)}"
        raise ValueError(f"convolution: the padded image is smaller than the dilated kernel: {sizes}")
    return Geometry(stride, dilation, padding, tuple(input_size), tuple(kernel_size), output_size)


def _pointwise(size: Sizes) -> Geometry:
    """Returns the geometry of a kernel of one tap: a matrix product per position, which is fast in loops."""
    ones = (1,) * len(size)
    return Geometry(ones, ones, ((0, 0),) * len(size), size, ones, size)
