"""The training state and the pure training step.

The step is written for one device; `axis_name=None` means a single device. All random numbers are functions of the
seed, the step and the position of an example in the global batch, so times, noise and dropout do not depend on the
number of devices.
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
    """State of the training that is carried from step to step.

    Each moving average costs as much memory as `params`: 4 bytes per weight, on every device and in every checkpoint.

    Attributes:
        step: number of completed steps, int32.
        params: weights of the network; with several players a dict by name, see `players.py`.
        opt_state: state of the optimizer.
        emas: moving averages of `params`, in the order of their rules.
        skipped: number of steps that did not change the weights because the loss or its gradient was not finite, int32;
            None in a run that does not skip such steps.
        frozen: weights that the loss reads and training does not change, such as a teacher's, or None. They are not
            stored in checkpoints.
    """

    step: Array
    params: Params
    opt_state: Any
    emas: tuple[Params, ...]
    skipped: Array | None = None
    frozen: Any = None

    @property
    def ema(self) -> Params:
        """The first moving average."""
        return self.emas[0]

    @property
    def updates(self) -> Array:
        """The number of steps that changed the weights."""
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
        optimizer: optimizer of the weights.
        emas: number of moving averages; with several players, the names of the players in each average.
        skip_nonfinite: whether non-finite steps are counted and skipped.
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
    """PRNG keys and positions of the examples of one step.

    Attributes:
        keys: (B,), one key per example on this device.
        shared: (), one key per step, equal on all devices.
        places: (B,), positions of the examples in the global batch.
        size: size of the global batch.
        progress: (), fraction of the training completed before this step, in [0, 1); None if the number of steps is not
            known.
    """

    keys: Array
    shared: Array
    places: Array
    size: int = struct.field(pytree_node=False)
    progress: Array | None = None


def draws(seed: Array, step: Array, places: Array, size: int, num_steps: int | None = None) -> Draws:
    """Returns the PRNG keys and positions of the examples of a step.

    Args:
        seed: PRNG key of the training.
        step: the step.
        places: (B,), positions of the examples in the global batch.
        size: size of the global batch.
        num_steps: number of steps of the training, for `Draws.progress`.
    """
    key = jax.random.fold_in(seed, step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, places)
    progress = None if num_steps is None else jnp.asarray(step, jnp.float32) / float(num_steps)
    return Draws(keys, jax.random.fold_in(key, size), places, size, progress)  # positions are less than `size`


def unchanged(params: Params) -> Params:
    """Returns `params`: the identity projection."""
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
    """Returns (state, batch) -> (state, metrics): one update on this device's shard of the batch.

    Args:
        loss: (draws, params, batch, frozen) -> (B,), the training loss of each example. With several players, whose
            weights are a dict by name, it may return a dict of losses by name: each player then minimizes its own loss
            only.
        optimizer: optimizer of the parameters.
        emas: one rule per average of the state: n -> share of the new weights, where n is the number of updates before;
            see `experiments.learning.averaging`. With several players, a dict of shares by name.
        seed: seed of all random numbers.
        num_steps: number of steps of the training, for `Draws.progress`.
        project: projection of the weights, such as EDM2's forced weight normalization. The averages are updated with
            the weights before the projection.
        accumulate: number of parts into which this device's shard is split; gradients are computed part by part and
            averaged. Activation memory is that of one part, plus one gradient; results are equal up to rounding.
        has_aux: whether `loss` returns a pair (losses, aux), where aux is a dict of arrays (B, ...) to average as
            metrics.
        axis_name: mapped axis of the devices to average over.
        mean_gradient: transforms (params, batch, step, frozen) -> (value, gradient) of one device's examples to the
            mean over devices; `lax.pmean` by default. See `experiments.devices.parallel`.

    If the state counts `skipped` steps, a step whose loss or gradient is not finite changes only `step` and `skipped`.
    Loss and gradient are means over the global batch, so all devices take the same decision.

    The metrics are the means of `loss` and of aux over the global batch; `grad_norm`, the norm of the gradient before
    clipping; and `skipped`, the number of skipped steps, if the state counts them. For losses by player, `loss` is
    their sum and `loss_NAME` each loss.
    """

    def device_gradient(params, batch, step, frozen):
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

    gradient_of = (mean_gradient or pmean)(device_gradient)

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
            unchanged_state = state.replace(step=state.step + 1, skipped=state.skipped + 1)
            new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, unchanged_state)
            metrics["skipped"] = new.skipped.astype(value.dtype)
        return new, metrics

    return train_step


def _moved(average: Params, params: Params, share: Any) -> Params:
    """Returns an average moved towards the weights by a share; with several players, each by its own share."""
    if isinstance(share, Mapping):
        return {name: _moved(average[name], params[name], own) for name, own in share.items()}
    return jax.tree.map(lambda e, p: e + share * (p - e), average, params)


def _losses(
    loss: Callable, has_aux: bool, drawn: Draws, params: Params, batch: dict[str, Array], frozen: Any
) -> tuple[Array, dict[str, Array]]:
    """Returns the losses (B,) and the auxiliary metrics of the examples.

    For losses by player, returns the sum of the losses, constructed so that its gradient with respect to a player's
    weights is the gradient of the player's own loss: the loss is evaluated once per player, with a stopped gradient for
    the weights of all other players.
    """

    def losses_and_aux(params):
        return loss(drawn, params, batch, frozen) if has_aux else (loss(drawn, params, batch, frozen), {})

    losses, aux = losses_and_aux(params)
    if not isinstance(losses, Mapping):
        return losses, aux
    own = {
        name: losses_and_aux({n: p if n == name else jax.lax.stop_gradient(p) for n, p in params.items()})[0][name]
        for name in losses
    }
    return sum(own.values()), aux | {f"loss_{name}": value for name, value in own.items()}


def mean_over_parts(function: Callable, parts: int) -> Callable:
    """Returns the mean of `function` over equal parts of its arguments, evaluated part by part.

    Arguments (B, ...) are split along the leading axis. Part i has the entries i, i + parts, ..., so that with an axis
    sharded over devices each device has a share of every part.
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

    `batches` has a leading axis of length `steps_per_call`, of which the first n entries are used. The metrics have the
    same leading axis, with NaN after the first n entries. n is traced, so one compilation serves every n. All entries
    of the metric `param_norm` are the norm of the weights after the last step: computing the norm in each step would
    take about 1 % of the time of a small network.
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
