"""Settings of the peers: each argument is one option of ours, absent ones have the peer's defaults, others are refused."""

import contextlib

import numpy as np
import pytest

import models
from models.dit import DiT
from models.pretrained import (
    dhariwal_unet,
    diffusers,
    diffusers_ncsnpp,
    dit,
    edm2,
    guided_diffusion,
    score_sde,
    score_sde_ddpm,
    song_unet,
)
from models.pretrained.mapping import WeightsError
from tests.models.pretrained.test_diffusers import CIFAR10, REDUCED
from tests.models.pretrained.test_diffusers_ncsnpp import SMALL

REQUIRED = {"img_resolution": 8, "in_channels": 3, "out_channels": 3}


# For each of NVlabs' networks: the options that its own defaults make (training/networks.py of NVlabs/edm at commit
# 008a4e5316, training/networks_edm2.py of NVlabs/edm2 at commit 4bf8162f60), and for each argument with another value the
# options that it changes.
SONG_UNET = {
    "channels": 128, "channel_multipliers": (1, 2, 2, 2), "blocks_per_level": 4, "attention_resolutions": (16,),
    "dropout": 0.1, "num_classes": 0, "augment_features": 0, "out_channels": 0, "fir": False, "embedding": "positional",
    "progressive_input": "none", "progressive": "none", "skip_rescale": True, "resblock_type": "biggan", "centered": True,
    "scale_by_sigma": False, "conditional": True,
}  # fmt: skip
SONG_UNET_CHANGES = [
    ({"model_channels": 64}, {"channels": 64}),
    ({"channel_mult": [2, 3]}, {"channel_multipliers": (2, 3)}),
    ({"num_blocks": 2}, {"blocks_per_level": 2}),
    ({"attn_resolutions": [8, 4]}, {"attention_resolutions": (8, 4)}),
    ({"dropout": 0.3}, {"dropout": 0.3}),
    ({"label_dim": 7}, {"num_classes": 7}),
    ({"augment_dim": 9}, {"augment_features": 9}),
    ({"out_channels": 5}, {"out_channels": 5}),
    ({"out_channels": 6}, {"out_channels": 6}),
    ({"label_dropout": 0.1}, {}),
    ({"embedding_type": "fourier", "channel_mult_noise": 2}, {"embedding": "fourier"}),
    ({"encoder_type": "residual"}, {"progressive_input": "residual"}),
    ({"encoder_type": "skip"}, {"progressive_input": "input_skip"}),
    ({"decoder_type": "skip"}, {"progressive": "output_skip"}),
    ({"resample_filter": [1, 3, 3, 1]}, {"fir": True, "fir_kernel": (1, 3, 3, 1)}),
    ({"resample_filter": [1, 2, 1]}, {"fir": True, "fir_kernel": (1, 2, 1)}),
]
DHARIWAL_UNET = {
    "channels": 192, "channel_multipliers": (1, 2, 3, 4), "blocks_per_level": 3, "attention_resolutions": (32, 16, 8),
    "dropout": 0.1, "num_classes": 0, "augment_features": 0, "out_channels": 0, "learned_variance": False,
    "head_channels": 64, "norm_groups": 0, "norm_epsilon": 1e-5, "embedding": "positional_adm", "resampling": "block",
    "scale_shift": True,
}  # fmt: skip
DHARIWAL_UNET_CHANGES = [
    *(change for change in SONG_UNET_CHANGES[:8]),
    ({"out_channels": 6}, {"learned_variance": True}),
    ({"in_channels": 6}, {"out_channels": 3}),
    ({"label_dropout": 0.1}, {}),
]
EDM2 = {
    "channels": 192, "channel_multipliers": (1, 2, 3, 4), "blocks_per_level": 3, "attention_resolutions": (16, 8),
    "head_channels": 64, "dropout": 0.0, "num_classes": 0, "fourier_channels": 0, "embedding_channels": 0,
    "class_balance": 0.5, "concat_balance": 0.5, "residual_balance": 0.3, "attention_balance": 0.3, "clip": 256.0,
}  # fmt: skip
EDM2_CHANGES = [
    *(change for change in SONG_UNET_CHANGES[:6]),
    ({"channels_per_head": 32}, {"head_channels": 32}),
    ({"label_balance": 0.6}, {"class_balance": 0.6}),
    ({"concat_balance": 0.7}, {"concat_balance": 0.7}),
    ({"res_balance": 0.4}, {"residual_balance": 0.4}),
    ({"attn_balance": 0.2}, {"attention_balance": 0.2}),
    ({"clip_act": None}, {"clip": None}),
    ({"channel_mult_noise": 0.5}, {"fourier_channels": 96}),
    ({"channel_mult_noise": 2, "model_channels": 32}, {"fourier_channels": 64, "channels": 32}),
    ({"channel_mult_emb": 3}, {"embedding_channels": 576}),
    ({"channel_mult_noise": None, "channel_mult_emb": None}, {}),
    ({"resample_filter": [1, 1]}, {}),
    ({"img_channels": 4}, {}),
]
PEERS = {
    "song_unet": (song_unet.from_settings, SONG_UNET, SONG_UNET_CHANGES, REQUIRED),
    "dhariwal_unet": (dhariwal_unet.from_settings, DHARIWAL_UNET, DHARIWAL_UNET_CHANGES, REQUIRED),
    "edm2": (edm2.from_settings, EDM2, EDM2_CHANGES, {"img_resolution": 8, "img_channels": 3}),
}


