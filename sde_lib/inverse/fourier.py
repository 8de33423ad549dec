"""Magnetic resonance imaging: undersampled Fourier coefficients (k-space) of an image, with one coil or several.

    one coil:       y   = M F x
    several coils:  y_c = M F (S_c x),      S_c the sensitivity map of coil c

F is the orthonormal Fourier transform. M keeps the sampled points and sets all other points to 0, so that y has one
shape for all masks and one compiled program serves all of them. Both images and k-space are centred: index (H // 2, W
// 2) is the origin of the image and the zero frequency.

Images are (B, H, W, 1), real, or (B, H, W, 2), complex with (real, imaginary) as channels; k-space always has
(real, imaginary) as its last axis.

Masks are (H, W), of booleans or of weights >= 0: `equispaced_mask` and `random_lines_mask` (lines along the height, as
in fastMRI), `radial_mask` and `spiral_mask` (the grid points nearest to a radial or spiral trajectory).

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
    """Returns the centred orthonormal Fourier transform of (..., H, W)."""
    return jnp.fft.fftshift(jnp.fft.fft2(jnp.fft.ifftshift(z, _AXES), norm="ortho"), _AXES)


def _inverse_fourier(z: Array) -> Array:
    return jnp.fft.fftshift(jnp.fft.ifft2(jnp.fft.ifftshift(z, _AXES), norm="ortho"), _AXES)


def _to_complex(x: Array) -> Array:
    """Converts real (..., H, W, 1 or 2) to complex (..., H, W)."""
    real = x[..., 0]
    return jax.lax.complex(real, x[..., 1] if x.shape[-1] == 2 else jnp.zeros_like(real))


def _to_channels(z: Array, channels: int) -> Array:
    """Converts complex (..., H, W) to real (..., H, W, channels): the real part, and with 2 channels the imaginary."""
    return jnp.stack([z.real, z.imag][:channels], axis=-1)


def _at_negative_frequencies(k: Array) -> Array:
    """Returns k(-u, -v) for k (H, W), the reflection through the zero frequency."""
    return jnp.roll(jnp.flip(k), [1 - size % 2 for size in k.shape], (0, 1))


def _check(owner: str, event_shape: tuple[int, ...], mask: Array) -> None:
    if len(event_shape) != 3 or event_shape[-1] not in (1, 2):
        raise ValueError(f"{owner}: event_shape={event_shape} must be (H, W, 1), real, or (H, W, 2), complex")
    if jnp.shape(mask) != event_shape[:2]:
        raise ValueError(f"{owner}: mask of shape {jnp.shape(mask)} must have the image's {event_shape[:2]}")


@struct.dataclass(kw_only=True)
class FourierSampling(SpectralMeasurement):
    """MRI with one coil: y = M F x, (B, H, W, 2), for real or complex images.

    The singular values have a closed form. For complex images they are the mask m. For real images the coefficients at
    k and -k are complex conjugates, so sampling either determines both: the singular value at k and at -k is
    sqrt((m(k)^2 + m(-k)^2) / 2), and V is the Hartley transform Re F - Im F, which is real, symmetric and orthogonal. U
    = A V / s.

    Attributes:
        mask: (H, W), booleans or weights >= 0, centred.

    Raises:
        ValueError: in use, if the mask does not have the size of the image, or the image has more than 2 channels.
    """

    mask: Array

    def _checked_mask(self) -> Array:
        _check("FourierSampling", self.event_shape, self.mask)
        return jnp.asarray(self.mask)

    def forward(self, x: Array) -> Array:
        """Returns M F x, (B, H, W, 2)."""
        return _to_channels(self._checked_mask().astype(x.dtype) * _fourier(_to_complex(x)), 2)

    def adjoint(self, y: Array) -> Array:
        """Returns F^H M y, (B, H, W, 1 or 2); its real part for real images."""
        k = self._checked_mask().astype(y.dtype) * _to_complex(y)
        return _to_channels(_inverse_fourier(k), self.event_shape[-1])

    def singular_values(self) -> Array:
        """Returns s, (H, W, 1 or 2)."""
        mask = self._checked_mask()
        squares = mask.astype(jnp.result_type(float, mask)) ** 2
        if self.event_shape[-1] == 1:
            squares = (squares + _at_negative_frequencies(squares)) / 2
        return jnp.broadcast_to(jnp.sqrt(squares)[..., None], self.event_shape)

    def to_spectrum(self, x: Array) -> Array:
        """Returns the Fourier transform of complex images, the Hartley transform of real images; the shape of x."""
        k = _fourier(_to_complex(x))
        return _to_channels(k, 2) if self.event_shape[-1] == 2 else (k.real - k.imag)[..., None]

    def from_spectrum(self, z: Array) -> Array:
        """Inverts `to_spectrum`; the Hartley transform is its own inverse."""
        return _to_channels(_inverse_fourier(_to_complex(z)), 2) if self.event_shape[-1] == 2 else self.to_spectrum(z)

    def measured_to_spectrum(self, y: Array) -> Array:
        """Returns U^T y = V^T A^T y / s, (B, H, W, 1 or 2)."""
        return self._over_singular_values(self.to_spectrum(self.adjoint(y)))

    def measured_from_spectrum(self, z: Array) -> Array:
        """Returns U z = A V z / s, (B, H, W, 2)."""
        return self.forward(self.from_spectrum(self._over_singular_values(z)))

    def _over_singular_values(self, z: Array) -> Array:
        s = self._singular_values(z)
        return jnp.where(s > 0, z / jnp.where(s > 0, s, 1), 0)


@struct.dataclass(kw_only=True)
class MultiCoilFourierSampling(LinearMeasurement):
    """MRI with several coils (SENSE): y_c = M F (S_c x), (B, coils, H, W, 2), for real or complex images.

    Linear systems are solved by conjugate gradients; each iteration takes two Fourier transforms per coil.

    Attributes:
        mask: (H, W), booleans or weights >= 0, centred; shared by all coils.
        coil_maps: S, (coils, H, W, 2), (real, imaginary) in the last axis; for example from `birdcage_maps`.

    Raises:
        ValueError: in use, if the mask or the maps do not have the size of the image, or the image has more than 2
            channels.
    """

    mask: Array
    coil_maps: Array

    def forward(self, x: Array) -> Array:
        """Returns M F (S x), (B, coils, H, W, 2)."""
        _check("MultiCoilFourierSampling", self.event_shape, self.mask)
        shape = jnp.shape(self.coil_maps)
        if len(shape) != 4 or shape[1:] != (*self.event_shape[:2], 2):
            expected = f"(coils, {self.event_shape[0]}, {self.event_shape[1]}, 2)"
            raise ValueError(f"MultiCoilFourierSampling: coil_maps of shape {shape} must be {expected}, as the image")
        coil_images = _to_complex(jnp.asarray(self.coil_maps, x.dtype)) * _to_complex(x)[:, None]
        return _to_channels(jnp.asarray(self.mask, x.dtype) * _fourier(coil_images), 2)


def birdcage_maps(shape: tuple[int, int], coils: int, radius: float = 1.5) -> Array:
    """Returns smooth sensitivity maps (coils, H, W, 2) of coils evenly spaced around the image, the first at its right.

    Each coil is modelled as a straight wire perpendicular to the image plane, whose field circulates around it with a
    magnitude inversely proportional to the distance (Biot-Savart law). At each pixel, the squared magnitudes of the
    sensitivities sum to 1 over the coils.

    Args:
        shape: (H, W).
        coils: number of coils.
        radius: radius of the circle of wires, in half-sides of the image; 1.42 is just outside its corners.
    """
    rows, columns = (2 * (np.arange(size) - (size - 1) / 2) / size for size in shape)
    position = columns - 1j * rows[:, None]
    wires = radius * np.exp(2j * np.pi * np.arange(coils) / coils)
    fields = 1 / np.conj(position - wires[:, None, None])
    fields /= np.sqrt((np.abs(fields) ** 2).sum(0))
    return jnp.stack([fields.real, fields.imag], axis=-1)


def _center_and_outer_lines(width: int, acceleration: float, center_lines: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns the indices of the central lines and of the outer lines, and the number of outer lines to sample."""
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
    """Returns a mask (H, W) of W / acceleration columns: the central columns, and evenly spaced outer columns.

    Args:
        shape: (H, W).
        acceleration: number of columns W divided by the number of sampled columns; at least 1.
        center_lines: number of central columns, which are all sampled.

    Raises:
        ValueError: acceleration is below 1, or there are more central columns than columns to sample.
    """
    center, outer, count = _center_and_outer_lines(shape[1], acceleration, center_lines)
    return _lines_mask(shape, center, outer[((np.arange(count) + 0.5) * len(outer) / max(count, 1)).astype(int)])


