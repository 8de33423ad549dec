"""What every weight starts from: zeros, ones, or a distribution whose width the papers or the peers' code give."""

import math
import re

import flax.linen as nn
import jax
import numpy as np
import pytest

from models.classifier import AttentionPool, WideBlock
from models.layers.frozen import FrozenConv, FrozenDense
from tests.models.families import CLASSES, FAMILIES


def uniform(scale, fan="avg"):
    """Of variance scale / fan, as Glorot's (1, "avg"), He's (2, "in" or "out") and PyTorch's default (1/3, "in")."""

    def width(shape):
        area = math.prod(shape[:-2])
        fans = {"in": area * shape[-2], "out": area * shape[-1], "avg": area * (shape[-2] + shape[-1]) / 2}
        return "uniform", math.sqrt(scale / fans[fan])

    return width


def normal(std):
    return lambda shape: ("normal", std)


def constant(value):
    return lambda shape: ("constant", value)


ZEROS = constant(0)
# The first pattern that the path ends in: biases 0, scales of norms 1, kernels as Glorot's unless the family says otherwise.
EVERY = {r"bias": ZEROS, r"/scale": constant(1), r"kernel": uniform(1.0)}
UNET = {r"(conv_out|attention/out|augmentation)/kernel": ZEROS, r"classes/embedding": normal(1.0)}
ENDS = {r"(conv_out|attention/out)/kernel": ZEROS}
REFINENET = {r"kernel": uniform(1 / 3, "in")}
STARTS = {
    "unet": ({"augment_features": 9}, UNET),
    "unet of Fourier features": (
        {"embedding": "fourier", "fourier_scale": 3.0},
        UNET | {r"fourier/frequencies": normal(3.0)},
    ),
    "mlp": (
        {"width": 32},
        {r"(second|^out)/kernel": ZEROS, r"classes/embedding": normal(1.0)},
    ),
    "dit": (
        {},
        {
            r"(modulation|^out)/kernel": ZEROS,
            r"(noise_level_\*/kernel|classes/embedding)": normal(0.02),
        },
    ),
    "edm2": (
        {"fourier_channels": 64},
        {
            r"gain": ZEROS,
            r"fourier/frequencies": normal(2 * math.pi),
            r"fourier/phases": lambda shape: ("phases", 2 * math.pi),
            r"kernel": normal(1.0),
        },
    ),
    "ncsn": ({}, REFINENET | {r"/table": lambda shape: ("table", 0.02)}),
    "ncsnv2": ({"num_classes": 0}, REFINENET | {r"/(scale|mean_scale)": lambda shape: ("near one", 0.02)}),
    "ncsnpp": (
        {"progressive": "residual", "augment_features": 9},
        ENDS
        | {
            r"attention/qkv/kernel": uniform(0.2),  # 0.1 for each of q, k and v, whose own fan is half as large
            r"fourier/frequencies": normal(16.0),
        },
    ),
    "unet_classifier": (
        {},
        ENDS | {r"pool/positions": normal(16**-0.5)},
    ),
    "wideresnet_classifier": (
        {},
        {
            r"fourier/frequencies": normal(16.0),
            r"^out/kernel": lambda shape: ("uniform", CLASSES**-0.5 / math.sqrt(3)),
            r"conv_(in|out)/kernel": uniform(2.0, "out"),
        },
    ),
}


def starts(module, *inputs, **options):
    """The initial values of one weight for each path, of which numbers are replaced by *; no layer is computed."""
    found, param = {}, nn.Module.param

    def record(self, name, init, *arguments, **keywords):
        found.setdefault(re.sub(r"\d+", "*", "/".join((*self.path, name))), (init, arguments))
        return param(self, name, init, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "param", record)
        jax.eval_shape(lambda key: module.init(key, *inputs, **options), jax.random.key(0))
    values = jax.jit(lambda key: {path: init(key, *arguments) for path, (init, arguments) in found.items()})
    return jax.tree.map(np.asarray, values(jax.random.key(1, impl="rbg")))


def assert_starts(path, value, kind, width):
    """Within five standard errors, and for bounded distributions within the bounds and almost up to them."""
    if kind == "constant":
        np.testing.assert_array_equal(value, width, err_msg=path)
    elif kind == "table":  # scales and mean_scales, then biases, of each condition
        ones, biases = np.split(value, [2 * value.shape[1] // 3], axis=1)
        np.testing.assert_array_equal(biases, 0, err_msg=path)
        assert_starts(path, ones, "near one", width)
    elif kind == "phases":
        assert 0 <= value.min() < 0.2 * width and 0.8 * width < value.max() <= width, path
    else:
        error = 5 / math.sqrt(2 * value.size)
        mean = 1 if kind == "near one" else 0
        assert abs((value - mean).std() / width - 1) < error, (path, value.std(), width)
        assert abs(value.mean() - mean) < 5 * width / math.sqrt(value.size), path
        if kind == "uniform":
            assert np.abs(value).max() <= 1.0001 * math.sqrt(3) * width, path


@pytest.mark.parametrize("case", STARTS)
def test_weights_start_from_the_published_distributions(case):
    family = FAMILIES[case.split()[0]]
    changes, rules = STARTS[case]
    network = family.network(**changes)
    x, level, condition = jax.tree.map(lambda part: part[:2], family.batch())
    found = starts(network, x, level, condition if family.classes and network.num_classes else None)
    met = set()
    for path, value in found.items():
        pattern, rule = next(item for item in (rules | EVERY | rules).items() if re.search(item[0] + "$", path))
        met.add(pattern)
        assert_starts(path, value, *rule(value.shape))
    assert met >= rules.keys()


def test_frozen_layers_start_as_a_convolution_whose_norm_has_no_effect():
    """He's and LeCun's kernels, which keep the variance with and without a ReLU; truncated normal."""
    x = np.ones((1, 4, 4, 16), np.float32)
    found = starts(FrozenConv(64, (3, 3)), x) | {f"dense/{k}": v for k, v in starts(FrozenDense(64), x).items()}
    for name, value in (("scale", 1), ("bias", 0), ("mean", 0), ("var", 1), ("dense/bias", 0)):
        assert_starts(name, found[name], "constant", value)
    assert_starts("kernel", found["kernel"], "normal", (2 / 144) ** 0.5)
    assert_starts("dense/kernel", found["dense/kernel"], "normal", (1 / 16) ** 0.5)


def test_positions_of_the_pooling_start_at_the_width_of_the_channels():
    found = starts(AttentionPool(3, 2), np.ones((1, 8, 8, 64), np.float32))
    assert found["positions"].shape == (65, 64)
    assert_starts("positions", found["positions"], "normal", 1 / 8)


def test_kernels_of_the_wide_network_start_by_their_outputs_alone():
    """Of a block that widens its image from 8 to 32 channels."""
    found = starts(WideBlock(32), np.ones((1, 4, 4, 8), np.float32), np.ones((1, 4), np.float32))
    for name, inputs in (("conv_in", 8), ("conv_out", 32)):
        assert found[f"{name}/kernel"].shape == (3, 3, inputs, 32)
        assert_starts(name, found[f"{name}/kernel"], "uniform", math.sqrt(2 / (9 * 32)))
