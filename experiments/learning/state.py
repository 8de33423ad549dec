"""The training state and the pure training step.

The step is written for one device; `axis_name=None` means alone. All randomness comes from the seed, the step and an
example's place in the global batch, so one device and eight draw the same times, noise and dropout.
"""

from collections.abc import Callable, Mapping, Sequence
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

    Each moving average costs what `params` cost: 4 bytes for each weight, on every device and in every checkpoint.

    Attributes:
        step: steps made, int32.
        params: the network's weights; of several players a dict by name, see `players.py`.
        opt_state: the optimizer's.
        emas: moving averages of `params`, in the order of their rules.
        skipped: how many of the steps left the weights alone, since the loss or its gradient was not finite, int32; None in
            a run that does not skip such steps.
        frozen: weights that the loss reads and training leaves alone, such as a teacher's; None without any. They are in no
            checkpoint.
    """

    step: Array
    params: Params
    opt_state: Any
    emas: tuple[Params, ...]
    skipped: Array | None = None
    frozen: Any = None

    @property
    def ema(self) -> Params:
        """The first of the averages."""
        return self.emas[0]

    @property
    def updates(self) -> Array:
        """How many of the steps moved the weights."""
        return self.step if self.skipped is None else self.step - self.skipped


def create(
    params: Params,
    optimizer: optax.GradientTransformation,
    *,
    emas: int | Sequence[Sequence[str]] = 1,
    skip_nonfinite: bool = False,
    frozen: Any = None,
) -> TrainState:
    """Returns the state before the first step.

    Args:
        params: the weights.
        optimizer: of the weights.
        emas: the number of moving averages; of several players, the names of those that have each.
        skip_nonfinite: whether steps that are not finite are counted and change no weight.
        frozen: weights that the loss reads.
    """
    averaged = [params] * emas if isinstance(emas, int) else [{name: params[name] for name in names} for names in emas]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        emas=tuple(jax.tree.map(jnp.copy, tree) for tree in averaged),
        skipped=jnp.zeros((), jnp.int32) if skip_nonfinite else None,
        frozen=frozen,
    )


@struct.dataclass
class Draws:
    """The randomness of one step: of its examples, and what they share.

    Attributes:
        keys: (B,), one per example at hand.
        shared: (), one for the step, the same on all devices.
        places: (B,), where in the global batch the examples are.
        size: of the global batch.
        progress: (), the share of the training's steps that were made before this one, from 0 to 1; None where their number
            is not known.
    """

    keys: Array
    shared: Array
    places: Array
    size: int = struct.field(pytree_node=False)
    progress: Array | None = None


def draws(seed: Array, step: Array, places: Array, size: int, num_steps: int | None = None) -> Draws:
    """Those of the examples at `places` (B,) in a global batch of the given size, from the seed's key and the step."""
    key = jax.random.fold_in(seed, step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, places)
    progress = None if num_steps is None else jnp.asarray(step, jnp.float32) / float(num_steps)
    return Draws(keys, jax.random.fold_in(key, size), places, size, progress)  # no example is at the place `size`


def unchanged(params: Params) -> Params:
    """The projection of a network that has none."""
    return params


