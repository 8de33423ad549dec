"""The U-Net: symmetries, independence of the batch, equality of its variants."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models

TINY = {
    "channels": 8,
    "channel_multipliers": [1, 2],
    "blocks_per_level": 1,
    "attention_resolutions": [4],
    "num_heads": 2,
}
CLASSES = 3


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def batch(size=4, height=8, width=12):
    return normal(0, size, height, width, 2), jnp.linspace(0.1, 0.9, size) * 100, jnp.arange(size) % CLASSES


@functools.cache
def network(**options):
    return models.create("unet", **(TINY | {"num_classes": CLASSES, "dropout": 0.4} | options))


def randomized(shapes):
    """Random values for every weight: at initialization most layers are zero and hide their faults."""

    def draw(path, leaf):
        fan_in = np.prod(leaf.shape[:-1])
        return normal(zlib.crc32(str(path).encode()), *leaf.shape) / np.sqrt(fan_in) + (path[-1].key == "scale")

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def variables():
    return randomized(jax.eval_shape(network().init, jax.random.key(0), *batch()))


@functools.cache
def compiled(train=False, **options):
    """`apply` with or without dropout; one compilation for all tests that share options and shapes."""
    net = network(**options)
    if train:
        return jax.jit(lambda v, x, t, c, keys: net.apply(v, x, t, c, train=True, dropout_keys=keys))
    return jax.jit(net.apply)


def test_output_starts_at_zero():
    net = network(channel_multipliers=(1,), middle_attention=False)
    output, _ = jax.jit(net.init_with_output)(jax.random.key(0), *batch(2, 4, 4))
    np.testing.assert_array_equal(output, 0)


def test_an_example_does_not_depend_on_its_batch():
    together = compiled()(variables(), *batch())
    assert together.dtype == jnp.float32
    assert float(jnp.std(together)) > 0.1
    alone = [compiled()(variables(), *(part[i : i + 1] for part in batch())) for i in (0, 3)]
    for i, y in zip((0, 3), alone, strict=True):
        np.testing.assert_allclose(y[0], together[i], atol=1e-4)


def test_dropout_of_an_example_depends_on_its_key_alone():
    keys = jax.random.split(jax.random.key(7), 4)
    apply = compiled(train=True)
    together = apply(variables(), *batch(), keys)
    np.testing.assert_array_equal(apply(variables(), *batch(), keys), together)
    reversed_batch = [part[::-1] for part in batch()]
    np.testing.assert_allclose(apply(variables(), *reversed_batch, keys[::-1])[::-1], together, atol=1e-4)
    other = apply(variables(), *batch(), keys.at[0].set(jax.random.key(8)))
    np.testing.assert_array_equal(other[1:], together[1:])
    assert float(jnp.abs(other[0] - together[0]).max()) > 1e-2


def test_noise_level_and_class_reach_the_output():
    x, level, label = batch()
    y = compiled()(variables(), x, level, label)
    for other in (
        compiled()(variables(), x, level + 10, label),
        compiled()(variables(), x, level, (label + 1) % CLASSES),
    ):
        assert float(jnp.abs(other - y).reshape(4, -1).max(1).min()) > 1e-3


def test_mirrored_kernels_mirror_the_output():
    """Every layer but the convolutions is blind to left and right: mirror the kernels, and the network commutes."""
    x, level, label = batch()

    def mirror(path, leaf):
        return leaf[:, ::-1] if path[-1].key == "kernel" and leaf.ndim == 4 else leaf

    mirrored = jax.tree_util.tree_map_with_path(mirror, variables())
    expected = compiled()(variables(), x, level, label)[:, :, ::-1]
    np.testing.assert_allclose(compiled()(mirrored, x[:, :, ::-1], level, label), expected, atol=1e-4)


def test_bfloat16_is_close_to_float32():
    exact, rounded = (compiled(**options)(variables(), *batch()) for options in ({}, {"dtype": "bfloat16"}))
    assert rounded.dtype == jnp.float32
    error = float(jnp.sqrt(jnp.mean((rounded - exact) ** 2)) / jnp.std(exact))
    assert 1e-4 < error < 0.05


def test_remat_changes_no_gradient():
    """Dropout included: the recomputed masks are those of the first pass."""
    x, level, label = batch(2, 4, 4)
    keys = jax.random.split(jax.random.key(7), 2)

    def gradient(remat):
        net = network(channel_multipliers=(1,), middle_attention=False, remat=remat)
        weights = randomized(jax.eval_shape(net.init, jax.random.key(0), x, level, label))
        return jax.jit(jax.grad(lambda v: jnp.mean(net.apply(v, x, level, label, train=True, dropout_keys=keys) ** 2)))(
            weights
        )

    expected = gradient(remat=False)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, atol=1e-5 * scale), gradient(remat=True), expected)


def test_missing_and_needless_arguments_are_named():
    x, level, label = batch()

    def fails(message, *arguments, net=None, **keywords):
        with pytest.raises(ValueError, match=message):
            (net or network()).apply(variables(), *arguments, **keywords)

    fails("dropout_keys", x, level, label, train=True)
    fails("num_classes=3 needs condition", x, level)
    fails("num_classes=0", x, level, label, net=models.create("unet", **TINY))
    fails("resampling='blok'", x, level, net=models.create("unet", resampling="blok"))
    fails("width 9 is not divisible by 2", x[:, :, :9], level, label)


def test_unknown_names_and_options_suggest_the_nearest():
    with pytest.raises(ValueError, match="unknown network 'unett': did you mean 'unet'"):
        models.create("unett")
    with pytest.raises(ValueError, match="unknown option of unet 'chanels': did you mean 'channels'"):
        models.create("unet", chanels=8)
    assert set(TINY) <= set(models.options("unet"))
    assert "unet" in models.names()


def test_defaults_are_valid_options_and_modules_are_hashable():
    assert models.create("unet", **models.options("unet")) == models.create("unet")
    hash(network())
