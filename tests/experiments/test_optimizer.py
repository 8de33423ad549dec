"""Optimizers: score_sde's, of which the warm-up counts from 0 and one norm is clipped over all weights; AdamW; Muon."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

import models
from configs import base
from experiments import factory
from experiments.learning import optimizers
from models.pretrained.mapping import flatten
from tests.experiments.tiny import tiny_config

X = jnp.array([1.0, -2.0, 3.0])


def small(weights):
    """A loss whose gradient is below the norm that is allowed."""
    return 0.05 * (weights["a"] ** 2).sum() + 0.02 * (weights["b"] ** 3).sum()


def large(weights):
    """One whose gradient is far above."""
    return 5 * (weights["a"] * X).sum() ** 2 + jnp.sin((weights["a"][:2] * weights["b"]).sum())


def test_six_steps_are_those_of_score_sde():
    """`optimization_manager` with lr 0.1, beta1 0.9, warmup 3, grad_clip 1 and `ExponentialMovingAverage(decay=0.25)` of
    https://github.com/yang-song/score_sde_pytorch/tree/cb1f359f4aadf0ff9a5e122fe8fffc9451fd6e44 (losses.py, models/ema.py).

    PyTorch adds 1e-6 to the norm before it divides by it, which is what is left between the two. The average counts its own
    update as one before, where ours does not.
    """
    config = tiny_config(optim__lr=0.1, optim__warmup_steps=3, optim__schedule="constant", optim__beta2=0.999)
    config.training.ema_decay = 0.25
    optimizer, (ema,) = factory.optimizer(config), factory.emas(config).values()
    weights = average = {"a": jnp.array([0.3, -0.2, 0.5]), "b": jnp.array([1.0, 2.0])}
    opt_state = optimizer.init(weights)
    for step, loss in enumerate([small, large] * 3):
        updates, opt_state = optimizer.update(jax.grad(loss)(weights), opt_state, weights)
        weights = optax.apply_updates(weights, updates)
        share = ema(step + 1)
        average = jax.tree.map(lambda e, w, share=share: e + share * (w - e), average, weights)
    published = [
        [-0.003375321626663208, 0.08468034118413925, 0.20701928436756134, 0.7014577984809875, 1.7154220342636108],
        [0.022401317954063416, 0.06024102121591568, 0.23215201497077942, 0.7249643802642822, 1.7379052639007568],
    ]
    for ours, theirs in zip((weights, average), published, strict=True):
        np.testing.assert_allclose(np.concatenate([ours["a"], ours["b"]]), theirs, atol=5e-6)


def rates(steps, **changes):
    config = tiny_config(optim__lr=0.02, training__num_steps=100, **changes)
    return [float(factory.learning_rate(config)(step)) for step in steps]


@pytest.mark.parametrize("warmup", [0, 20])
def test_schedules_by_hand(warmup):
    """A linear rise over the warm-up; the cosine falls over what is left; 1 / sqrt counts from the first update."""
    steps = np.array([0, 5, 19, 20, 30, 45, 60, 99, 100, 160])
    rise = np.minimum(steps / warmup, 1) if warmup else np.ones(len(steps))
    left = np.clip((steps - warmup) / (100 - warmup), 0, 1)
    expected = {
        "constant": 0.02 * rise,
        "cosine": 0.02 * rise * 0.5 * (1 + np.cos(np.pi * left)),
        "inverse_sqrt": 0.02 * rise * np.sqrt(40 / np.maximum(steps, 40)),
    }
    for schedule, rate in expected.items():
        changes = {"optim__schedule": schedule, "optim__warmup_steps": warmup, "optim__decay_steps": 40}
        np.testing.assert_allclose(rates(steps, **changes), rate, rtol=1e-5, atol=1e-9)


def one_update(gradient, weights, **changes):
    """What one step of the config's optimizer adds to the weights."""
    changes = {"optim__warmup_steps": 0, "optim__schedule": "constant", "optim__grad_clip": 0} | changes
    optimizer = factory.optimizer(tiny_config(**changes))
    return jax.tree.map(np.asarray, optimizer.update(gradient, optimizer.init(weights), weights)[0])


def named_tree(seed):
    """A network of one hidden kernel of each kind, with ends, classes, bias, and what the loss learns."""
    rng = np.random.default_rng(seed)
    return {
        "params": {
            "conv_in": {"kernel": rng.normal(size=(3, 3, 2, 6)), "bias": rng.normal(size=6)},
            "block": {
                "conv_in": {"kernel": rng.normal(size=(3, 3, 6, 4)), "bias": rng.normal(size=4)},
                "dense": {"kernel": rng.normal(size=(4, 24))},
            },
            "classes": {"kernel": rng.normal(size=(5, 4))},
        },
        "loss": {"kernel": rng.normal(size=(4, 4))},
    }


