"""Random numbers with one key per example: the numbers of example i depend only on `keys[i]`.

Samples and the noise of training examples are therefore independent of the batch size and the number of devices.
"""

import jax
import jax.numpy as jnp
from jax import Array


def check_keys(keys: Array, batch: int | None = None) -> None:
    """Raises ValueError unless `keys` is a vector of typed keys, of length `batch` if given."""
    if keys.ndim != 1 or not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise ValueError(
            "keys must be a vector of typed keys, one per example, as returned by "
            f"jax.random.split(jax.random.key(0), B), not {keys.dtype}{list(keys.shape)}"
        )
    if batch is not None and len(keys) != batch:
        raise ValueError(f"there are {len(keys)} keys: {batch} examples need one each")


def fold_in(keys: Array, number: int | Array) -> Array:
    """Returns keys (B,) from keys (B,) and one number: `jax.random.fold_in` for each key."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def split(keys: Array, n: int) -> tuple[Array, ...]:
    """Returns n independent vectors of keys, each (B,), from keys (B,)."""
    return tuple(fold_in(keys, i) for i in range(n))


def standard_normal(keys: Array, x: Array) -> Array:
    """Returns standard normal noise of the shape and dtype of x (B, *event), from keys (B,)."""
    return jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(keys)