@pytest.mark.parametrize("peer", PEERS)
def test_each_argument_of_a_peer_is_an_option_and_absent_ones_have_its_defaults(peer):
    build, defaults, changes, required = PEERS[peer]
    for given, options in [({}, {}), *changes]:
        network = build(required | given)
        assert {option: getattr(network, option) for option in defaults | options} == defaults | options, given


@pytest.mark.parametrize(
    "build, settings, message",
    [
        (song_unet.from_settings, {"decoder_type": "residual"}, "decoder_type='residual' .* only 'standard', 'skip'$"),
        (song_unet.from_settings, {"channel_mult_noise": 2}, "channel_mult_noise=2 has no counterpart here: only 1$"),
        (song_unet.from_settings, {"channel_mult_emb": 2}, "channel_mult_emb=2 has no counterpart here: only 4$"),
        (song_unet.from_settings, {"embedding_type": "learned"}, "embedding_type='learned'"),
        (edm2.from_settings, {"resample_filter": [1, 3]}, r"resample_filter=\[1, 3\] has no counterpart"),
        (edm2.from_settings, {"quux": 3}, "UNet: quux=3 has no counterpart here"),
    ],
)
def test_arguments_that_are_no_option_are_named(build, settings, message):
    with pytest.raises(ValueError, match=message):
        build((REQUIRED if build is song_unet.from_settings else {}) | settings)


@pytest.mark.parametrize(
    "change, options",
    [
        ({"act_fn": "swish"}, {}),
        ({"time_embedding_dim": 512}, {}),
        ({"mid_block_scale_factor": 1.0}, {}),
        ({"downsample_padding": 1}, {"resampling": "strided_symmetric"}),
        ({"flip_sin_to_cos": True, "freq_shift": 0}, {"embedding": "positional_adm"}),
        ({"norm_eps": 1e-4}, {"norm_epsilon": 1e-4}),
        ({"dropout": 0.2}, {"dropout": 0.2}),
        ({"num_class_embeds": 9}, {"num_classes": 9}),
        ({"attention_head_dim": 32}, {"head_channels": 32}),
        ({"add_attention": False}, {"middle_attention": False}),
        ({"block_out_channels": [128, 64, 192, 128]}, {"channel_multipliers": (1, 0.5, 1.5, 1)}),
        ({"out_channels": 6}, {"learned_variance": True}),
        ({"out_channels": 2}, {"out_channels": 2}),
        ({"sample_size": [64, 32]}, {"attention_resolutions": (32,)}),
        ({"layers_per_block": 3}, {"blocks_per_level": 3}),
        ({"_anything": 3, "use_ema_warmup": True, "decay": 0.9, "power": 0.7, "inv_gamma": 1.0, "min_decay": 0.0}, {}),
        ({"optimization_step": 3, "update_after_step": 0}, {}),
    ],
    ids=lambda value: next(iter(value), ""),
)
def test_each_key_of_a_config_is_an_option_and_comes_back(change, options):
    network, facts = diffusers.from_config(CIFAR10 | change)
    usual, _ = diffusers.from_config(CIFAR10)
    assert network == usual.clone(**options)
    size = change.get("sample_size", 32)
    assert facts == diffusers.Facts((size, size) if isinstance(size, int) else tuple(size), 3)
    config = diffusers.to_config(network, facts)
    assert config["sample_size"] == size and config["attn_norm_num_groups"] == config["norm_num_groups"] == 32
    assert diffusers.from_config(config) == (network, facts)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"time_embedding_dim": 128}, "time_embedding_dim=128 .* only None or 512$"),
        ({"mid_block_scale_factor": 2}, "mid_block_scale_factor=2 .* only 1$"),
        ({"downsample_padding": 2}, "downsample_padding=2 .* only 0 or 1$"),
        ({"attn_norm_num_groups": 8}, "attn_norm_num_groups=8 .* only 32 or None$"),
        ({"downsample_type": "avg"}, "downsample_type='avg'"),
    ],
)
def test_values_of_a_config_without_a_counterpart_are_named(change, message):
    types = {"down_block_types": ["AttnDownBlock2D"] * 4, "up_block_types": ["AttnUpBlock2D"] * 4}
    with pytest.raises(ValueError, match=message):
        diffusers.from_config(CIFAR10 | types | change)


