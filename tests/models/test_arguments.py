"""Options and arguments at their limits: the last value that is allowed, and the first that is refused."""

import dataclasses
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from models import checks
from models.classifier import UNetClassifier, WideResNetClassifier
from models.edm2 import EDM2Block
from models.layers.attention import Attention
from models.layers.convolution import Conv
from models.layers.embedding import FourierEmbedding
from models.layers.frozen import FrozenConv, FrozenDense
from models.layers.instance_norm import InstanceNormPlus
from models.layers.magnitude import CosineAttention, MPConv
from models.layers.normalization import GroupNorm
from models.layers.refinenet import DilatedBlock, RefineBlock
from models.layers.residual import ResidualBlock


def traced(name, *size, condition=None, **options):
    """Shapes of a network's variables for two images of the size and three channels; nothing is computed."""
    network = models.create(name, **options)
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((2, *size, 3)), jnp.zeros(2), condition)


TINY = {"channels": 4, "blocks_per_level": 1, "attention_resolutions": ()}
TINY_UNET = TINY | {"middle_attention": False, "norm_groups": 1, "head_channels": 0}
TINY_CLASSIFIER = TINY | {"num_classes": 3, "head_channels": 4, "norm_groups": 0}
TINY_EDM2 = TINY | {"head_channels": 4}
TINY_DIT = {"depth": 1, "num_heads": 2, "width": 16}

