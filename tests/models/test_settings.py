"""Every option of a network reaches each layer that it is meant for. Layers are only traced: nothing is compiled."""

import functools

import flax.linen as nn
import jax
import jax.extend as jex
import jax.numpy as jnp
import pytest

import models
from models import dit, edm2
from models.classifier import WideBlock
from models.dit import DiTBlock
from models.edm2 import EDM2Block
from models.layers.attention import Attention
from models.layers.convolution import Conv
from models.layers.dropout import Dropout
from models.layers.embedding import FourierEmbedding
from models.layers.instance_norm import InstanceNormPlus
from models.layers.magnitude import CosineAttention, MPFourier
from models.layers.normalization import GroupNorm
from models.layers.refinenet import DilatedBlock, RefineBlock
from models.layers.residual import ResidualBlock
from models.mlp import MLPBlock
from tests.models.families import FAMILIES


@functools.cache
def traced(name, network):
    """The layers, by their path, that a call of a family's network in training meets."""
    found = {}

    def collect(call, args, kwargs, context):
        if context.method_name == "__call__":
            found["/".join(context.module.path)] = context.module
        return call(*args, **kwargs)

    x, level, condition = FAMILIES[name].batch()
    keys = jax.random.split(jax.random.key(0), len(x))
    with nn.intercept_methods(collect):
        jax.eval_shape(
            lambda key: network.init(key, x, level, condition, train=True, dropout_keys=keys), jax.random.key(0)
        )
    return found


def layers_of(name, kind, **changes):
    """The layers of that kind, by their path, of a family's network with some options changed."""
    layers = traced(name, FAMILIES[name].network(**changes))
    found = {path: layer for path, layer in layers.items() if isinstance(layer, kind)}
    assert found
    return found


def settings(name, kind, *attributes, **changes):
    """What all layers of that kind have as these attributes, the values of each as a set."""
    layers = layers_of(name, kind, **changes).values()
    return tuple({getattr(layer, attribute) for layer in layers} for attribute in attributes)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_dropout_has_its_rate_in_every_block(name):
    assert settings(name, Dropout, "rate", dropout=0.35) == ({0.35},)


@pytest.mark.parametrize("name", ["adm", "ddpm", "unet"])
def test_every_group_norm_has_the_groups_and_the_epsilon_asked_for(name):
    changes = {"norm_groups": 2, "norm_epsilon": 3e-4, "middle_attention": True}
    assert settings(name, GroupNorm, "num_groups", "epsilon", **changes) == ({2}, {3e-4})


@pytest.mark.parametrize(
    "name, epsilon", [("ncsnpp", 1e-6), ("unet_classifier", 1e-5), ("wideresnet_classifier", 1e-5)]
)
def test_group_norms_have_the_published_epsilon(name, epsilon):
    assert settings(name, GroupNorm, "epsilon") == ({epsilon},)


@pytest.mark.parametrize("name", ["adm", "ddpm", "ncsnpp", "unet", "unet_classifier", "wideresnet_classifier"])
def test_convolutions_and_norms_compute_in_the_dtype_asked_for(name):
    for kind in (Conv, GroupNorm):
        assert settings(name, kind, "dtype", dtype="bfloat16") == ({jnp.dtype("bfloat16")},)


@pytest.mark.parametrize("name", ["ncsn", "ncsnv2"])
def test_instance_norms_compute_in_the_dtype_asked_for(name):
    assert settings(name, InstanceNormPlus, "dtype", dtype="bfloat16") == ({jnp.dtype("bfloat16")},)


def test_heads_are_as_many_as_asked_for_or_as_their_channels_make():
    for name in ("unet", "ddpm"):
        assert settings(name, Attention, "num_heads", num_heads=4, head_channels=0) == ({4},)
    for name in ("adm", "unet"):
        changes = {"head_channels": 4, "attention_resolutions": (8, 4)}
        assert settings(name, Attention, "num_heads", **changes) == ({2, 4},)  # 8 and 16 channels
    assert settings("edm2", CosineAttention, "num_heads", "balance", head_channels=4, attention_balance=0.4) == (
        {4},
        {0.4},
    )


