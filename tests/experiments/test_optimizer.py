"""The optimizer against that of score_sde: warm-up counted from 0, one norm clipped over all weights, then Adam."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import build
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
    optimizer, ema = build.optimizer(config), build.ema(config)
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
