"""Random arrays and their comparison, for the tests of convolutions."""

import jax
import jax.numpy as jnp
import numpy as np


def normal(seed, *shape, dtype=None):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def close(actual, expected, tolerance=1e-12):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == e.dtype and a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance * float(jnp.max(jnp.abs(e))))