def make_train_step(
    loss: Callable[[Draws, Params, dict[str, Array], Any], Any],
    optimizer: optax.GradientTransformation,
    *,
    emas: Sequence[Callable[[Array], Any]],
    seed: int,
    num_steps: int | None = None,
    project: Callable[[Params], Params] = unchanged,
    accumulate: int = 1,
    has_aux: bool = False,
    axis_name: str | None = None,
    mean_gradient: Callable[[Callable], Callable] | None = None,
) -> Callable[[TrainState, dict[str, Array]], tuple[TrainState, dict[str, Array]]]:
    """Returns (state, batch) -> (state, metrics): one update on this device's share of the batch.

    Args:
        loss: (draws, params, batch, frozen) -> (B,), the loss of each example in training. Of several players, whose
            weights are a dict by name, it may be a dict by name too: each player then descends its own loss alone.
        optimizer: of the parameters.
        emas: for each average of the state, n -> the share of the new weights in it, after n updates before; see
            `experiments.learning.averaging`. Of several players, a dict of shares by name.
        seed: of all randomness.
        num_steps: of the training, for `Draws.progress`.
        project: where the weights must lie: what the optimizer makes of them enters the averages, and is then replaced by
            its projection. EDM2's forced weight normalization is one.
        accumulate: into how many parts this device's share is split, one gradient after the other; the update is of their
            mean. Memory is that of one part and one more gradient; the numbers are those of the whole, to rounding.
        has_aux: `loss` also gives a dict of what else is to be known of the examples, arrays (B, ...) by name.
        axis_name: of the devices, to average over.
        mean_gradient: makes of (params, batch, step, frozen) -> (value, gradient) of one device's examples the mean over
            devices;
            `lax.pmean` by default. See `experiments.devices.parallel`.

    Where the state counts `skipped` steps, one whose loss or gradient is not finite changes nothing but `step` and that
    count; loss and gradient are those of the whole global batch, so that all devices decide alike.

    The metrics are the means over the global batch of `loss` and of what else it gives; the gradient's norm before
    clipping, `grad_norm`; and where the state counts them, the steps `skipped` so far. Of losses by player `loss` is the
    sum, and each is there as `loss_NAME`.
    """

    def of_this_device(params, batch, step, frozen):
        examples = jax.tree.leaves(batch)[0].shape[0]
        device, devices = (0, 1) if axis_name is None else (jax.lax.axis_index(axis_name), jax.lax.axis_size(axis_name))

        def gradient_of(places, batch):
            drawn = draws(jax.random.key(seed), step, places, devices * examples, num_steps)

            def mean_loss(params):
                losses, aux = _losses(loss, has_aux, drawn, params, batch, frozen)
                return losses.mean(), jax.tree.map(lambda x: x.mean(0), aux)

            return jax.value_and_grad(mean_loss, has_aux=True)(params)

        places = device * examples + jnp.arange(examples)
        return mean_over_parts(gradient_of, accumulate)(places, batch)

    def pmean(function):
        return function if axis_name is None else lambda *args: jax.lax.pmean(function(*args), axis_name)

    gradient_of = (mean_gradient or pmean)(of_this_device)

    def train_step(state, batch):
        (value, aux), gradient = gradient_of(state.params, batch, state.step, state.frozen)
        grad_norm = optax.tree.norm(gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        shares = [ema(state.updates) for ema in emas]
        moved = [_moved(e, params, s) for e, s in zip(state.emas, shares, strict=True)]
        new = TrainState(state.step + 1, project(params), opt_state, tuple(moved), state.skipped, state.frozen)
        metrics = {"loss": value, **aux, "grad_norm": grad_norm}
        if state.skipped is not None:
            finite = jnp.isfinite(value) & jnp.isfinite(grad_norm)
            same = state.replace(step=state.step + 1, skipped=state.skipped + 1)
            new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, same)
            metrics["skipped"] = new.skipped.astype(value.dtype)
        return new, metrics

    return train_step


def _moved(average: Params, params: Params, share: Any) -> Params:
    """An average moved towards the weights by a share; of several players, each by its own."""
    if isinstance(share, Mapping):
        return {name: _moved(average[name], params[name], own) for name, own in share.items()}
    return jax.tree.map(lambda e, p: e + share * (p - e), average, params)


def _losses(
    loss: Callable, has_aux: bool, drawn: Draws, params: Params, batch: dict[str, Array], frozen: Any
) -> tuple[Array, dict[str, Array]]:
    """The losses (B,) and what else is to be known of the examples.

    Where a loss gives one for each player, the sum is such that its gradient with respect to a player's weights is that of
    the player's own loss: the function is written out once per player, with all other players constant.
    """

    def given(params):
        return loss(drawn, params, batch, frozen) if has_aux else (loss(drawn, params, batch, frozen), {})

    losses, aux = given(params)
    if not isinstance(losses, Mapping):
        return losses, aux
    own = {
        name: given({n: p if n == name else jax.lax.stop_gradient(p) for n, p in params.items()})[0][name]
        for name in losses
    }
    return sum(own.values()), aux | {f"loss_{name}": value for name, value in own.items()}


def mean_over_parts(function: Callable, parts: int) -> Callable:
    """The mean of a function's results over equal parts of its arguments' leading axis (B, ...), one part after the other.

    Part i has the entries i, i + parts, ...: where the axis is sharded over devices, each has its share of every part.
    """
    if parts == 1:
        return function

    def mean(*arguments):
        arranged = jax.tree.map(lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), arguments)

        def part(i):
            return jax.tree.map(lambda x: x[:, i], arranged)

        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *part(0)))
        total = jax.lax.fori_loop(0, parts, lambda i, sum: jax.tree.map(jnp.add, sum, function(*part(i))), zero)
        return jax.tree.map(lambda x: x / parts, total)

    return mean


def make_train_steps(train_step: Callable, steps_per_call: int) -> Callable:
    """Returns (state, batches, n) -> (state, metrics): n <= steps_per_call steps in one compiled loop.

    `batches` has a leading axis of `steps_per_call`, of which the first n are used; so have the metrics, NaN past n.
    n is traced: one compilation serves every n. `param_norm` is the norm of the weights after the last step, at every
    place: reading all weights in each step would take a hundredth of a small network's time.
    """

    def train_steps(state, batches, n):
        def body(i, carry):
            state, history = carry
            state, metrics = train_step(state, jax.tree.map(lambda x: x[i], batches))
            return state, jax.tree.map(lambda h, m: h.at[i].set(m), history, metrics)

        one = jax.eval_shape(train_step, state, jax.tree.map(lambda x: x[0], batches))[1]
        history = jax.tree.map(lambda m: jnp.full((steps_per_call, *m.shape), jnp.nan, m.dtype), one)
        state, history = jax.lax.fori_loop(0, n, body, (state, history))
        return state, history | {"param_norm": jnp.broadcast_to(optax.tree.norm(state.params), (steps_per_call,))}

    return train_steps
