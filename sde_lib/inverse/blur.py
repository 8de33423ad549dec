"""Blur operators: convolution of the image with a kernel (point spread function). y has the shape of the image.

| class           | kernel                               | border   | linear solves                          |
|-----------------|--------------------------------------|----------|----------------------------------------|
| `SeparableBlur` | outer product of a column and a row  | any      | closed form, by an SVD along each axis |
| `PeriodicBlur`  | any                                  | periodic | closed form, by FFT                    |
| `Blur`          | any                                  | any      | conjugate gradients                    |

Kernels are (h, w) with odd sides, centred, and sum to 1:

    gaussian_kernel(61, 3.0)                       isotropic Gaussian (defocus)
    gaussian_kernel(61, (20.0, 1.0), angle=30)     anisotropic Gaussian
    motion_kernel(61, length=31, angle=45)         linear motion
    shake_kernel(key, 61)                          camera shake

Border modes are those of `numpy.pad`: "reflect" (the default: edge pixels are not repeated), "symmetric" (edge pixels
are repeated), "edge", "constant" (0 outside) and "wrap" (periodic). Chung et al. (2023),
https://arxiv.org/abs/2209.14687, use 61 x 61 kernels, a standard deviation of 3 pixels and reflected borders.
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

    Most blurs strongly attenuate high frequencies, so `pseudo_inverse` and `normal_solve` with c = 0 converge slowly:
    after `max_steps` the most attenuated frequencies are not recovered.

    Attributes:
        kernel: (h, w), with odd sides.
        border: the border mode, see the module docstring; static.

    Raises:
        ValueError: unknown border mode; in use, a kernel with an even side.
    """

    kernel: Array
    border: str = struct.field(pytree_node=False, default="reflect")

    def __post_init__(self):
        one_of("Blur", BORDERS, border=self.border)

    def forward(self, x: Array) -> Array:
        """Returns the blurred image, (B, H, W, C)."""
        kernel = jnp.asarray(self.kernel, x.dtype)
        _check_odd(kernel.shape)
        above, left = (side // 2 for side in kernel.shape)
        x = jnp.pad(x, ((0, 0), (above, above), (left, left), (0, 0)), self.border)
        size = x.shape[1:3]
        frequencies = jnp.fft.rfft2(x, axes=(1, 2)) * jnp.fft.rfft2(kernel, size)[..., None]
        # The FFT convolution is circular; wrap-around affects only the first rows and columns, which are cropped.
        return jnp.fft.irfft2(frequencies, size, axes=(1, 2))[:, 2 * above :, 2 * left :]


@struct.dataclass(kw_only=True)
class SeparableBlur(SeparableMeasurement):
    """Convolution of the columns with one kernel and of the rows with another; built by `gaussian` or `of_kernels`."""

    @classmethod
    def of_kernels(
        cls,
        event_shape: tuple[int, int, int],
        vertical: np.ndarray,
        horizontal: np.ndarray,
        border: str = "reflect",
        **settings,
    ) -> "SeparableBlur":
        """Returns the blur with kernel vertical[:, None] * horizontal.

        Args:
            event_shape: (H, W, C).
            vertical: (h,), h odd.
            horizontal: (w,), w odd.
            border: the border mode, see the module docstring.
            **settings: fields of `SeparableMeasurement`, such as `rcond`.

        Raises:
            ValueError: a kernel of even length, or an unknown border mode.
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
        """Returns a Gaussian blur.

        Args:
            event_shape: (H, W, C).
            std: standard deviation in pixels; a pair (vertical, horizontal) gives an anisotropic Gaussian.
            size: side of the kernel in pixels, odd.
            border: the border mode, see the module docstring.
            **settings: fields of `SeparableMeasurement`, such as `rcond`.

        Raises:
            ValueError: a kernel of even size, a std that is not positive, or an unknown border mode.
        """
        kernels = (_gaussian(size, s) for s in np.broadcast_to(std, 2).tolist())
        return cls.of_kernels(event_shape, *kernels, border=border, **settings)


@struct.dataclass(kw_only=True)
class PeriodicBlur(SpectralMeasurement):
    """Circular convolution with any kernel (periodic borders).

    Let K = |K| exp(i phase) be the Fourier transform of the kernel; A multiplies the Fourier transform of the image by
    K. V is the Hartley transform (real part minus imaginary part of the Fourier transform), which is real, symmetric
    and orthogonal. U = P V, where P multiplies the Fourier transform by exp(i phase); P is real and orthogonal. V mixes
    each frequency only with its negative, and |K| is equal at both, so A = P V diag(|K|) V^T.

    Attributes:
        kernel: (h, w), with odd sides.
        rcond: singular values below this fraction of the largest are treated as 0; static.

    Raises:
        ValueError: in use, a kernel with an even side.
    """

    kernel: Array
    rcond: float = struct.field(pytree_node=False, default=1e-5)

    def singular_values(self) -> Array:
        """Returns |K|, (H, W, C), equal for all channels."""
        return jnp.broadcast_to(self._gain_and_phase()[0], self.event_shape)

    def to_spectrum(self, x: Array) -> Array:
        """Returns the Hartley transform of each channel."""
        return _hartley(x)

    def from_spectrum(self, z: Array) -> Array:
        """Returns the Hartley transform of each channel, which is its own inverse."""
        return _hartley(z)

    def measured_to_spectrum(self, y: Array) -> Array:
        """Returns V^T P^T y, and 0 where the singular value is 0."""
        gain, phase = self._gain_and_phase()
        return jnp.where(gain > 0, _hartley(_filter(y, phase.conj())), 0)

    def measured_from_spectrum(self, z: Array) -> Array:
        """Returns P V z."""
        return _filter(_hartley(z), self._gain_and_phase()[1])

    def _gain_and_phase(self) -> tuple[Array, Array]:
        """Returns |K| and exp(i phase), (H, W, 1)."""
        kernel, (height, width, _) = jnp.asarray(self.kernel), self.event_shape
        _check_odd(kernel.shape)
        rows, columns = (jnp.arange(side) - side // 2 for side in kernel.shape)
        # `add` instead of `set`: a kernel larger than the image wraps around and overlaps itself.
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
    """Returns the matrix (n, n) of the convolution of n values with a kernel of odd length, padded by `border`."""
    _check_odd(kernel.shape)
    half = len(kernel) // 2
    continued = np.pad(np.eye(n), ((half, half), (0, 0)), border)
    return cast(np.ndarray, sum(weight * continued[i : i + n] for i, weight in enumerate(kernel[::-1])))


def gaussian_kernel(size: int, std: float | tuple[float, float], angle: float = 0.0) -> np.ndarray:
    """Returns a Gaussian kernel (size, size) that sums to 1.

    Args:
        size: side of the kernel in pixels, odd.
        std: standard deviation in pixels; or a pair (vertical, horizontal), before the rotation.
        angle: counterclockwise rotation in degrees, in the displayed image.

    Raises:
        ValueError: an even size, or a std that is not positive.
    """
    std_down, std_across = np.broadcast_to(std, 2).tolist()
    positive("gaussian_kernel", std_down=std_down, std_across=std_across)
    _check_odd((size,))
    x, y, rotation = np.arange(size) - size // 2, size // 2 - np.arange(size)[:, None], np.deg2rad(angle)
    across, up = np.cos(rotation) * x + np.sin(rotation) * y, np.cos(rotation) * y - np.sin(rotation) * x
    return _normalized(np.exp(-0.5 * ((up / std_down) ** 2 + (across / std_across) ** 2)))


def motion_kernel(size: int, length: float, angle: float = 0.0) -> np.ndarray:
    """Returns the kernel (size, size) of linear motion at constant speed.

    Args:
        size: side of the kernel in pixels, odd.
        length: length of the path in pixels, less than `size`.
        angle: angle between the motion and the horizontal in degrees, counterclockwise in the displayed image.

    Raises:
        ValueError: an even size, or a length outside (0, size).
    """
    positive("motion_kernel", length=length)
    if not length < size:
        raise ValueError(f"motion_kernel: length={length} must be less than size={size}")
    return _path_kernel(size, np.full(16 * size, np.deg2rad(angle)), length)


def shake_kernel(key: Array, size: int, intensity: float = 0.5) -> np.ndarray:
    """Returns a camera-shake kernel (size, size): a path of size - 1 pixels whose direction is a random walk.

    A simplified version of the paths of Boracchi and Foi (2012), https://doi.org/10.1109/TIP.2012.2192126, section IV.

    Args:
        key: PRNG key of the path.
        size: side of the kernel in pixels, odd.
        intensity: standard deviation of the total change of direction along the path, in units of 360 degrees; 0 gives
            a straight path.

    Raises:
        ValueError: an even size, or a negative intensity.
    """
    at_least("shake_kernel", 0, intensity=intensity)
    steps = 16 * size
    key_start, key_turns = jax.random.split(key)
    start = jax.random.uniform(key_start, maxval=2 * np.pi)
    turns = np.asarray(jax.random.normal(key_turns, (steps,))) * 2 * np.pi * intensity / np.sqrt(steps)
    return _path_kernel(size, np.asarray(start) + np.cumsum(turns), size - 1)


def _path_kernel(size: int, directions: np.ndarray, length: float) -> np.ndarray:
    """Rasterizes a path as a kernel (size, size) that sums to 1.

    The path has equal steps in `directions` (radians) and total length `length` in pixels; its mean is at the centre of
    the kernel. Each point is distributed over its four nearest pixels with bilinear weights.
    """
    _check_odd((size,))
    across = np.cumsum(np.cos(directions)) * length / len(directions)
    up = np.cumsum(np.sin(directions)) * length / len(directions)
    # Each point is at most length / 2 from the mean, so the path lies inside the kernel.
    rows, columns = size // 2 - (up - up.mean()), size // 2 + (across - across.mean())
    pixels = np.arange(size)
    near_rows, near_columns = (np.maximum(1 - np.abs(points[:, None] - pixels), 0) for points in (rows, columns))
    return _normalized(near_rows.T @ near_columns)


def _gaussian(size: int, std: float) -> np.ndarray:
    """Returns a Gaussian kernel (size,) that sums to 1."""
    positive("SeparableBlur.gaussian", std=std)
    _check_odd((size,))
    return _normalized(np.exp(-0.5 * ((np.arange(size) - size // 2) / std) ** 2))


def _normalized(kernel: np.ndarray) -> np.ndarray:
    return kernel / kernel.sum()


def _check_odd(shape: tuple[int, ...]) -> None:
    if not all(side % 2 for side in shape):
        raise ValueError(f"a kernel's sides must be odd, so that it has a centre pixel, not {tuple(shape)}")
