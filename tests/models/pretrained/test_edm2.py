"""EDM2 against the numbers that its published code gave.

Source: https://github.com/NVlabs/edm2/blob/4bf8162f601bcc09472ce8a32dd0cbe8889dc8fc/training/networks_edm2.py, class UNet,
run in float32 on CPU with the weights and inputs of `named.py`, at sigma = 0.01, 1, 50.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from models.edm2 import normalized
from models.pretrained import edm2
from models.pretrained.mapping import flatten, to_tensors, to_variables
from tests.models.pretrained.named import named_normal, named_weights, spread

# The U-Net of ImageNet with few channels and blocks, and one where every option differs from its default.
# Peer: UNet(16, 4, 10, model_channels=8, channel_mult=[1, 2, 3, 4], num_blocks=1, attn_resolutions=[4, 2],
# channels_per_head=8); and UNet(8, 3, 0, model_channels=8, channel_mult=[1, 2], channel_mult_noise=2, channel_mult_emb=3,
# num_blocks=2, attn_resolutions=[8], channels_per_head=4, concat_balance=0.4, res_balance=0.45, attn_balance=0.2,
# clip_act=1.5).
IMAGENET = {
    "channels": 8,
    "blocks_per_level": 1,
    "attention_resolutions": (4, 2),
    "head_channels": 8,
    "num_classes": 10,
}
OPTIONS = {
    "channels": 8,
    "channel_multipliers": (1, 2),
    "blocks_per_level": 2,
    "attention_resolutions": (8,),
    "head_channels": 4,
    "fourier_channels": 16,
    "embedding_channels": 24,
    "concat_balance": 0.4,
    "residual_balance": 0.45,
    "attention_balance": 0.2,
    "clip": 1.5,
}
NOISE_LEVEL = jnp.log(jnp.array([0.01, 1.0, 50.0])) / 4


@functools.cache
def case(name):
    """(network, tensors by the peer's names, variables, arguments); the third label of ImageNet stands for no class."""
    options, shape = {"imagenet": (IMAGENET, (3, 4, 16, 16)), "options": (OPTIONS, (3, 3, 8, 8))}[name]
    network = models.create("edm2", **options)
    arguments = (named_normal("x", *shape).transpose(0, 2, 3, 1), NOISE_LEVEL)
    if network.num_classes:
        arguments += ({"label": jnp.array([7, 0, 10])},)
    mapping = edm2.mapping(network, shape[-1])
    shapes = jax.eval_shape(network.init, jax.random.key(0), *arguments)
    tensors = named_weights({n: t.shape for n, t in to_tensors(zeros(shapes), mapping).items()})
    return network, mapping, tensors, to_variables(tensors, mapping, shapes), arguments


def zeros(shapes):
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)


@functools.cache
def compiled(name):
    return jax.jit(case(name)[0].apply)


# Spread over samples, channels and pixels; then mean and standard deviation.
PUBLISHED = {
    "imagenet": (
        [
            -0.2110575,
            -0.2047335,
            1.072564,
            1.289115,
            -0.7691999,
            0.2822757,
            -0.472356,
            -0.6223477,
            -3.877745,
            -0.5032831,
        ],
        -0.1027948,
        1.022314,
    ),
    "options": (
        [
            0.1779013,
            -0.07986242,
            0.9741131,
            -1.214478,
            0.2144564,
            0.8529005,
            -1.322378,
            0.2999794,
            -0.5099807,
            0.0065774,
        ],
        -0.01494212,
        0.7045807,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_output_is_the_published_codes(name):
    values, mean, std = PUBLISHED[name]
    _, _, _, variables, arguments = case(name)
    output = np.asarray(compiled(name)(variables, *arguments)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(spread(output), values, atol=2e-5 * std)
    np.testing.assert_allclose([output.mean(), output.std()], [mean, std], atol=2e-5 * std)


def test_there_and_back_is_the_identity():
    _, mapping, tensors, variables, _ = case("imagenet")
    back = to_tensors(variables, mapping)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_normalized_weights_are_those_that_the_published_code_trains():
    """Two numbers of two tensors after a forward pass of the peer in training mode."""
    _, mapping, _, variables, _ = case("imagenet")
    tensors = to_tensors(jax.jit(normalized)(variables), mapping)
    for name, fifth, last in [
        ("enc.8x8_block0.conv_res0.weight", 0.3293509, 0.5421848),
        ("emb_label.weight", 0.05899858, 0.5596179),
    ]:
        tensor = tensors[name].ravel()
        np.testing.assert_allclose([tensor[5], tensor[-1]], [fifth, last], rtol=1e-5)


def test_normalizing_changes_kernels_only_and_no_output():
    """Nor does the size of the kernels before it: only their directions count."""
    _, _, _, variables, arguments = case("imagenet")
    grown = jax.tree_util.tree_map_with_path(lambda p, a: a * 30 if p[-1].key == "kernel" else a, variables)
    project = jax.jit(normalized)
    projected = project(grown)
    for path, leaf in flatten(projected).items():
        if path[-1] == "kernel":
            magnitude = np.sqrt(np.mean(np.square(leaf), tuple(range(leaf.ndim - 1))))
            np.testing.assert_allclose(magnitude, 1, atol=1e-3)
        else:
            np.testing.assert_array_equal(leaf, flatten(variables)[path])
    apply = compiled("imagenet")
    np.testing.assert_allclose(apply(projected, *arguments), apply(grown, *arguments), atol=1e-2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4), project(projected), projected)


@pytest.mark.thorough
def test_sizes_of_imagenet_512():
    """The peer's counts of parameters and those of table 2 of the paper in millions, from XXS to XXL.

    The count is quadratic in the channels with the gains as its constant term, so that two sizes give all.
    """
    published = {64: 31308901, 128: 124713125, 192: 280212709, 256: 497807653, 320: 777497957}
    published |= {384: 1119283621, 448: 1523164645}
    assert [round(count / 1e6) for count in published.values()] == [31, 125, 280, 498, 777, 1119, 1523]

    @functools.cache
    def leaves(channels):
        network = models.create("edm2", channels=channels, num_classes=1000)
        arguments = (jnp.zeros((1, 64, 64, 4)), jnp.zeros(1), {"label": jnp.zeros(1, int)})
        return jax.tree.leaves(jax.eval_shape(network.init, jax.random.key(0), *arguments))

    def count(channels):
        fourier_features = 2 * channels  # these are no parameters there
        return sum(leaf.size for leaf in leaves(channels)) - fourier_features

    gains = sum(leaf.ndim == 0 for leaf in leaves(64))
    low, high = count(64) - gains, count(448) - gains
    bend = (high - 7 * low) // 42
    assert {64 * n: bend * n**2 + (low - bend) * n + gains for n in range(1, 8)} == published


def test_heads_that_do_not_divide_the_channels_are_named():
    network = models.create("edm2", channels=96, channel_multipliers=(1,))
    with pytest.raises(ValueError, match="head_channels=64 does not divide 96 channels"):
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros(1))
