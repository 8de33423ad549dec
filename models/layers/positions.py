"""Where a patch stands in its image: an encoding added to its token, or a rotation of its queries and keys.

Tokens are the cells of a grid, row by row. Half of the features encode the row, half the column. A position p gives each
pair of features its own angle p w_k, with frequencies w_k falling geometrically from 1 to 1 / max_period.

- Sine-cosine: the sines and cosines of the angles are added to the token.
- Rotary: pairs of a query's and a key's features are rotated by the angles. A rotation by a of the one and by b of the
  other changes their inner product as a rotation by a - b of one alone, so attention sees differences of positions only.
"""

import jax
import jax.numpy as jnp
import numpy as np


def grid_angles(height: int, width: int, pairs: int, max_period: float, span: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The angles of rows and of columns for each cell of a grid, row by row.

    Args:
        height, width: of the grid, in cells.
        pairs: angles for the row, and as many for the column.
        max_period: w_k = max_period ** (-k / pairs), k = 0 ... pairs - 1.
        span: 0 counts cells, 0, 1, 2, ...; else both axes run over [0, span), whatever their number of cells.

    Returns:
        Two arrays of shape (height width, pairs), float64.
    """
    frequencies = max_period ** (-np.arange(pairs) / pairs)
    rows, columns = (np.arange(n) * (span / n if span else 1.0) for n in (height, width))
    rows, columns = np.repeat(rows, width), np.tile(columns, height)
    return rows[:, None] * frequencies, columns[:, None] * frequencies


def sincos_positions(height: int, width: int, features: int, span: int = 0) -> np.ndarray:
    """Fixed two-dimensional sine-cosine encoding: (height width, features) float32.

    The first half encodes the column, the second the row; sines stand before cosines in each.
    Source: Peebles and Xie (2023), https://arxiv.org/abs/2212.09748,
    https://github.com/facebookresearch/DiT/blob/main/models.py (its first half is named after the height, but is given
    the column).

    Raises:
        ValueError: `features` is not divisible by 4.
    """
    if features % 4:
        raise ValueError(f"sincos_positions: features={features} is not divisible by 4")
    rows, columns = grid_angles(height, width, features // 4, 10_000.0, span)
    return np.concatenate([np.sin(columns), np.cos(columns), np.sin(rows), np.cos(rows)], -1).astype(np.float32)


def rotary_angles(height: int, width: int, features: int, span: int = 0) -> np.ndarray:
    """Angles of the axial rotary encoding, one for each pair of a head's features: (height width, features / 2).

    Source: Su et al. (2021), https://arxiv.org/abs/2104.09864; on two axes, with max_period 100, Heo et al. (2024),
    https://arxiv.org/abs/2403.13298, section 3.2.

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
