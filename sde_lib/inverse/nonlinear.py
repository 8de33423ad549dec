"""Nonlinear forward operators: phase retrieval, clipped dynamic range, JPEG compression and blur in linear light.

Images are (B, H, W, C) in [-1, 1], black to white. All operators are differentiable almost everywhere, with finite
gradients.

Sources: Chung et al. (2022), https://arxiv.org/abs/2209.14687, for phase retrieval and nonlinear blur with diffusion
models; Mardani et al. (2023), https://arxiv.org/abs/2305.04391, for high dynamic range; Song et al. (2023),
https://openreview.net/forum?id=9_gsMA8MRKQ, for JPEG.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.inverse.measurement import Measurement


@struct.dataclass(kw_only=True)
class PhaseRetrieval(Measurement):
    """Phase retrieval: magnitudes |F P x| of the Fourier transform of the zero-padded image.

    y is (B, h, w, C), with the zero frequency first; F is orthonormal, P pads. y is invariant to the sign of x, to a
    rotation of x by 180 degrees, and to a translation of x within the padding.

    Attributes:
        oversampling: the sides (h, w) of the transform divided by the sides of the image; static. With 2, almost every
            image is determined by y up to these three invariances; below 2 it may not be.
    """

    oversampling: float = struct.field(pytree_node=False, default=2.0)

    def forward(self, x: Array) -> Array:
        """Returns the magnitudes."""
        size = [round(self.oversampling * side) for side in x.shape[1:3]]
        return jnp.abs(jnp.fft.fft2(x, size, axes=(1, 2), norm="ortho"))


@struct.dataclass(kw_only=True)
class HighDynamicRange(Measurement):
    """Clipped dynamic range, clip(scale x, -1, 1); the gradient of clipped values is 0.

    Attributes:
        scale: contrast factor, ().
    """

    scale: ArrayLike = 2.0

    def forward(self, x: Array) -> Array:
        """Returns the clipped image, of the shape of x."""
        return jnp.clip(self.scale * x, -1, 1)


def straight_through_round(x: Array) -> Array:
    """Rounds to the nearest integer, with the derivative of the identity (straight-through estimator)."""
    return x + jax.lax.stop_gradient(jnp.round(x) - x)


def soft_round(x: Array) -> Array:
    """Differentiable rounding: the nearest integer plus the cube of the remainder.

    The derivative is 0 at integers and 3/4 halfway between two integers.

    Source: Shin and Song (2017), https://machine-learning-and-security.github.io/papers/mlsec17_paper_54.pdf.
    """
    nearest = jax.lax.stop_gradient(jnp.round(x))
    return nearest + (x - nearest) ** 3


# Quantization steps at quality 50: tables K.1 and K.2 of ITU-T T.81, https://www.w3.org/Graphics/JPEG/itu-t81.pdf,
# annex K.
LUMINANCE_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMINANCE_TABLE = np.full((8, 8), 99)
CHROMINANCE_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# The matrix from RGB to YCbCr, with Cb and Cr centred at 0 (JFIF 1.02, https://www.w3.org/Graphics/JPEG/jfif3.pdf).
_YCBCR_OF_RGB = np.array(
    [[0.299, 0.587, 0.114], [-0.299 / 1.772, -0.587 / 1.772, 0.5], [0.5, -0.587 / 1.402, -0.114 / 1.402]]
)
_RGB_OF_YCBCR = np.linalg.inv(_YCBCR_OF_RGB)

# The orthonormal 8-point DCT-II; rows are frequencies.
_DCT = np.sqrt(2 / 8) * np.cos(np.pi * np.arange(8)[:, None] * (np.arange(8) + 0.5) / 8)
_DCT[0] = np.sqrt(1 / 8)


def quantization_table(base: ArrayLike, quality: Any) -> Array:
    """Scales quantization steps (8, 8) of quality 50 to a quality in [1, 100], as the IJG's encoder (libjpeg) does."""
    percent = jnp.floor(jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality))
    return jnp.clip(jnp.floor((base * percent + 50) / 100), 1, 255)


