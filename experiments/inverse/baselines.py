"""Classical answers to inverse problems, to stand beside those of a model: y in, one image for each out.

| name                       | for                        | is                                                        |
|----------------------------|----------------------------|-----------------------------------------------------------|
| `bicubic`                  | super-resolution           | cubic interpolation                                       |
| `total_variation`          | any linear measurement     | least squares with a penalty on the length of edges       |
| `biharmonic`               | missing pixels             | the smoothest continuation into the holes                 |
| `wiener`                   | blur; any linear one       | the best linear estimate, for pixels of one spread        |
| `zero_filled`              | MRI                        | the inverse transform, with 0 for what was not sampled    |
| `filtered_back_projection` | CT                         | the inverse of many angles, applied to those there are;   |
|                            |                            | lost rays are first interpolated along the detectors      |
| `hybrid_input_output`      | phase retrieval            | projections in turn, with feedback                        |

y (N, *measured) and images (N, H, W, C) are in the model's range [-1, 1], in which black is -1. `zero_filled` and
`filtered_back_projection` take as 0 what they do not know, so they are applied to the image above black.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from sde_lib import inverse

BLACK = -1.0
WIENER_STD = 0.5  # of pixels about the middle grey, 0
LEAST_NOISE = 0.01  # that total variation counts on: what is measured without noise is still smoothed a little


def bicubic(measurement: inverse.SuperResolution, y: Array) -> Array:
    """y enlarged to the image's size by Keys's cubic kernel with a = -0.5, as Pillow's."""
    return jax.image.resize(y, (len(y), *measurement.event_shape), "cubic")


def biharmonic(measurement: inverse.Inpainting, y: Array) -> Array:
    """Known pixels stay; the others solve the biharmonic equation, by scikit-image.

    All images have one mask, and the channels are filled each by itself. Where nothing is known, all is middle grey.
    """
    from skimage.restoration import inpaint_biharmonic

    missing = np.broadcast_to(np.asarray(measurement.mask) == 0, measurement.event_shape)
    images = np.array(y, np.float64)
    for channel in range(images.shape[-1]):
        holes = np.array(missing[..., channel])  # a copy, which may be written to: scikit-image asks for it
        if holes.all():
            images[..., channel] = 0
        elif holes.any():
            for image in images:
                image[..., channel] = inpaint_biharmonic(np.ascontiguousarray(image[..., channel]), holes)
    return jnp.asarray(images, y.dtype)


def wiener(measurement: inverse.LinearMeasurement, y: Array, noise: ArrayLike, std: ArrayLike = WIENER_STD) -> Array:
    """A^T (A A^T + noise^2 / std^2 I)^-1 y: the mean of x given y for independent pixels N(0, std^2).

    Args:
        measurement: linear.
        y: of it.
        noise: standard deviation of the noise of y; taken as at least 0.01, without which a blur has no stable inverse.
        std: of pixels.
    """
    ratio = (jnp.maximum(noise, LEAST_NOISE) / std) ** 2
    return measurement.adjoint(measurement.normal_solve(y, ratio))


def zero_filled(measurement: inverse.LinearMeasurement, y: Array) -> Array:
    """A^T y of the image above black: what is not sampled of k-space is 0. Several coils are combined by their maps."""
    return _above_black(measurement, y, measurement.adjoint)


def filtered_back_projection(measurement: inverse.Radon, y: Array) -> Array:
    """With the ramp filter alone, of the image above black; angles must be evenly spaced.

    Rays that the measurement's mask loses are `inverse.interpolated`, as in the classical reduction of metal artefacts.
    """
    unmasked = measurement.replace(mask=None)

    def back(sinogram):
        return inverse.filtered_back_projection(unmasked, inverse.interpolated(measurement, sinogram))

    return _above_black(measurement, y, back)


def _above_black(measurement, y, back):
    black = jnp.full((1, *measurement.event_shape), BLACK, y.dtype)
    return BLACK + back(y - measurement.forward(black))