def test_a_config_without_attention_needs_no_size_and_its_export_does():
    types = {"down_block_types": ["DownBlock2D"] * 4, "up_block_types": ["UpBlock2D"] * 4}
    network, facts = diffusers.from_config(CIFAR10 | types | {"sample_size": None})
    assert network.attention_resolutions == () and facts.image_size is None
    with pytest.raises(ValueError, match=r"config.json needs the image size"):
        diffusers.to_config(network, facts)


# Each option that a peer has in one form only, with another value; the rest of the network is the peer's.
GUIDED = {
    "embedding": "fourier", "norm_groups": 16, "norm_epsilon": 1e-6, "resampling": "conv", "middle_attention": False,
    "up_attention": "level", "augment_features": 9,
}  # fmt: skip
SCORE_SDE = {
    "embedding": "positional_adm", "norm_groups": 0, "norm_epsilon": 1e-5, "resampling": "block", "scale_shift": True,
    "middle_attention": False, "up_attention": "block", "num_heads": 2, "head_channels": 32, "num_classes": 3,
    "augment_features": 9, "learned_variance": True,
}  # fmt: skip
DIFFUSERS = {"embedding": "fourier", "resampling": "plain", "up_attention": "level", "augment_features": 9}


@pytest.mark.parametrize(
    "network, mapping, odd",
    [
        (models.create("adm"), lambda n: guided_diffusion.mapping(n, {}, new_attention_order=True), GUIDED),
        (models.create("ddpm", up_attention="level"), lambda n: score_sde_ddpm.torch_mapping(n, {}), SCORE_SDE),
        (models.create("ddpm", up_attention="level"), lambda n: score_sde_ddpm.jax_mapping(n, {}), SCORE_SDE),
        (models.create("ddpm"), lambda n: diffusers.mapping(n, {}), DIFFUSERS),
    ],
    ids=["guided-diffusion", "score_sde torch", "score_sde jax", "diffusers"],
)
def test_each_option_that_a_peer_lacks_is_refused_by_its_name(network, mapping, odd):
    with contextlib.suppress(
        KeyError
    ):  # all else is allowed: the mapping goes on to the weights, of which here are none
        mapping(network)
    for option, value in odd.items():
        with pytest.raises(ValueError, match=f"has no network with {option}={value!r}, only with "):
            mapping(network.clone(**{option: value}))


@pytest.mark.parametrize("option", ["num_classes", "augment_features"])
@pytest.mark.parametrize("mapping", [score_sde.torch_mapping, score_sde.jax_mapping])
def test_networks_of_score_sde_have_neither_classes_nor_augmentation(mapping, option):
    with pytest.raises(ValueError, match="have no num_classes and no augment_features"):
        mapping(models.create("ncsnpp", **{option: 3}), {})


def test_buffers_of_score_sde_are_no_parameters():
    assert score_sde.named_model({"module.sigmas": 1, "sigmas": 2, "module.all_modules.0.W": 3, "module.x": 4}) == {
        "all_modules.0.W": 3,
        "x": 4,
    }


NCSNPP_ODD = {
    "center_input_sample": False, "time_embedding_type": "positional", "time_embedding_dim": 64, "mid_block_type": None,
    "act_fn": "gelu", "attention_head_dim": 8, "norm_num_groups": 32, "attn_norm_num_groups": 32, "norm_eps": 1e-5,
    "resnet_time_scale_shift": "scale_shift", "add_attention": False, "class_embed_type": "timestep",
    "num_class_embeds": 3, "in_channels": 1, "out_channels": 6, "mid_block_scale_factor": 1.5, "sample_size": [16, 16],
}  # fmt: skip