@struct.dataclass(kw_only=True)
class JPEG(Measurement):
    """JPEG compression and decompression of the image, (B, H, W, 1 or 3).

    The only losses are the rounding of the DCT coefficients and, with `subsampled_chroma`, the chroma subsampling;
    pixels are not rounded to grey levels. Values outside [-1, 1] are clipped, with gradient 0.

    Source: ITU-T T.81 (1992), https://www.w3.org/Graphics/JPEG/itu-t81.pdf.

    Attributes:
        quality: JPEG quality factor, 1 to 100.
        subsampled_chroma: whether the chroma channels have half the resolution (4:2:0), the default of encoders;
            static.
        rounding: rounding of the coefficients: `straight_through_round` (exact values, derivative 1) or `soft_round`;
            static.

    Raises:
        ValueError: in use, if the image has neither 1 channel nor 3.
    """

    quality: ArrayLike = 75.0
    subsampled_chroma: bool = struct.field(pytree_node=False, default=False)
    rounding: Callable[[Array], Array] = struct.field(pytree_node=False, default=straight_through_round)

    def forward(self, x: Array) -> Array:
        """Returns the encoded and decoded image, of the shape of x."""
        channels = x.shape[-1]
        if channels not in (1, 3):
            raise ValueError(f"JPEG: images of shape {x.shape[1:]} must have 1 channel (grey) or 3 (red, green, blue)")
        levels = 127.5 * x - 0.5  # grey levels minus 128
        if channels == 1:
            coded = self._code(levels, LUMINANCE_TABLE)
        else:
            ycbcr = levels @ jnp.asarray(_YCBCR_OF_RGB.T, x.dtype)
            luma = self._code(ycbcr[..., :1], LUMINANCE_TABLE)
            chroma = self._code(ycbcr[..., 1:], CHROMINANCE_TABLE, subsampled=self.subsampled_chroma)
            coded = jnp.concatenate([luma, chroma], axis=-1) @ jnp.asarray(_RGB_OF_YCBCR.T, x.dtype)
        return jnp.clip((coded + 0.5) / 127.5, -1, 1)

    def _code(self, x: Array, base: np.ndarray, subsampled: bool = False) -> Array:
        """Rounds the DCT coefficients of components (B, H, W, C); sizes are padded to multiples of the block size."""
        batch, height, width, channels = x.shape
        block = 16 if subsampled else 8
        x = jnp.pad(x, ((0, 0), (0, -height % block), (0, -width % block), (0, 0)), mode="edge")
        padded = x.shape
        if subsampled:
            x = x.reshape(batch, padded[1] // 2, 2, padded[2] // 2, 2, channels).mean((2, 4))
        dct = jnp.asarray(_DCT, x.dtype)
        table = quantization_table(base, self.quality).astype(x.dtype)[..., None]
        blocks = x.reshape(batch, x.shape[1] // 8, 8, x.shape[2] // 8, 8, channels)
        coefficients = jnp.einsum("ui,vj,bhiwjc->bhwuvc", dct, dct, blocks)
        coefficients = table * self.rounding(coefficients / table)
        x = jnp.einsum("ui,vj,bhwuvc->bhiwjc", dct, dct, coefficients).reshape(x.shape)
        if subsampled:
            x = jax.image.resize(x, padded, "linear")  # weights 9/16, 3/16, 3/16 and 1/16, as in decoders
        return x[:, :height, :width]


def srgb_to_light(x: Array) -> Array:
    """Converts sRGB values in [-1, 1] to linear light in [0, 1] (IEC 61966-2-1), extended beyond both ranges."""
    u = (x + 1) / 2
    bright = u > 0.04045
    return jnp.where(bright, ((jnp.where(bright, u, 1) + 0.055) / 1.055) ** 2.4, u / 12.92)


def light_to_srgb(light: Array) -> Array:
    """Converts linear light in [0, 1] to sRGB values in [-1, 1], the inverse of `srgb_to_light`."""
    bright = light > 0.04045 / 12.92
    u = jnp.where(bright, 1.055 * jnp.where(bright, light, 1) ** (1 / 2.4) - 0.055, 12.92 * light)
    return 2 * u - 1


@struct.dataclass(kw_only=True)
class NonlinearBlur(Measurement):
    """Blur in linear light, before sRGB encoding, as in a camera: small bright spots spread far.

    y = encode(kernel * decode(x)) with the sRGB response, which is close to a power of 2.2 and has a finite slope at
    black. Borders are padded with the edge values. This is not the learned blur of Tran et al. (2021),
    https://arxiv.org/abs/2104.00317, which other papers call nonlinear blur.

    Attributes:
        kernel: (h, w), h and w odd, that sums to 1; shared by all channels.

    Raises:
        ValueError: in use, if the kernel has an even side.
    """

    kernel: Array

    def forward(self, x: Array) -> Array:
        """Returns the blurred image, of the shape of x."""
        shape = jnp.shape(self.kernel)
        if len(shape) != 2 or not all(side % 2 for side in shape):
            raise ValueError(f"NonlinearBlur: kernel of shape {shape} must be (h, w) with odd h and w")
        channels = x.shape[-1]
        margins = [(0, 0), *((side // 2, side // 2) for side in shape), (0, 0)]
        # XLA's convolution is a cross-correlation, so the kernel is flipped.
        kernel = jnp.flip(jnp.asarray(self.kernel, x.dtype))[..., None, None]
        blurred = jax.lax.conv_general_dilated(
            jnp.pad(srgb_to_light(x), margins, mode="edge"), jnp.tile(kernel, (1, 1, 1, channels)), (1, 1), "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=channels,
        )  # fmt: skip
        return light_to_srgb(blurred)
