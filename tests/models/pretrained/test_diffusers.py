"""diffusers' UNet2DModel, run here: the same outputs from its weights, and its config.json understood or refused by key."""

import functools
import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from models.pretrained.diffusers import DEFAULTS, Facts, from_config, has_old_names, mapping, to_config
from models.pretrained.mapping import to_tensors, to_variables
from tests.models.pretrained.named import named_normal, named_weights

# config.json of google/ddpm-cifar10-32 (https://huggingface.co/google/ddpm-cifar10-32), less the names of files.
CIFAR10 = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.0.4",
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [128, 256, 256, 256],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 32,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}
# google/ddpm-church-256, and the others of 256 px: the same but for these.
CHURCH = CIFAR10 | {
    "block_out_channels": [128, 128, 256, 256, 512, 512],
    "down_block_types": ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
    "sample_size": 256,
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4,
}
# unet/config.json of openai/diffusers-cd_imagenet64_l2 (https://huggingface.co/openai/diffusers-cd_imagenet64_l2), less what
# is diffusers' default.
CONSISTENCY = {
    "attention_head_dim": 64,
    "attn_norm_num_groups": 32,
    "block_out_channels": [192, 384, 576, 768],
    "down_block_types": ["ResnetDownsampleBlock2D"] + ["AttnDownBlock2D"] * 3,
    "downsample_type": "resnet",
    "layers_per_block": 3,
    "num_class_embeds": 1000,
    "resnet_time_scale_shift": "scale_shift",
    "sample_size": 64,
    "up_block_types": ["AttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"],
    "upsample_type": "resnet",
}
# The networks that run: the published ones at reduced width, and the other things that UNet2DModel can be.
REDUCED = {
    "ddpm": CIFAR10
    | {
        "block_out_channels": [32, 64],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "sample_size": 8,
    },
    "adm": CONSISTENCY
    | {
        "attention_head_dim": 16,
        "block_out_channels": [32, 96],
        "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
        "layers_per_block": 1,
        "num_class_embeds": 5,
        "out_channels": 6,
        "sample_size": [8, 12],
        "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"],
    },
    # diffusers' defaults, and images to condition on.
    "defaults": {
        "block_out_channels": [24, 16],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "in_channels": 5,
        "norm_num_groups": 8,
        "sample_size": 8,
        "add_attention": False,
    },
}
LEVELS = np.array([0, 37, 420, 999])


def inputs(facts, classes, batch=4):
    x = named_normal("x", batch, facts.in_channels, *facts.image_size).transpose(0, 2, 3, 1).copy()
    x[3:] *= 0.03  # where the norms' epsilon counts
    return x, jnp.asarray(LEVELS[:batch], jnp.float32), {"label": jnp.arange(batch)} if classes else None


def shapes_of(network, facts):
    return jax.eval_shape(network.init, jax.random.key(0), *inputs(facts, network.num_classes, 1))


@functools.cache
def imported(case):
    """The network, the mapping, the peer's tensors and the variables made of them."""
    network, facts = from_config(REDUCED[case])
    shapes = shapes_of(network, facts)
    where = mapping(network, shapes)
    theirs = to_tensors(jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), shapes), where)
    tensors = named_weights({name: tensor.shape for name, tensor in theirs.items()})
    return network, facts, where, tensors, to_variables(tensors, where, shapes)


@pytest.mark.parametrize("case", REDUCED)
def test_outputs_and_names_are_those_of_diffusers(case):
    torch = pytest.importorskip("torch", reason="parity runs the peer's code: torch and diffusers")
    diffusers = pytest.importorskip("diffusers", reason="parity runs the peer's code: torch and diffusers")
    network, facts, _, tensors, variables = imported(case)
    peer = diffusers.UNet2DModel.from_config({k: v for k, v in REDUCED[case].items() if not k.startswith("_")}).eval()
    peer.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    x, levels, condition = inputs(facts, network.num_classes)
    with torch.no_grad():
        labels_there = torch.from_numpy(np.array(condition["label"])) if condition else None
        expected = peer(
            torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(LEVELS), labels_there
        ).sample.numpy()
    apply = jax.jit(functools.partial(network.apply, method="mean_and_variance"))
    ours = np.asarray(apply(variables, x, levels, condition)).transpose(0, 3, 1, 2)
    assert expected.std() > 0.1
    np.testing.assert_allclose(ours, expected, atol=1e-4 * expected.std())


