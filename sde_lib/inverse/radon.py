"""Computed tomography: line integrals of an image, the adjoint of taking them, and filtered back-projection.

    (A x)(theta, s) = integral of x along { (X, Y): X cos(theta) + Y sin(theta) = s }

X runs right and Y up from the middle of the image, in pixels. Sinograms are (B, angles, detectors, C), each channel of an
image (B, H, W, C) by itself. Detectors are one pixel apart, and the middle of the row of detectors is at s = 0. For odd
sizes this is the geometry of skimage.transform.radon; for even ones its axis is half a pixel right of and below ours.

Sparse view and limited angle are choices of the angles, `parallel_angles`; rays that metal spoils are a mask on the
sinogram, `metal_mask`, and `interpolated` is the classical guess at them.

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
    """`count` angles evenly spaced over [0, span), in radians: few are a sparse view, a span below pi is a limited angle."""
    return span * jnp.arange(count) / count


@struct.dataclass(kw_only=True)
class Radon(LinearMeasurement):
    """Parallel-beam projections, (B, angles, detectors, C), in units of the image times a pixel's side.

    Joseph's projector: a ray steps through the image row by row, or column by column where that is the steeper way, and
    sums what linear interpolation finds in each. Angles are visited one by one, so memory is that of one angle:
    detectors x max(H, W) values for each image and channel. Its adjoint is its exact transpose. It is badly
    conditioned: `pseudo_inverse` ends at `max_steps`, and how early regularizes it.

    Attributes:
        angles: (angles,), in radians.
        detectors: how many, static; None for enough to see all of the image, its corners too.
        mask: None, or (angles, detectors): 0 for the rays that are lost, where y is 0.

    Raises:
        ValueError: in use, if the mask has not the sinogram's size.
    """

    angles: Array
    detectors: int | None = struct.field(pytree_node=False, default=None)
    mask: Array | None = None

    def num_detectors(self) -> int:
        """`detectors`, or as many as the diagonal has pixels; odd for an odd width: vertical rays hit the columns."""
        if self.detectors is not None:
            return self.detectors
        enough = math.ceil(math.hypot(*self.event_shape[:2]))
        return enough + (enough - self.event_shape[1]) % 2

    def forward(self, x: Array) -> Array:
        """The sinogram, (B, angles, detectors, C)."""
        batch, height, width, channels = x.shape
        size = max(height, width)
        # The image and its transpose among zeros, so that rays always step along the first axis.
        pixels = x.transpose(1, 2, 0, 3).reshape(height, width, batch * channels)
        planes = jnp.stack(
            [
                jnp.pad(plane, ((0, size - plane.shape[0]), (1, size - plane.shape[1] + 2), (0, 0)))
                for plane in (pixels, pixels.swapaxes(0, 1))
            ]
        )
        neighbours = jnp.stack([planes[:, :, :-1], planes[:, :, 1:]], axis=-1)  # so that one look-up finds both
        detectors = _centred(self.num_detectors(), x.dtype)
        step = jnp.arange(size)

        @jax.checkpoint  # Otherwise a gradient keeps the places and weights of all angles.
        def project(angle):
            cos, sin = jnp.cos(angle), jnp.sin(angle)
            by_rows = jnp.abs(cos) > 0.999 * jnp.abs(sin)  # at 45 degrees, rounding must not decide
            s = detectors[:, None]
            column = (s - sin * ((height - 1) / 2 - step)) / jnp.where(by_rows, cos, 1) + (width - 1) / 2
            row = (height - 1) / 2 - (s - cos * (step - (width - 1) / 2)) / jnp.where(by_rows, 1, sin)
            place = jnp.clip(jnp.where(by_rows, column, row), -1, size)
            below = jnp.floor(place)
            weights = jnp.stack([1 - (place - below), place - below], axis=-1)
            found = neighbours[jnp.where(by_rows, 0, 1), step, below.astype(int) + 1]  # + 1: after one zero
            return jnp.einsum("dsn,dsin->di", weights, found) / jnp.maximum(jnp.abs(cos), jnp.abs(sin))

        sinogram = jax.lax.map(project, jnp.asarray(self.angles, x.dtype))
        sinogram = sinogram.reshape(*sinogram.shape[:2], batch, channels).transpose(2, 0, 1, 3)
        return sinogram if self.mask is None else self.checked_mask()[..., None].astype(x.dtype) * sinogram

    def select(self, sinogram: Array) -> Array:
        """The sinogram (B, angles, detectors, C) with 0 for the rays that are lost."""
        return sinogram if self.mask is None else jnp.where(self.checked_mask()[..., None] == 0, 0, sinogram)

    def checked_mask(self) -> Array:
        """The mask, which must have the sinogram's size."""
        shape = (len(self.angles), self.num_detectors())
        mask = jnp.asarray(self.mask)
        if mask.shape != shape:
            raise ValueError(f"Radon: mask of shape {mask.shape} must have the sinogram's {shape}")
        return mask


def _centred(count: int, dtype: jnp.dtype) -> Array:
    """-(count - 1) / 2 ... (count - 1) / 2."""
    return jnp.arange(count, dtype=dtype) - (count - 1) / 2


def metal_mask(radon: Radon, metal: Array) -> Array:
    """The mask (angles, detectors) that loses the rays through metal.

    Args:
        radon: the geometry; its own mask is left out.
        metal: (H, W), True where there is metal.
    """
    unmasked = radon.replace(event_shape=(*metal.shape, 1), mask=None)
    return unmasked.forward(jnp.asarray(metal, float)[None, ..., None])[0, ..., 0] == 0


