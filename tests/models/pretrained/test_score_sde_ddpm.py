"""The weights of score_sde's ddpm: our DDPM computes what the peers' code computed with them, to rounding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from models.pretrained.mapping import to_tensors, to_variables
from models.pretrained.score_sde_ddpm import jax_mapping, torch_mapping
from tests.models.pretrained.named import named_normal, named_weights, spread

LEVELS = np.float32([0, 37, 420, 999])
MAPPINGS = {"torch": torch_mapping, "jax": jax_mapping}
OPTIONS = {
    "strided": {"channel_multipliers": (1, 2), "blocks_per_level": 2, "attention_resolutions": (8, 4)},
    "plain": {
        "channel_multipliers": (1, 1, 2),
        "blocks_per_level": 1,
        "attention_resolutions": (4,),
        "resampling": "plain",
    },
}

# models/ddpm.py of yang-song/score_sde_pytorch at commit cb1f359f4aadf0ff9a5e122fe8fffc9451fd6e44 and of yang-song/score_sde
# at commit 0acb9e0ea3b8cccd935068cd9c657318fbc6ce4c, in evaluation mode: DDPM of nf=32, image_size=8, centered=True,
# scale_by_sigma=False, nonlinearity="swish", normalization="GroupNorm" and, with other names for them, OPTIONS
# (resamp_with_conv=False is "plain"), with `named_weights` for its parameters, named "all_modules.0.weight" and so on, or
# "AttnBlock_0/NIN_0/W"; input named_normal("x", 4, 3, 8, 8) with its last image times 0.03 (the norms' epsilon counts
# there), labels LEVELS. The JAX code ran in float64, since flax 0.12.8 takes variances in one pass. Of the output
# (B, C, H, W): `spread`, mean and standard deviation.
PEERS = {
    ("torch", "strided"): (
        [
            0.5411894,
            -0.653101,
            -0.3903079,
            0.3741077,
            -0.755604,
            -0.2096806,
            0.1801679,
            -0.6929659,
            0.1613229,
            -0.413752,
        ],
        (-0.04608946, 0.4771424),
    ),
    ("torch", "plain"): (
        [
            -0.5797381,
            0.04519843,
            0.0466634,
            -0.4411405,
            -0.665042,
            -0.3602873,
            -1.40278,
            0.5123303,
            0.9697733,
            -0.5408911,
        ],
        (-0.2196927, 0.6760172),
    ),
    ("jax", "strided"): (
        [
            -0.06852029,
            -0.259913,
            0.5111869,
            -0.144017,
            -0.1958068,
            0.06244599,
            0.2829972,
            -0.09307028,
            -0.3726667,
            -0.1837552,
        ],
        (0.100475, 0.4858574),
    ),
    ("jax", "plain"): (
        [
            -0.5499194,
            0.08543565,
            0.2850603,
            -0.5048173,
            0.3316599,
            0.07646764,
            0.3447208,
            0.3069452,
            0.4772428,
            1.565455,
        ],
        (0.06424802, 0.5152077),
    ),
}


@functools.cache
def abstract(network, size):
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, size, size, 3)), jnp.zeros((1,)))


def create(options):
    return models.create("ddpm", channels=32, up_attention="level", **OPTIONS[options])


@functools.cache
def compiled(options):
    return jax.jit(create(options).apply)


@functools.cache
def imported(release, options):
    """The mapping, the peer's tensors and the variables made of them."""
    shapes = abstract(create(options), 8)
    where = MAPPINGS[release](create(options), shapes)
    theirs = to_tensors(jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), shapes), where)
    tensors = named_weights({name: tensor.shape for name, tensor in theirs.items()})
    return where, tensors, to_variables(tensors, where, shapes)


@pytest.mark.parametrize("case", PEERS, ids=" ".join)
def test_outputs_are_those_of_the_peers_code(case):
    numbers, (mean, std) = PEERS[case]
    _, _, variables = imported(*case)
    x = named_normal("x", 4, 3, 8, 8).transpose(0, 2, 3, 1).copy()
    x[3] *= 0.03
    y = np.asarray(compiled(case[1])(variables, x, LEVELS)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(spread(y), numbers, atol=1e-4 * std)
    np.testing.assert_allclose((y.mean(), y.std()), (mean, std), atol=1e-5)


@pytest.mark.parametrize("case", PEERS, ids=" ".join)
def test_the_import_of_an_export_is_the_identity(case):
    where, tensors, variables = imported(*case)
    back = to_tensors(variables, where)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "size, multipliers, count", [(32, (1, 2, 2, 2), 35218947), (256, (1, 1, 2, 2, 4, 4), 111569923)], ids=["32", "256"]
)
def test_published_networks_have_as_many_parameters_as_the_peers(size, multipliers, count):
    """The counts are those of the peer's networks for configs/vp/ddpm/cifar10.py and church.py."""
    network = models.create("ddpm", channel_multipliers=multipliers, up_attention="level")
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract(network, size))) == count


def test_networks_that_the_peer_does_not_have_are_refused():
    with pytest.raises(ValueError, match="no network with up_attention='block', only with 'level'"):
        torch_mapping(models.create("ddpm"), {})
