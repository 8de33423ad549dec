"""Blurs: the image convolved with a kernel, the image of a point of light. y has the image's shape.

| class           | kernel                            | border            | solves                              |
|-----------------|-----------------------------------|-------------------|-------------------------------------|
| `SeparableBlur` | a column times a row, as Gaussian | any               | closed, by a decomposition per axis |
| `PeriodicBlur`  | any                               | the image repeats | closed, by FFT                      |
| `Blur`          | any                               | any               | conjugate gradients                 |

Kernels are (h, w) with odd sides, centred, and sum to 1:

    gaussian_kernel(61, 3.0)                       of a lens out of focus
    gaussian_kernel(61, (20.0, 1.0), angle=30)     anisotropic
    motion_kernel(61, length=31, angle=45)         a straight motion
    shake_kernel(key, 61)                          a shaking hand

Borders are those of `numpy.pad`: "reflect" (the default: the edge's pixels are not repeated), "symmetric" (they are),
"edge", "constant" (0 outside) and "wrap" (the image repeats). Chung et al. (2023), https://arxiv.org/abs/2209.14687, blur
with 61 x 61 kernels, a standard deviation of 3 pixels and reflected borders.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from sde_lib.checks import at_least, one_of, positive
from sde_lib.inverse.measurement import LinearMeasurement, SpectralMeasurement
from sde_lib.inverse.separable import SeparableMeasurement

BORDERS = ("reflect", "symmetric", "edge", "constant", "wrap")


@struct.dataclass(kw_only=True)
class Blur(LinearMeasurement):
    """Convolution with any kernel.

    Most blurs all but lose the fine details, so that `pseudo_inverse` and `normal_solve` with c = 0 converge slowly:
    what `max_steps` leaves out of them is the details that blur most.

    Attributes:
        kernel: (h, w), of odd sides.
        border: see above; static.
    """

    kernel: Array
    border: str = struct.field(pytree_node=False, default="reflect")

    def __post_init__(self):
        one_of("Blur", BORDERS, border=self.border)

    def forward(self, x: Array) -> Array:
        """The blurred image, (B, H, W, C)."""
        kernel = jnp.asarray(self.kernel, x.dtype)
        _check_odd(kernel.shape)
        above, left = (side // 2 for side in kernel.shape)
        x = jnp.pad(x, ((0, 0), (above, above), (left, left), (0, 0)), self.border)
        size = x.shape[1:3]
        frequencies = jnp.fft.rfft2(x, axes=(1, 2)) * jnp.fft.rfft2(kernel, size)[..., None]
        # The transform lets the padded image repeat, which the first rows and columns alone see.
        return jnp.fft.irfft2(frequencies, size, axes=(1, 2))[:, 2 * above :, 2 * left :]


@struct.dataclass(kw_only=True)
class SeparableBlur(SeparableMeasurement):
    """Convolution of the columns with one kernel and of the rows with another. `gaussian` and `of_kernels` make it."""

    @classmethod
    def of_kernels(
        cls,
        event_shape: tuple[int, int, int],
        vertical: np.ndarray,
        horizontal: np.ndarray,
        border: str = "reflect",
        **settings,
    ) -> "SeparableBlur":
        """With the kernel vertical[:, None] * horizontal.

        Raises:
            ValueError: a kernel of even length, or no such border.
        """
        one_of("SeparableBlur", BORDERS, border=border)
        height, width, _ = event_shape
        return cls.of(
            event_shape,
            _convolution_matrix(height, vertical, border),
            _convolution_matrix(width, horizontal, border),
            **settings,
        )

    @classmethod
    def gaussian(
        cls,
        event_shape: tuple[int, int, int],
        std: float | tuple[float, float] = 3.0,
        size: int = 61,
        border: str = "reflect",
        **settings,
    ) -> "SeparableBlur":
        """A Gaussian of standard deviation `std` pixels, or of two: down and across, for an anisotropic one.

        Raises:
            ValueError: a kernel of even size, a std that is not positive, or no such border.
        """
        kernels = (_gaussian(size, s) for s in np.broadcast_to(std, 2).tolist())
        return cls.of_kernels(event_shape, *kernels, border=border, **settings)


@struct.dataclass(kw_only=True)
class PeriodicBlur(SpectralMeasurement):
    """Convolution with any kernel, of images that repeat beyond their borders.

    With K = |K| exp(i phase) the kernel's Fourier transform, A multiplies the image's by K. V is the Hartley transform (the
    real part of the Fourier transform less the imaginary one), which is real, symmetric and orthogonal; U = P V, where P
    multiplies by exp(i phase) and is real and orthogonal too. V mixes a frequency with its opposite alone, where |K| is the
    same, so A = P V diag(|K|) V^T.

    Attributes:
        kernel: (h, w), of odd sides.
        rcond: singular values below this share of the largest count as 0; static.
    """

    kernel: Array
    rcond: float = struct.field(pytree_node=False, default=1e-5)

    def singular_values(self) -> Array:
        """|K|, the same for each channel."""
        return jnp.broadcast_to(self._gain_and_phase()[0], self.event_shape)

    def to_spectrum(self, x: Array) -> Array:
        """The Hartley transform of each channel."""
        return _hartley(x)

    def from_spectrum(self, z: Array) -> Array:
        """The same: it is its own inverse."""
        return _hartley(z)

    def measured_to_spectrum(self, y: Array) -> Array:
        """V^T P^T y, and 0 where the singular value is."""
        gain, phase = self._gain_and_phase()
        return jnp.where(gain > 0, _hartley(_filter(y, phase.conj())), 0)

    def measured_from_spectrum(self, z: Array) -> Array:
        """P V z."""
        return _filter(_hartley(z), self._gain_and_phase()[1])

    def _gain_and_phase(self) -> tuple[Array, Array]:
        """|K| and exp(i phase), (H, W, 1)."""
        kernel, (height, width, _) = jnp.asarray(self.kernel), self.event_shape
        _check_odd(kernel.shape)
        rows, columns = (jnp.arange(side) - side // 2 for side in kernel.shape)
        # Added, not set: a kernel wider than the image wraps onto itself.
        point = jnp.zeros((height, width), kernel.dtype).at[rows[:, None] % height, columns % width].add(kernel)
        transfer = jnp.fft.fft2(point)[..., None]
        gain = jnp.abs(transfer)
        kept = gain > self.rcond * gain.max()
        return jnp.where(kept, gain, 0), jnp.where(kept, transfer / jnp.where(kept, gain, 1), 1)


def _hartley(x: Array) -> Array:
    frequencies = jnp.fft.fft2(x, axes=(1, 2), norm="ortho")
    return frequencies.real - frequencies.imag


def _filter(x: Array, transfer: Array) -> Array:
    frequencies = jnp.fft.fft2(x, axes=(1, 2))
    return jnp.fft.ifft2(transfer.astype(frequencies.dtype) * frequencies, axes=(1, 2)).real


def _convolution_matrix(n: int, kernel: np.ndarray, border: Any) -> np.ndarray:
    """(n, n): the convolution of n values, continued beyond the border, with a kernel of odd length."""
    _check_odd(kernel.shape)
    half = len(kernel) // 2
    continued = np.pad(np.eye(n), ((half, half), (0, 0)), border)
    return cast(np.ndarray, sum(weight * continued[i : i + n] for i, weight in enumerate(kernel[::-1])))


def gaussian_kernel(size: int, std: float | tuple[float, float], angle: float = 0.0) -> np.ndarray:
    """(size, size): a Gaussian of standard deviation `std` pixels.

    Args:
        size: odd.
        std: one for both axes, or two: down and across before it is turned.
        angle: by which it is turned counterclockwise as one sees the image, in degrees.
    """
    std_down, std_across = np.broadcast_to(std, 2).tolist()
    positive("gaussian_kernel", std_down=std_down, std_across=std_across)
    _check_odd((size,))
    x, y, turn = np.arange(size) - size // 2, size // 2 - np.arange(size)[:, None], np.deg2rad(angle)
    across, up = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    return _normalized(np.exp(-0.5 * ((up / std_down) ** 2 + (across / std_across) ** 2)))


def motion_kernel(size: int, length: float, angle: float = 0.0) -> np.ndarray:
    """(size, size): a straight motion at constant speed.

    Args:
        size: odd.
        length: of the path, in pixels; less than the size.
        angle: of the motion against the horizontal, counterclockwise as one sees the image, in degrees.
    """
    positive("motion_kernel", length=length)
    if not length < size:
        raise ValueError(f"motion_kernel: length={length} must be less than size={size}")
    return _drawn(size, np.full(16 * size, np.deg2rad(angle)), length)


def shake_kernel(key: Array, size: int, intensity: float = 0.5) -> np.ndarray:
    """(size, size): a path of size - 1 pixels whose direction is a random walk, like that of a camera in a shaking hand.

    A simple relative of the paths of Boracchi and Foi (2012), https://doi.org/10.1109/TIP.2012.2192126, section IV.

    Args:
        key: of the path.
        size: odd.
        intensity: the direction turns by a standard deviation of intensity * 360 degrees along the path; 0 is straight.
    """
    at_least("shake_kernel", 0, intensity=intensity)
    steps = 16 * size
    key_start, key_turns = jax.random.split(key)
    start = jax.random.uniform(key_start, maxval=2 * np.pi)
    turns = np.asarray(jax.random.normal(key_turns, (steps,))) * 2 * np.pi * intensity / np.sqrt(steps)
    return _drawn(size, np.asarray(start) + np.cumsum(turns), size - 1)


def _drawn(size: int, directions: np.ndarray, length: float) -> np.ndarray:
    """The path of that length in these directions (radians), with its mean at the centre, as a kernel (size, size).

    Each of its points is shared among the four pixels around it.
    """
    _check_odd((size,))
    across = np.cumsum(np.cos(directions)) * length / len(directions)
    up = np.cumsum(np.sin(directions)) * length / len(directions)
    # No point is further from the mean than half the length, so the path is inside the kernel.
    rows, columns = size // 2 - (up - up.mean()), size // 2 + (across - across.mean())
    pixels = np.arange(size)
    near_rows, near_columns = (np.maximum(1 - np.abs(points[:, None] - pixels), 0) for points in (rows, columns))
    return _normalized(near_rows.T @ near_columns)


def _gaussian(size: int, std: float) -> np.ndarray:
    """(size,), summing to 1."""
    positive("SeparableBlur.gaussian", std=std)
    _check_odd((size,))
    return _normalized(np.exp(-0.5 * ((np.arange(size) - size // 2) / std) ** 2))


def _normalized(kernel: np.ndarray) -> np.ndarray:
    return kernel / kernel.sum()


def _check_odd(shape: tuple[int, ...]) -> None:
    if not all(side % 2 for side in shape):
        raise ValueError(f"a kernel's sides must be odd, so that it has a centre, not {tuple(shape)}")
