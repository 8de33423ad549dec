"""Records the keys that a function draws from, so that a test can hold that none is drawn from twice.

JAX's own checker (`jax_debug_key_reuse`) loses a key at `fold_in`: `normal(fold_in(key, 0))` twice passes it.
"""

from collections import Counter
from contextlib import contextmanager

import jax
import numpy as np
import pytest

DRAWS = (
    "bernoulli",
    "bits",
    "categorical",
    "choice",
    "exponential",
    "gumbel",
    "normal",
    "permutation",
    "poisson",
    "rademacher",
    "randint",
    "truncated_normal",
    "uniform",
)


@contextmanager
def recorded():
    """A Counter of the keys that `jax.random`'s draws take within the block, compiled programs and `vmap` included.

    A program that was compiled before the block is not seen: give the function shapes of its own.
    """
    found = Counter()

    def record(data):
        found.update(map(tuple, np.asarray(data).reshape(-1, 2).tolist()))

    def recording(draw):
        def wrapped(key, *args, **kwargs):
            jax.debug.callback(record, jax.random.key_data(key))
            return draw(key, *args, **kwargs)

        return wrapped

    with pytest.MonkeyPatch.context() as patch, jax.debug_key_reuse(False):
        for name in DRAWS:
            patch.setattr(jax.random, name, recording(getattr(jax.random, name)))
        yield found
        jax.effects_barrier()


def assert_each_key_once(function, draws):
    """Calls the function; it must draw `draws` times, from as many keys."""
    with recorded() as found:
        jax.block_until_ready(function())
    twice = {key: count for key, count in found.items() if count > 1}
    assert not twice, f"{sum(found.values())} draws, {len(twice)} keys used more than once"
    assert len(found) == draws
