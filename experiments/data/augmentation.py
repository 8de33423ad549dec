"""EDM's non-leaking augmentation: training images are moved, and the network is told how, so that samples are not.

Each image is mirrored, enlarged, turned, stretched and shifted by amounts of its own, most of them zero. What was done
stands in 9 labels that the network sees beside the noise level; where they are zero, as they are in sampling, it has
learned of images as they are.

| labels | what is done                  | how often | amount                                                          |
|--------|-------------------------------|-----------|-----------------------------------------------------------------|
| 0      | mirrored left to right        | 1/2       | 1                                                               |
| 1      | mirrored top to bottom        | p / 2     | 1                                                               |
| 2      | enlarged by 2^(0.2 w)         | p         | w normal                                                        |
| 3, 4   | turned by a                   | p         | cos a - 1, sin a; a uniform in [-pi, pi]                        |
| 5, 6   | stretched by 2^(0.2 w) at b   | p         | w cos b, w sin b; w normal, b uniform or, half of the time, 0   |
| 7, 8   | shifted by 0.125 (w_x, w_y)   | p         | w_x, w_y, normal, in units of width and height                  |

The last four are one affine map of the plane, and one resampling: the image, continued by reflection, is made twice as
large with the low-pass filter of the wavelet sym6, read at the places of the pixels by linear interpolation, and made half
as large by the same filter. The filter is orthonormal, so an image that is not moved comes back as it was. Doubling
and halving are linear in rows and columns, and are done as products with constant matrices.

It runs on the device within the training step, with the example's key: an image's augmentation is the same in any batch,
on any number of devices and hosts; it costs the host, which has images to decode, nothing; and the position of the data
iterator stays the one number it was. EDM continues all images of a batch as far as the one that is moved most needs it;
here it is always as far as that can be, once the image on each side. What lies farther is zero in both.

Source: Karras et al. (2022), https://arxiv.org/abs/2206.00364, appendix F.2 and table 6, and
https://github.com/NVlabs/edm/blob/main/training/augment.py with the settings of
https://github.com/NVlabs/edm/blob/main/train.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.scipy.ndimage import map_coordinates

LABELS = 9
SCALE_STD = 0.2  # of the base-2 logarithm
STRETCH_STD = 0.2  # of the base-2 logarithm
STRETCH_TURNED = 0.5  # probability that a stretch is along a random axis instead of the width
SHIFT_STD = 0.125  # of the image

# The low-pass filter of sym6, orthonormal to itself shifted by even numbers.
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip


@struct.dataclass
class Motion:
    """How one image is augmented; all zero is not at all.

    Attributes:
        mirror_x, mirror_y: whether it is mirrored left to right and top to bottom, bool ().
        scale: the base-2 logarithm of its enlargement in units of 0.2, ().
        angle: by which it is turned, in radians, ().
        stretch: the base-2 logarithm of how much it is longer along one axis, and shorter across, in units of 0.2, ().
        axis: the angle of that axis, in radians, ().
        shift: (2,), to x and y, in units of 0.125 of the width and height.
    """

    mirror_x: Array
    mirror_y: Array
    scale: Array
    angle: Array
    stretch: Array
    axis: Array
    shift: Array

    def labels(self) -> Array:
        """(9,) float32: what the network is told."""
        mirrors = jnp.stack([self.mirror_x, self.mirror_y]).astype(jnp.float32)
        rotation = jnp.stack([jnp.cos(self.angle) - 1, jnp.sin(self.angle)])
        stretch = self.stretch * jnp.stack([jnp.cos(self.axis), jnp.sin(self.axis)])
        return jnp.concatenate([mirrors, self.scale[None], rotation, stretch, self.shift])

    def source(self, x: Array, y: Array, height: int, width: int) -> tuple[Array, Array]:
        """Where in the image, from its centre in pixels, lies what is seen at (x, y) in the augmented one.

        With T the shift, S the stretch, R the rotation, E the enlargement, that is E^-1 R S^-1 T^-1 (x, y).
        """
        x, y = x - SHIFT_STD * width * self.shift[0], y - SHIFT_STD * height * self.shift[1]
        x, y = _turned(x, y, self.axis)
        longer = jnp.exp2(STRETCH_STD * self.stretch)
        x, y = _turned(x / longer, y * longer, self.angle - self.axis)
        larger = jnp.exp2(SCALE_STD * self.scale)
        return x / larger, y / larger


def _turned(x, y, angle):
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return cos * x - sin * y, sin * x + cos * y


def draw(key: Array, probability: float) -> Motion:
    """The motion of the image with this key; `probability` p as in the table above."""
    coins, amounts = jax.random.split(key)
    drawn = jax.random.uniform(coins, (7,))
    mirror_x, mirror_y, scaled, turned, stretched, shifted = drawn[:6] < jnp.array(
        [0.5, 0.5 * probability, *[probability] * 4]
    )
    normals, uniforms = (jax.random.fold_in(amounts, i) for i in range(2))
    scale, stretch, *shift = jax.random.normal(normals, (4,))
    angle, axis = jnp.pi * jax.random.uniform(uniforms, (2,), minval=-1, maxval=1)
    return Motion(
        mirror_x=mirror_x,
        mirror_y=mirror_y,
        scale=jnp.where(scaled, scale, 0),
        angle=jnp.where(turned, angle, 0),
        stretch=jnp.where(stretched, stretch, 0),
        axis=jnp.where(stretched & (drawn[6] < STRETCH_TURNED), axis, 0),
        shift=jnp.where(shifted, jnp.stack(shift), 0),
    )


def move(image: Array, motion: Motion) -> Array:
    """The augmented image (H, W, C) of a float image (H, W, C); 2 pixels or more each way."""
    image = jnp.where(motion.mirror_x, image[:, ::-1], image)
    image = jnp.where(motion.mirror_y, image[::-1], image)
    still = (motion.scale == 0) & (motion.angle == 0) & (motion.stretch == 0) & (motion.shift == 0).all()
    return jnp.where(still, image, _resampled(image, motion))


def _resampled(image, motion):
    height, width, _ = image.shape
    # Places in pixels from the centre, two to a pixel: of the samples that the halving needs.
    y, x = (0.5 * (jnp.arange(2 * size + 10) - size - 4) for size in (height, width))
    x, y = motion.source(*jnp.meshgrid(x, y), height, width)
    places = [2 * y + 3 * height - 3, 2 * x + 3 * width - 3]  # as indices of the doubled image

    def resample(plane):
        doubled = _both_axes(plane, _doubling(height), _doubling(width))
        return _both_axes(map_coordinates(doubled, places, 1, mode="constant"), _halving(height), _halving(width))

    return jax.vmap(resample, -1, -1)(image)


def _both_axes(plane, rows, columns):
    precise = {"precision": jax.lax.Precision.HIGHEST}  # on accelerators products of float32 are coarse by default
    return jnp.matmul(jnp.matmul(rows, plane, **precise), columns.T, **precise)


def _doubling(size: int) -> np.ndarray:
    """(6 size - 4, size): continues a row of pixels by reflection to 3 size - 2, then makes it twice as long."""
    continued = np.arange(3 * size - 2)
    reflected = size - 1 - np.abs((continued - (size - 1)) % (2 * size - 2) - (size - 1))
    matrix = np.zeros((6 * size - 4, size), np.float32)
    for tap, weight in enumerate(SYM6):
        places = 2 * continued + tap - 5
        inside = (places >= 0) & (places < len(matrix))
        np.add.at(matrix, (places[inside], reflected[inside]), np.float32(weight))
    return matrix


def _halving(size: int) -> np.ndarray:
    """(size, 2 size + 10): makes a row of samples half as long."""
    matrix = np.zeros((size, 2 * size + 10), np.float32)
    for tap, weight in enumerate(SYM6):
        matrix[np.arange(size), 2 * np.arange(size) + tap] = weight
    return matrix


def augment(
    keys: Array, examples: Mapping[str, Any], probability: float, fields: Sequence[str] = ("data",)
) -> dict[str, Any]:
    """Augments whole examples: all images of one example are moved by one motion.

    Args:
        keys: (B,), one per example: example i depends on `keys[i]` alone.
        examples: by field; images are (B, H, W, C) float, zero in the middle of their range.
        probability: p of the table above; EDM's is 0.12 for CIFAR-10, 0.15 for FFHQ and AFHQ at 64 px.
        fields: of the images; other fields stay as they are.

    Returns:
        The examples, with the labels of the network, float32 (B, 9), as `augmentation`.
    """
    motions = jax.vmap(lambda key: draw(key, probability))(keys)
    moved = {field: jax.vmap(move)(examples[field], motions) for field in fields}
    return {**examples, **moved, "augmentation": jax.vmap(Motion.labels)(motions)}
