"""The U-Net: its symmetries, and how choices and sizes that do not fit are named."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from tests.models.families import FAMILIES, normal, randomized

UNET = FAMILIES["unet"]


def test_output_starts_at_zero():
    network = UNET.network(**UNET.smaller)
    output, _ = jax.jit(network.init_with_output)(jax.random.key(0), *jax.tree.map(lambda part: part[:2], UNET.batch()))
    np.testing.assert_array_equal(output, 0)


def test_augmentation_labels_start_without_effect():
    network = models.create("unet", **UNET.options | UNET.smaller, augment_features=9)
    x, level = normal(0, 2, 4, 4, 2), jnp.ones(2)
    params = jax.jit(network.init)(jax.random.key(0), x, level)["params"]
    assert params["augmentation"]["kernel"].shape[0] == 9
    np.testing.assert_array_equal(params["augmentation"]["kernel"], 0)


def test_mirrored_kernels_mirror_the_output():
    """Every layer but the convolutions is blind to left and right: mirror the kernels, and the network commutes."""
    network, (x, level, condition) = UNET.network(), UNET.batch()
    shapes = jax.eval_shape(network.init, jax.random.key(0), x, level, condition)
    variables, apply = randomized(shapes), jax.jit(network.apply)

    def mirror(path, leaf):
        return leaf[:, ::-1] if path[-1].key == "kernel" and leaf.ndim == 4 else leaf

    mirrored = jax.tree_util.tree_map_with_path(mirror, variables)
    expected = apply(variables, x, level, condition)[:, :, ::-1]
    np.testing.assert_allclose(apply(mirrored, x[:, :, ::-1], level, condition), expected, atol=1e-4)


def test_images_to_condition_on_change_the_output_and_not_its_channels():
    """The learned variance stands behind the mean, which alone is the output."""
    network = UNET.network(**UNET.smaller, out_channels=1, learned_variance=True)
    x, *rest = jax.tree.map(lambda part: part[:2], UNET.batch())
    variables = randomized(jax.eval_shape(network.init, jax.random.key(0), x, *rest))
    apply = jax.jit(network.apply)
    mean, joined = apply(variables, x, *rest), apply(variables, x.at[..., 1:].add(1), *rest)
    both = jax.jit(functools.partial(network.apply, method="mean_and_variance"))(variables, x, *rest)
    assert mean.shape == (*x.shape[:3], 1) and both.shape == (*x.shape[:3], 2)
    np.testing.assert_allclose(mean, both[..., :1], atol=1e-5)
    assert float(jnp.abs(joined - mean).max(axis=(1, 2, 3)).min()) > 1e-2


def test_choices_and_sizes_that_do_not_fit_are_named():
    _, level, condition = UNET.batch()
    with pytest.raises(ValueError, match="resampling='blok' is unknown: choose from conv, plain, block"):
        models.create("unet", resampling="blok").apply({}, normal(0, 4, 8, 8, 2), level)
    with pytest.raises(ValueError, match="width 9 is not divisible by 2, as 2 levels need"):
        UNET.network().apply({}, normal(0, 4, 8, 9, 2), level, condition)
    with pytest.raises(ValueError, match="head_channels=3 does not divide 16 channels"):
        jax.eval_shape(UNET.network(head_channels=3).init, jax.random.key(0), *UNET.batch())


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_the_call_hands_every_argument_to_mean_and_variance(name):
    """The peers' outputs, which have a variance, are compared with the latter."""
    network, (x, level, condition) = FAMILIES[name].network(), FAMILIES[name].batch()
    given = {"train": True, "dropout_keys": jax.random.split(jax.random.key(0), len(x))}
    if name == "unet":
        network, condition = network.clone(augment_features=2), condition | {"augmentation": jnp.ones((len(x), 2))}
    seen = []

    def collect(call, args, kwargs, context):
        if context.method_name == "mean_and_variance":
            seen.append((args, kwargs))
        return call(*args, **kwargs)

    with nn.intercept_methods(collect):
        jax.eval_shape(lambda key: network.init(key, x, level, condition, **given), jax.random.key(0))
    ((args, kwargs),) = seen
    assert all(a is b for a, b in zip(args, (x, level, condition), strict=True))
    assert kwargs.keys() == given.keys() and all(kwargs[key] is value for key, value in given.items())
