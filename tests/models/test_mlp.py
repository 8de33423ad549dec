"""The network for vectors: what it computes, written out, and that it learns a known conditional mean."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import models
from models.layers.embedding import positional_embedding

TINY = {"width": 8, "depth": 2, "num_classes": 3}


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def batch():
    return normal(0, 4, 2), jnp.array([3.0, 90.0, 400.0, 700.0]), {"label": jnp.array([0, 1, 2, 0])}


@functools.cache
def randomized(**options):
    def draw(path, leaf):
        return normal(zlib.crc32(str(path).encode()), *leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))

    net = models.create("mlp", **(TINY | options))
    return net, jax.tree_util.tree_map_with_path(draw, jax.eval_shape(net.init, jax.random.key(0), *batch()))


def test_output_is_the_formula_of_the_docstring():
    net, variables = randomized(out_features=5)
    x, level, condition = batch()
    params = jax.tree.map(np.asarray, variables["params"])

    def swish(a):
        return a / (1 + np.exp(-a))

    def dense(name, a, params=params):
        return a @ params[name]["kernel"] + params[name]["bias"]

    e = swish(dense("embedding", positional_embedding(level, 8)) + params["classes"]["embedding"][condition["label"]])
    h = dense("in", x)
    for i in range(2):
        block = functools.partial(dense, params=params[f"block_{i}"])
        h = h + block("second", swish(block("first", swish(h)) + block("embedding", e)))
    np.testing.assert_allclose(net.apply(variables, x, level, condition), dense("out", swish(h)), rtol=1e-4, atol=1e-4)


def test_output_starts_at_zero_and_blocks_as_the_identity():
    net = models.create("mlp", **TINY)
    output, variables = net.init_with_output(jax.random.key(0), *batch())
    np.testing.assert_array_equal(output, 0)
    assert all(not np.any(variables["params"][f"block_{i}"]["second"]["kernel"]) for i in range(2))


def test_it_learns_the_conditional_mean_of_points_on_a_line():
    """Data are +m or -m (class 0), or +m alone (class 1), with noise sigma: E[x0 | x] is m tanh(m x / sigma^2), or m."""
    net = models.create("mlp", width=32, depth=2, num_classes=2, embedding="fourier")
    m, rng = np.float32([1.0, -0.5]), np.random.default_rng(0)
    steps, size = 300, 128
    label = rng.integers(0, 2, (steps, size))
    x0 = np.where(label[..., None], m, rng.choice([-1, 1], (steps, size, 1)) * m)
    log_sigma = rng.uniform(np.log(0.5), np.log(3), (steps, size))
    x_t = x0 + np.exp(log_sigma)[..., None] * rng.normal(size=x0.shape)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, steps))
    data = [jnp.asarray(a, jnp.float32) for a in (x_t, log_sigma, x0)]
    data.append(jnp.asarray(label))

    def step(carry, data):
        params, state = carry
        x_t, log_sigma, x0, label = data
        gradient = jax.grad(lambda v: jnp.mean((net.apply(v, x_t, log_sigma, {"label": label}) - x0) ** 2))(params)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), None

    params = net.init(jax.random.key(0), data[0][0], data[1][0], {"label": data[3][0]})
    (params, _), _ = jax.jit(lambda *carry: jax.lax.scan(step, carry, data))(params, optimizer.init(params))
    x, log_sigma = 2 * normal(1, 64, 2), jnp.log(jnp.linspace(0.6, 2.5, 64))
    tanh = m * jnp.tanh((x @ m) / jnp.exp(2 * log_sigma))[:, None]
    for label, expected in ((0, tanh), (1, jnp.broadcast_to(m, x.shape))):
        y = net.apply(params, x, log_sigma, {"label": jnp.full(64, label)})
        assert float(jnp.sqrt(jnp.mean((y - expected) ** 2))) < 0.1


def test_what_is_no_batch_of_vectors_is_named():
    net, _ = randomized()
    with pytest.raises(ValueError, match=r"x has shape \(2, 3, 1\)"):
        jax.eval_shape(
            net.init, jax.random.key(0), jnp.zeros((2, 3, 1)), jnp.zeros(2), {"label": jnp.zeros(2, jnp.int32)}
        )
    with pytest.raises(ValueError, match=r"MLP: num_classes=3 needs condition\['label'\]"):
        jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((2, 3)), jnp.zeros(2))