def hybrid_input_output(
    measurement: inverse.PhaseRetrieval, y: Array, steps: int = 400, last: int = 50, beta: ArrayLike = 0.6
) -> Array:
    """An image in [-1, 1] among zeros whose transform has the magnitudes y, by turns between the two demands.

    `steps` with feedback: where the image with y's magnitudes breaks a demand, beta times what it has there is taken off the
    image of the step before. Then `last` steps without: what breaks a demand is clipped. It starts at a black image with
    noise. Of an image, its negative, and both turned by 180 degrees any may be found: their magnitudes are the same.

    Source: Fienup (1982), https://doi.org/10.1364/AO.21.002758, section III.
    """
    height, width = (round(size / measurement.oversampling) for size in y.shape[1:3])
    x = BLACK + 0.5 * jax.random.normal(jax.random.key(0), (1, height, width, y.shape[3]), y.dtype)
    margins = [(0, 0), (0, y.shape[1] - height), (0, y.shape[2] - width), (0, 0)]
    inside = jnp.pad(jnp.ones_like(x, bool), margins)

    def with_magnitudes(x):
        spectrum = jnp.fft.fft2(x, axes=(1, 2))
        phases = jnp.where(spectrum == 0, 1, spectrum / jnp.where(spectrum == 0, 1, jnp.abs(spectrum)))
        return jnp.fft.ifft2(jnp.maximum(y, 0) * phases, axes=(1, 2), norm="ortho").real

    def feedback(x, _):
        found = with_magnitudes(x)
        return jnp.where(inside & (jnp.abs(found) <= 1), found, x - beta * found), None

    def clip(x, _):
        return jnp.where(inside, jnp.clip(with_magnitudes(x), -1, 1), 0), None

    x = jnp.broadcast_to(jnp.pad(x, margins), y.shape)
    x = jax.lax.scan(clip, jax.lax.scan(feedback, x, length=steps)[0], length=last)[0]
    return x[:, :height, :width]


def total_variation(
    measurement: inverse.LinearMeasurement,
    y: Array,
    noise: ArrayLike,
    weight: ArrayLike | None = None,
    steps: int = 300,
) -> Array:
    """The x that minimizes |A x - y|^2 / 2 + weight TV(x), by the first-order primal-dual method.

    TV sums over pixels the length of the gradient, which is the differences to the next row and to the next column; each
    channel counts by itself.

    Source: Rudin, Osher and Fatemi (1992), https://doi.org/10.1016/0167-2789(92)90242-F, for the penalty; Chambolle and
    Pock (2011), https://doi.org/10.1007/s10851-010-0251-1, algorithm 1 with theta = 1, for the method.

    Args:
        measurement: linear.
        y: (N, *measured) of it.
        noise: standard deviation of the noise of y, which sets the weight where none is given.
        weight: of the penalty; None for max(noise, 0.01) times the length of a column of A (the mean square over pixels):
            as large as what the noise puts into the gradient A^T (A x - y) of one pixel.
        steps: of the method.
    """
    return _total_variation(measurement, y, noise, weight, steps)


@functools.partial(jax.jit, static_argnames="steps")
def _total_variation(measurement, y, noise, weight, steps):
    norm, column = _norms(measurement, y.dtype)
    if weight is None:
        weight = jnp.maximum(noise, LEAST_NOISE) * column
    # With A and y divided by |A|, the operator (A / |A|, gradient) has a squared norm of at most 1 + 8.
    weight, y = weight / norm**2, y / norm
    step = 1 / 3.0

    def body(state, _):
        x, ahead, dual, edges = state
        dual = (dual + step * (measurement.forward(ahead) / norm - y)) / (1 + step)
        edges = edges + step * _gradient(ahead)
        edges = edges / jnp.maximum(1, jnp.linalg.norm(edges, axis=-1, keepdims=True) / weight)
        new = x - step * (measurement.adjoint(dual) / norm - _divergence(edges))
        return (new, 2 * new - x, dual, edges), None

    x = jnp.zeros((len(y), *measurement.event_shape), y.dtype)
    return jax.lax.scan(body, (x, x, jnp.zeros_like(y), _gradient(x)), length=steps)[0][0]


def _norms(measurement: inverse.LinearMeasurement, dtype) -> tuple[Array, Array]:
    """Of A: the largest singular value, 5 % above what power iteration gives; the root mean square length of a column."""
    x = jax.random.normal(jax.random.key(0), (1, *measurement.event_shape), dtype)
    column = jnp.linalg.norm(measurement.forward(x)) / jnp.linalg.norm(x)
    return 1.05 * inverse.operator_norm(measurement, dtype=dtype), column


def _gradient(x: Array) -> Array:
    """Differences to the next row and column, (N, H, W, C, 2); 0 at the last ones."""
    down = jnp.pad(jnp.diff(x, axis=1), ((0, 0), (0, 1), (0, 0), (0, 0)))
    right = jnp.pad(jnp.diff(x, axis=2), ((0, 0), (0, 0), (0, 1), (0, 0)))
    return jnp.stack([down, right], axis=-1)


def _divergence(edges: Array) -> Array:
    """Minus the adjoint of `_gradient`."""
    x = jax.ShapeDtypeStruct(edges.shape[:-1], edges.dtype)
    return -jax.linear_transpose(_gradient, x)(edges)[0]
