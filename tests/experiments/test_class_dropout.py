"""Class dropout: some examples are trained without their class, each by its own key."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments import factory
from experiments.learning import state
from tests.experiments.tiny import tiny_config

CLASSES, BATCH = 10, 32
CLASS_DROPOUT = zlib.crc32(b"class dropout")
PLACES = np.arange(BATCH)
LABELS, NONE = PLACES % CLASSES, np.full(BATCH, CLASSES)


@functools.cache
def variables():
    """Random weights, so that the class counts."""
    shapes = factory.abstract_variables(config(0.0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)


def config(probability):
    return tiny_config(model__num_classes=CLASSES, model__dropout=0, condition__label__dropout=probability)


@functools.cache
def compiled(probability):
    return jax.jit(factory.loss(config(probability)))


def losses(probability, labels, places=PLACES):
    """The losses of the examples at some places of the batch, which have `labels`."""
    drawn = state.draws(jax.random.key(0), 3, jnp.asarray(places), BATCH)
    images = np.random.default_rng(1).normal(size=(BATCH, 8, 8, 1)).astype(np.float32)[places]
    return np.asarray(compiled(probability)(drawn, variables(), images, {"label": jnp.asarray(labels)}))


def test_probability_1_is_the_unconditional_loss():
    np.testing.assert_allclose(losses(1.0, LABELS), losses(0.0, NONE), rtol=1e-6)


def test_each_example_keeps_or_loses_its_class_by_its_key():
    """And its times and noise stay what they are: every loss is one of those two."""
    mixed, conditional, unconditional = losses(0.5, LABELS), losses(0.0, LABELS), losses(0.0, NONE)
    dropped = np.abs(mixed - unconditional) < np.abs(mixed - conditional)
    np.testing.assert_allclose(mixed, np.where(dropped, unconditional, conditional), rtol=1e-6)
    assert not np.any(np.isclose(conditional, unconditional, rtol=1e-5))
    assert 8 <= dropped.sum() <= 24  # of 32 throws of a coin: 998 times of 1,000
    order = np.random.default_rng(2).permutation(BATCH)
    np.testing.assert_allclose(losses(0.5, LABELS[order], order), mixed[order], rtol=1e-5)


def test_probability_0_draws_nothing():
    """The program is that of a config from before there was class dropout: no key is folded for it."""
    drawn = state.draws(jax.random.key(0), 3, jnp.arange(4), 4)
    arguments = (drawn, variables(), jnp.zeros((4, 8, 8, 1)), {"label": jnp.zeros(4, jnp.int32)})
    numbers = [str(CLASS_DROPOUT) in str(jax.make_jaxpr(factory.loss(config(p)))(*arguments)) for p in (0.0, 0.1)]
    assert numbers == [False, True]