def test_old_files_name_the_layers_of_attention_otherwise():
    """As diffusers itself translates them: query, key, value and proj_attn."""
    network, facts, where, tensors, _ = imported("ddpm")
    shapes = shapes_of(network, facts)
    old = {}
    for name, tensor in tensors.items():
        for new, theirs in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f".{new}.", f".{theirs}.")
        old[name] = tensor
    assert has_old_names(old) and not has_old_names(tensors)
    expected = to_variables(tensors, where, shapes)
    given = to_variables(old, mapping(network, shapes, old_names=True), shapes)
    jax.tree.map(np.testing.assert_array_equal, given, expected)


@pytest.mark.parametrize("case", REDUCED)
def test_the_import_of_an_export_is_the_identity(case):
    network, facts, where, tensors, variables = imported(case)
    back = to_tensors(variables, where)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)
    config = json.loads(json.dumps(to_config(network, facts)))
    assert from_config(config) == (network, facts)
    given = json.loads(json.dumps(DEFAULTS | REDUCED[case]))
    differing = {key for key in DEFAULTS if config[key] != given[key]}
    assert differing <= {"attn_norm_num_groups"}  # None there means norm_num_groups


@pytest.mark.parametrize(
    "config, name, options, count",
    [
        (CIFAR10, "ddpm", {}, 35746307),
        (CHURCH, "ddpm", {"channel_multipliers": (1, 1, 2, 2, 4, 4)}, 113673219),
        (CONSISTENCY, "adm", {"num_classes": 1000}, 295899267),
    ],
    ids=["cifar10", "church", "consistency"],
)
def test_published_files_are_the_papers_networks(config, name, options, count):
    """35.7 M and 114 M in DDPM's appendix B; the counts are those of diffusers' own networks. None of them has dropout."""
    network, facts = from_config(config)
    paper = models.create(name, **options, dropout=0.0)
    assert {k: getattr(paper, k) for k in models.options("unet")} == {
        k: getattr(network, k) for k in models.options("unet")
    }
    shapes = shapes_of(network, facts)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    assert mapping(network, shapes)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"time_embedding_type": "fourier"},
            "time_embedding_type='fourier' has no counterpart here: only 'positional'",
        ),
        ({"freq_shift": 0}, "freq_shift=0 has no counterpart here: only 1"),
        ({"center_input_sample": True}, "center_input_sample=True"),
        ({"mid_block_type": None}, "mid_block_type=None"),
        ({"act_fn": "gelu"}, "act_fn='gelu'"),
        (
            {"down_block_types": ["SkipDownBlock2D"] * 4},
            "down_block_types='SkipDownBlock2D' has no counterpart here: only DownB",
        ),
        ({"up_block_types": ["UpBlock2D"] * 4}, "up_block_types=.* only attention at the levels of down_block_types"),
        ({"up_block_types": ["UpBlock2D"] * 3}, "up_block_types=.* only 4 blocks"),
        ({"downsample_type": "resnet"}, "downsample_type='resnet' .* in the whole network"),
        ({"sample_size": None}, "sample_size=None has no counterpart here: only a number"),
        ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups=None has no counterpart here: only 32"),
        ({"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        ({"_class_name": "Transformer2DModel"}, "_class_name='Transformer2DModel'"),
        ({"norm_groups": 8}, "'norm_groups' is not a key of UNet2DModel"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_expressed_is_refused_by_its_key(change, message):
    with pytest.raises(ValueError, match=message):
        from_config(CIFAR10 | change)


def test_keys_of_moving_averages_and_those_of_the_first_release_are_understood():
    blocks = {key: [f"UNetRes{name}" for name in CIFAR10[key]] for key in ("down_block_types", "up_block_types")}
    assert from_config(CIFAR10 | blocks | {"decay": 0.9999, "power": 0.75}) == from_config(CIFAR10)


def test_networks_that_the_peer_does_not_have_are_refused():
    facts = Facts((32, 32), 3)
    for options, message in (
        ({"resampling": "conv"}, "no network with resampling='conv', only with 'block' or"),
        ({"up_attention": "level"}, "up_attention='level'"),
        ({"num_heads": 4}, "num_heads=4"),
        ({"norm_groups": 0}, "norm_groups=0"),
    ):
        with pytest.raises(ValueError, match=message):
            to_config(models.create("ddpm", **options), facts)


def test_defaults_of_a_config_are_those_of_diffusers():
    peer = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[interop]'")
    found = {name: p.default for name, p in inspect.signature(peer.UNet2DModel.__init__).parameters.items()}
    del found["self"]
    assert found == DEFAULTS