# Network, options that do, options that do not, and what is said of these. The image is 8 x 8 unless "size" is among them.
LIMITS = [
    ("unet", TINY_UNET | {"channel_multipliers": (1, 1, 1, 1)}, {"size": (12, 8)}, "height 12 is not divisible by 8,"),
    ("unet", TINY_UNET | {"channel_multipliers": (1, 0.13)}, {"channel_multipliers": (1, 0.12)}, "0.12 of channels=4"),
    ("unet", TINY_UNET | {"channels": 4}, {"channels": 2}, "channels=2 must be even and at least 4 for embedding='pos"),
    ("unet", TINY_UNET | {"channels": 6}, {"channels": 5}, "channels=5 must be even and at least 4 for embedding='pos"),
    ("unet", TINY_UNET | {"embedding": "fourier", "channels": 3}, {"embedding": "positional_adm"}, "channels=3 must b"),
    ("unet", TINY_UNET | {"norm_groups": 2}, {"norm_groups": 3}, "GroupNorm: num_groups=3 does not divide 4 channels"),
    ("unet", TINY_UNET | {"norm_groups": 4}, {"norm_groups": 8}, "GroupNorm: num_groups=8 does not divide 4 channels"),
    ("unet", TINY_UNET | {"middle_attention": True, "num_heads": 4}, {"num_heads": 16}, "num_heads=16 does not divide"),
    ("unet", TINY_UNET | {"up_attention": "level"}, {"up_attention": "none"}, "up_attention='none' is unknown: choose"),
    ("unet", TINY_UNET, {"embedding": "discrete"}, "embedding='discrete' is unknown: choose from positional, position"),
    ("mlp", {"width": 4}, {"width": 2}, "MLP: width=2 must be even and at least 4 for embedding='positional'"),
    ("mlp", {"width": 4}, {"width": 7}, "MLP: width=7 must be even and at least 4 for embedding='positional'"),
    ("mlp", {"width": 6, "embedding": "fourier"}, {"width": 5}, "FourierEmbedding: features=5 must be even"),
    ("mlp", {"width": 4}, {"embedding": "discrete"}, "embedding='discrete' is unknown: choose from positional, fourie"),
    ("unet_classifier", TINY_CLASSIFIER | {"channel_multipliers": (1, 1, 1, 1)}, {"size": (8, 12)}, "width 12 is not"),
    ("unet_classifier", TINY_CLASSIFIER | {"channel_multipliers": (1, 1)}, {"head_channels": 3}, "head_channels=3 doe"),
    ("unet_classifier", TINY_CLASSIFIER | {"channel_multipliers": (1,)}, {"head_channels": 8}, "head_channels=8 does"),
    ("unet_classifier", TINY_CLASSIFIER | {"channel_multipliers": (1,)}, {"condition": 1}, "UNetClassifier: condition"),
    ("wideresnet_classifier", {"width": 1, "blocks_per_group": 1}, {"size": (6, 8)}, "height 6 is not divisible by 4,"),
    ("wideresnet_classifier", {"width": 1, "blocks_per_group": 1}, {"condition": 1}, "WideResNetClassifier: condition"),
    ("edm2", TINY_EDM2 | {"channel_multipliers": (1, 1, 1, 1)}, {"size": (8, 12)}, "width 12 is not divisible by 8, a"),
    ("edm2", TINY_EDM2 | {"channel_multipliers": (1,), "size": (7, 5)}, {"condition": 1}, "takes no condition, as num_"),
    ("ncsn", {"channels": 4, "channel_multipliers": (1,) * 4, "dilations": (1,) * 4}, {"size": (12, 8)}, "height 12 i"),
    ("ncsnv2", {"channels": 4, "channel_multipliers": (1, 1), "dilations": (1, 3)}, {"dilations": (2, 1)}, "must star"),
    ("ncsnv2", {"channels": 4, "channel_multipliers": (1, 1), "dilations": (1, 3)}, {"dilations": (1,)}, "one entry f"),
    ("ncsnpp", TINY | {"channel_multipliers": (1, 1, 1, 1)}, {"size": (8, 12)}, "width 12 is not divisible by 8, as 4"),
    ("ncsnpp", TINY | {"channel_multipliers": (1, 1), "fir_kernel": (1, 1)}, {"fir_kernel": (2,)}, "needs two taps or"),
    ("ncsnpp", TINY | {"fir": False, "fir_kernel": (2,), "channel_multipliers": (1, 1)}, {"fir": True}, "needs two ta"),
    ("ncsnpp", TINY | {"fir": False, "fir_kernel": (1, -1), "channel_multipliers": (1,)}, {"fir": True}, "needs a sum"),
    ("ncsnpp", TINY | {"channel_multipliers": (1,), "sigma_min": 50.0}, {"scale_by_sigma": True}, "less than sigma_ma"),
    ("ncsnpp", TINY | {"channel_multipliers": (1,), "sigma_min": 50.0}, {"embedding": "discrete"}, "less than sigma_m"),
    ("dit", TINY_DIT | {"mlp_ratio": 1 / 16}, {"mlp_ratio": 0.06}, "mlp_ratio=0.06 of width=16 leaves no feature in t"),
    ("dit", TINY_DIT | {"patch_size": 4}, {"size": (8, 10)}, "width 10 is not divisible by 4, as patches of 4 pixels"),
    ("dit", TINY_DIT, {"frequencies": "adm"}, "frequencies='adm' is unknown: choose from dit, ddpm"),
]  # fmt: skip


@pytest.mark.parametrize(
    "name, allowed, change, message", LIMITS, ids=[f"{row[0]} {next(iter(row[2]))}" for row in LIMITS]
)
def test_options_reach_their_limit_and_are_refused_beyond(name, allowed, change, message):
    def trace(options):
        options = dict(options)
        size, condition = options.pop("size", (8, 8)), options.pop("condition", None)
        condition = condition if condition is None else {"label": jnp.zeros(2, int)}
        if name == "mlp":
            network = models.create(name, **options)
            return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((2, 3)), jnp.zeros(2), condition)
        return traced(name, *size, condition=condition, **options)

    assert trace(allowed)["params"]
    with pytest.raises(ValueError, match=message):
        trace(allowed | change)


