"""Magnetic resonance imaging: some of an image's Fourier coefficients (its k-space), seen by one coil or by several.

    one coil:       y   = M F x
    several coils:  y_c = M F (S_c x),      S_c the sensitivity map of coil c

F is the orthonormal Fourier transform, M keeps the sampled points and puts 0 at the others, so that every mask has the
same shape of y and shares one compiled program. Both images and k-space are centred: position (H // 2, W // 2) is the origin
of the image and the zero frequency.

Images are (B, H, W, 1), real, or (B, H, W, 2), complex with (real, imaginary) as channels; k-space always has
(real, imaginary) as its last axis.

Masks are (H, W), of booleans or of weights >= 0: `equispaced_mask` and `random_lines_mask` (lines that run along the height,
as in fastMRI), `radial_mask` and `spiral_mask` (the points of the grid nearest to such a trajectory).

Sources: Lustig et al. (2007), https://doi.org/10.1002/mrm.21391, for the sampling patterns; Pruessmann et al. (1999),
https://doi.org/10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S, for several coils; Zbontar et al. (2018),
https://arxiv.org/abs/1811.08839 (fastMRI), for masks by acceleration and centre lines.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.inverse.measurement import LinearMeasurement, SpectralMeasurement

_AXES = (-2, -1)


def _fourier(z: Array) -> Array:
    """The centred orthonormal transform of (..., H, W)."""
    return jnp.fft.fftshift(jnp.fft.fft2(jnp.fft.ifftshift(z, _AXES), norm="ortho"), _AXES)


def _inverse_fourier(z: Array) -> Array:
    return jnp.fft.fftshift(jnp.fft.ifft2(jnp.fft.ifftshift(z, _AXES), norm="ortho"), _AXES)


def _to_complex(x: Array) -> Array:
    """(..., H, W) complex of (..., H, W, 1 or 2) real."""
    real = x[..., 0]
    return jax.lax.complex(real, x[..., 1] if x.shape[-1] == 2 else jnp.zeros_like(real))


def _to_channels(z: Array, channels: int) -> Array:
    """(..., H, W, channels) real of (..., H, W) complex: the real part alone, or the imaginary one too."""
    return jnp.stack([z.real, z.imag][:channels], axis=-1)


def _at_negative_frequencies(k: Array) -> Array:
    """k(-u, -v) of k (H, W): mirrored about the centre."""
    return jnp.roll(jnp.flip(k), [1 - size % 2 for size in k.shape], (0, 1))


def _check(owner: str, event_shape: tuple[int, ...], mask: Array) -> None:
    if len(event_shape) != 3 or event_shape[-1] not in (1, 2):
        raise ValueError(f"{owner}: event_shape={event_shape} must be (H, W, 1), real, or (H, W, 2), complex")
    if jnp.shape(mask) != event_shape[:2]:
        raise ValueError(f"{owner}: mask of shape {jnp.shape(mask)} must have the image's {event_shape[:2]}")


@struct.dataclass(kw_only=True)
class FourierSampling(SpectralMeasurement):
    """MRI with one coil: y = M F x, (B, H, W, 2), of real or complex images.

    Its singular values are closed. Of a complex image they are the mask. Of a real one, the coefficients at k and -k are
    each other's conjugates, so either of them tells the pair: both values of the pair are
    sqrt((m(k)^2 + m(-k)^2) / 2), and V is the Hartley transform Re F - Im F, which is real, symmetric and orthogonal.
    U follows as A V / s.

    Attributes:
        mask: (H, W), booleans or weights >= 0, centred.

    Raises:
        ValueError: in use, if the mask has not the image's size, or the image has more than 2 channels.
    """

    mask: Array

    def _checked_mask(self) -> Array:
        _check("FourierSampling", self.event_shape, self.mask)
        return jnp.asarray(self.mask)

    def forward(self, x: Array) -> Array:
        """M F x, (B, H, W, 2)."""
        return _to_channels(self._checked_mask().astype(x.dtype) * _fourier(_to_complex(x)), 2)

    def adjoint(self, y: Array) -> Array:
        """F^H M y, (B, H, W, 1 or 2); its real part where images are real."""
        k = self._checked_mask().astype(y.dtype) * _to_complex(y)
        return _to_channels(_inverse_fourier(k), self.event_shape[-1])

    def singular_values(self) -> Array:
        """(H, W, 1 or 2)."""
        mask = self._checked_mask()
        squares = mask.astype(jnp.result_type(float, mask)) ** 2
        if self.event_shape[-1] == 1:
            squares = (squares + _at_negative_frequencies(squares)) / 2
        return jnp.broadcast_to(jnp.sqrt(squares)[..., None], self.event_shape)

    def to_spectrum(self, x: Array) -> Array:
        """The Fourier transform of complex images, the Hartley transform of real ones; of the shape of x."""
        k = _fourier(_to_complex(x))
        return _to_channels(k, 2) if self.event_shape[-1] == 2 else (k.real - k.imag)[..., None]

    def from_spectrum(self, z: Array) -> Array:
        """Its inverse; the Hartley transform is its own."""
        return _to_channels(_inverse_fourier(_to_complex(z)), 2) if self.event_shape[-1] == 2 else self.to_spectrum(z)

    def measured_to_spectrum(self, y: Array) -> Array:
        """U^T y = V^T A^T y / s, (B, H, W, 1 or 2)."""
        return self._over_singular_values(self.to_spectrum(self.adjoint(y)))

    def measured_from_spectrum(self, z: Array) -> Array:
        """U z = A V z / s, (B, H, W, 2)."""
        return self.forward(self.from_spectrum(self._over_singular_values(z)))

    def _over_singular_values(self, z: Array) -> Array:
        s = self._singular_values(z)
        return jnp.where(s > 0, z / jnp.where(s > 0, s, 1), 0)


@struct.dataclass(kw_only=True)
class MultiCoilFourierSampling(LinearMeasurement):
    """MRI with several coils (SENSE): y_c = M F (S_c x), (B, coils, H, W, 2), of real or complex images.

    Solved by conjugate gradients: a step is two Fourier transforms for each coil.

    Attributes:
        mask: (H, W), booleans or weights >= 0, centred; the same for every coil.
        coil_maps: S, (coils, H, W, 2); `birdcage_maps` makes some.

    Raises:
        ValueError: in use, if the mask or the maps have not the image's size, or the image has more than 2 channels.
    """

    mask: Array
    coil_maps: Array

    def forward(self, x: Array) -> Array:
        """M F (S x), (B, coils, H, W, 2)."""
        _check("MultiCoilFourierSampling", self.event_shape, self.mask)
        shape = jnp.shape(self.coil_maps)
        if len(shape) != 4 or shape[1:] != (*self.event_shape[:2], 2):
            expected = f"(coils, {self.event_shape[0]}, {self.event_shape[1]}, 2)"
            raise ValueError(f"MultiCoilFourierSampling: coil_maps of shape {shape} must be {expected}, as the image")
        coil_images = _to_complex(jnp.asarray(self.coil_maps, x.dtype)) * _to_complex(x)[:, None]
        return _to_channels(jnp.asarray(self.mask, x.dtype) * _fourier(coil_images), 2)


def birdcage_maps(shape: tuple[int, int], coils: int, radius: float = 1.5) -> Array:
    """Smooth sensitivity maps (coils, H, W, 2) of coils evenly spaced around the image, the first one at its right.

    Each coil is a straight wire across the plane: its field is as strong as the inverse of the distance to it, and turns
    around it (law of Biot and Savart). At each pixel, the squares of the coils' sensitivities sum to 1.

    Args:
        shape: (H, W).
        coils: how many.
        radius: of the circle on which the wires lie, in half-sides of the image; 1.42 is just beyond its corners.
    """
    rows, columns = (2 * (np.arange(size) - (size - 1) / 2) / size for size in shape)
    position = columns - 1j * rows[:, None]
    wires = radius * np.exp(2j * np.pi * np.arange(coils) / coils)
    fields = 1 / np.conj(position - wires[:, None, None])
    fields /= np.sqrt((np.abs(fields) ** 2).sum(0))
    return jnp.stack([fields.real, fields.imag], axis=-1)


def _center_and_outer_lines(width: int, acceleration: float, center_lines: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Indices of the central lines and of the others, and how many of the others are to be sampled."""
    total = round(width / acceleration)
    if not 0 <= center_lines <= total <= width:
        raise ValueError(
            f"acceleration={acceleration} samples {total} of {width} lines: it must be 1 or more, "
            f"and center_lines={center_lines} at most {total}"
        )
    center = np.arange(center_lines) + width // 2 - center_lines // 2
    return center, np.setdiff1d(np.arange(width), center), total - center_lines


