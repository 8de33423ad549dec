"""What holds of every network: independence of the batch, dropout by keys, number types, and how misuse is named."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from models import checks
from tests.models.families import CLASSES, FAMILIES, normal, randomized

# Compilation is what these tests cost: two families in the plain run, all in the thorough one.
PLAIN = ("dit", "unet")
every_family = pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=() if name in PLAIN else pytest.mark.thorough) for name, f in FAMILIES.items()],
    ids=FAMILIES.keys(),
)


@functools.cache
def _variables(name):
    family = FAMILIES[name]
    return randomized(jax.eval_shape(family.network().init, jax.random.key(0), *family.batch()))


@functools.cache
def _compiled(name, train=False, **changes):
    """`apply` with or without dropout; one compilation for all tests of a family."""
    network = FAMILIES[name].network(**changes)
    if train:
        return jax.jit(lambda v, x, t, c, keys: network.apply(v, x, t, c, train=True, dropout_keys=keys))
    return jax.jit(network.apply)


def close(a, b, tolerance=1e-4):
    """Equal to rounding, relative to the size of b."""
    return np.allclose(a, b, atol=tolerance * float(jnp.std(b)), rtol=0)


def test_every_network_has_a_small_one_here():
    assert sorted(FAMILIES) == sorted(models.KNOWN)


@every_family
def test_an_example_does_not_depend_on_the_others(family):
    x, level, condition = family.batch()
    apply = _compiled(family.name)
    y = apply(_variables(family.name), x, level, condition)
    assert y.dtype == jnp.float32 and float(jnp.std(y)) > 0.03
    others = (x.at[1:].set(normal(1, *x[1:].shape)), level.at[1:].multiply(0.7))
    changed = jax.tree.map(lambda label: label.at[1:].set((label[1:] + 1) % 3), condition)
    again = apply(_variables(family.name), *others, changed)
    assert close(again[0], y[0], 1e-5)
    assert not any(close(again[i], y[i], 1e-2) for i in (1, 2, 3))


@every_family
def test_noise_level_and_class_reach_the_output(family):
    x, level, condition = family.batch()
    apply, variables = _compiled(family.name), _variables(family.name)
    y = apply(variables, x, level, condition)
    at_another_level = apply(variables, x, jnp.roll(level, 1), condition)
    if family.blind:
        np.testing.assert_array_equal(at_another_level, y)
    changed = [] if family.blind else [at_another_level]
    if condition is not None:
        changed.append(apply(variables, x, level, {"label": (condition["label"] + 1) % 3}))
    for other in changed:
        assert float(jnp.abs(other - y).reshape(4, -1).max(1).min()) > 1e-3


def _without_classes(name, path, leaf):
    """The weights with which every label means what `num_classes` means without the change: no class.

    Kernels and tables of classes are zero (EDM's biases stay), DiT's have the row that it keeps for no class everywhere, and
    the norms of NCSN and NCSNv2, whose tables have a row for each class (at each level), have the mean over the classes.
    """
    names = [part.key for part in path]
    if names[-1] == "table":
        levels = leaf.reshape(-1, CLASSES, leaf.shape[-1])
        return jnp.broadcast_to(levels.mean(1, keepdims=True), levels.shape).reshape(leaf.shape)
    if "classes" in names and names[-1] != "bias":
        return jnp.broadcast_to(leaf[-1], leaf.shape) if name == "dit" else jnp.zeros_like(leaf)
    return leaf


@every_family
def test_the_label_after_the_last_is_no_class(family):
    x, level, condition = family.batch()
    if condition is None:
        return
    apply, variables = _compiled(family.name), _variables(family.name)
    unconditional = apply(variables, x, level, {"label": condition["label"].at[:3].set(CLASSES)})
    changed = jax.tree_util.tree_map_with_path(functools.partial(_without_classes, family.name), variables)
    assert close(unconditional[:3], apply(changed, x, level, condition)[:3], 1e-5)
    y = apply(variables, x, level, condition)
    assert close(unconditional[3], y[3], 1e-5) and not any(close(unconditional[i], y[i], 1e-3) for i in range(3))


def test_no_class_is_zeros_in_a_dit_without_a_row_for_it():
    family = FAMILIES["dit"]
    x, level, condition = family.batch()
    network, variables = family.network(null_class=False, depth=1), _variables("dit")
    table = variables["params"]["embedding"]["classes"]["embedding"]

    @jax.jit
    def apply(table, labels):
        embedding = variables["params"]["embedding"] | {"classes": {"embedding": table}}
        return network.apply({"params": variables["params"] | {"embedding": embedding}}, x, level, {"label": labels})

    unconditional = apply(table[:CLASSES], jnp.full(4, CLASSES))
    np.testing.assert_array_equal(unconditional, apply(jnp.zeros_like(table[:CLASSES]), condition["label"]))


@every_family
def test_dropout_of_an_example_depends_on_its_key_alone(family):
    x, level, condition = family.batch()
    keys = jax.random.split(jax.random.key(7), 4)
    apply, variables = _compiled(family.name, train=True), _variables(family.name)
    y = apply(variables, x, level, condition, keys)
    assert not close(y, _compiled(family.name)(variables, x, level, condition), 1e-2)
    turned = apply(variables, x[::-1], level[::-1], jax.tree.map(jnp.flip, condition), keys[::-1])
    assert close(turned[::-1], y)
    other = apply(variables, x, level, condition, keys.at[0].set(jax.random.key(8)))
    assert close(other[1:], y[1:], 1e-5) and not close(other[0], y[0], 1e-2)


@every_family
def test_bfloat16_is_close_to_float32(family):
    exact, rounded = (
        _compiled(family.name, **options)(_variables(family.name), *family.batch())
        for options in ({}, {"dtype": "bfloat16"})
    )
    assert rounded.dtype == jnp.float32
    error = float(jnp.sqrt(jnp.mean((rounded - exact) ** 2)) / jnp.std(exact))
    assert 1e-4 < error < 0.06


@every_family
def test_remat_changes_no_gradient(family):
    """Dropout included: the recomputed masks are those of the first pass."""
    x, level, condition = jax.tree.map(lambda part: part[:2], family.batch())
    keys = jax.random.split(jax.random.key(7), 2)

    def gradient(remat):
        network = family.network(**family.smaller, remat=remat)
        weights = randomized(jax.eval_shape(network.init, jax.random.key(0), x, level, condition))

        def loss(v):
            return jnp.mean(network.apply(v, x, level, condition, train=True, dropout_keys=keys) ** 2)

        return jax.jit(jax.grad(loss))(weights)

    expected = gradient(remat=False)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, atol=1e-5 * scale), gradient(remat=True), expected)


@every_family
def test_missing_and_needless_arguments_are_named(family):
    x, level, condition = family.batch()
    network, variables = family.network(), _variables(family.name)
    with pytest.raises(ValueError, match="needs dropout_keys, one key for each"):
        network.apply(variables, x, level, condition, train=True)
    if condition is not None:
        with pytest.raises(ValueError, match=r"num_classes=3 needs condition\['label'\]"):
            network.apply(variables, x, level)
        with pytest.raises(
            ValueError, match=r"condition\['label'\] is given, but .* takes no condition, as num_classes=0"
        ):
            family.network(num_classes=0).apply(variables, x, level, condition)


@every_family
def test_unknown_choices_and_options_are_named(family):
    x, level, condition = family.batch()
    with pytest.raises(ValueError, match="dtype='float33' is unknown: choose from float32, bfloat16"):
        family.network(dtype="float33").apply(_variables(family.name), x, level, condition)
    with pytest.raises(ValueError, match=f"unknown option of {family.name} 'dropuot': did you mean 'dropout'"):
        models.create(family.name, dropuot=0.1)


def test_unknown_networks_are_named():
    with pytest.raises(ValueError, match="unknown network 'unett': did you mean 'unet'"):
        models.create("unett")


@every_family
def test_defaults_are_valid_options_and_modules_are_hashable(family):
    assert models.create(family.name, **models.options(family.name)) == models.create(family.name)
    hash(family.network())


@pytest.mark.parametrize("shape", [(1, 9), (3, 9), (2, 8), (9,)])
def test_augmentation_labels_are_one_row_for_each_image(shape):
    """One row for all images would broadcast."""
    network = models.create("unet", augment_features=9)
    has = rf"UNet: condition\['augmentation'\] has shape {re.escape(str(shape))}, not \(2, 9\)"
    with pytest.raises(ValueError, match=has):
        checks.condition(network, 2, {"augmentation": np.zeros(shape)})
    given = np.ones((2, 9))
    assert checks.condition(network, 2, {"augmentation": given})["augmentation"] is given
    for left_out in ({}, None):
        np.testing.assert_array_equal(checks.condition(network, 2, left_out)["augmentation"], np.zeros((2, 9)))
