"""UNet2DModel with skip blocks, run here: NCSN++ gives its outputs with its weights; what it is not is refused by key."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.pretrained.diffusers_ncsnpp import from_config, has_skip_blocks, mapping
from models.pretrained.mapping import to_tensors, to_variables
from tests.models.pretrained.named import named_normal, named_weights

# NCSN++ as diffusers' conversion of score_sde's checkpoints makes it, at reduced width and depth.
SMALL = {
    "_class_name": "UNet2DModel",
    "attention_head_dim": None,
    "block_out_channels": [64, 128, 128],
    "center_input_sample": True,
    "down_block_types": ["SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipDownBlock2D"],
    "layers_per_block": 1,
    "mid_block_scale_factor": math.sqrt(2),
    "norm_eps": 1e-6,
    "norm_num_groups": None,
    "sample_size": 16,
    "time_embedding_type": "fourier",
    "up_block_types": ["SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D"],
}
# That of the 256 px models.
LARGE = SMALL | {
    "block_out_channels": [128, 128, 256, 256, 256, 256, 256],
    "down_block_types": ["SkipDownBlock2D"] * 4 + ["AttnSkipDownBlock2D"] + ["SkipDownBlock2D"] * 2,
    "layers_per_block": 2,
    "sample_size": 256,
    "up_block_types": ["SkipUpBlock2D"] * 2 + ["AttnSkipUpBlock2D"] + ["SkipUpBlock2D"] * 4,
}


def shapes_of(network, size):
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, size, size, 3)), jnp.zeros(1))


@functools.cache
def imported():
    """The network, the mapping, the peer's tensors and the variables made of them."""
    network, facts = from_config(SMALL)
    shapes = shapes_of(network, facts.image_size[0])
    where = mapping(network, shapes)
    theirs = to_tensors(jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), shapes), where)
    tensors = named_weights({name: tensor.shape for name, tensor in theirs.items()})
    return network, where, tensors, to_variables(tensors, where, shapes)


def test_outputs_and_names_are_those_of_diffusers():
    """It divides by sigma and centres its input, [0, 1] there; here the parameterization and the data do."""
    torch = pytest.importorskip("torch", reason="parity runs the peer's code: torch and diffusers")
    diffusers = pytest.importorskip("diffusers", reason="parity runs the peer's code: torch and diffusers")
    network, _, tensors, variables = imported()
    peer = diffusers.UNet2DModel.from_config({k: v for k, v in SMALL.items() if not k.startswith("_")}).eval()
    peer.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    x = named_normal("x", 4, 3, 16, 16)
    sigma = np.float32([0.02, 0.5, 10, 300])
    with torch.no_grad():
        expected = peer(torch.from_numpy(x / 2 + 0.5), torch.from_numpy(sigma)).sample.numpy()
    ours = jax.jit(network.apply)(variables, x.transpose(0, 2, 3, 1), jnp.log(sigma))
    score = np.asarray(ours).transpose(0, 3, 1, 2) / sigma[:, None, None, None]
    for got, theirs in zip(score, expected, strict=True):
        np.testing.assert_allclose(got, theirs, atol=1e-4 * theirs.std())


def test_the_import_of_an_export_is_the_identity():
    _, where, tensors, variables = imported()
    back = to_tensors(variables, where)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_the_networks_of_256_pixels_have_as_many_parameters_as_diffusers():
    """The count is that of diffusers 0.42.1 for the same config, which has the Fourier frequencies, 128, among them."""
    network, _ = from_config(LARGE)
    shapes = shapes_of(network, 256)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 65_574_549
    assert mapping(network, shapes)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"center_input_sample": False}, "center_input_sample=False has no counterpart in NCSN\\+\\+: only True"),
        ({"time_embedding_type": "positional"}, "time_embedding_type='positional'"),
        ({"mid_block_scale_factor": 1}, "mid_block_scale_factor=1 has .* only the square root of 2"),
        ({"norm_eps": 1e-5}, "norm_eps=1e-05"),
        ({"in_channels": 1}, "in_channels=1"),
        ({"down_block_types": ["SkipDownBlock2D", "DownBlock2D", "SkipDownBlock2D"]}, "down_block_types='DownBlock2D'"),
        (
            {"up_block_types": ["SkipUpBlock2D"] * 3},
            "up_block_types=.* only attention at the levels of down_block_types",
        ),
        ({"sample_size": None}, "sample_size=None"),
        ({"block_out_channels": [64, 96, 128]}, "block_out_channels=96 has .* only multiples of the first, 64"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_expressed_is_refused_by_its_key(change, message):
    assert has_skip_blocks(SMALL | change)
    with pytest.raises(ValueError, match=message):
        from_config(SMALL | change)
