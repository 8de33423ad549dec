"""guided-diffusion's weights: ADM computes what the peer's code computed with them, to rounding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from models.pretrained.guided_diffusion import mapping
from models.pretrained.mapping import to_tensors, to_variables
from tests.models.pretrained.named import named_normal, named_weights, spread

LEVELS = np.float32([0, 37, 420, 999])

# openai/guided-diffusion, guided_diffusion/unet.py at commit 22e0df8183507e13a7813f8d38d51b072ca1e67c, in evaluation mode:
# UNetModel(image_size=8, **settings) with `named_weights` for its state_dict, input named_normal("x", 4, in_channels, 8, 8)
# with its last image times 0.03 (the norms' epsilon counts there), timesteps LEVELS, and labels 0, 1, 2, 3 where there are
# classes. For each: the peer's settings, `spread` of the output, its mean and standard deviation; then the options of ADM,
# and the channels of x.
PEERS = {
    # in_channels=3, model_channels=32, out_channels=6, num_res_blocks=2, attention_resolutions=(1, 2), channel_mult=(1, 2),
    # num_classes=5, num_head_channels=16, use_scale_shift_norm=True, resblock_updown=True, use_new_attention_order=True
    "new order": (
        [
            -0.5998833,
            0.2045591,
            0.2458385,
            0.08278757,
            0.3248295,
            -0.02732448,
            -0.07640431,
            -0.03725183,
            -1.002689,
            -0.8372865,
        ],
        (-0.00812154, 0.5365927),
        {
            "channels": 32,
            "channel_multipliers": (1, 2),
            "blocks_per_level": 2,
            "attention_resolutions": (8, 4),
            "head_channels": 16,
            "num_classes": 5,
            "learned_variance": True,
        },
        3,
    ),
    # in_channels=3, model_channels=64, out_channels=6, num_res_blocks=1, attention_resolutions=(2, 4),
    # channel_mult=(0.5, 1, 1), num_classes=5, num_head_channels=16, use_scale_shift_norm=True, resblock_updown=True
    "legacy order": (
        [
            0.2079525,
            0.1335302,
            0.0003534481,
            -0.0800817,
            0.6112955,
            -0.3963907,
            0.3302739,
            0.5968378,
            -1.687761,
            -0.2939011,
        ],
        (-0.0199374, 0.5253655),
        {
            "channels": 64,
            "channel_multipliers": (0.5, 1, 1),
            "blocks_per_level": 1,
            "attention_resolutions": (4, 2),
            "head_channels": 16,
            "num_classes": 5,
            "learned_variance": True,
        },
        3,
    ),
    # in_channels=5, model_channels=32, out_channels=3, num_res_blocks=1, attention_resolutions=(2,), channel_mult=(1, 2),
    # num_heads=4
    "convolutions": (
        [
            0.4847999,
            0.01207415,
            -0.2927432,
            -0.04465842,
            -0.117047,
            0.1302082,
            -0.2822236,
            0.4681746,
            -0.6477932,
            0.4696203,
        ],
        (-0.06847247, 0.5096986),
        {
            "channels": 32,
            "channel_multipliers": (1, 2),
            "blocks_per_level": 1,
            "attention_resolutions": (4,),
            "head_channels": 0,
            "num_heads": 4,
            "scale_shift": False,
            "resampling": "strided_symmetric",
            "out_channels": 3,
        },
        5,
    ),
}


def inputs(in_channels, size=8, batch=4, classes=True):
    x = named_normal("x", batch, in_channels, size, size).transpose(0, 2, 3, 1).copy()
    x[3:] *= 0.03
    return jnp.asarray(x), jnp.asarray(LEVELS[:batch]), {"label": jnp.arange(batch)} if classes else None


@functools.cache
def imported(case):
    """The network, the mapping, the peer's tensors and the variables made of them."""
    *_, options, in_channels = PEERS[case]
    network = models.create("adm", **options)
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs(in_channels, classes=network.num_classes))
    where = mapping(network, shapes, new_attention_order=case == "new order")
    theirs = to_tensors(jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), shapes), where)
    tensors = named_weights({name: tensor.shape for name, tensor in theirs.items()})
    return network, where, tensors, to_variables(tensors, where, shapes)


@functools.cache
def output(case):
    network, _, _, variables = imported(case)
    apply = jax.jit(functools.partial(network.apply, method="mean_and_variance"))
    y = apply(variables, *inputs(PEERS[case][-1], classes=network.num_classes))
    return np.asarray(y).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("case", PEERS)
def test_outputs_are_those_of_the_peers_code(case):
    numbers, (mean, std), *_ = PEERS[case]
    y = output(case)
    np.testing.assert_allclose(spread(y), numbers, atol=1e-4 * std)
    np.testing.assert_allclose((y.mean(), y.std()), (mean, std), atol=1e-5)


@pytest.mark.parametrize("case", PEERS)
def test_the_import_of_an_export_is_the_identity(case):
    _, where, tensors, variables = imported(case)
    back = to_tensors(variables, where)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


WIDE = {"channels": 256, "blocks_per_level": 2, "dropout": 0.0}
SUPER = WIDE | {"channels": 192, "channel_multipliers": (1, 1, 2, 2, 4, 4), "out_channels": 3}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "size, in_channels, count, options",
    [
        (64, 3, 295904454, {}),
        (128, 3, 421529606, WIDE | {"channel_multipliers": (1, 1, 2, 3, 4), "num_heads": 4, "head_channels": 0}),
        (256, 3, 553838086, WIDE | {"channel_multipliers": (1, 1, 2, 2, 4, 4)}),
        (512, 3, 558997638, WIDE | {"channel_multipliers": (0.5, 1, 1, 2, 2, 4, 4)}),
        (512, 6, 308835270, SUPER | {"attention_resolutions": (32, 16)}),
    ],
    ids=["64", "128", "256", "512", "128 to 512"],
)
def test_published_networks_have_as_many_parameters_as_the_peers(size, in_channels, count, options):
    """The counts are those of guided-diffusion's own networks, made with the flags of its README."""
    network = models.create("adm", **({"num_classes": 1000, "learned_variance": True} | options))
    arguments = inputs(in_channels, size, 1, network.num_classes)
    shapes = jax.eval_shape(network.init, jax.random.key(0), *arguments)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    assert mapping(network, shapes, new_attention_order=False)


def test_networks_that_the_peer_does_not_have_are_refused():
    with pytest.raises(ValueError, match="no network with embedding='positional', only with 'positional_adm'"):
        mapping(models.create("ddpm"), {}, new_attention_order=True)
