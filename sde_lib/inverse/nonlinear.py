"""Measurements that are not linear: magnitudes of Fourier coefficients, clipped light, JPEG, blur of light in a coded image.

Images are (B, H, W, C) in [-1, 1]: black to white. All are differentiable almost everywhere with finite gradients.

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
    """|F P x|: magnitudes of the orthonormal Fourier transform of the image among zeros, (B, h, w, C), zero frequency first.

    It does not tell x from -x, from x turned by 180 degrees, nor from x moved within the zeros.

    Attributes:
        oversampling: the sides h and w of the transform over those of the image; static. 2 determines almost every image
            up to those three; below that there may be more.
    """

    oversampling: float = struct.field(pytree_node=False, default=2.0)

    def forward(self, x: Array) -> Array:
        """The magnitudes."""
        size = [round(self.oversampling * side) for side in x.shape[1:3]]
        return jnp.abs(jnp.fft.fft2(x, size, axes=(1, 2), norm="ortho"))


@struct.dataclass(kw_only=True)
class HighDynamicRange(Measurement):
    """clip(scale x, -1, 1): an exposure that loses what is darkest and lightest; the gradient there is 0.

    Attributes:
        scale: the contrast.
    """

    scale: ArrayLike = 2.0

    def forward(self, x: Array) -> Array:
        """Of the shape of x."""
        return jnp.clip(self.scale * x, -1, 1)


def straight_through_round(x: Array) -> Array:
    """The nearest integer, with the derivative of x."""
    return x + jax.lax.stop_gradient(jnp.round(x) - x)


def soft_round(x: Array) -> Array:
    """The nearest integer plus the cube of what is left, whose derivative is 0 at integers and 3/4 between them.

    Source: Shin and Song (2017), https://machine-learning-and-security.github.io/papers/mlsec17_paper_54.pdf.
    """
    nearest = jax.lax.stop_gradient(jnp.round(x))
    return nearest + (x - nearest) ** 3


# Tables K.1 and K.2 of the standard, https://www.w3.org/Graphics/JPEG/itu-t81.pdf, annex K: steps of quality 50.
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

# Y, Cb and Cr of R, G and B, around 0 for Cb and Cr (JFIF 1.02, https://www.w3.org/Graphics/JPEG/jfif3.pdf).
_YCBCR_OF_RGB = np.array(
    [[0.299, 0.587, 0.114], [-0.299 / 1.772, -0.587 / 1.772, 0.5], [0.5, -0.587 / 1.402, -0.114 / 1.402]]
)
_RGB_OF_YCBCR = np.linalg.inv(_YCBCR_OF_RGB)

# Rows are the orthonormal cosines of 8 points.
_DCT = np.sqrt(2 / 8) * np.cos(np.pi * np.arange(8)[:, None] * (np.arange(8) + 0.5) / 8)
_DCT[0] = np.sqrt(1 / 8)


def quantization_table(base: ArrayLike, quality: Any) -> Array:
    """The steps (8, 8) at a quality in [1, 100], made of quality 50's as the Independent JPEG Group's encoder does."""
    percent = jnp.floor(jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality))
    return jnp.clip(jnp.floor((base * percent + 50) / 100), 1, 255)


@struct.dataclass(kw_only=True)
class JPEG(Measurement):
    """The image that is read back from a JPEG file, of the shape of x, (B, H, W, 1 or 3).

    Only the rounding of the cosine transform's coefficients loses anything (with `subsampled_chroma`, that too); pixels are
    not rounded to grey levels. Light beyond black and white is clipped, with gradient 0. Source: ITU-T T.81 (1992),
    https://www.w3.org/Graphics/JPEG/itu-t81.pdf.

    Attributes:
        quality: 1 to 100, as encoders name it.
        subsampled_chroma: whether colour has half the resolution (4:2:0), the encoders' default; static.
        rounding: how coefficients are rounded: `straight_through_round`, exact with the gradient of no rounding, or
            `soft_round`; static.

    Raises:
        ValueError: in use, if the image has neither 1 channel nor 3.
    """

    quality: ArrayLike = 75.0
    subsampled_chroma: bool = struct.field(pytree_node=False, default=False)
    rounding: Callable[[Array], Array] = struct.field(pytree_node=False, default=straight_through_round)

    def forward(self, x: Array) -> Array:
        """Encoded and decoded."""
        channels = x.shape[-1]
        if channels not in (1, 3):
            raise ValueError(f"JPEG: images of shape {x.shape[1:]} must have 1 channel (grey) or 3 (red, green, blue)")
        levels = 127.5 * x - 0.5  # grey levels less 128
        if channels == 1:
            coded = self._code(levels, LUMINANCE_TABLE)
        else:
            ycbcr = levels @ jnp.asarray(_YCBCR_OF_RGB.T, x.dtype)
            light = self._code(ycbcr[..., :1], LUMINANCE_TABLE)
            colour = self._code(ycbcr[..., 1:], CHROMINANCE_TABLE, subsampled=self.subsampled_chroma)
            coded = jnp.concatenate([light, colour], axis=-1) @ jnp.asarray(_RGB_OF_YCBCR.T, x.dtype)
        return jnp.clip((coded + 0.5) / 127.5, -1, 1)

    def _code(self, x: Array, base: np.ndarray, subsampled: bool = False) -> Array:
        """Components (B, H, W, C) with rounded coefficients; sizes that are no multiple of the blocks' are filled up."""
        batch, height, width, channels = x.shape
        block = 16 if subsampled else 8
        x = jnp.pad(x, ((0, 0), (0, -height % block), (0, -width % block), (0, 0)), mode="edge")
        whole = x.shape
        if subsampled:
            x = x.reshape(batch, whole[1] // 2, 2, whole[2] // 2, 2, channels).mean((2, 4))
        dct = jnp.asarray(_DCT, x.dtype)
        table = quantization_table(base, self.quality).astype(x.dtype)[..., None]
        blocks = x.reshape(batch, x.shape[1] // 8, 8, x.shape[2] // 8, 8, channels)
        coefficients = jnp.einsum("ui,vj,bhiwjc->bhwuvc", dct, dct, blocks)
        coefficients = table * self.rounding(coefficients / table)
        x = jnp.einsum("ui,vj,bhwuvc->bhiwjc", dct, dct, coefficients).reshape(x.shape)
        if subsampled:
            x = jax.image.resize(x, whole, "linear")  # weights 9, 3, 3 and 1 sixteenths, as decoders do
        return x[:, :height, :width]


def srgb_to_light(x: Array) -> Array:
    """Linear light in [0, 1] of coded values in [-1, 1] (IEC 61966-2-1); both go on outside those ranges."""
    u = (x + 1) / 2
    bright = u > 0.04045
    return jnp.where(bright, ((jnp.where(bright, u, 1) + 0.055) / 1.055) ** 2.4, u / 12.92)


def light_to_srgb(light: Array) -> Array:
    """The inverse of `srgb_to_light`."""
    bright = light > 0.04045 / 12.92
    u = jnp.where(bright, 1.055 * jnp.where(bright, light, 1) ** (1 / 2.4) - 0.055, 12.92 * light)
    return 2 * u - 1


@struct.dataclass(kw_only=True)
class NonlinearBlur(Measurement):
    """Blur as a camera sees it: light adds up on the sensor before the values are coded, so that small lights spread far.

    encode(kernel * decode(x)) with the sRGB response, which is nearly a power of 2.2 and has a finite slope at black; images
    go on beyond their edges with the values there. It is not the learned blur of Tran et al. (2021),
    https://arxiv.org/abs/2104.00317, of which other papers speak by that name.

    Attributes:
        kernel: (h, w), h and w odd, of sum 1; the same for every channel.

    Raises:
        ValueError: in use, if the kernel has an even side.
    """

    kernel: Array

    def forward(self, x: Array) -> Array:
        """Of the shape of x."""
        shape = jnp.shape(self.kernel)
        if len(shape) != 2 or not all(side % 2 for side in shape):
            raise ValueError(f"NonlinearBlur: kernel of shape {shape} must be (h, w) with odd h and w")
        channels = x.shape[-1]
        margins = [(0, 0), *((side // 2, side // 2) for side in shape), (0, 0)]
        # XLA's convolution does not turn the kernel round.
        kernel = jnp.flip(jnp.asarray(self.kernel, x.dtype))[..., None, None]
        blurred = jax.lax.conv_general_dilated(
            jnp.pad(srgb_to_light(x), margins, mode="edge"), jnp.tile(kernel, (1, 1, 1, channels)), (1, 1), "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=channels,
        )  # fmt: skip
        return light_to_srgb(blurred)
