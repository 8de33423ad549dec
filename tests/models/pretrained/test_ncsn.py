"""NCSN and NCSNv2 against the numbers that their published code gave.

Sources, run in float32 on CPU with the weights and inputs of `named.py`, 8 channels and images of 2 channels in [0, 1]:
- https://github.com/ermongroup/ncsn/blob/7f27f4a16471d20a0af3be8b8b4c2ec57c8a0bc1/models/cond_refinenet_dilated.py, class
  CondRefineNetDilated, at the first, sixth and last of 10 noise levels from 1 to 0.01;
- https://github.com/ermongroup/ncsnv2/blob/1bcea03bd97d76a8357b9d674fa0bae5ff0f1093/models/ncsnv2.py, classes NCSNv2,
  NCSNv2Deeper and NCSNv2Deepest, whose output is multiplied by the sigma by which they divide it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from models.ncsn import SIZES
from models.pretrained import ncsn
from models.pretrained.mapping import to_tensors, to_variables
from tests.models.pretrained.named import named_normal, named_weights, spread

LEVELS = np.linspace(0, np.log(0.01), 10)
NOISE_LEVEL = jnp.asarray(LEVELS[[0, 5, 9]], jnp.float32)

# Name: network, options, side of the images; values spread over samples, channels and pixels, mean, standard deviation.
CASES = {
    "ncsn": ("ncsn", {"centered": False}, 12),
    **{f"ncsnv2_{size}": ("ncsnv2", {"centered": False} | stages, 16) for size, stages in SIZES.items()},
}
PUBLISHED = {
    "ncsn": (
        [
            -0.2331005,
            -0.2546748,
            0.4335815,
            -0.0116219,
            0.1126194,
            -0.02491834,
            -0.1517415,
            0.04940647,
            -0.1682347,
            0.04263915,
        ],
        -0.01975662,
        0.1755828,
    ),
    "ncsnv2_64": (
        [
            -1.315979,
            0.3415708,
            0.2453683,
            -0.58871,
            -0.1892553,
            -0.1810647,
            -2.079691,
            -0.3444245,
            -1.757442,
            -1.543877,
        ],
        -0.9918219,
        0.8531042,
    ),
    "ncsnv2_128": (
        [0.6674304, 0.1015283, -0.4323384, 0.4804623, 0.1143324, -0.1090422, -1.31522, 1.531098, -1.915362, -2.145859],
        -0.1597985,
        0.759363,
    ),
    "ncsnv2_256": (
        [0.5966325, 0.501588, -0.4838483, 0.4833619, 0.3388504, 0.2596402, -1.402799, 1.027838, -0.8825186, -1.261176],
        -0.2000968,
        0.7566049,
    ),
}


@functools.cache
def case(name):
    """(network, mapping, tensors by the peer's names, variables, images in [0, 1])."""
    kind, options, side = CASES[name]
    network = models.create(kind, channels=8, **options)
    x = (0.5 + 0.5 * named_normal("x", 3, 2, side, side)).transpose(0, 2, 3, 1)
    mapping = ncsn.mapping(network)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x, NOISE_LEVEL)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    tensors = named_weights({n: t.shape for n, t in to_tensors(zeros, mapping).items()})
    return network, mapping, tensors, to_variables(tensors, mapping, shapes), x


@functools.cache
def compiled(name):
    return jax.jit(case(name)[0].apply)


@pytest.mark.parametrize("name", CASES)
def test_output_is_the_published_codes(name):
    values, mean, std = PUBLISHED[name]
    _, _, _, variables, x = case(name)
    output = np.asarray(compiled(name)(variables, x, NOISE_LEVEL)).transpose(0, 3, 1, 2)
    if name == "ncsn":  # the published NCSN is the score itself
        output = output / np.exp(NOISE_LEVEL)[:, None, None, None]
    np.testing.assert_allclose(spread(output), values, atol=2e-5 * std)
    np.testing.assert_allclose([output.mean(), output.std()], [mean, std], atol=2e-5 * std)


@pytest.mark.parametrize("name", CASES)
def test_there_and_back_is_the_identity(name):
    _, mapping, tensors, variables, _ = case(name)
    back = to_tensors(variables, mapping)
    assert back.keys() == tensors.keys()
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(back[key], tensor)


@pytest.mark.parametrize("kind", ["ncsn", "ncsnv2"])
def test_data_in_minus_one_to_one_has_the_same_output(kind):
    stage = {"channels": 4, "channel_multipliers": (1,), "dilations": (1,)}
    published, centered = (models.create(kind, **stage, centered=centered) for centered in (False, True))
    x = 0.5 + 0.5 * named_normal("x", 3, 8, 8, 2)
    shapes = jax.eval_shape(published.init, jax.random.key(0), x, NOISE_LEVEL)
    variables = jax.tree.map(lambda leaf: 0.3 * named_normal("weight", *leaf.shape), shapes)
    expected = jax.jit(published.apply)(variables, x, NOISE_LEVEL)
    output = jax.jit(centered.apply)(variables, 2 * x - 1, NOISE_LEVEL)
    np.testing.assert_allclose(output, expected, atol=1e-5 * np.abs(expected).max())


def test_the_nearest_noise_level_is_taken():
    network = models.create("ncsn")
    np.testing.assert_array_equal(network.nearest(jnp.asarray(LEVELS, jnp.float32)), range(10))
    step = LEVELS[1]
    levels = jnp.asarray([LEVELS[3] + 0.4 * step, LEVELS[3] + 0.6 * step, 5.0, -10.0])
    np.testing.assert_array_equal(network.nearest(levels), [3, 4, 0, 9])


@pytest.mark.thorough
@pytest.mark.parametrize(
    "kind, options, channels, parameters",
    [
        ("ncsn", {}, 3, 30117635),
        ("ncsn", {"channels": 64}, 1, 7638657),
        ("ncsnv2", {}, 3, 29694083),
        ("ncsnv2", SIZES[128], 3, 83445379),
        ("ncsnv2", SIZES[256], 3, 94132611),
    ],
    ids=["cifar10", "mnist", "ncsnv2_64", "ncsnv2_128", "ncsnv2_256"],
)
def test_sizes(kind, options, channels, parameters):
    """The peers' counts at full width."""
    network = models.create(kind, **options)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 64, 64, channels)), jnp.zeros(1))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


def test_stages_that_no_released_network_has_are_named():
    with pytest.raises(ValueError, match="not 3 stages and num_classes=0"):
        ncsn.mapping(models.create("ncsnv2", channel_multipliers=(1, 2, 2), dilations=(1, 1, 2)))
    with pytest.raises(ValueError, match="num_classes=7"):
        ncsn.mapping(models.create("ncsn", num_classes=7))
    odd = models.create("ncsnv2", dilations=(1, 2, 4))
    with pytest.raises(ValueError, match=r"dilations=\(1, 2, 4\) must start with 1 and have one entry for each"):
        jax.eval_shape(odd.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros(1))
