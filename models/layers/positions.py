"""Position encodings of the patches of an image: sine-cosine (absolute) and rotary (relative).

Tokens are the cells of a grid in row-major order. Half of the features encode the row, half the column. Each pair of
features k has the angle p w_k at position p, with frequencies w_k that decrease geometrically from 1 towards 1 /
max_period.

- Sine-cosine: the sines and cosines of the angles are added to the token.
- Rotary: pairs of features of queries and keys are rotated by the angles. The inner product of a query rotated by a and
a key
  rotated by b depends only on a - b, so attention depends only on relative positions.
"""

import jax
import jax.numpy as jnp
import numpy as np


def grid_angles(height: int, width: int, pairs: int, max_period: float, span: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns the angles of the row and of the column for each cell of a grid, in row-major order.

    Args:
        height, width: size of the grid, in cells.
        pairs: number of angles per axis.
        max_period: w_k = max_period ** (-k / pairs), k = 0 ... pairs - 1.
        span: range of the positions along both axes, [0, span), for any number of cells; 0 numbers the cells 0, 1, 2,
            ...

    Returns:
        Two arrays of shape (height width, pairs), float64.
    """
    frequencies = max_period ** (-np.arange(pairs) / pairs)
    rows, columns = (np.arange(n) * (span / n if span else 1.0) for n in (height, width))
    rows, columns = np.repeat(rows, width), np.tile(columns, height)
    return rows[:, None] * frequencies, columns[:, None] * frequencies


def sincos_positions(height: int, width: int, features: int, span: int = 0) -> np.ndarray:
    """Returns the fixed two-dimensional sine-cosine encoding, (height width, features) float32.

    The first half encodes the column, the second half the row; sines precede cosines in each half.
    Source: Peebles and Xie (2023), https://arxiv.org/abs/2212.09748,
    https://github.com/facebookresearch/DiT/blob/main/models.py (where the first half is named after the height, but
    encodes the column).

    Args:
        height, width: size of the grid, in cells.
        features: features of a token.
        span: as in `grid_angles`.

    Raises:
        ValueError: `features` is not divisible by 4.
    """
    if features % 4:
        raise ValueError(f"sincos_positions: features={features} is not divisible by 4")
    rows, columns = grid_angles(height, width, features // 4, 10_000.0, span)
    return np.concatenate([np.sin(columns), np.cos(columns), np.sin(rows), np.cos(rows)], -1).astype(np.float32)


def rotary_angles(height: int, width: int, features: int, span: int = 0) -> np.ndarray:
    """Returns the angles (height width, features / 2) of the axial rotary encoding, one per pair of features of a head.

    Source: Su et al. (2021), https://arxiv.org/abs/2104.09864; for two axes, with max_period 100, Heo et al. (2024),
    https://arxiv.org/abs/2403.13298, section 3.2.

    Args:
        height, width: size of the grid, in cells.
        features: features of an attention head.
        span: as in `grid_angles`.

    Raises:
        ValueError: `features` is not divisible by 4.
    """
    if features % 4:
        raise ValueError(f"rotary_angles: {features} features of a head are not divisible by 4")
    return np.concatenate(grid_angles(height, width, features // 4, 100.0, span), -1).astype(np.float32)


def rotate(x: jax.Array, angles: jax.Array | np.ndarray) -> jax.Array:
    """Rotates feature k and feature k + F / 2 of x (B, tokens, heads, F) as a pair by angles (tokens, F / 2)."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], -1).astype(x.dtype)
