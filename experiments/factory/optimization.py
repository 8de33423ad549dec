"""The optimizer, its learning rate, and what becomes of a step that is not finite."""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from experiments.config.choices import choose
from experiments.learning import optimizers

OPTIMIZERS = {
    "adam": lambda c, numbers: optimizers.adam(*numbers),
    "adamw": lambda c, numbers: optimizers.adamw(*numbers),
    "muon": lambda c, numbers: optimizers.muon(*numbers, momentum=c.momentum),
}

NONFINITE = {"stop": False, "skip": True}


def learning_rate(config: ConfigDict) -> optax.Schedule:
    """Updates made before this one -> learning rate: a linear warm-up, then the schedule; the first update's rate is 0.

    Sources: https://github.com/yang-song/score_sde/blob/main/losses.py for the warm-up;
    https://github.com/NVlabs/edm2/blob/main/training/training_loop.py for inverse_sqrt, whose fall counts from the first
    update and multiplies the warm-up where they overlap.
    """
    optim, num_steps = config.optim, config.training.num_steps
    after = max(num_steps - optim.warmup_steps, 1)
    constant, warmup = optax.constant_schedule(optim.lr), optim.warmup_steps
    rise = optax.linear_schedule(0.0, optim.lr, warmup) if warmup else constant

    def then(schedule):
        return optax.join_schedules([rise, schedule], [warmup]) if warmup else schedule

    def inverse_sqrt(step):
        return rise(step) * jnp.sqrt(optim.decay_steps / jnp.maximum(step, optim.decay_steps))

    schedules = {
        "constant": lambda: then(constant),
        "cosine": lambda: then(optax.cosine_decay_schedule(optim.lr, after)),
        "inverse_sqrt": lambda: inverse_sqrt,
    }
    return choose("optim.schedule", optim.schedule, schedules)()


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Gradient clipping, then the optimizer."""
    optim = config.optim
    numbers = (learning_rate(config), optim.beta1, optim.beta2, optim.eps, optim.weight_decay)
    chosen = choose("optim.name", optim.name, OPTIMIZERS)(optim, numbers)
    return optax.chain(optax.clip_by_global_norm(optim.grad_clip), chosen) if optim.grad_clip else chosen


def skips_nonfinite(config: ConfigDict) -> bool:
    """Whether steps whose loss or gradient is not finite are left out, instead of ending the run."""
    return choose("training.on_nonfinite", config.training.on_nonfinite, NONFINITE)