def test_each_key_that_ncsnpp_has_in_one_form_only_is_refused_otherwise():
    for key, value in NCSNPP_ODD.items():
        with pytest.raises(ValueError, match=f"config.json: {key}="):
            diffusers_ncsnpp.from_config(SMALL | {key: value})
    swapped = {"down_block_types": SMALL["up_block_types"], "up_block_types": SMALL["down_block_types"]}
    for key in swapped:
        with pytest.raises(
            ValueError, match=f"config.json: {key}='SkipUpBlock2D'|config.json: {key}='SkipDownBlock2D'"
        ):
            diffusers_ncsnpp.from_config(SMALL | {key: swapped[key]})
    with pytest.raises(ValueError, match="up_block_types="):
        diffusers_ncsnpp.from_config(SMALL | {"block_out_channels": [64, 128]})


def test_each_key_of_a_config_of_ncsnpp_is_an_option():
    network, facts = diffusers_ncsnpp.from_config(SMALL)
    assert facts == diffusers.Facts((16, 16), 3)
    expected = {
        "channels": 64, "channel_multipliers": (1, 2, 2), "blocks_per_level": 1, "attention_resolutions": (8,),
        "dropout": 0.0, "progressive": "output_skip", "progressive_input": "input_skip",
    }  # fmt: skip
    assert network == models.create("ncsnpp", **expected)
    for change, options in (
        ({"act_fn": "swish", "time_embedding_dim": 256, "mid_block_scale_factor": 1.4142135623}, {}),
        ({"dropout": 0.2, "layers_per_block": 3}, {"dropout": 0.2, "blocks_per_level": 3}),
        ({"sample_size": 64}, {"attention_resolutions": (32,)}),
    ):
        assert diffusers_ncsnpp.from_config(SMALL | change)[0] == models.create("ncsnpp", **expected | options)
    assert diffusers_ncsnpp.has_skip_blocks(SMALL) and not diffusers_ncsnpp.has_skip_blocks(REDUCED["ddpm"])
    assert diffusers_ncsnpp.has_skip_blocks({"up_block_types": ["UpBlock2D", "AttnSkipUpBlock2D"]})
    assert not diffusers_ncsnpp.has_skip_blocks({})


DIT_ODD = {
    "norm_type": "layer_norm", "activation_fn": "gelu", "attention_bias": False, "norm_elementwise_affine": True,
    "cross_attention_dim": 8, "double_self_attention": True, "only_cross_attention": True, "num_vector_embeds": 8,
}  # fmt: skip
DIT_CHANGES = [
    ({}, {}),
    ({"num_attention_heads": 8}, {"width": 576, "num_heads": 8}),
    ({"attention_head_dim": 64}, {"width": 1024}),
    ({"in_channels": 3}, {}),
    ({"out_channels": 8}, {"learned_variance": True}),
    ({"out_channels": 4}, {}),
    ({"out_channels": 3}, {"out_channels": 3}),
    ({"num_layers": 12}, {"depth": 12}),
    ({"dropout": 0.2}, {"dropout": 0.2}),
    ({"sample_size": 64}, {"position_span": 32}),
    ({"patch_size": 4}, {"patch_size": 4, "position_span": 8}),
    ({"num_embeds_ada_norm": 10}, {"num_classes": 10}),
    ({"norm_eps": 1e-4}, {"mlp_norm_epsilon": 1e-4}),
]


def test_each_key_of_a_config_of_dit_is_an_option_and_comes_back():
    usual = DiT(
        width=1152, depth=28, num_heads=16, num_classes=1000, position_span=16, frequencies="ddpm", block_embeddings=True,
        mlp_norm_epsilon=1e-5,
    )  # fmt: skip
    for change, options in DIT_CHANGES:
        network = dit.from_diffusers_config(change)
        assert network == usual.clone(**options)
        in_channels, size = change.get("in_channels", 4), change.get("sample_size", 32)
        config = dit.to_diffusers_config(network, in_channels, size)
        assert dit.from_diffusers_config(config) == network
        assert {key: config[key] for key in change} == change and config["sample_size"] == size
    for key, value in DIT_ODD.items():
        assert dit.from_diffusers_config({key: dit.ONLY[key][0]}) == usual
        with pytest.raises(ValueError, match=f"{key}={value!r} is not supported by diffusers' DiT"):
            dit.from_diffusers_config({key: value})