def interpolated(radon: Radon, sinogram: Array) -> Array:
    """The sinogram (B, angles, detectors, C) with each lost ray between those of its angle that are not, linearly.

    Beyond the last ray that there is, it goes on as that one; an angle without any stays 0. Back-projected without the
    mask it is the classical reduction of metal artefacts.

    Source: Kalender, Hebel and Ebersberger (1987), https://doi.org/10.1148/radiology.164.2.3602406.

    Args:
        radon: the geometry, with its mask.
        sinogram: of its shape; what it has at lost rays does not count.
    """
    if radon.mask is None:
        return sinogram
    sinogram, there = radon.select(sinogram), radon.checked_mask() != 0
    count = there.shape[1]
    place = jnp.arange(count)
    before = jax.lax.cummax(jnp.where(there, place, -1), axis=1)
    after = jax.lax.cummin(jnp.where(there, place, count), axis=1, reverse=True)
    before, after = jnp.where(before < 0, after, before), jnp.where(after == count, before, after)
    share = ((place - before) / jnp.maximum(after - before, 1)).astype(sinogram.dtype)[..., None]

    def at(index):  # an angle without any has indices beyond the ends, and 0 everywhere
        return jnp.take_along_axis(sinogram, jnp.clip(index, 0, count - 1)[None, ..., None], axis=2)

    return (1 - share) * at(before) + share * at(after)


def ramp(frequency: Array) -> Array:
    """1: the ramp filter alone. Windows map frequencies in [0, 1/2], in cycles per pixel, to factors of the ramp."""
    return jnp.ones_like(frequency)


def shepp_logan(frequency: Array) -> Array:
    """sinc: 2 / pi at the highest frequency."""
    return jnp.sinc(frequency)


def cosine(frequency: Array) -> Array:
    """Falls to 0 at the highest frequency."""
    return jnp.cos(jnp.pi * frequency)


def hamming(frequency: Array) -> Array:
    """Falls to 0.08."""
    return 0.54 + 0.46 * jnp.cos(2 * jnp.pi * frequency)


def hann(frequency: Array) -> Array:
    """Falls to 0: the smoothest."""
    return 0.5 + 0.5 * jnp.cos(2 * jnp.pi * frequency)


def _spacing(angles: Array) -> Array | float:
    return (angles[-1] - angles[0]) / (len(angles) - 1) if len(angles) > 1 else math.pi


def filtered_back_projection(radon: Radon, sinogram: Array, window: Callable[[Array], Array] = ramp) -> Array:
    """The classical reconstruction, (B, H, W, C), of a sinogram (B, angles, detectors, C).

    The inverse of `radon` where the angles are many and cover [0, pi); rays that the mask loses count as 0, whatever the
    sinogram has there. The ramp filter is sampled in space, not in frequency, so that the mean is right (Kak and Slaney,
    section 3.3.3).

    Args:
        radon: the geometry. Its angles are evenly spaced.
        sinogram: of its shape.
        window: `ramp`, `shepp_logan`, `cosine`, `hamming`, `hann`, or a function of your own.
    """
    height, width, _ = radon.event_shape
    sinogram = radon.select(sinogram)
    detectors = sinogram.shape[2]
    angles = jnp.asarray(radon.angles, sinogram.dtype)
    spacing = _spacing(angles)

    size = 2 ** math.ceil(math.log2(2 * detectors))  # so that the convolution does not wrap around
    n = jnp.fft.fftfreq(size, 1 / size, dtype=sinogram.dtype)
    kernel = jnp.where(n == 0, 1 / 4, jnp.where(n % 2 == 1, -1 / (jnp.pi * jnp.where(n == 0, 1, n)) ** 2, 0))
    response = jnp.fft.rfft(kernel).real * window(jnp.fft.rfftfreq(size, dtype=sinogram.dtype))
    spectrum = jnp.fft.rfft(sinogram, size, axis=2) * response[:, None]
    filtered = jnp.fft.irfft(spectrum, size, axis=2)[:, :, :detectors]
    padded = jnp.pad(filtered, ((0, 0), (0, 0), (1, 2), (0, 0)))

    right, up = _centred(width, angles.dtype), -_centred(height, angles.dtype)[:, None]

    def back_project(image, angle_and_row):
        angle, row = angle_and_row
        place = jnp.clip(right * jnp.cos(angle) + up * jnp.sin(angle) + (detectors - 1) / 2, -1, detectors)
        below = jnp.floor(place)
        fraction = (place - below)[..., None]
        index = below.astype(int) + 1
        return image + (1 - fraction) * row[:, index] + fraction * row[:, index + 1], None

    image = jnp.zeros((len(sinogram), *radon.event_shape), sinogram.dtype)
    return spacing * jax.lax.scan(back_project, image, (angles, padded.swapaxes(0, 1)))[0]


@struct.dataclass(kw_only=True)
class CompletedRadon(Radon):
    """`Radon` among a complete set of angles: `pseudo_inverse` is their filtered back-projection, 0 where there are no data.

    As in score_inverse_problems, the complete set has as many angles over [0, pi) as the image has pixels on a side. So few
    angles give an image that is too faint by their share, unlike `filtered_back_projection` of themselves; but added to an
    image, such a correction does not overshoot at the frequencies that each angle measures, however few they are. One pass
    over the angles, where `Radon` takes up to `max_steps` of them.
    """

    def pseudo_inverse(self, y: Array) -> Array:
        """The filtered back-projection of y (B, angles, detectors, C) as part of the complete set, (B, H, W, C)."""
        complete = max(len(self.angles), *self.event_shape[:2])
        spacing = _spacing(jnp.asarray(self.angles, y.dtype))
        return filtered_back_projection(self, y) * (math.pi / complete) / spacing