def test_hidden_features_and_widths_are_whole_numbers():
    """The MLP's of DiT are rounded down, as its peers do; widths of levels to the nearest."""
    params = traced("dit", 8, 8, **TINY_DIT, mlp_ratio=1.7)["params"]
    assert params["block_0"]["mlp_in"]["kernel"].shape == (16, 27)
    options = TINY_CLASSIFIER | {"channels": 10, "channel_multipliers": (0.46, 1.37), "head_channels": 1}
    params = traced("unet_classifier", 8, 8, **options)["params"]
    assert [params[name]["conv_out"]["kernel"].shape[-1] for name in ("down_0_0", "middle_0")] == [5, 14]


SETTINGS = {"embedding": "positional", "width": 4, "sigma_min": 0.1, "sigma_max": 2.0, "dropout": 0.0, "num_classes": 0}


def settings(**changes):
    return types.SimpleNamespace(**SETTINGS | changes)


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (2.0, 1.0)])
def test_noise_levels_rise_from_more_than_zero(low, high):
    checks.rising(settings(sigma_min=1e-6, sigma_max=2e-6))
    with pytest.raises(ValueError, match=f"sigma_min={low} must be more than 0 and less than sigma_max={high}"):
        checks.rising(settings(sigma_min=low, sigma_max=high))


def test_keys_are_used_where_training_drops_values_alone():
    keys = object()
    for train, rate, expected in ((True, 0.1, keys), (False, 0.1, None), (True, 0.0, None), (False, 0.0, None)):
        assert checks.dropout(settings(dropout=rate), train, keys) is expected
        if expected is None:
            assert checks.dropout(settings(dropout=rate), train, None) is None
    with pytest.raises(ValueError, match=r"train=True with dropout=0.1 needs dropout_keys, one key for each image"):
        checks.dropout(settings(dropout=0.1), True, None)


def test_conditions_are_there_where_there_are_classes():
    label = np.zeros(2, int)
    assert checks.condition(settings(), 2, None) == checks.condition(settings(), 2, {}) == {}
    assert checks.condition(settings(num_classes=1), 2, {"label": label}) == {"label": label}
    for missing in (None, {}):
        with pytest.raises(ValueError, match=r"num_classes=1 needs condition\['label'\], a label for each example$"):
            checks.condition(settings(num_classes=1), 2, missing)
    with pytest.raises(
        ValueError, match=r"condition\['label'\] is given, but .* takes no condition, as num_classes=0$"
    ):
        checks.condition(settings(), 2, {"label": label})


@pytest.mark.parametrize(
    "condition, message",
    [
        (
            {"label": np.zeros(2, int), "lable": 0},
            "condition['lable'] is given, but the network takes label (B,) and augm",
        ),
        ({"label": np.zeros(3, int)}, "condition['label'] has shape (3,), not (2,)"),
        ({"label": np.zeros(1, int)}, "condition['label'] has shape (1,), not (2,)"),
        (
            np.zeros(2, int),
            "condition is of type ndarray, but must be a mapping of leaves by name; the network takes label",
        ),
        ({"augmentation": np.zeros((2, 4))}, "num_classes=3 needs condition['label']"),
    ],
)
def test_leaves_that_a_network_does_not_take_are_named(condition, message):
    network = settings(num_classes=3, augment_features=4)
    with pytest.raises(ValueError, match=re.escape(message)):
        checks.condition(network, 2, condition)


def test_a_classifier_takes_no_leaf_in_spite_of_its_classes():
    assert checks.condition(settings(num_classes=3), 2, None, options={}) == {}
    with pytest.raises(ValueError, match=r"condition\['label'\] is given, but the network takes no condition$"):
        checks.condition(settings(num_classes=3), 2, {"label": np.zeros(2, int)}, options={})


def test_names_are_those_of_networks_and_what_is_far_from_all_gets_the_list():
    assert models.names() == ["adm", "ddpm", "dit", "edm2", "mlp", "ncsn", "ncsnpp", "ncsnv2", "unet"]
    with pytest.raises(
        ValueError, match=r"unknown network 'zzz': choose from adm, ddpm, dit, .*, wideresnet_classifier$"
    ):
        models.options("zzz")
    with pytest.raises(ValueError, match=r"unknown option of mlp 'qqq': choose from depth, dropout, dtype, .*, width$"):
        models.create("mlp", qqq=1)
    network = models.create("unet", channel_multipliers=[1, 2], attention_resolutions=[])
    assert network.channel_multipliers == (1, 2) and network.attention_resolutions == () and hash(network)
    assert not models.options("mlp").keys() & {"parent", "name"}