def test_transformers_that_a_peer_lacks_are_named():
    network = dit.from_diffusers_config({})
    for option, value in {"block_embeddings": False, "null_class": False, "positions": "rotary"}.items():
        with pytest.raises(
            ValueError, match=rf"DiTTransformer2DModel has an embedding in each block.*{option}={value!r}"
        ):
            dit.diffusers_mapping(network.clone(**{option: value}), 4)
    with pytest.raises(ValueError, match=r"DiTTransformer2DModel has an embedding in each block.*num_classes=0"):
        dit.diffusers_mapping(network.clone(num_classes=0), 4)
    for option, value, only in (("frequencies", "dit", "ddpm"), ("mlp_ratio", 2.0, 4.0), ("position_span", 0, 16)):
        with pytest.raises(ValueError, match=f"no network with {option}={value!r}, only with {only!r}"):
            dit.to_diffusers_config(network.clone(**{option: value}), 4, 32)
    plain = DiT(num_classes=3)
    assert dit.facebook_mapping(plain, 4)
    for option, value in {"block_embeddings": True, "positions": "rotary", "num_classes": 0}.items():
        with pytest.raises(ValueError, match=f"facebookresearch/DiT has one embedding.*{option}={value!r}"):
            dit.facebook_mapping(plain.clone(**{option: value}), 4)


def facebook_shapes(width=384, depth=11, patch=4, channels=3, rows=6, outputs=96, hidden=1536, positions=9):
    """Tensors of a file of facebookresearch/DiT as far as they say its sizes; depth is the number of its last block."""
    return {
        "x_embedder.proj.weight": np.zeros((width, channels, patch, patch)),
        "y_embedder.embedding_table.weight": np.zeros((rows, width)),
        "final_layer.linear.weight": np.zeros((outputs, width)),
        "blocks.0.mlp.fc1.weight": np.zeros((hidden, width)),
        **{f"blocks.{i}.attn.proj.bias": np.zeros(width) for i in (2, depth, 9)},
        "pos_embed": np.zeros((1, positions, width)),
    }


def test_the_sizes_of_a_transformer_are_those_of_its_tensors():
    usual = DiT(depth=12, num_heads=6, patch_size=4, num_classes=5, learned_variance=True)
    for given, options, expected in (
        ({}, {}, {}),
        ({}, {"null_class": False}, {"null_class": False, "num_classes": 6}),
        ({"outputs": 48}, {}, {"learned_variance": False}),
        ({"depth": 10}, {}, {"depth": 11}),
        ({"hidden": 768}, {}, {"mlp_ratio": 2.0}),
        ({"width": 768, "hidden": 3072}, {}, {"width": 768, "num_heads": 12}),
        ({"width": 1024, "hidden": 4096}, {}, {"width": 1024, "num_heads": 16}),
        ({"width": 1152, "hidden": 4608}, {}, {"width": 1152, "num_heads": 16}),
        ({"width": 32, "hidden": 128}, {"num_heads": 4}, {"width": 32, "num_heads": 4}),
        ({}, {"dtype": "bfloat16"}, {"dtype": "bfloat16"}),
    ):
        assert dit.from_facebook_tensors(facebook_shapes(**given), **options) == usual.clone(**expected)
    assert dit.facebook_input(facebook_shapes(), usual) == (12, 3)
    assert dit.facebook_input(facebook_shapes(patch=2, positions=64, channels=4), usual.clone(patch_size=2)) == (16, 4)
    for given, message in (
        ({"width": 36, "hidden": 144}, r"of width 36, .* 384 \(S\), 768 \(B\), 1024 \(L\), 1152 \(XL\) are known"),
        ({"outputs": 49}, "49 outputs: only 48 for the input's 3 channels, or 96 with a variance"),
        ({"outputs": 144}, "144 outputs"),
    ):
        with pytest.raises(WeightsError, match=message):
            dit.from_facebook_tensors(facebook_shapes(**given))
    with pytest.raises(WeightsError, match=r"blocks.0.mlp.fc1.weight has shape \(3,\), not 2 axes"):
        dit.from_facebook_tensors(facebook_shapes() | {"blocks.0.mlp.fc1.weight": np.zeros(3)})


def test_attention_of_a_published_width_has_heads_of_64_or_72_channels():
    """Table 1 of the paper: XL alone has 72."""
    assert {name: size["width"] // size["num_heads"] for name, size in dit.SIZES.items()} == {
        "S": 64,
        "B": 64,
        "L": 64,
        "XL": 72,
    }
    assert dit.SIZES["XL"] == {"width": 1152, "depth": 28, "num_heads": 16}
