"""The training state and the pure training step.

The step is written for one device; `axis_name=None` means alone. All randomness comes from the seed, the step and an
example's place in the global batch, so one device and eight draw the same times, noise and dropout.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

Params = Any


@struct.dataclass
class TrainState:
    """All that training carries from step to step.

    Attributes:
        step: updates made, int32.
        params: the network's weights.
        opt_state: the optimizer's.
        ema: the exponential moving average of `params`, for sampling.
    """

    step: Array
    params: Params
    opt_state: Any
    ema: Params


def create(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, params),
    )


@struct.dataclass
class Draws:
    """The randomness of one step: of its examples, and what they share.

    Attributes:
        keys: (B,), one per example at hand.
        shared: (), one for the step, the same on all devices.
        places: (B,), where in the global batch the examples are.
        size: of the global batch.
    """

    keys: Array
    shared: Array
    places: Array
    size: int = struct.field(pytree_node=False)


def draws(seed: Array, step: Array, places: Array, size: int) -> Draws:
    """Those of the examples at `places` (B,) in a global batch of the given size, from the seed's key and the step."""
    key = jax.random.fold_in(seed, step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, places)
    return Draws(keys, jax.random.fold_in(key, size), places, size)  # no example is at the place `size`


def unchanged(params: Params) -> Params:
    """The projection of a network that has none."""
    return params


def make_train_step(
    loss: Callable[[Draws, Params, dict[str, Array]], Array],
    optimizer: optax.GradientTransformation,
    *,
    ema: Callable[[Array], Array],
    seed: int,
    project: Callable[[Params], Params] = unchanged,
    axis_name: str | None = None,
    mean_gradient: Callable[[Callable], Callable] | None = None,
) -> Callable[[TrainState, dict[str, Array]], tuple[TrainState, dict[str, Array]]]:
    """Returns (state, batch) -> (state, metrics): one update on this device's share of the batch.

    Args:
        loss: (draws, params, batch) -> (B,), the loss of each example in training.
        optimizer: of the parameters.
        ema: n -> the share of the new weights in the average, after n steps before; see `experiments.averaging`.
        seed: of all randomness.
        project: where the weights must lie: what the optimizer makes of them is replaced by its projection, before it
            enters the average. EDM2's forced weight normalization is one.
        axis_name: of the devices, to average over.
        mean_gradient: makes of (params, batch, step) -> (value, gradient) of one device's examples the mean over devices;
            `lax.pmean` by default. See `experiments.parallel`.

    The metrics are the means over the global batch of `loss`, and the gradient's norm before clipping, `grad_norm`.
    """

    def of_this_device(params, batch, step):
        examples = batch["image"].shape[0]
        device, devices = (0, 1) if axis_name is None else (jax.lax.axis_index(axis_name), jax.lax.axis_size(axis_name))
        drawn = draws(jax.random.key(seed), step, device * examples + jnp.arange(examples), devices * examples)
        return jax.value_and_grad(lambda params: loss(drawn, params, batch).mean())(params)

    def pmean(function):
        return function if axis_name is None else lambda *args: jax.lax.pmean(function(*args), axis_name)

    gradient_of = (mean_gradient or pmean)(of_this_device)

    def train_step(state, batch):
        value, gradient = gradient_of(state.params, batch, state.step)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = project(optax.apply_updates(state.params, updates))
        share = ema(state.step)
        average_params = jax.tree.map(lambda e, p: e + share * (p - e), state.ema, params)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(gradient)}
        return TrainState(state.step + 1, params, opt_state, average_params), metrics

    return train_step


def make_train_steps(train_step: Callable, steps_per_call: int) -> Callable:
    """Returns (state, batches, n) -> (state, metrics): n <= steps_per_call steps in one compiled loop.

    `batches` has a leading axis of `steps_per_call`, of which the first n are used; so have the metrics, NaN past n.
    n is traced: one compilation serves every n.
    """

    def train_steps(state, batches, n):
        def body(i, carry):
            state, history = carry
            state, metrics = train_step(state, jax.tree.map(lambda x: x[i], batches))
            return state, jax.tree.map(lambda h, m: h.at[i].set(m), history, metrics)

        one = jax.eval_shape(train_step, state, jax.tree.map(lambda x: x[0], batches))[1]
        history = jax.tree.map(lambda m: jnp.full((steps_per_call, *m.shape), jnp.nan, m.dtype), one)
        return jax.lax.fori_loop(0, n, body, (state, history))

    return train_steps
