"""Grey levels go to [-1, 1] and come back as they were."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.errors import RunError
from experiments.media import ImageMedium

LEVELS = np.arange(256, dtype=np.uint8)
MEDIUM = ImageMedium((8, 8, 1))


@pytest.mark.parametrize("forward", [MEDIUM.forward, jax.jit(MEDIUM.forward)], ids=["eager", "jit"])
def test_every_grey_level_survives(forward):
    x = forward(LEVELS)
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, 2 * LEVELS.astype(np.float64) / 255 - 1, atol=1e-7)
    restored = MEDIUM.inverse(x)
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, LEVELS)


def test_inverse_rounds_to_the_nearest_level():
    """Truncation, the common fault, would lower every value by half a level on average."""
    level = 2 / 255
    x = np.asarray(MEDIUM.forward(LEVELS))
    np.testing.assert_array_equal(MEDIUM.inverse(x + 0.49 * level), LEVELS)
    np.testing.assert_array_equal(MEDIUM.inverse(x - 0.49 * level), LEVELS)
    np.testing.assert_array_equal(MEDIUM.inverse(x + 0.51 * level)[:-1], LEVELS[1:])


def test_inverse_clips():
    np.testing.assert_array_equal(MEDIUM.inverse(np.array([-np.inf, -1.5, 1.5, np.inf])), [0, 0, 255, 255])


def test_bfloat16_samples_are_within_its_precision():
    x = MEDIUM.forward(LEVELS).astype(jnp.bfloat16)
    assert np.abs(MEDIUM.inverse(x).astype(int) - LEVELS).max() <= 1


def test_nan_is_not_hidden():
    with pytest.raises(RunError, match="1 of 3"):
        MEDIUM.inverse(np.array([0.0, np.nan, 1.0]))


def test_dequantized_levels_are_mapped_like_whole_ones():
    np.testing.assert_allclose(
        MEDIUM.forward(np.array([0.5, 127.5, 254.5])), [0.5 / 127.5 - 1, 0, 254.5 / 127.5 - 1], atol=1e-7
    )
