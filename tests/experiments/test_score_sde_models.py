"""A network of score_sde under its experiment's config has the score that score_sde's own code gives.

Numbers of `get_score_fn` in https://github.com/yang-song/score_sde_pytorch/blob/main/models/utils.py (commit
cb1f359f4aad), with the configs that `PEERS` names, but nf=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,) and
images of 8x8; weights and images made of their names. Its times are 0.05, 0.4, 0.9, or the numbers 49, 400, 900 of a
discrete model's levels.
"""

import jax
import numpy as np
import pytest

from experiments import factory
from experiments.config import files as config
from experiments.loading.formats import SCORE_SDE
from models.pretrained.mapping import to_tensors, to_variables
from tests.experiments.tiny import ROOT
from tests.models.pretrained.named import named_normal, named_weights, spread

pytestmark = pytest.mark.thorough

PEERS = {
    "ve,ncsnpp": "ve/cifar10_ncsnpp_continuous.py",
    "ve,ncsnpp,discrete": "ve/cifar10_ncsnpp.py",
    "ve,ddpm,discrete": "ve/cifar10_ddpm.py",
    "vp,ddpmpp": "vp/cifar10_ddpmpp_continuous.py",
    "vp,ddpmpp,discrete": "vp/cifar10_ddpmpp.py",
    "vp,ncsnpp": "vp/cifar10_ncsnpp_continuous.py",
    "vp,ddpm": "vp/ddpm/cifar10_continuous.py",
    "vp,ddpm,discrete": "vp/ddpm/cifar10.py",
    "subvp,ddpm": "subvp/cifar10_ddpm_continuous.py",
    "subvp,ncsnpp": "subvp/cifar10_ncsnpp_continuous.py",
}
NUMBERS = {
    "ve,ncsnpp": {
        "spread": [-0.05888418, -0.03282866, 35.45982, -0.01298218, 29.81148, -52.78642, -2.715053, -0.0219585],
        "mean": [-10.62607, -0.5893417, -0.009137695],
        "std": [37.52753, 1.701555, 0.02483867],
    },
    "ve,ncsnpp,discrete": {
        "spread": [-0.03183286, 0.0136255, -24.62472, 0.04308124, 35.42834, -24.77621, 16.53806, -0.02255218],
        "mean": [2.866703, 0.2560913, 0.002311037],
        "std": [33.62757, 1.855572, 0.02554914],
    },
    "ve,ddpm,discrete": {
        "spread": [0.002361953, -0.001008093, -61.2752, -0.03728579, 10.11132, 22.27932, 26.02482, -0.01391193],
        "mean": [-4.752519, -0.1617747, -0.001197073],
        "std": [33.66756, 1.645886, 0.02271507],
    },
    "vp,ddpmpp": {
        "spread": [-0.699956, -0.2278438, 2.053696, -0.6492581, 2.55529, -0.7111602, -0.4866227, 0.2966862],
        "mean": [-0.8254042, -0.1577619, -0.1840349],
        "std": [3.239001, 0.5427564, 0.5082581],
    },
    "vp,ddpmpp,discrete": {
        "spread": [-0.6927708, -0.2229381, 1.991107, -0.6092492, 2.171991, -1.279063, -0.4494115, 0.3018959],
        "mean": [-0.8319098, -0.1541348, -0.1851645],
        "std": [3.290523, 0.5385084, 0.5082192],
    },
    "vp,ncsnpp": {
        "spread": [0.7946063, -0.08409651, -2.175196, -1.346278, -1.537036, -0.2328336, -5.456081, 0.6782556],
        "mean": [-1.654788, -0.2771637, -0.1017258],
        "std": [3.058081, 0.6468692, 0.5950056],
    },
    "vp,ddpm": {
        "spread": [-0.09557567, 0.08081868, 6.06423, 0.5088511, 0.05155388, -5.059057, -1.855631, 0.4359839],
        "mean": [0.38529, 0.05449869, 0.02397878],
        "std": [2.871192, 0.527259, 0.4764724],
    },
    "vp,ddpm,discrete": {
        "spread": [-0.0836156, 0.0879063, 5.949924, 0.5002903, 0.2522995, -5.022616, -1.846976, 0.4194434],
        "mean": [0.3920078, 0.05411352, 0.02500965],
        "std": [2.903082, 0.5253833, 0.4751026],
    },
    "subvp,ddpm": {
        "spread": [-0.09558948, 0.08083035, 35.3474, 0.5089247, 0.3004991, -29.48841, -10.81617, 0.4360468],
        "mean": [2.245792, 0.06076217, 0.02398224],
        "std": [16.73571, 0.5878564, 0.4765412],
    },
    "subvp,ncsnpp": {
        "spread": [0.7947211, -0.08410866, -12.67886, -1.346472, -8.959129, -1.357149, -31.8026, 0.6783535],
        "mean": [-9.645487, -0.3090179, -0.1017405],
        "std": [17.82505, 0.7212133, 0.5950916],
    },
}
SMALL = {
    "model.channels": "32",
    "model.channel_multipliers": "1,2",
    "model.blocks_per_level": "1",
    "model.attention_resolutions": "4",
    "data.image_size": "8",
}


@jax.jit
def score_of(denoiser, x, t):
    return denoiser.score(x, t)


@pytest.mark.parametrize("words", PEERS)
def test_the_score_is_that_of_score_sde(words):
    """Its VE models see data in [0, 1]: there x' = (x + 1) / 2, and the score is twice ours. To 1e-4 of an image's std."""
    loaded = config.load(f"{ROOT}/configs/cifar10.py:{words}", SMALL.items())
    shapes = factory.abstract_variables(loaded)
    mapping = SCORE_SDE[loaded.model.name][0](factory.network(loaded), shapes)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    weights = named_weights({name: tensor.shape for name, tensor in to_tensors(zeros, mapping).items()})
    denoiser = factory.denoiser(loaded, to_variables(weights, mapping, shapes), loaded.sampling.t_min)

    x = named_normal("x", 3, 3, 8, 8).transpose(0, 2, 3, 1)
    times, scale = np.array([0.05, 0.4, 0.9]), 1
    if "discrete" in words:  # VP's number i is the end of step i; VE's levels are evenly spaced in t
        numbers = np.array([49, 400, 900])
        times = numbers / 999 if words.startswith("ve") else (numbers + 1) / 1000
    if words.startswith("ve"):
        x, scale = 2 * x - 1, 2
    score = scale * np.asarray(score_of(denoiser, x, np.float32(times)), np.float64)

    images, expected = score.transpose(0, 3, 1, 2), NUMBERS[words]
    flat, std = images.reshape(3, -1), np.array(expected["std"])
    places = spread(np.broadcast_to(std[:, None, None, None], images.shape), 8)
    np.testing.assert_allclose((spread(images, 8) - expected["spread"]) / places, 0, atol=1e-4)
    np.testing.assert_allclose((flat.mean(1) - expected["mean"]) / std, 0, atol=1e-4)
    np.testing.assert_allclose(flat.std(1) / std, 1, atol=1e-4)