def float32(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


@pytest.mark.parametrize("name, bias_decays", [("adam", True), ("adamw", False), ("muon", False)])
def test_weight_decay_leaves_biases_alone_but_for_adams(name, bias_decays):
    """Decoupled: what the decay adds to an update is -lr * decay * weight."""
    weights, gradient = float32(named_tree(0)), float32(named_tree(1))
    options = {"optim__name": name, "optim__lr": 0.01}
    with_decay, without = (one_update(gradient, weights, optim__weight_decay=d, **options) for d in (0.1, 0.0))

    def compare(weight, a, b):
        decays = weight.ndim > 1 or bias_decays
        np.testing.assert_allclose(a - b, -0.01 * 0.1 * weight * decays, atol=1e-8)

    jax.tree.map(compare, weights, with_decay, without)


def newton_schulz(matrix):
    """By the singular value decomposition: five times s -> 3.4445 s - 4.775 s^3 + 2.0315 s^5, of a matrix of norm 1."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u * s @ v


def test_muon_makes_hidden_kernels_nearly_orthogonal():
    """The first step of https://kellerjordan.github.io/posts/muon, with the scale of https://arxiv.org/abs/2502.16982.

    A convolution's kernel is the matrix (9 * in, out); its update has the root mean square of Adam's times 0.2.
    """
    weights, gradient = float32(named_tree(0)), float32(named_tree(1))
    update = one_update(gradient, weights, optim__name="muon", optim__lr=0.01)
    for path in (("conv_in",), ("dense",)):
        ours, g = (tree["params"]["block"][path[0]]["kernel"] for tree in (update, gradient))
        matrix = np.asarray(g, float).reshape(-1, g.shape[-1])
        expected = -0.01 * 0.2 * np.sqrt(max(matrix.shape)) * newton_schulz(matrix)
        np.testing.assert_allclose(ours.reshape(matrix.shape), expected, rtol=1e-3, atol=1e-6)
        singular = np.linalg.svd(ours.reshape(matrix.shape), compute_uv=False) / (
            0.01 * 0.2 * np.sqrt(max(matrix.shape))
        )
        assert singular.min() > 0.6 and singular.max() < 1.3


def test_muon_leaves_all_else_to_adamw():
    weights, gradient = float32(named_tree(0)), float32(named_tree(1))
    muon, adamw = (one_update(gradient, weights, optim__name=n, optim__weight_decay=0.1) for n in ("muon", "adamw"))
    for update in (muon, adamw):
        del update["params"]["block"]["conv_in"]["kernel"], update["params"]["block"]["dense"]
    jax.tree.map(np.testing.assert_array_equal, muon, adamw)


def test_muon_follows_its_momentum():
    """Two steps: the second goes along beta (bias-corrected average) + (1 - beta) gradient, Nesterov's look ahead."""
    first, second, weights = (
        float32({"params": {"x": {"kernel": np.random.default_rng(i).normal(size=(4, 6))}}}) for i in range(3)
    )
    config = tiny_config(
        optim__name="muon", optim__lr=0.01, optim__warmup_steps=0, optim__grad_clip=0, optim__momentum=0.8
    )
    optimizer = factory.optimizer(config)
    opt_state = optimizer.init(weights)
    for gradient in (first, second):
        update, opt_state = optimizer.update(gradient, opt_state, weights)
    g1, g2 = (np.asarray(g["params"]["x"]["kernel"], float) for g in (first, second))
    average = 0.2 * (0.8 * g1 + g2)
    direction = 0.8 * average / (1 - 0.8**3) + 0.2 * g2 / (1 - 0.8**2)
    rate = float(factory.learning_rate(config)(1))
    expected = -rate * 0.2 * np.sqrt(6) * newton_schulz(direction)
    np.testing.assert_allclose(update["params"]["x"]["kernel"], expected, rtol=1e-3, atol=1e-6)


# For each network: kernels at its ends, which Adam has, and some in between, which Muon has.
MUON = {
    "unet": (("conv_in", "conv_out"), ("middle_0/conv_in", "middle_0/conv_out", "embedding_0")),
    "dit": (("patches", "out"), ("modulation", "block_0/qkv", "block_0/mlp_out")),
    "ncsnpp": (("conv_in", "down_0_pyramid"), ("middle_0/conv_in",)),
    "edm2": (("conv_in", "conv_out", "classes"), ("middle_0/conv_in", "noise_level")),
}


@pytest.mark.parametrize("name", MUON)
def test_muon_has_the_hidden_kernels_of_the_networks(name):
    small = {
        "num_classes": 10,
        "channels": 16,
        "channel_multipliers": (1, 2),
        "blocks_per_level": 1,
        "depth": 1,
        "head_channels": 8,
    }
    config, options = base.get_config(), models.options(name)
    config.model = ConfigDict({"name": name} | options | {k: v for k, v in small.items() if k in options})
    labels = flatten(optimizers.muon_or_adam(factory.abstract_variables(config)))
    ends, hidden = MUON[name]
    for layers, label in ((ends, "adam"), (hidden, "muon")):
        for layer in layers:
            assert labels[("params", *layer.split("/"), "kernel")] == label, layer
    assert {path[-1] for path, label in labels.items() if label == "muon"} == {"kernel"}
