"""NCSN++ and DDPM++ against EDM's SongUNet: what its real code gave with the same weights.

Settings: SongUNet(8, 3, 3, model_channels=16, channel_mult=[2, 2], num_blocks=1, attn_resolutions=[4]) with those of
`--arch=ddpmpp` (class labels and augmentation) and `ncsnpp` (augmentation), and once with the "skip" encoder and decoder.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from models.pretrained import song_unet
from models.pretrained.mapping import to_tensors, to_variables
from tests.models.pretrained.named import named_normal
from tests.models.pretrained.score_sde_numbers import EDM
from tests.models.pretrained.test_score_sde import assert_equal_numbers, peer_tensors

BASE = {
    "channels": 16,
    "channel_multipliers": (2, 2),
    "blocks_per_level": 1,
    "attention_resolutions": (4,),
    "dropout": 0.0,
}
DDPMPP = {"embedding": "positional", "fir": False, "progressive_input": "none"}
CASES = {
    "ddpmpp": {**DDPMPP, "num_classes": 4, "augment_features": 9},
    "ncsnpp": {"augment_features": 9},
    "skip": {"progressive_input": "input_skip", "progressive": "output_skip", "num_classes": 4},
}


@functools.cache
def prepared(case):
    """The network, its inputs, the shapes of its variables, and the peer's weights as them."""
    network = models.create("ncsnpp", **BASE | CASES[case])
    x = jnp.asarray(named_normal("x", 3, 3, 8, 8).transpose(0, 2, 3, 1))
    level = jnp.log(jnp.array([0.02, 1.3, 40.0])) / 4
    condition = {"label": jnp.array([1, 3, 0])} if network.num_classes else None
    inputs = x, level, condition
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    mapping = song_unet.mapping(network, shapes, image_size=8)
    return network, inputs, mapping, to_variables(peer_tensors(mapping, shapes), mapping, shapes)


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_song_unet(case):
    network, (x, level, condition), _, variables = prepared(case)
    condition = condition or {}
    if network.augment_features:
        condition |= {"augmentation": jnp.asarray(named_normal("augmentation", 3, 9))}
    assert_equal_numbers(jax.jit(network.apply)(variables, x, level, condition), EDM[case])


def test_an_export_gives_back_every_number_and_filters_are_left_out():
    _, _, mapping, variables = prepared("skip")
    tensors = to_tensors(variables, mapping)
    state = {f"model.{name}": tensor for name, tensor in tensors.items()}
    state["model.enc.4x4_down.conv0.resample_filter"] = np.ones((1, 1, 4, 4))
    named = song_unet.named_model(state)
    assert named.keys() == tensors.keys()
    again = to_variables(named, mapping, variables)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


@pytest.mark.parametrize(
    "odd, said",
    [
        ({"quux": 1}, "SongUNet: quux has no counterpart here"),
        (
            {"embedding_type": "fourier", "channel_mult_noise": 1},
            "channel_mult_noise=1 has no counterpart here: only 2",
        ),
        ({"encoder_type": "odd"}, "encoder_type='odd' has no counterpart here: only 'standard', 'residual', 'skip'"),
    ],
)
def test_arguments_without_a_counterpart_are_named(odd, said):
    with pytest.raises(ValueError) as error:
        song_unet.from_settings({"img_resolution": 8, "in_channels": 3, "out_channels": 3} | odd)
    assert str(error.value).endswith(said)
