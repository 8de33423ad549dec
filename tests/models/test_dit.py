"""The diffusion transformer: its start, its positions and its options, against symmetries and closed forms."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from models.layers.embedding import positional_embedding
from models.layers.positions import rotary_angles, rotate, sincos_positions

TINY = {"width": 16, "depth": 2, "num_heads": 2, "num_classes": 3}


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def batch(height=8, width=12, channels=2):
    return normal(0, 2, height, width, channels), jnp.array([3.0, 700.0]), {"label": jnp.array([0, 3])}


def network(**options):
    return models.create("dit", **(TINY | options))


@functools.cache
def randomized(channels=2, **options):
    """Random values for every weight, which depend on its path and shape alone."""

    def draw(path, leaf):
        return normal(zlib.crc32(str(path).encode()), *leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))

    x, level, condition = batch(8, 8, channels)
    return jax.tree_util.tree_map_with_path(
        draw, jax.eval_shape(network(**options).init, jax.random.key(0), x, level, condition)
    )


def closed(layers, **options):
    """The random values, with these layers of every block at zero."""

    def close(path, leaf):
        return leaf * 0 if any(key.key in layers for key in path) else leaf

    return jax.tree_util.tree_map_with_path(close, randomized(**options))


@functools.cache
def compiled(**options):
    return jax.jit(network(**options).apply)


def test_starts_at_zero_with_blocks_that_are_the_identity():
    net = network()
    output, variables = jax.jit(net.init_with_output)(jax.random.key(0), *batch())
    np.testing.assert_array_equal(output, 0)
    # With the last layer opened, what comes out is a function of the patches alone: no token has seen another.
    out = variables["params"]["out"]["kernel"]
    variables["params"]["out"]["kernel"] = normal(1, *out.shape)
    x, level, condition = batch()
    moved = compiled()(variables, x.at[:, 0, 0].add(1.0), level, condition) - compiled()(variables, x, level, condition)
    assert float(jnp.abs(moved[:, :2, :2]).max()) > 0.1
    np.testing.assert_array_equal(moved.at[:, :2, :2].set(0), 0)


def test_patches_go_out_where_they_came_in():
    """Where no token sees another, a change of one pixel changes its own patch, and shifted patches are shifted outputs."""
    variables = closed(("attention_out",), positions="rotary")
    apply = compiled(positions="rotary")
    x, level, condition = batch(8, 8)
    y = apply(variables, x, level, condition)
    np.testing.assert_allclose(
        apply(variables, jnp.roll(x, (2, 4), (1, 2)), level, condition), jnp.roll(y, (2, 4), (1, 2)), atol=1e-5
    )
    change = jnp.abs(apply(variables, x.at[0, 1, 4, 0].add(1.0), level, condition) - y)
    assert float(change[0, 0:2, 4:6].min()) > 1e-4
    assert float(change.at[0, 0:2, 4:6].set(0).max()) < 1e-5


def test_positions_of_a_rectangle_are_those_of_a_square_where_both_are():
    square = sincos_positions(6, 6, 24).reshape(6, 6, 24)
    np.testing.assert_array_equal(sincos_positions(4, 6, 24).reshape(4, 6, 24), square[:4])
    np.testing.assert_array_equal(sincos_positions(6, 3, 24).reshape(6, 3, 24), square[:, :3])
    # Rows and columns are encoded alike, in halves of their own: transposing the grid swaps the halves.
    np.testing.assert_array_equal(square.transpose(1, 0, 2), np.roll(square, 12, -1))


def test_position_span_stretches_a_grid_over_that_of_the_training():
    coarse, fine = (sincos_positions(n, n, 16, span=4).reshape(n, n, 16) for n in (4, 8))
    np.testing.assert_array_equal(coarse, sincos_positions(4, 4, 16).reshape(4, 4, 16))
    np.testing.assert_allclose(fine[::2, ::2], coarse, atol=1e-6)


@pytest.mark.parametrize("positions, height, width", [("sincos", 4, 8), ("sincos", 8, 6), ("rotary", 4, 6)])
def test_a_rectangle_gives_what_the_square_around_it_gives_where_no_token_sees_another(positions, height, width):
    variables = closed(("attention_out",), positions=positions)
    x, level, condition = batch(8, 8)
    square = compiled(positions=positions)(variables, x, level, condition)
    part = compiled(positions=positions)(variables, x[:, :height, :width], level, condition)
    np.testing.assert_allclose(part, square[:, :height, :width], atol=1e-5)


def test_rotary_scores_are_sums_of_complex_products_turned_by_the_distance():
    """q . k = Re sum_j conj(q_j) k_j exp(i (p_k - p_q) w_j) over pairs j: half turn with the row, half with the column."""
    height, width, features = 3, 4, 8
    q, k = normal(0, 1, height * width, 1, features), normal(1, 1, height * width, 1, features)
    angles = rotary_angles(height, width, features)
    scores = jnp.einsum("tc,sc->ts", rotate(q, angles)[0, :, 0], rotate(k, angles)[0, :, 0])
    complex_q, complex_k = (np.asarray(a[0, :, 0, :4] + 1j * a[0, :, 0, 4:]) for a in (q, k))
    frequencies = np.array([1, 0.1])
    for t, s in np.ndindex(scores.shape):
        row, column = s // width - t // width, s % width - t % width
        turn = np.exp(1j * np.concatenate([row * frequencies, column * frequencies]))
        np.testing.assert_allclose(scores[t, s], np.sum(complex_q[t].conj() * complex_k[s] * turn).real, atol=1e-4)


def test_rotary_scores_do_not_change_where_all_positions_are_shifted():
    q, k = normal(0, 1, 12, 2, 8), normal(1, 1, 12, 2, 8)
    large = rotary_angles(8, 9, 8).reshape(8, 9, 4)

    def scores(top, left):
        angles = large[top : top + 3, left : left + 4].reshape(12, 4)
        return jnp.einsum("btnc,bsnc->bnts", rotate(q, angles), rotate(k, angles))

    np.testing.assert_allclose(scores(5, 2), scores(0, 0), atol=1e-4)
    assert float(jnp.abs(scores(0, 0) - jnp.einsum("btnc,bsnc->bnts", q, k)).max()) > 0.5


def test_the_output_has_as_many_channels_as_the_input_unless_told():
    x, level, condition = batch(4, 4, channels=3)
    for options, mean, both in (({}, 3, 3), ({"out_channels": 2}, 2, 2), ({"learned_variance": True}, 3, 6)):
        net = network(**options)
        variables = jax.eval_shape(net.init, jax.random.key(0), x, level, condition)
        for method, channels in (("__call__", mean), ("mean_and_variance", both)):
            apply = functools.partial(net.apply, method=method)
            assert jax.eval_shape(apply, variables, x, level, condition).shape == (2, 4, 4, channels)


def test_the_call_is_the_first_half_of_mean_and_variance():
    variables, net = randomized(learned_variance=True), network(learned_variance=True)
    both = jax.jit(functools.partial(net.apply, method="mean_and_variance"))(variables, *batch(4, 4))
    np.testing.assert_allclose(jax.jit(net.apply)(variables, *batch(4, 4)), both[..., :2], atol=1e-6)
    assert float(jnp.abs(both[..., 2:] - both[..., :2]).max()) > 0.1


def test_the_null_class_is_one_more_row_and_reaches_the_output():
    x, level, _ = batch(8, 8)
    y = [compiled()(randomized(), x, level, {"label": jnp.full(2, label)}) for label in range(4)]
    assert min(float(jnp.abs(y[3] - other).max()) for other in y[:3]) > 1e-2
    rows = {null: randomized(null_class=null)["params"]["embedding"]["classes"]["embedding"] for null in (True, False)}
    assert rows[True].shape[0] == 4 and rows[False].shape[0] == 3


def test_the_noise_levels_embedding_turns_at_known_frequencies():
    """Cosines first, and a shift of the level turns pair k by 10,000 ** (-k / 8): no pair has the period 10,000."""
    level, shift, features = 321.0, 0.5, 16
    at, later = (
        positional_embedding(jnp.array([v]), features, endpoint=False, cosine_first=True)[0]
        for v in (level, level + shift)
    )
    phases = jnp.arctan2(later[8:], later[:8]) - jnp.arctan2(at[8:], at[:8])
    np.testing.assert_allclose(jnp.mod(phases, 2 * np.pi), shift * 10_000.0 ** (-np.arange(8) / 8), atol=1e-4)


def test_sizes_that_do_not_fit_are_named():
    x, level, condition = batch()

    def fails(message, x=x, **options):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(network(**options).init, jax.random.key(0), x, level, condition)

    fails("height 7 is not divisible by 2", x[:, :7])
    fails("num_heads=3 does not divide width=16", num_heads=3)
    fails("features=18 is not divisible by 4", width=18)
    fails("6 features of a head are not divisible by 4", width=12, positions="rotary")
    fails("positions='sincoz'", positions="sincoz")