# Defaults that no table of docs/config.md holds: of the published classifiers, and of layers by themselves.
DEFAULTS = {
    UNetClassifier: {
        "num_classes": 1000, "channels": 128, "channel_multipliers": (1, 2, 3, 4), "blocks_per_level": 4,
        "attention_resolutions": (32, 16, 8), "head_channels": 64, "dropout": 0.0, "norm_groups": 32, "dtype": "float32",
        "remat": False,
    },
    WideResNetClassifier: {
        "num_classes": 10, "blocks_per_group": 4, "width": 10, "fourier_scale": 16.0, "dropout": 0.0, "dtype": "float32",
        "remat": False,
    },
    Conv: {
        "kernel_size": 3, "stride": 1, "dilation": 1, "init_scale": 1.0, "use_bias": True, "dtype": jnp.float32,
        "padding": "SAME", "fan": "fan_avg",
    },
    GroupNorm: {"num_groups": 0, "epsilon": 1e-6, "dtype": jnp.float32},
    Attention: {
        "num_heads": 1, "skip_rescale": False, "init_scale": 0.0, "qkv_init_scale": 1.0, "dtype": jnp.float32,
        "norm_groups": 0, "norm_epsilon": 1e-6,
    },
    ResidualBlock: {
        "dropout": 0.0, "scale_shift": True, "resampling": None, "fir_kernel": None, "skip_conv": False,
        "skip_rescale": False, "init_scale": 0.0, "skip_init_scale": 1.0, "dtype": jnp.float32, "norm_groups": 0,
        "norm_epsilon": 1e-6,
    },
    InstanceNormPlus: {"num_conditions": 0, "epsilon": 1e-5, "dtype": jnp.float32},
    DilatedBlock: {"change": False, "dilation": 1, "norm_conditions": 0, "dropout": 0.0, "dtype": jnp.float32},
    RefineBlock: {"output_units": 1, "norm_conditions": 0, "dtype": jnp.float32},
    FourierEmbedding: {"scale": 16.0},
    FrozenConv: {
        "kernel_size": (1, 1), "stride": 1, "padding": "SAME", "depthwise": False, "activation": jax.nn.relu,
        "epsilon": 1e-3,
    },
    FrozenDense: {"use_bias": True},
    MPConv: {"kernel_size": 3},
    CosineAttention: {"balance": 0.3},
    EDM2Block: {
        "resampling": None, "num_heads": 0, "dropout": 0.0, "residual_balance": 0.3, "attention_balance": 0.3,
        "clip": 256.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", DEFAULTS, ids=lambda kind: kind.__name__)
def test_defaults_are_the_published_ones(kind):
    fields = [field for field in dataclasses.fields(kind) if field.name not in ("parent", "name")]
    found = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    assert found == DEFAULTS[kind]


def test_blocks_of_edm2_are_bounded_where_a_bound_is_given():
    x, embedding = 300 * jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 2, 4)), jnp.float32), jnp.ones((2, 4))
    block = EDM2Block(4, "decoder")
    variables = jax.jit(block.init)(jax.random.key(0), x, embedding)
    unbounded = block.clone(clip=None).apply(variables, x, embedding)
    assert float(jnp.abs(unbounded).max()) > 256
    for clip in (256.0, 7.0):
        np.testing.assert_array_equal(
            block.clone(clip=clip).apply(variables, x, embedding), jnp.clip(unbounded, -clip, clip)
        )
    np.testing.assert_array_equal(block.apply(variables, x, embedding), jnp.clip(unbounded, -256, 256))
