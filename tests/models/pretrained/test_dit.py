"""DiT's weights from facebookresearch/DiT and diffusers: the peers' outputs, to rounding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.dit import SIZES, DiT
from models.pretrained import dit
from models.pretrained.mapping import WeightsError, to_tensors, to_variables
from tests.models.pretrained.named import named_normal, named_weights

LEVELS = np.float32([0, 37.5, 420, 999])

# facebookresearch/DiT, models.py at commit ed81ce2229091fd4ecc9a223645f95cf379d582b, with PatchEmbed, Attention and Mlp of
# timm 1.0.31, in evaluation mode: DiT(**settings) with `named_weights` for its state_dict (pos_embed as it is), input
# named_normal("x", 4, size, size, in_channels), t = LEVELS, y = 0, 1, 2 and num_classes (the null class). Of its output
# (B, H, W, C) the numbers at (i % 4, (3 i + 1) % size, (5 i + 2) % size, (i i + i // 4) % C) for i = 0 ... 11, mean and std.
FACEBOOK = {
    "patch 2, learned variance": (
        {
            "input_size": 8,
            "patch_size": 2,
            "in_channels": 4,
            "hidden_size": 32,
            "depth": 3,
            "num_heads": 4,
            "num_classes": 5,
        },
        8,
        [
            -1.26865,
            -0.7145406,
            -1.526196,
            1.351183,
            -0.9992015,
            -1.183666,
            -0.4256095,
            -0.0133821,
            1.923262,
            -0.6374053,
            -0.8535327,
            0.305366,
        ],
        (-0.0077245502329788, 0.9832099701816184),
    ),
    "patch 4, no learned variance": (
        {
            "input_size": 12,
            "patch_size": 4,
            "in_channels": 3,
            "hidden_size": 24,
            "depth": 2,
            "num_heads": 2,
            "num_classes": 3,
        },
        3,
        [
            -0.6431281,
            0.0240177,
            0.3303293,
            -0.06559183,
            -1.38508,
            0.1364287,
            0.3545021,
            -1.588156,
            -0.6049289,
            0.2178501,
            -0.2673354,
            0.3087892,
        ],
        (0.05159103305319419, 1.0981863988757152),
    ),
}


def shapes_of(network, in_channels, size=8):
    condition = {"label": jnp.zeros(1, jnp.int32)} if network.num_classes else None
    x = jnp.zeros((1, size, size, in_channels))
    return jax.eval_shape(network.init, jax.random.key(0), x, jnp.zeros(1), condition)


def with_variance(network):
    return jax.jit(functools.partial(network.apply, method="mean_and_variance"))


def tensors_for(mapping, shapes):
    """`named_weights` for every tensor of the mapping."""
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    return named_weights({name: tensor.shape for name, tensor in to_tensors(zeros, mapping).items()})


@functools.cache
def facebook(case):
    """The network, and the tensors of a file, made of the settings alone."""
    settings, out_channels, *_ = FACEBOOK[case]
    network = DiT(
        width=settings["hidden_size"],
        depth=settings["depth"],
        num_heads=settings["num_heads"],
        patch_size=settings["patch_size"],
        num_classes=settings["num_classes"],
        learned_variance=out_channels == 2 * settings["in_channels"],
    )
    shapes = shapes_of(network, settings["in_channels"], settings["input_size"])
    tensors = tensors_for(dit.facebook_mapping(network, settings["in_channels"]), shapes)
    return network, shapes, tensors | dit.facebook_positions(network, settings["input_size"] // settings["patch_size"])


@pytest.mark.parametrize("case", FACEBOOK)
def test_outputs_are_those_of_facebookresearch(case):
    settings, out_channels, expected, moments = FACEBOOK[case]
    size, in_channels, num_classes = settings["input_size"], settings["in_channels"], settings["num_classes"]
    _, shapes, tensors = facebook(case)
    network = dit.from_facebook_tensors(tensors, num_heads=settings["num_heads"])
    assert network == facebook(case)[0]
    weights = dit.drop_facebook_positions(tensors, network)
    variables = to_variables(weights, dit.facebook_mapping(network, in_channels), shapes)
    x = named_normal("x", 4, size, size, in_channels)
    y = with_variance(network)(variables, x, LEVELS, {"label": np.array([0, 1, 2, num_classes])})
    assert y.shape == (4, size, size, out_channels)
    got = [y[i % 4, (3 * i + 1) % size, (5 * i + 2) % size, (i * i + i // 4) % out_channels] for i in range(12)]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * moments[1])
    np.testing.assert_allclose([np.mean(y), np.std(y)], moments, rtol=1e-4, atol=1e-5)


def test_fixed_positions_are_those_of_facebookresearch():
    """Its pos_embed[0, [1, 3, 5, 7], [0, 6, 13, 20]] for 4 x 4 patches of 32 features and for 3 x 3 of 24."""
    network, _, tensors = facebook("patch 2, learned variance")
    places = ([1, 3, 5, 7], [0, 6, 13, 20])
    np.testing.assert_allclose(
        tensors["pos_embed"][0][places], [0.841471, 0.002999996, 0.999995, 0.009999833], atol=1e-6
    )
    _, _, other = facebook("patch 4, no learned variance")
    np.testing.assert_allclose(other["pos_embed"][0][places], [0.841471, 1.0, 0.2137807, 0.9956942], atol=1e-6)
    with pytest.raises(WeightsError, match="pos_embed is not the fixed"):
        dit.drop_facebook_positions(tensors | {"pos_embed": tensors["pos_embed"] + 0.01}, network)


def test_there_and_back_is_the_identity():
    network, shapes, tensors = facebook("patch 2, learned variance")
    mapping = dit.facebook_mapping(network, 4)
    back = to_tensors(to_variables(dit.drop_facebook_positions(tensors, network), mapping, shapes), mapping)
    back |= dit.facebook_positions(network, 4)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


@pytest.mark.thorough
# Parameters that require a gradient, of facebookresearch/DiT's DiT_S_2() ... DiT_XL_2() at the commit above; the paper's
# table 1 has them in millions: 33, 130, 458 and 675.
@pytest.mark.parametrize("size, count", [("S", 32865056), ("B", 130315808), ("L", 457840672), ("XL", 674834720)])
def test_full_sizes_have_the_published_number_of_parameters(size, count):
    network = DiT(**SIZES[size], num_classes=1000, learned_variance=True)
    shapes = shapes_of(network, 4, 32)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    mapping = dit.facebook_mapping(network, 4)
    assert set(mapping) == set(_paths(shapes))


def test_diffusers_repeats_the_embedding_in_every_block():
    """The count is that of DiTTransformer2DModel(out_channels=8), diffusers 0.42.1: DiT-XL/2 and 27 more embeddings."""
    shapes = shapes_of(dit.from_diffusers_config({"out_channels": 8}), 4, 32)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 749826464


def _paths(shapes):
    return [tuple(key.key for key in path) for path, _ in jax.tree_util.tree_flatten_with_path(shapes)[0]]


def test_outputs_are_those_of_diffusers_at_its_own_size_and_at_another():
    """Every block with an embedding of its own, as a file may have it; positions stretch at another size."""
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[interop]'")
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[interop]'")
    peer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        num_embeds_ada_norm=5,
        norm_eps=0.1,  # the usual 1e-5 is lost in the tolerance
    ).eval()
    tensors = named_weights({name: tuple(tensor.shape) for name, tensor in peer.state_dict().items()})
    peer.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    network = dit.from_diffusers_config(dict(peer.config))
    mapping = dit.diffusers_mapping(network, 4)
    variables = to_variables(tensors, mapping, shapes_of(network, 4))
    label = np.array([0, 1, 2, 5])
    for size in (8, 12):
        x = named_normal("x", 4, size, size, 4)
        with torch.no_grad():
            images, levels = torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(LEVELS)
            expected = peer(images, levels, torch.from_numpy(label)).sample.permute(0, 2, 3, 1).numpy()
        y = with_variance(network)(variables, x, LEVELS, {"label": label})
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4 * expected.std())
    back = to_tensors(variables, mapping)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


# DiT-XL/2 for 256 pixels, as a config.json of diffusers' older class tells it.
XL = {
    "_class_name": "Transformer2DModel",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 72,
    "in_channels": 4,
    "norm_type": "ada_norm_zero",
    "num_attention_heads": 16,
    "num_embeds_ada_norm": 1000,
    "num_layers": 28,
    "out_channels": 8,
    "patch_size": 2,
    "sample_size": 32,
}


def test_a_diffusers_config_gives_its_network():
    network = dit.from_diffusers_config(XL, dtype="bfloat16")
    assert network == dit.from_diffusers_config({"out_channels": 8}, dtype="bfloat16")
    assert {name: getattr(network, name) for name in SIZES["XL"]} == SIZES["XL"]
    assert (network.learned_variance, network.num_classes, network.position_span) == (True, 1000, 16)
    assert network.mlp_norm_epsilon == 1e-5
    for key, value in {"norm_type": "layer_norm", "activation_fn": "gelu", "attention_bias": False}.items():
        with pytest.raises(ValueError, match=f"{key}={value!r}"):
            dit.from_diffusers_config(XL | {key: value})


def test_a_mapping_names_what_the_peer_has_not():
    for options in ({"num_classes": 3, "positions": "rotary"}, {}, {"num_classes": 3, "block_embeddings": True}):
        with pytest.raises(ValueError, match="facebookresearch/DiT has"):
            dit.facebook_mapping(DiT(**options), 3)
    with pytest.raises(ValueError, match="DiTTransformer2DModel has"):
        dit.diffusers_mapping(DiT(num_classes=3), 3)
    with pytest.raises(WeightsError, match=r"missing: x_embedder\.proj\.weight"):
        dit.from_facebook_tensors({})
