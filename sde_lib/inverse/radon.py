"""Computed tomography: the parallel-beam Radon transform, its adjoint, and filtered back-projection.

    (A x)(theta, s) = integral of x along { (X, Y): X cos(theta) + Y sin(theta) = s }

X points right and Y up from the centre of the image, in pixels. Sinograms are (B, angles, detectors, C); the channels
of an image (B, H, W, C) are projected independently. Detectors are one pixel apart, and the centre of the detector row
is at s = 0. For odd sizes this is the geometry of skimage.transform.radon; for even sizes the axis of skimage is half a
pixel to the right of and below this axis.

Sparse-view and limited-angle CT are choices of the angles (`parallel_angles`). Rays corrupted by metal are masked in
the sinogram (`metal_mask`), and `interpolated` fills them by linear interpolation.

Sources: Joseph (1982), https://doi.org/10.1109/TMI.1982.4307572, for the projector; Kak and Slaney (1988), chapter 3,
https://engineering.purdue.edu/~malcolm/pct/, for filtered back-projection; Song et al. (2022),
https://arxiv.org/abs/2111.08005, for these problems with diffusion models.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from sde_lib.inverse.measurement import LinearMeasurement


def parallel_angles(count: int, span: float = math.pi) -> Array:
    """Returns `count` angles evenly spaced over [0, span), in radians.

    A small count gives sparse-view CT, a span below pi limited-angle CT.
    """
    return span * jnp.arange(count) / count


@struct.dataclass(kw_only=True)
class Radon(LinearMeasurement):
    """Parallel-beam projections, (B, angles, detectors, C), in units of the image times the side of a pixel.

    Joseph's projector: each ray is sampled once per row of the image, or once per column if the ray is closer to
    horizontal than to vertical, with linear interpolation between pixels. Angles are processed sequentially, which
    bounds the memory by detectors x max(H, W) values per image and channel. The adjoint is the exact transpose. The
    operator is ill-conditioned: `pseudo_inverse` stops at `max_steps`, and stopping earlier regularizes more.

    Attributes:
        angles: (angles,), in radians.
        detectors: number of detectors; None for a number that covers the whole image including its corners; static.
        mask: (angles, detectors), 0 for missing rays, where y is 0; None if all rays are measured.

    Raises:
        ValueError: in use, if the mask does not have the size of the sinogram.
    """

    angles: Array
    detectors: int | None = struct.field(pytree_node=False, default=None)
    mask: Array | None = None

    def num_detectors(self) -> int:
        """Returns `detectors`, or the length of the diagonal in pixels, rounded up to the parity of the width.

        With equal parity, vertical rays pass through the centres of the columns.
        """
        if self.detectors is not None:
            return self.detectors
        diagonal = math.ceil(math.hypot(*self.event_shape[:2]))
        return diagonal + (diagonal - self.event_shape[1]) % 2

    def forward(self, x: Array) -> Array:
        """Returns the sinogram, (B, angles, detectors, C)."""
        batch, height, width, channels = x.shape
        size = max(height, width)
        # The zero-padded image and its transpose, so that rays are always sampled along the first axis.
        pixels = x.transpose(1, 2, 0, 3).reshape(height, width, batch * channels)
        planes = jnp.stack(
            [
                jnp.pad(plane, ((0, size - plane.shape[0]), (1, size - plane.shape[1] + 2), (0, 0)))
                for plane in (pixels, pixels.swapaxes(0, 1))
            ]
        )
        neighbours = jnp.stack([planes[:, :, :-1], planes[:, :, 1:]], axis=-1)  # one gather fetches both neighbours
        detectors = _centred(self.num_detectors(), x.dtype)
        step = jnp.arange(size)

        @jax.checkpoint  # Otherwise reverse mode stores the positions and weights of all angles.
        def project(angle):
            cos, sin = jnp.cos(angle), jnp.sin(angle)
            by_rows = jnp.abs(cos) > 0.999 * jnp.abs(sin)  # 0.999: independent of rounding at 45 degrees
            s = detectors[:, None]
            column = (s - sin * ((height - 1) / 2 - step)) / jnp.where(by_rows, cos, 1) + (width - 1) / 2
            row = (height - 1) / 2 - (s - cos * (step - (width - 1) / 2)) / jnp.where(by_rows, 1, sin)
            position = jnp.clip(jnp.where(by_rows, column, row), -1, size)
            below = jnp.floor(position)
            weights = jnp.stack([1 - (position - below), position - below], axis=-1)
            values = neighbours[jnp.where(by_rows, 0, 1), step, below.astype(int) + 1]  # + 1 for the padding
            return jnp.einsum("dsn,dsin->di", weights, values) / jnp.maximum(jnp.abs(cos), jnp.abs(sin))

        sinogram = jax.lax.map(project, jnp.asarray(self.angles, x.dtype))
        sinogram = sinogram.reshape(*sinogram.shape[:2], batch, channels).transpose(2, 0, 1, 3)
        return sinogram if self.mask is None else self.checked_mask()[..., None].astype(x.dtype) * sinogram

    def select(self, sinogram: Array) -> Array:
        """Returns the sinogram (B, angles, detectors, C) with missing rays set to 0."""
        return sinogram if self.mask is None else jnp.where(self.checked_mask()[..., None] == 0, 0, sinogram)

    def checked_mask(self) -> Array:
        """Returns the mask (angles, detectors).

        Raises:
            ValueError: the mask does not have the size of the sinogram.
        """
        shape = (len(self.angles), self.num_detectors())
        mask = jnp.asarray(self.mask)
        if mask.shape != shape:
            raise ValueError(f"Radon: mask of shape {mask.shape} must have the sinogram's {shape}")
        return mask


def _centred(count: int, dtype: jnp.dtype) -> Array:
    """Returns -(count - 1) / 2 ... (count - 1) / 2."""
    return jnp.arange(count, dtype=dtype) - (count - 1) / 2


def metal_mask(radon: Radon, metal: Array) -> Array:
    """Returns the mask (angles, detectors) that is False for rays through metal and True for all other rays.

    Args:
        radon: the geometry; its mask is ignored.
        metal: (H, W), True where there is metal.
    """
    unmasked = radon.replace(event_shape=(*metal.shape, 1), mask=None)
    return unmasked.forward(jnp.asarray(metal, float)[None, ..., None])[0, ..., 0] == 0


def interpolated(radon: Radon, sinogram: Array) -> Array:
    """Returns the sinogram (B, angles, detectors, C) with missing rays interpolated linearly within each angle.

    Outside the measured rays of an angle, the nearest measured ray is repeated; an angle without measured rays is 0.
    The back-projection of the result, without the mask, is the classical reduction of metal artefacts.

    Source: Kalender, Hebel and Ebersberger (1987), https://doi.org/10.1148/radiology.164.2.3602406.

    Args:
        radon: the geometry, with its mask.
        sinogram: (B, angles, detectors, C); its values at missing rays are ignored.
    """
    if radon.mask is None:
        return sinogram
    sinogram, is_measured = radon.select(sinogram), radon.checked_mask() != 0
    count = is_measured.shape[1]
    index = jnp.arange(count)
    before = jax.lax.cummax(jnp.where(is_measured, index, -1), axis=1)
    after = jax.lax.cummin(jnp.where(is_measured, index, count), axis=1, reverse=True)
    before, after = jnp.where(before < 0, after, before), jnp.where(after == count, before, after)
    weight = ((index - before) / jnp.maximum(after - before, 1)).astype(sinogram.dtype)[..., None]

    def at(index):  # the indices are out of range for an angle without measured rays, whose values are all 0
        return jnp.take_along_axis(sinogram, jnp.clip(index, 0, count - 1)[None, ..., None], axis=2)

    return (1 - weight) * at(before) + weight * at(after)


def ramp(frequency: Array) -> Array:
    """Window of the unmodified ramp filter, 1.

    Windows map frequencies in [0, 1/2], in cycles per pixel, to factors that multiply the ramp filter.
    """
    return jnp.ones_like(frequency)


def shepp_logan(frequency: Array) -> Array:
    """Shepp-Logan window, a sinc that decreases to 2 / pi at frequency 1/2."""
    return jnp.sinc(frequency)


def cosine(frequency: Array) -> Array:
    """Cosine window, which decreases to 0 at frequency 1/2."""
    return jnp.cos(jnp.pi * frequency)


def hamming(frequency: Array) -> Array:
    """Hamming window, which decreases to 0.08 at frequency 1/2."""
    return 0.54 + 0.46 * jnp.cos(2 * jnp.pi * frequency)


def hann(frequency: Array) -> Array:
    """Hann window, which decreases to 0 at frequency 1/2; the strongest smoothing of these windows."""
    return 0.5 + 0.5 * jnp.cos(2 * jnp.pi * frequency)


def _spacing(angles: Array) -> Array | float:
    return (angles[-1] - angles[0]) / (len(angles) - 1) if len(angles) > 1 else math.pi


def filtered_back_projection(radon: Radon, sinogram: Array, window: Callable[[Array], Array] = ramp) -> Array:
    """Returns the filtered back-projection (B, H, W, C) of a sinogram (B, angles, detectors, C).

    For many angles that cover [0, pi), this approximates the inverse of `radon`. Rays that the mask excludes are set to
    0. The ramp filter is sampled in space, not in frequency, so that the mean is correct (Kak and Slaney, section
    3.3.3).

    Args:
        radon: the geometry, with evenly spaced angles.
        sinogram: (B, angles, detectors, C).
        window: window of the ramp filter: `ramp`, `shepp_logan`, `cosine`, `hamming`, `hann`, or a function that maps
            frequencies in [0, 1/2] to factors.
    """
    height, width, _ = radon.event_shape
    sinogram = radon.select(sinogram)
    detectors = sinogram.shape[2]
    angles = jnp.asarray(radon.angles, sinogram.dtype)
    spacing = _spacing(angles)

    size = 2 ** math.ceil(math.log2(2 * detectors))  # padding avoids wrap-around of the convolution
    n = jnp.fft.fftfreq(size, 1 / size, dtype=sinogram.dtype)
    kernel = jnp.where(n == 0, 1 / 4, jnp.where(n % 2 == 1, -1 / (jnp.pi * jnp.where(n == 0, 1, n)) ** 2, 0))
    response = jnp.fft.rfft(kernel).real * window(jnp.fft.rfftfreq(size, dtype=sinogram.dtype))
    spectrum = jnp.fft.rfft(sinogram, size, axis=2) * response[:, None]
    filtered = jnp.fft.irfft(spectrum, size, axis=2)[:, :, :detectors]
    padded = jnp.pad(filtered, ((0, 0), (0, 0), (1, 2), (0, 0)))

    right, up = _centred(width, angles.dtype), -_centred(height, angles.dtype)[:, None]

    def back_project(image, angle_and_row):
        angle, row = angle_and_row
        position = jnp.clip(right * jnp.cos(angle) + up * jnp.sin(angle) + (detectors - 1) / 2, -1, detectors)
        below = jnp.floor(position)
        fraction = (position - below)[..., None]
        index = below.astype(int) + 1
        return image + (1 - fraction) * row[:, index] + fraction * row[:, index + 1], None

    image = jnp.zeros((len(sinogram), *radon.event_shape), sinogram.dtype)
    return spacing * jax.lax.scan(back_project, image, (angles, padded.swapaxes(0, 1)))[0]


@struct.dataclass(kw_only=True)
class CompletedRadon(Radon):
    """`Radon` whose `pseudo_inverse` is the filtered back-projection of y, completed with 0 to a full set of angles.

    As in score_inverse_problems, the full set has as many angles over [0, pi) as the longer side of the image has
    pixels. With few angles, the image of `pseudo_inverse` is therefore scaled by the fraction of measured angles,
    unlike that of `filtered_back_projection`. As a correction that is added to an image, it does not overshoot at the
    measured frequencies, for any number of angles. Cost: one pass over the angles; `pseudo_inverse` of `Radon` takes up
    to `max_steps` passes.
    """

    def pseudo_inverse(self, y: Array) -> Array:
        """Returns the filtered back-projection (B, H, W, C) of y (B, angles, detectors, C), completed with zeros."""
        complete = max(len(self.angles), *self.event_shape[:2])
        spacing = _spacing(jnp.asarray(self.angles, y.dtype))
        return filtered_back_projection(self, y) * (math.pi / complete) / spacing
