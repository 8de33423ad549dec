"""NCSN++ and DDPM++ against score_sde's real networks: what its two releases gave with the same weights.

The settings of score_sde: nf=16, num_res_blocks=1, attn_resolutions=(4,), dropout=0, fourier_scale=16, sigma 0.01 to 50,
num_scales=1000, images of 8x8x3, and the options below. Noise levels as it takes them: sigma = 0.02, 1.3, 40; 999 t = 0.4,
333.3, 998; discrete numbers 3, 500, 997.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from models.pretrained import score_sde
from models.pretrained.mapping import WeightsError, to_tensors, to_variables
from tests.models.pretrained.named import named_normal, named_weights, spread
from tests.models.pretrained.score_sde_numbers import FLAX, TORCH

BASE = {
    "channels": 16,
    "channel_multipliers": (1, 2),
    "blocks_per_level": 1,
    "attention_resolutions": (4,),
    "progressive_input": "none",
    "dropout": 0.0,
}
THREE_LEVELS = {"channel_multipliers": (1, 2, 2)}
# As configs/ve/cifar10_ncsnpp_continuous.py, configs/ve/celebahq_256_ncsnpp_continuous.py, configs/vp/cifar10_ddpmpp.py, ...
CASES = {
    "ncsnpp": {"progressive_input": "residual", "scale_by_sigma": True, "centered": False, **THREE_LEVELS},
    "ncsnpp_skips": {
        "progressive_input": "input_skip",
        "progressive": "output_skip",
        "centered": False,
        **THREE_LEVELS,
    },
    "ncsnpp_skips_cat": {
        "progressive_input": "input_skip",
        "progressive": "output_skip",
        "progressive_combine": "cat",
        "fir_kernel": (1, 3, 4, 2),
    },
    "ddpmpp": {"embedding": "positional", "fir": False},
    "ddpmpp_ddpm_blocks": {
        "embedding": "positional",
        "fir": False,
        "resblock_type": "ddpm",
        "progressive_input": "residual",
        **THREE_LEVELS,
    },
    "residual_output": {
        "embedding": "positional",
        "resblock_type": "ddpm",
        "progressive": "residual",
        "fir_kernel": (1, 3, 4, 2),
        **THREE_LEVELS,
    },
    "discrete": {
        "embedding": "discrete",
        "fir": False,
        "resblock_type": "ddpm",
        "resamp_with_conv": False,
        "skip_rescale": False,
        "scale_by_sigma": True,
        "progressive": "residual",
        "centered": False,
    },
}
LEVELS = {
    "fourier": np.log([0.02, 1.3, 40.0]),
    "positional": [0.4, 333.3, 998.0],
    "discrete": np.log(np.exp(np.linspace(np.log(50.0), np.log(0.01), 1000))[[3, 500, 997]]),
}
MAPPINGS = {"torch": score_sde.torch_mapping, "flax": score_sde.jax_mapping}


@functools.cache
def prepared(case):
    """Network, shapes of its variables, inputs, and its compiled application to the weights alone."""
    network = models.create("ncsnpp", **BASE | CASES[case])
    x = jnp.asarray(named_normal("x", 3, 3, 8, 8).transpose(0, 2, 3, 1))
    level = jnp.asarray(LEVELS[network.embedding], jnp.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x, level)
    return network, shapes, jax.jit(lambda variables: network.apply(variables, x, level))


def peer_tensors(mapping, shapes):
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    return named_weights({name: tensor.shape for name, tensor in to_tensors(zeros, mapping).items()})


def assert_equal_numbers(output, numbers):
    """Each to 1e-4 of the standard deviation of the image that it is of."""
    images = np.asarray(output, np.float64).transpose(0, 3, 1, 2)
    flat = images.reshape(3, -1)
    actual = {"spread": spread(images, 8), "mean": flat.mean(1), "std": flat.std(1)}
    deviations = np.asarray(numbers["std"])
    scales = {"spread": spread(np.broadcast_to(deviations[:, None, None, None], images.shape), 8)}
    for name, values in numbers.items():
        error = (actual[name] - np.asarray(values)) / scales.get(name, deviations)
        np.testing.assert_allclose(error, 0, atol=1e-4, err_msg=name)


RUNS = [("torch", case) for case in TORCH] + [("flax", case) for case in FLAX]


@pytest.mark.parametrize("release, case", RUNS, ids=[" ".join(run) for run in RUNS])
def test_outputs_are_those_of_score_sde(release, case):
    """A peer's weight under another name has other numbers, so the names are tested as well."""
    network, shapes, apply = prepared(case)
    mapping = MAPPINGS[release](network, shapes)
    variables = to_variables(peer_tensors(mapping, shapes), mapping, shapes)
    assert_equal_numbers(apply(variables), {"torch": TORCH, "flax": FLAX}[release][case])


@pytest.mark.parametrize("release", MAPPINGS)
@pytest.mark.parametrize("case", CASES)
def test_an_import_of_an_export_is_the_identity(release, case):
    network, shapes, _ = prepared(case)
    mapping = MAPPINGS[release](network, shapes)
    tensors = peer_tensors(mapping, shapes)
    back = to_tensors(to_variables(tensors, mapping, shapes), mapping)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_averages_without_names_get_those_of_the_trained_parameters():
    """`model` is in the order of the parameters, behind DataParallel, with a buffer and the frequencies, which have none."""
    network, shapes, _ = prepared("ncsnpp")
    mapping = score_sde.torch_mapping(network, shapes)
    tensors = peer_tensors(mapping, shapes)
    names = [name for name in tensors if name != "all_modules.0.W"]
    model = {"module.sigmas": np.zeros(1000)} | {f"module.{name}": tensor for name, tensor in tensors.items()}
    averages = [tensors[name] + 1 for name in names]
    named = score_sde.named_ema(averages, model)
    assert named.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(named[name], tensor + (name in names))

    with pytest.raises(WeightsError, match=f"{len(names) - 1} averages, but model has {len(names)}"):
        score_sde.named_ema(averages[1:], model)
    with pytest.raises(WeightsError, match="average of all_modules"):
        score_sde.named_ema(averages[::-1], model)
    turned = next(i for i, average in enumerate(averages) if average.T.shape != average.shape)
    with pytest.raises(WeightsError, match=f"average of {names[turned]} has the shape"):
        score_sde.named_ema([*averages[:turned], averages[turned].T, *averages[turned + 1 :]], model)


def test_norms_of_early_flax_become_vectors():
    params = {
        "ResnetBlockBigGANpp_0": {"GroupNorm_0": {"scale": np.ones((1, 1, 1, 8))}},
        "Conv_0": {"bias": np.ones(3)},
    }
    named = score_sde.by_path(params)
    assert {name: array.shape for name, array in named.items()} == {
        "ResnetBlockBigGANpp_0/GroupNorm_0/scale": (8,),
        "Conv_0/bias": (3,),
    }


def test_options_that_score_sde_lacks_are_refused():
    with pytest.raises(ValueError, match="num_classes"):
        score_sde.torch_mapping(models.create("ncsnpp", num_classes=3), {})