def _lines_mask(shape: tuple[int, int], *lines: ArrayLike) -> Array:
    return jnp.zeros(shape, bool).at[:, jnp.concatenate([jnp.asarray(part, int) for part in lines])].set(True)


def equispaced_mask(shape: tuple[int, int], acceleration: float, center_lines: int) -> Array:
    """W / acceleration whole columns, (H, W): the `center_lines` central ones, and the rest evenly spread over the others.

    Raises:
        ValueError: there are more central columns than columns to sample.
    """
    center, outer, count = _center_and_outer_lines(shape[1], acceleration, center_lines)
    return _lines_mask(shape, center, outer[((np.arange(count) + 0.5) * len(outer) / max(count, 1)).astype(int)])


def random_lines_mask(
    key: Array, shape: tuple[int, int], acceleration: float, center_lines: int, power: float = 0.0
) -> Array:
    """W / acceleration whole columns, (H, W): the `center_lines` central ones, and the rest drawn among the others.

    Args:
        key: of the draw.
        shape: (H, W).
        acceleration: columns over columns sampled.
        center_lines: how many central columns are always sampled.
        power: columns are drawn with a probability that falls to the edges as (1 - distance)^power; 0: all are alike.

    Raises:
        ValueError: there are more central columns than columns to sample.
    """
    center, outer, count = _center_and_outer_lines(shape[1], acceleration, center_lines)
    density = (1 - np.abs(outer - shape[1] // 2) / (shape[1] // 2 + 1)) ** power
    drawn = jax.random.choice(key, jnp.asarray(outer), (count,), replace=False, p=jnp.asarray(density / density.sum()))
    return _lines_mask(shape, center, drawn)


def _nearest_points_mask(shape: tuple[int, int], right: np.ndarray, up: np.ndarray) -> Array:
    """The points of the grid nearest to (right, up) of the centre, in pixels; those beyond the grid are left out."""
    rows, columns = (np.rint(part).astype(int) for part in (shape[0] // 2 - up, shape[1] // 2 + right))
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    mask = np.zeros(shape, bool)
    mask[rows[inside], columns[inside]] = True
    return jnp.asarray(mask)


def radial_mask(shape: tuple[int, int], spokes: int) -> Array:
    """Points along `spokes` lines through the centre, (H, W), at angles pi i / spokes to the horizontal."""
    angle = np.pi * np.arange(spokes)[:, None] / spokes
    r = np.arange(-sum(shape), sum(shape) + 1) / 2
    return _nearest_points_mask(shape, r * np.cos(angle), r * np.sin(angle))


def spiral_mask(shape: tuple[int, int], turns: float, interleaves: int = 1) -> Array:
    """Points along `interleaves` Archimedean spirals, (H, W), from the centre to the edge of the longer side."""
    radius = max(shape) / 2
    fraction = np.linspace(0, 1, int(4 * np.pi * max(turns, 1) * radius))
    angle = 2 * np.pi * (turns * fraction + np.arange(interleaves)[:, None] / interleaves)
    return _nearest_points_mask(shape, radius * fraction * np.cos(angle), radius * fraction * np.sin(angle))
