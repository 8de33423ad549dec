"""Layers at the values where their constants and their borders count, against closed forms and NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from models.classifier import WideBlock
from models.dit import DiTBlock
from models.edm2 import EDM2Block
from models.layers.convolution import Conv, convolution
from models.layers.dropout import Dropout, random_bytes
from models.layers.embedding import FourierEmbedding, positional_embedding
from models.layers.instance_norm import InstanceNormPlus
from models.layers.interpolation import bilinear_resize
from models.layers.magnitude import MPFourier, mp_concat, mp_silu, mp_sum, normalize, normalize_kernel
from models.layers.normalization import GroupNorm
from models.layers.refinenet import DilatedBlock, pool5
from models.layers.residual import ResidualBlock
from models.layers.trilinear import LAYOUTS
from models.mlp import MLPBlock


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


# ---- Dropout ----


@pytest.mark.parametrize("rate, kept", [(0.998, 1), (0.9999, 1), (0.0019, 256), (0.002, 255), (0.5, 128), (0.0, 256)])
def test_rates_are_rounded_to_one_in_256_and_never_drop_all(rate, kept):
    x, keys = jnp.full((2, 256, 333), 3.0), jax.random.split(jax.random.key(0), 2)
    y, gradient = jax.value_and_grad(lambda x: Dropout(rate).apply({}, x, keys).sum())(x)
    np.testing.assert_allclose(np.unique(gradient), [256 / kept] if kept == 256 else [0, 256 / kept], rtol=1e-6)
    np.testing.assert_allclose(np.mean(gradient != 0), kept / 256, atol=5 * np.sqrt(kept / 256 / x.size) + 1e-9)
    np.testing.assert_allclose(y, 3 * gradient.sum(), rtol=1e-4)


@pytest.mark.parametrize("rate", [-0.01, 1.0, 1.5])
def test_rates_outside_of_zero_to_one_are_refused(rate):
    with pytest.raises(ValueError, match=rf"Dropout: rate={rate} must lie in \[0, 1\)"):
        Dropout(rate).apply({}, jnp.ones((1, 2)), None)


@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (5,), (3, 7), (401, 409)])
def test_random_bytes_fill_any_shape_evenly(shape):
    """The last word is used in part; every value of a byte is as likely."""
    values = np.asarray(random_bytes(jax.random.key(3), shape))
    assert values.shape == shape and values.dtype == np.uint8
    if values.size > 10**5:
        counts = np.bincount(values.ravel(), minlength=256)
        expected = values.size / 256
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
        for lag in (1, 2, 3, 4):  # within a word, and from word to word
            pairs = np.corrcoef(values.ravel()[lag:], values.ravel()[:-lag])[0, 1]
            assert abs(pairs) < 5 / np.sqrt(values.size)


def doubling_kernel(leaf):
    """The kernel that gives each even channel of its input twice: of a dense layer, or of a convolution."""
    doubling = jnp.eye(leaf.shape[-2])[:, np.arange(leaf.shape[-1]) // 2 * 2]
    if leaf.ndim == 2:
        return doubling
    return jnp.zeros(leaf.shape).at[leaf.shape[0] // 2, leaf.shape[1] // 2].set(doubling)


def assert_dropped(dropped, branch, *, pairs):
    """A quarter of the branch is 0, the others are 4/3 of what they were; and with pairs so are both of each pair."""
    relevant = np.abs(branch) > 1e-3
    ratio = np.asarray(dropped / jnp.where(relevant, branch, 1))
    np.testing.assert_allclose(np.minimum(np.abs(ratio), np.abs(ratio - 4 / 3))[relevant], 0, atol=2e-3)
    zeros = np.abs(ratio) < 0.1
    assert abs(np.mean(zeros[relevant]) - 0.25) < 4 * np.sqrt(0.1875 / (relevant.sum() / 2))
    both = relevant[..., ::2] & relevant[..., 1::2]
    assert np.array_equal(zeros[..., ::2][both], zeros[..., 1::2][both]) == pairs


IMAGE, EMBEDDING = (2, 4, 4, 8), (2, 8)
# Each block, its input, its last layer, and the arguments before the keys.
DROPPING = {
    "residual": (ResidualBlock(8, dropout=0.25), IMAGE, "conv_out", True),
    "residual of a shift": (ResidualBlock(8, dropout=0.25, scale_shift=False), IMAGE, "conv_out", True),
    "wide": (WideBlock(8, dropout=0.25), IMAGE, "conv_out", True),
    "dilated": (DilatedBlock(8, dropout=0.25), IMAGE, "conv_out", False),
    "mlp": (MLPBlock(0.25), (2, 8), "second", True),
}


@pytest.mark.parametrize("block, shape, last, embedded", DROPPING.values(), ids=DROPPING.keys())
def test_what_the_last_layer_of_a_block_takes_in_is_dropped(block, shape, last, embedded):
    """Where that layer gives each value twice, both are 0, or what they are without dropout, scaled up."""
    x, condition = normal(0, *shape), normal(1, *EMBEDDING) if embedded else None
    keys = jax.random.split(jax.random.key(0), 2)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x, condition)["params"]
    leaves, structure = jax.tree.flatten(shapes)
    params = jax.tree.unflatten(structure, [0.3 * normal(i, *leaf.shape) for i, leaf in enumerate(leaves)])
    params[last] = {"kernel": doubling_kernel(shapes[last]["kernel"])} | (
        {"bias": jnp.zeros(8)} if "bias" in shapes[last] else {}
    )

    @jax.jit
    def branches(keys):
        return tuple(block.apply({"params": params}, x, condition, k) - x for k in (None, keys))

    branch, dropped = branches(keys)
    assert_dropped(dropped, branch, pairs=True)


@pytest.mark.parametrize("gate", [2, 5])
def test_a_transformer_drops_what_its_attention_gives_and_what_its_mlp_holds(gate):
    """The gates of attention and MLP, of six modulations the third and the last, open one branch after the other."""
    block = DiTBlock(2, mlp_ratio=1.0, dropout=0.25)
    tokens, embedding, keys = normal(0, 2, 6, 16), jnp.ones((2, 4)), jax.random.split(jax.random.key(0), 2)
    shapes = jax.eval_shape(block.init, jax.random.key(0), tokens, embedding)["params"]
    leaves, structure = jax.tree.flatten(shapes)
    params = jax.tree.unflatten(structure, [0.5 * normal(i, *leaf.shape) for i, leaf in enumerate(leaves)])
    bias = jnp.zeros((6, 16)).at[gate].set(1.0).ravel()
    params["modulation"] = {"kernel": jnp.zeros((4, 96)), "bias": bias}
    params["mlp_out"] = {"kernel": doubling_kernel(shapes["mlp_out"]["kernel"]), "bias": jnp.zeros(16)}
    apply = jax.jit(lambda keys: block.apply({"params": params}, tokens, embedding, None, keys) - tokens)
    assert_dropped(apply(keys), apply(None), pairs=gate == 5)


def test_a_block_of_edm2_drops_after_its_second_nonlinearity():
    """What is dropped is 0 before the last convolution, and what is kept is not changed by a nonlinearity after it."""
    block, x, embedding = EDM2Block(8, "decoder", dropout=0.25), normal(0, *IMAGE), normal(1, *EMBEDDING)
    seen = []

    def collect(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if isinstance(context.module, Dropout) or context.module.name == "conv_out":
            seen.append((args[0], output))
        return output

    with nn.intercept_methods(collect):
        block.init(jax.random.key(0), x, embedding, jax.random.split(jax.random.key(0), 2))
    (h, dropped), (into, _) = seen
    np.testing.assert_array_equal(dropped, into)
    assert float(h.min()) > -0.2785 / 0.596 and float(h.max()) > 0.5  # SiLU has no smaller value
    np.testing.assert_allclose(np.unique(np.asarray(dropped / h).round(4)), [0, np.float32(4 / 3).round(4)])


# ---- Embeddings ----


@pytest.mark.parametrize("cosine_first", [False, True])
@pytest.mark.parametrize("endpoint", [False, True])
def test_positional_embeddings_are_waves_of_periods_up_to_the_longest(endpoint, cosine_first):
    level = np.array([0.0, 3.0, 250.5])
    for features, period in ((4, 10_000.0), (10, 10_000.0), (6, 50.0)):
        half = features // 2
        angles = level[:, None] * period ** (-np.arange(half) / (half - 1 if endpoint else half))
        waves = [np.cos(angles), np.sin(angles)] if cosine_first else [np.sin(angles), np.cos(angles)]
        options = {} if period == 10_000.0 else {"max_period": period}
        for dtype in (jnp.float32, jnp.float16):
            given = jnp.asarray(level, dtype)
            y = positional_embedding(given, features, endpoint=endpoint, cosine_first=cosine_first, **options)
            np.testing.assert_allclose(y, np.concatenate(waves, -1), atol=1e-4)
            assert y.dtype == jnp.float32


@pytest.mark.parametrize("features", [2, 3, 5, 7, 0])
def test_embeddings_of_odd_or_few_features_are_refused(features):
    with pytest.raises(ValueError, match=f"features={features} must be even and at least 4"):
        positional_embedding(jnp.ones(2), features)
    if features % 2:
        with pytest.raises(ValueError, match=f"FourierEmbedding: features={features} must be even"):
            FourierEmbedding(features).init(jax.random.key(0), jnp.ones(2))


def test_fourier_features_are_sines_before_cosines_in_turns():
    levels, frequencies = np.array([0.0, 0.3, -1.2]), np.array([0.25, 2.0, -1.5])
    y = FourierEmbedding(6).apply({"params": {"frequencies": jnp.asarray(frequencies)}}, jnp.asarray(levels))
    angles = 2 * np.pi * levels[:, None] * frequencies
    np.testing.assert_allclose(y, np.concatenate([np.sin(angles), np.cos(angles)], -1), atol=1e-5)
    params = {"frequencies": jnp.asarray(frequencies), "phases": jnp.array([0.0, 1.0, 2.0])}
    module = MPFourier(3)
    y = module.apply({"params": params}, jnp.asarray(levels))
    np.testing.assert_allclose(y, np.sqrt(2) * np.cos(levels[:, None] * frequencies + [0, 1, 2]), atol=1e-5)
    gradient = jax.grad(lambda p: module.apply({"params": p}, jnp.asarray(levels)).sum())(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


# ---- Norms ----


def test_norms_add_their_epsilon_to_the_variance():
    """Of values that are plus or minus the root of epsilon, half of what they are divided by is epsilon."""
    sign = np.where(np.arange(64).reshape(1, 4, 4, 4) // 4 % 2, 1.0, -1.0)
    for epsilon, options in ((1e-6, {}), (1e-5, {"epsilon": 1e-5}), (0.25, {"epsilon": 0.25})):
        x = jnp.asarray(np.sqrt(epsilon) * sign, jnp.float32)
        y = GroupNorm(**options).apply({"params": {"scale": jnp.ones(4), "bias": jnp.zeros(4)}}, x)
        np.testing.assert_allclose(y, sign / np.sqrt(2), rtol=1e-4)
    for epsilon, options in ((1e-5, {}), (0.25, {"epsilon": 0.25})):
        x = jnp.asarray(np.sqrt(epsilon) * sign, jnp.float32)
        params = {"scale": jnp.ones(4), "mean_scale": jnp.ones(4), "bias": jnp.zeros(4)}
        y = InstanceNormPlus(**options).apply({"params": params}, x)
        np.testing.assert_allclose(y, sign / np.sqrt(2), rtol=1e-4)


@pytest.mark.parametrize("conditions", [0, 3])
def test_instance_norm_plus_is_its_formula(conditions):
    x = np.asarray(normal(0, 3, 4, 5, 6)) * np.arange(1, 7) + np.arange(6) ** 2
    index = np.array([2, 0, 1])
    table = np.asarray(normal(1, 3, 18))
    rows = table[index] if conditions else np.broadcast_to(table[0], (3, 18))
    scale, mean_scale, bias = (part[:, None, None] for part in np.split(rows, 3, -1))
    mean, var = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    relative = (mean - mean.mean(-1, keepdims=True)) / np.sqrt(mean.var(-1, ddof=1, keepdims=True) + 0.1)
    expected = scale * ((x - mean) / np.sqrt(var + 0.1) + mean_scale * relative) + bias
    names = ("scale", "mean_scale", "bias")
    params = {"table": table} if conditions else dict(zip(names, np.split(table[0], 3), strict=True))
    module = InstanceNormPlus(conditions, epsilon=0.1)
    y = module.apply({"params": params}, jnp.asarray(x, jnp.float32), index if conditions else None)
    np.testing.assert_allclose(y, expected, atol=1e-4)


def test_magnitudes_of_bfloat16_are_those_of_float32():
    """Squares rounded to bfloat16 would give other magnitudes for some of 256 arrays."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(256, 30)), jnp.bfloat16)
    magnitude = np.sqrt(np.mean(np.square(np.asarray(x, np.float64)), 1, keepdims=True)) + 1e-4
    np.testing.assert_array_equal(normalize(x, 1), x / jnp.asarray(magnitude, jnp.float32).astype(jnp.bfloat16))