def test_attention_stands_at_its_resolutions_and_in_the_middle_if_asked_for():
    """Of images 8 high, on two levels."""

    def places(**changes):
        return set(layers_of("unet", Attention, **changes))

    middle, at_4, up = {"middle_attention"}, {"down_1_0_attention"}, {"up_1_0_attention", "up_1_1_attention"}
    at_8 = {"down_0_0_attention", "up_0_0_attention", "up_0_1_attention"}
    assert places(attention_resolutions=(4,)) == middle | at_4 | up
    assert places(attention_resolutions=(4,), middle_attention=False) == at_4 | up
    assert places(attention_resolutions=(8,)) == middle | at_8
    assert places(attention_resolutions=()) == middle
    assert places(attention_resolutions=(4,), up_attention="level") == middle | at_4 | {"up_1_1_attention"}


def test_blocks_of_ncsnpp_have_its_options():
    changes = {"skip_rescale": False, "init_scale": 0.3, "fir_kernel": (1, 2, 1)}
    attributes = ("skip_rescale", "init_scale", "fir_kernel", "skip_init_scale", "scale_shift", "skip_conv")
    expected = ({False}, {0.3}, {(1, 2, 1)}, {1.0}, {False}, {True})
    assert settings("ncsnpp", ResidualBlock, *attributes, **changes) == expected
    assert settings("ncsnpp", ResidualBlock, "fir_kernel", fir=False) == ({None},)
    assert settings("ncsnpp", ResidualBlock, "skip_init_scale", resblock_type="ddpm") == ({0.1},)
    attention = settings("ncsnpp", Attention, "skip_rescale", "init_scale", "qkv_init_scale", **changes)
    assert attention == ({False}, {0.3}, {0.2})


@pytest.mark.parametrize("name", ["mlp", "unet", "ncsnpp"])
def test_frequencies_have_the_scale_asked_for(name):
    assert settings(name, FourierEmbedding, "scale", embedding="fourier", fourier_scale=3.0) == ({3.0},)


def test_blocks_of_edm2_have_its_options():
    changes = {"residual_balance": 0.2, "attention_balance": 0.6, "clip": 7.0}
    assert settings("edm2", EDM2Block, *changes, **changes) == ({0.2}, {0.6}, {7.0})


def test_sums_of_edm2_have_the_balance_of_their_kind(monkeypatch):
    """The class in the embedding, branches in blocks, and what the way down kept: each by an option of its own."""
    found = {}

    def recorded(name):
        function = getattr(edm2, name)

        def record(a, b, balance):
            found.setdefault((name, a.ndim), set()).add(balance)
            return function(a, b, balance)

        monkeypatch.setattr(edm2, name, record)

    recorded("mp_sum"), recorded("mp_concat")
    traced.cache_clear()
    changes = {"class_balance": 0.7, "residual_balance": 0.2, "concat_balance": 0.6}
    settings("edm2", EDM2Block, **changes)
    assert found == {("mp_sum", 2): {0.7}, ("mp_sum", 4): {0.2}, ("mp_concat", 4): {0.6}}


def test_blocks_of_the_wide_network_have_its_strides():
    blocks = layers_of("wideresnet_classifier", WideBlock, blocks_per_group=2)
    found = {name: (block.stride, block.first, block.features) for name, block in blocks.items()}
    others = {f"block_{group}_{i}": (2 if i == 0 else 1, False, 16 * 2**group) for group in (1, 2) for i in range(2)}
    assert found == {"block_0_0": (1, True, 16), "block_0_1": (1, False, 16), **others}


def test_norms_of_the_transformer_have_its_epsilons():
    norms = layers_of("dit", nn.LayerNorm, mlp_norm_epsilon=3e-4)
    assert {name: norm.epsilon for name, norm in norms.items()} == {
        "LayerNorm_0": 1e-6,
        **{f"block_{i}/LayerNorm_{k}": (1e-6, 3e-4)[k] for i in range(2) for k in range(2)},
    }


