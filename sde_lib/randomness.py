"""Randomness comes in as one key per example, and what is drawn for example i depends on `keys[i]` alone.

So a sample, or the noise of a training example, is the same in any batch, on any number of devices.
"""

import jax
import jax.numpy as jnp
from jax import Array


def check_keys(keys: Array, batch: int | None = None) -> None:
    """ValueError unless `keys` is a vector of typed keys, of `batch` of them if that is given."""
    if keys.ndim != 1 or not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"keys must be a vector of typed keys, one per example, as jax.random.split(jax.random.key(0), B) makes them; "
            f"not {keys.dtype}{list(keys.shape)}"
        )
    if batch is not None and len(keys) != batch:
        raise ValueError(f"there are {len(keys)} keys: {batch} examples need one each")


def fold_in(keys: Array, number: int | Array) -> Array:
    """New keys (B,) from keys (B,) and a number, as `jax.random.fold_in` for each."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def split(keys: Array, n: int) -> tuple[Array, ...]:
    """n independent sets of keys, each (B,), from one set."""
    return tuple(fold_in(keys, i) for i in range(n))


def standard_normal(keys: Array, x: Array) -> Array:
    """Independent standard normal noise of the shape and dtype of x (B, *event)."""
    return jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(keys)