def test_magnitudes_are_normalized_up_to_their_epsilon():
    """4e-5 over 4e-5 + 1e-4; what is 0 everywhere stays 0, and so does its gradient."""
    x = jnp.asarray([[3.0, -4.0], [4e-5, -4e-5], [0.0, 0.0]])
    rms = np.sqrt(12.5)
    expected = [[3 / (rms + 1e-4), -4 / (rms + 1e-4)], [2 / 7, -2 / 7], [0, 0]]
    np.testing.assert_allclose(normalize(x, -1), expected, rtol=1e-5)
    np.testing.assert_allclose(normalize(x.T, 0), np.transpose(expected), rtol=1e-5)
    gradient = jax.grad(lambda x: jnp.sum(normalize(x, -1) * jnp.array([1.0, 2.0])))(x)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[2], [1e4, 2e4], rtol=1e-5)  # over the epsilon alone
    half = normalize(x.astype(jnp.bfloat16), -1)
    assert half.dtype == jnp.bfloat16
    kernel = normal(0, 3, 3, 4, 5) * jnp.arange(1.0, 6.0)
    np.testing.assert_allclose(np.mean(np.square(normalize_kernel(kernel)), (0, 1, 2)), 1, atol=1e-3)


def test_sums_and_nonlinearities_of_unit_variance_have_unit_variance():
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    second_moment = np.sum(weights * np.asarray(mp_silu(jnp.asarray(points))) ** 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(second_moment, 1, atol=2e-3)
    a, b = jnp.eye(2)
    for balance in (0.0, 0.3, 0.5, 0.9, 1.0):
        total = mp_sum(a, b, balance)  # the factors of both
        np.testing.assert_allclose(jnp.sum(total**2), 1, rtol=1e-5)
        np.testing.assert_allclose(total[1] * (1 - balance), total[0] * balance, atol=1e-6)
        joined = mp_concat(jnp.ones(6), jnp.ones(2), balance)
        np.testing.assert_allclose(jnp.mean(joined**2), 1, rtol=1e-5)
        shares = jnp.linalg.norm(joined[:6]), jnp.linalg.norm(joined[6:])
        np.testing.assert_allclose(shares[1] * (1 - balance), shares[0] * balance, atol=1e-5)


# ---- Images ----


def test_a_resized_image_keeps_its_corners_and_is_linear_between():
    ramp = np.arange(5.0)[:, None] + 10 * np.arange(3.0)
    x = jnp.asarray(np.stack([ramp, -ramp], -1)[None], jnp.float32)
    for height, width in ((9, 5), (5, 3), (3, 2), (2, 7), (1, 3), (5, 1), (1, 1)):
        rows = np.linspace(0, 4, height) if height > 1 else np.zeros(1)
        columns = np.linspace(0, 2, width) if width > 1 else np.zeros(1)
        expected = rows[:, None] + 10 * columns
        y = bilinear_resize(x, (height, width))
        np.testing.assert_allclose(y[0, ..., 0], expected, atol=1e-5)
        np.testing.assert_allclose(y[0, ..., 1], -expected, atol=1e-5)
    one = bilinear_resize(jnp.full((1, 1, 1, 1), 3.0), (4, 2))
    np.testing.assert_array_equal(one, np.full((1, 4, 2, 1), 3))


@pytest.mark.parametrize("kind", ["max", "mean"])
def test_a_pooling_takes_five_by_five_pixels_within_the_image(kind):
    x = np.asarray(normal(0, 2, 6, 4, 3)) - 3  # negative nearly everywhere: a maximum beyond the border would be 0
    expected = np.zeros_like(x)
    for row, column in np.ndindex(6, 4):
        window = x[:, max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
        expected[:, row, column] = window.max((1, 2)) if kind == "max" else window.sum((1, 2)) / 25
    np.testing.assert_allclose(pool5(jnp.asarray(x), kind), expected, atol=1e-5)


# ---- Convolution ----


def test_a_kernel_as_large_as_the_padded_image_gives_one_pixel():
    x, kernel = normal(0, 2, 3, 5, 2), normal(1, 3, 5, 2, 4)
    y = convolution(x, kernel, padding="VALID")
    np.testing.assert_allclose(y[:, 0, 0], np.einsum("nhwi,hwio->no", x, kernel), atol=1e-5)
    assert y.shape == (2, 1, 1, 4)
    for size in ((2, 5), (3, 4)):
        with pytest.raises(ValueError, match="the padded image is smaller than the dilated kernel"):
            convolution(x[:, : size[0], : size[1]], kernel, padding="VALID")
    with pytest.raises(ValueError, match="smaller than the dilated kernel"):
        convolution(x, kernel[:2], dilation=(3, 1), padding="VALID")
    assert convolution(x, kernel[:2], dilation=(2, 1), padding="VALID").shape == (2, 1, 1, 4)


@pytest.mark.parametrize(
    "x, kernel", [((3, 5, 2), (1, 1, 2, 4)), ((1, 3, 5, 2), (1, 2, 4)), ((1, 3, 5, 2), (1, 1, 3, 4))]
)
def test_shapes_that_are_no_images_and_kernel_are_named(x, kernel):
    with pytest.raises(ValueError, match=r"convolution takes x .* and kernel .*, not "):
        convolution(jnp.ones(x), jnp.ones(kernel))


def test_layers_hand_every_option_to_the_convolution():
    x = normal(0, 2, 9, 8, 3)
    for options, strides, padding, dilation in (
        ({}, (1, 1), "SAME", (1, 1)),
        ({"kernel_size": 2, "stride": 2}, (2, 2), "SAME", (1, 1)),
        ({"padding": "VALID", "use_bias": False}, (1, 1), "VALID", (1, 1)),
        ({"padding": ((0, 2), (1, 0)), "dilation": 2}, (1, 1), ((0, 2), (1, 0)), (2, 2)),
    ):
        module = Conv(4, **options)
        size = options.get("kernel_size", 3)
        params = {"kernel": normal(1, size, size, 3, 4), "bias": jnp.arange(4.0)}
        if not options.get("use_bias", True):
            del params["bias"]
        expected = lax.conv_general_dilated(
            x, params["kernel"], strides, padding, rhs_dilation=dilation, dimension_numbers=LAYOUTS[2]
        )
        y = module.apply({"params": params}, x)
        np.testing.assert_allclose(y, expected + params.get("bias", 0), atol=1e-4)


def test_other_devices_take_the_gradients_of_xla():
    """On CPU arrays are transposed for a plain convolution; elsewhere the transposed form is XLA's own."""
    x, kernel = jnp.ones((2, 6, 5, 3)), jnp.ones((3, 3, 3, 4))

    def programs(f):
        gradient = jax.jit(jax.grad(lambda x, kernel: jnp.sum(f(x, kernel, stride=2) ** 2), (0, 1)))
        return {
            platform: export.export(gradient, platforms=[platform])(x, kernel) for platform in ("cpu", "cuda", "tpu")
        }

    def xla(x, kernel, stride):
        return lax.conv_general_dilated(x, kernel, (stride,) * 2, "SAME", dimension_numbers=LAYOUTS[2])

    def layouts(program):
        text = program.mlir_module()
        return sorted(
            line.split("dim_numbers = ")[1].split(", window")[0]
            for line in text.split("\n")
            if "dim_numbers = [b" in line or "dim_numbers = [f" in line
        )

    ours, theirs = programs(convolution), programs(xla)
    for platform in ("cuda", "tpu"):
        assert layouts(ours[platform]) == layouts(theirs[platform])
    assert layouts(ours["cpu"]) != layouts(theirs["cpu"])