@pytest.mark.parametrize("positions", ["sincos", "rotary"])
def test_positions_of_the_transformer_have_its_span(monkeypatch, positions):
    """Of 4 x 6 patches: angles of 16 features, or of 8 in each head."""
    name, features = {"sincos": ("sincos_positions", 16), "rotary": ("rotary_angles", 8)}[positions]
    function, found = getattr(dit, name), []
    monkeypatch.setattr(dit, name, lambda *arguments: found.append(arguments) or function(*arguments))
    traced.cache_clear()
    settings("dit", DiTBlock, positions=positions, position_span=5)
    assert set(found) == {(4, 6, features, 5)}


def test_levels_have_their_multiple_of_the_channels_rounded():
    network = models.create("unet", channels=10, channel_multipliers=(0.46, 1.37), norm_groups=1, num_classes=0)
    x = jnp.ones((1, 4, 4, 2))
    params = jax.eval_shape(network.init, jax.random.key(0), x, jnp.ones(1))["params"]
    widths = [params[name]["conv_out"]["kernel"].shape[-1] for name in ("down_0_0", "down_1_0", "up_1_0", "up_0_0")]
    assert widths == [5, 14, 14, 5] and params["conv_in"]["kernel"].shape[-1] == 5


def test_levels_of_the_classifier_have_their_multiple_of_the_channels_rounded():
    network = models.create(
        "unet_classifier", channels=10, channel_multipliers=(0.46, 1.37), norm_groups=1, head_channels=1, num_classes=2
    )
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.ones((1, 4, 4, 2)), jnp.ones(1))["params"]
    assert [params[name]["conv_out"]["kernel"].shape[-1] for name in ("down_0_0", "down_1_0")] == [5, 14]


BLOCKS = {
    "dit": (DiTBlock,),
    "edm2": (EDM2Block,),
    "mlp": (MLPBlock,),
    "ncsn": (DilatedBlock, RefineBlock),
    "ncsnpp": (ResidualBlock, Attention),
    "unet": (ResidualBlock, Attention),
    "unet_classifier": (ResidualBlock, Attention),
    "wideresnet_classifier": (WideBlock,),
}


def recomputed(jaxpr):
    """How many parts of a program, at any depth, are computed again in the backward pass."""
    inner = [value for equation in jaxpr.eqns for value in jax.tree.leaves(equation.params, is_leaf=_is_jaxpr)]
    here = sum(equation.primitive.name in ("remat2", "checkpoint") for equation in jaxpr.eqns)
    return here + sum(recomputed(getattr(value, "jaxpr", value)) for value in inner if _is_jaxpr(value))


def _is_jaxpr(value):
    return isinstance(value, jex.core.Jaxpr | jex.core.ClosedJaxpr)


@pytest.mark.parametrize("name", BLOCKS)
def test_remat_recomputes_every_block_and_nothing_without_it(name):
    """A gradient is the same with and without it: what it costs is in the program alone."""
    (x, level, condition), network = FAMILIES[name].batch(), FAMILIES[name].network()
    variables = jax.eval_shape(network.init, jax.random.key(0), x, level, condition)
    blocks = [path for path, layer in traced(name, network).items() if isinstance(layer, BLOCKS[name])]
    for remat, count in ((False, 0), (True, len(blocks))):
        program = jax.make_jaxpr(network.clone(remat=remat).apply)(variables, x, level, condition)
        assert recomputed(program.jaxpr) == count, remat


# Layers whose output is float32 whatever the computation: of the noise level, and the norms of the transformer.
FLOAT32 = {
    "dit": {"LayerNorm"},
    "edm2": {"MPFourier", "MPDense"},
    "ncsnpp": {"FourierEmbedding"},
    "wideresnet_classifier": {"FourierEmbedding"},
}