def random_lines_mask(
    key: Array, shape: tuple[int, int], acceleration: float, center_lines: int, power: float = 0.0
) -> Array:
    """Returns a mask (H, W) of W / acceleration columns: the central columns, and randomly drawn outer columns.

    Args:
        key: PRNG key of the draw.
        shape: (H, W).
        acceleration: number of columns W divided by the number of sampled columns; at least 1.
        center_lines: number of central columns, which are all sampled.
        power: outer columns are drawn without replacement with probability proportional to (1 - distance)^power, where
            the distance from the centre is about 1 at the edges; 0 for a uniform distribution.

    Raises:
        ValueError: acceleration is below 1, or there are more central columns than columns to sample.
    """
    center, outer, count = _center_and_outer_lines(shape[1], acceleration, center_lines)
    density = (1 - np.abs(outer - shape[1] // 2) / (shape[1] // 2 + 1)) ** power
    drawn = jax.random.choice(key, jnp.asarray(outer), (count,), replace=False, p=jnp.asarray(density / density.sum()))
    return _lines_mask(shape, center, drawn)


def _nearest_points_mask(shape: tuple[int, int], right: np.ndarray, up: np.ndarray) -> Array:
    """Returns the mask of the grid points nearest to offsets (right, up) from the centre, in pixels.

    Points outside the grid are ignored.
    """
    rows, columns = (np.rint(part).astype(int) for part in (shape[0] // 2 - up, shape[1] // 2 + right))
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    mask = np.zeros(shape, bool)
    mask[rows[inside], columns[inside]] = True
    return jnp.asarray(mask)


def radial_mask(shape: tuple[int, int], spokes: int) -> Array:
    """Returns a mask (H, W) of `spokes` lines through the centre, at angles pi i / spokes to the horizontal."""
    angle = np.pi * np.arange(spokes)[:, None] / spokes
    r = np.arange(-sum(shape), sum(shape) + 1) / 2
    return _nearest_points_mask(shape, r * np.cos(angle), r * np.sin(angle))


def spiral_mask(shape: tuple[int, int], turns: float, interleaves: int = 1) -> Array:
    """Returns a mask (H, W) of Archimedean spirals from the centre to the edge of the longer side.

    Args:
        shape: (H, W).
        turns: number of turns of each spiral.
        interleaves: number of spirals, rotated by 2 pi / interleaves from one to the next.
    """
    radius = max(shape) / 2
    fraction = np.linspace(0, 1, int(4 * np.pi * max(turns, 1) * radius))
    angle = 2 * np.pi * (turns * fraction + np.arange(interleaves)[:, None] / interleaves)
    return _nearest_points_mask(shape, radius * fraction * np.cos(angle), radius * fraction * np.sin(angle))
