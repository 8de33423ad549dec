"""ADM against EDM's DhariwalUNet: what its real code gave with the same weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.pretrained import dhariwal_unet
from models.pretrained.mapping import to_tensors, to_variables
from tests.models.pretrained.named import named_normal, named_weights, spread

# NVlabs/edm, training/networks.py at commit 008a4e5316c8e3bfe61a62f874bddba254295afb, in evaluation mode:
# DhariwalUNet(**settings) with `named_weights` for its state_dict (resample_filter as it is), input named_normal("x", 4, 3,
# 8, 8) with its last image times 0.03 (the norms' epsilon counts there), noise_labels LEVELS, class_labels one-hot 1, 3, 0
# and a vector of zeros, no augment_labels. For each: the settings, `spread` of the output, its mean and standard deviation.
# AUGMENTED is of "labels" with augment_labels named_normal("augmentation", 4, 9).
PEERS = {
    "labels": (
        {
            "img_resolution": 8,
            "in_channels": 3,
            "out_channels": 3,
            "label_dim": 4,
            "augment_dim": 9,
            "model_channels": 64,
            "channel_mult": [1, 2],
            "num_blocks": 1,
            "attn_resolutions": [4],
        },
        [
            0.2852635,
            0.04778157,
            -0.09025787,
            -0.588597,
            -0.3639551,
            0.8527265,
            -0.3468942,
            0.853305,
            0.9985932,
            1.149341,
        ],
        (0.063652, 0.6968995),
    ),
    "variance": (
        {
            "img_resolution": 8,
            "in_channels": 3,
            "out_channels": 6,
            "model_channels": 64,
            "channel_mult": [1, 2, 1],
            "num_blocks": 2,
            "attn_resolutions": [8, 2],
        },
        [
            -0.05221096,
            -0.2035243,
            -0.182609,
            0.08195101,
            -0.06826908,
            -0.299549,
            -0.1959037,
            0.4541948,
            -0.6302096,
            -0.3962957,
        ],
        (-0.117872, 0.4579619),
    ),
}
AUGMENTED = (
    [
        0.191042,
        -0.3454886,
        -0.01083981,
        -0.7093078,
        -0.5929108,
        0.469902,
        -0.1268485,
        0.7512887,
        0.817174,
        1.010509,
    ],
    (0.07352906, 0.724341),
)
LEVELS = np.float32([-0.97, 0.06, 1.1, 240])


def inputs(network, size=8):
    x = named_normal("x", 4, 3, size, size).transpose(0, 2, 3, 1).copy()
    x[3] *= 0.03
    labels = jnp.array([1, 3, 0, network.num_classes])
    return x, jnp.asarray(LEVELS), {"label": labels} if network.num_classes else None


@functools.cache
def imported(case):
    """The network, the mapping, the peer's tensors and the variables made of them."""
    network = dhariwal_unet.from_settings(PEERS[case][0])
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs(network))
    mapping = dhariwal_unet.mapping(network, shapes, 8)
    theirs = to_tensors(jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), shapes), mapping)
    tensors = named_weights({name: tensor.shape for name, tensor in theirs.items()})
    return network, mapping, tensors, to_variables(tensors, mapping, shapes)


@pytest.mark.parametrize("case, augmented", [(case, False) for case in PEERS] + [("labels", True)])
def test_outputs_are_those_of_the_peers_code(case, augmented):
    """The last image has no class: its label is their number, where the peer has zeros."""
    numbers, (mean, std) = AUGMENTED if augmented else PEERS[case][1:]
    network, _, _, variables = imported(case)
    x, levels, condition = inputs(network)
    if augmented:
        condition |= {"augmentation": named_normal("augmentation", 4, 9)}
    apply = jax.jit(functools.partial(network.apply, method="mean_and_variance"))
    y = np.asarray(apply(variables, x, levels, condition)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(spread(y), numbers, atol=1e-4 * std)
    np.testing.assert_allclose((y.mean(), y.std()), (mean, std), atol=1e-5)


def test_an_export_gives_back_every_number_and_what_is_no_weight_of_ours_is_left_out():
    _, mapping, tensors, variables = imported("labels")
    back = to_tensors(variables, mapping)
    state = {f"model.{name}": tensor for name, tensor in back.items()}
    more = ("u", "model.enc.4x4_down.conv0.resample_filter")
    named = dhariwal_unet.named_model(state | {name: np.ones((2, 2)) for name in more})
    assert named.keys() == back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(named[name], tensor)


@pytest.mark.thorough
@pytest.mark.parametrize("settings, count", [({}, 295_899_267), ({"out_channels": 6}, 295_904_454)])
def test_published_networks_have_as_many_parameters(settings, count):
    """ImageNet at 64 px: as EDM's code counts them with label_dim=1000, and guided-diffusion's with a learned variance."""
    given = {"img_resolution": 64, "in_channels": 3, "out_channels": 3, "label_dim": 1000} | settings
    network = dhariwal_unet.from_settings(given)
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs(network, 64))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    assert dhariwal_unet.mapping(network, shapes, 64)


def test_arguments_without_a_counterpart_are_named():
    with pytest.raises(ValueError, match="channel_mult_emb=2 has no counterpart here: only 4"):
        dhariwal_unet.from_settings(PEERS["labels"][0] | {"channel_mult_emb": 2})
    with pytest.raises(ValueError, match="DhariwalUNet: resample_filter has no counterpart"):
        dhariwal_unet.from_settings(PEERS["labels"][0] | {"resample_filter": [1, 1]})