@pytest.mark.parametrize("name", BLOCKS)
def test_layers_compute_in_the_dtype_asked_for_and_weights_stay_float32(name):
    found = {}

    def collect(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if context.method_name == "__call__" and context.module.path:
            found["/".join(context.module.path)] = type(context.module).__name__, output.dtype
        return output

    network, (x, level, condition) = FAMILIES[name].network(dtype="bfloat16"), FAMILIES[name].batch()
    keys = jax.random.split(jax.random.key(0), len(x))
    with nn.intercept_methods(collect):
        variables = jax.eval_shape(
            lambda key: network.init(key, x, level, condition, train=True, dropout_keys=keys), jax.random.key(0)
        )
    assert {kind for kind, dtype in found.values() if dtype == jnp.float32} == FLOAT32.get(name, set())
    others = {dtype for kind, dtype in found.values() if kind not in FLOAT32.get(name, set())}
    assert others == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


ATTENTIVE = {
    ("edm2", (4,)): {"down_1_0/attention", "middle_0/attention", "up_1_0/attention", "up_1_1/attention"},
    ("edm2", (8,)): {"down_0_0/attention", "middle_0/attention", "up_0_0/attention", "up_0_1/attention"},
    ("edm2", (6, 12)): {"middle_0/attention"},
    ("ncsnpp", (4,)): {"down_1_0_attention", "middle_attention", "up_1_attention"},
    ("ncsnpp", (8,)): {"down_0_0_attention", "middle_attention", "up_0_attention"},
    ("ncsnpp", (6, 12)): {"middle_attention"},
    ("unet_classifier", (4, 8)): {"down_0_0_attention", "down_1_0_attention", "middle_attention"},
    ("unet_classifier", (6, 12)): {"middle_attention"},
    ("unet", (6, 12)): {"middle_attention"},
}


@pytest.mark.parametrize("name, resolutions", ATTENTIVE)
def test_attention_stands_at_heights_and_not_at_widths(name, resolutions):
    """Of images 8 high and 12 wide, on two levels of one block."""
    found = layers_of(name, (Attention, CosineAttention), attention_resolutions=resolutions)
    assert set(found) == ATTENTIVE[name, resolutions]


@pytest.mark.parametrize("resampling", ["conv", "plain", "block", "strided", "strided_symmetric"])
def test_resolutions_of_the_unet_change_as_asked_for(resampling):
    layers = traced("unet", FAMILIES["unet"].network(resampling=resampling))
    down, up = (layers.get(name) for name in ("down_0_resample", "up_1_resample"))
    if resampling == "plain":
        assert down is None and up is None
    elif resampling == "block":
        assert isinstance(down, ResidualBlock) and isinstance(up, ResidualBlock)
        assert (down.resampling, up.resampling, down.features, up.features) == ("down", "up", 8, 16)
    else:
        padding = ((1, 1), (1, 1)) if resampling == "strided_symmetric" else "SAME"
        assert (down.stride, down.padding, down.features) == (1 if resampling == "conv" else 2, padding, 8)
        assert (up.stride, up.padding, up.features, up.kernel_size, down.kernel_size) == (1, "SAME", 16, 3, 3)


def test_embeddings_of_the_noise_level_have_as_many_features_as_the_peers():
    """Twice the channels in score_sde, 256 for its classifier; the width of the network for vectors."""
    for name, features in (("unet", 16), ("ncsnpp", 16), ("mlp", 8)):
        assert settings(name, FourierEmbedding, "features", embedding="fourier") == ({features},)
    assert settings("wideresnet_classifier", FourierEmbedding, "features") == ({256},)
    assert settings("edm2", MPFourier, "features") == ({8},)
    assert settings("edm2", MPFourier, "features", fourier_channels=20) == ({20},)
    for name in ("unet", "ncsnpp", "unet_classifier"):
        dense = layers_of(name, nn.Dense)
        assert {dense[f"embedding_{i}"].features for i in range(2)} == {32}  # four times the channels
