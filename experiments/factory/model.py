"""The process, the network, its weights before training, and the Denoiser that they make."""

import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

import models
import sde_lib
from experiments.config import components
from experiments.config.choices import choose
from experiments.config.components import component, is_path
from experiments.config.named import PROCESSES
from experiments.devices.parallel import Strategy
from experiments.errors import UserError
from experiments.factory import conditions
from experiments.factory.media import medium
from experiments.factory.objective import draws_samples
from experiments.learning import state

PARAMETERIZATIONS = {
    "edm": lambda c: sde_lib.EDMPreconditioning(sigma_data=c.sigma_data),
    "noise": lambda c: sde_lib.NoisePrediction(c.time_scale, c.time_offset),
    "score": lambda c: sde_lib.ScorePrediction(c.sigma_data if c.scale_input else None, c.sigma_scale, c.levels),
    "data": lambda c: sde_lib.DataPrediction(c.time_scale, c.time_offset),
    "v": lambda c: sde_lib.VPrediction(c.time_scale, c.time_offset),
    "velocity": lambda c: sde_lib.VelocityPrediction(time_scale=c.time_scale),
}

LOSS = "loss"  # the collection, beside the network's own, of what the loss learns; networks do not see it


def sde(config: ConfigDict, t_min: float) -> sde_lib.Process:
    """The forward process, from `t_min` (training's, sampling's or evaluation's) on.

    Raises:
        UserError: the process is unknown, its options do not fit, or the class of a user lacks a method.
    """
    process = component("sde.name", config.sde.name, PROCESSES)
    try:
        made = process(**process_options(config), t_min=t_min)
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"{_named('sde', config)}: {error}") from error
    except TypeError as error:
        if not is_path(config.sde.name):
            raise
        raise UserError(
            f"{_named('sde', config)}: a process takes its options and t_min by name: {_one_line(error)}; "
            "it derives from sde_lib.SDE"
        ) from error
    return _complete(made, config) if is_path(config.sde.name) else made


def t_max(config: ConfigDict) -> float:
    """The largest time of the process: the config's, or the own default of a user's class that it does not set."""
    return config.sde.t_max if "t_max" in config.sde else sde(config, config.training.t_min).t_max


def _complete(process: Any, config: ConfigDict) -> sde_lib.Process:
    """Returns the process of a user that defines what the library needs of it.

    Raises:
        UserError: it is no process, lacks a method, or a method gives another shape or dtype than t's.
    """
    name = _named("sde", config)
    missing = [part for part in ("t_max", "noise_to_signal", "prior_sample") if not hasattr(process, part)]
    if missing:
        raise UserError(f"{name}: {type(process).__name__} has no {missing[0]}; a process derives from sde_lib.SDE")
    for method, shape in itertools.product(("alpha", "sigma", "noise_to_signal"), ((3,), (5,))):
        if not hasattr(process, method):
            continue  # of a process whose state is more than the data
        t = jax.ShapeDtypeStruct(shape, jnp.float32)
        try:
            found = jax.eval_shape(getattr(process, method), t)
        except NotImplementedError as error:
            raise UserError(f"{name}: {error}") from error
        except Exception as error:
            raise UserError(
                f"{name}: {method}(t): {type(error).__name__}: {_one_line(error)}; it acts element by element on t (B,)"
            ) from error
        if getattr(found, "shape", None) != t.shape or not jnp.issubdtype(found.dtype, jnp.floating):
            what = f"{found.dtype} {found.shape}" if hasattr(found, "shape") else type(found).__name__
            raise UserError(f"{name}: {method}(t) is {what} for t float32 {shape}; it acts element by element")
    return process


def _named(section: str, config: ConfigDict) -> str:
    """The section, with the name of a component that a user has given by import path."""
    return f"{section}.name={config[section].name}" if is_path(config[section].name) else section


def process_options(config: ConfigDict) -> dict[str, Any]:
    """The keys of `sde` that the process takes, without those whose 0 leaves a number to the process."""
    process = component("sde.name", config.sde.name, PROCESSES)
    if is_path(config.sde.name):
        return {k: v for k, v in config.sde.items() if k in components.options(process)}
    parameters = inspect.signature(process).parameters
    known = {k: v for k, v in config.sde.items() if k in parameters}
    return {k: v for k, v in known.items() if v != 0 or parameters[k].default is not None}


def network(config: ConfigDict) -> Any:
    """The Flax module.

    Raises:
        UserError: the network is unknown, or an option does not fit.
    """
    options = config.model.to_dict()
    name = options.pop("name")
    try:
        if name in models.KNOWN:
            return models.create(name, **options)
        if is_path(name):
            return components.load("model.name", name)(**options)
    except (ValueError, TypeError) as error:
        raise UserError(f"{_named('model', config)}: {error}") from error
    raise components.unknown("model.name", name, models.KNOWN)


def num_classes(config: ConfigDict) -> int:
    """The number of classes of a class-conditional network; 0 for one without, or without the option."""
    return config.model.get("num_classes", 0)


def compute_dtype(config: ConfigDict) -> str:
    """The dtype of the network's computation."""
    return config.model.get("dtype", "float32")


def _inputs(config: ConfigDict) -> tuple[jax.Array, jax.Array, dict[str, Any] | None]:
    """Zeros for one example, its noise level and its condition, as for the network's `init`."""
    return jnp.zeros((1, *medium(config).event_shape)), jnp.zeros((1,)), conditions.placeholder(config)


def initialization(config: ConfigDict) -> Callable[[jax.Array], Any]:
    """key -> the weights before training: the network's collections, and that of the loss if it learns anything."""

    def init(key):
        variables = network(config).init(key, *_inputs(config))
        if not (config.loss.learned_uncertainty and draws_samples(config)):
            return variables
        log_variance = sde_lib.LearnedLogVariance.init(config.loss.uncertainty_channels)
        return variables | {LOSS: {"log_variance": log_variance.weights}}

    return init


def abstract_variables(config: ConfigDict) -> Any:
    """The shapes and dtypes of the weights; compiles nothing.

    Raises:
        UserError: the network's options do not fit each other or the images.
    """
    with errors_of_network(config):
        return jax.eval_shape(initialization(config), jax.random.key(0))


def _call(config: ConfigDict) -> str:
    """Returns what the call of a network must accept, for messages."""
    text = (
        "a network is called as (x, noise_level, condition, train=False), and in training with train=True, "
        "dropout_keys=keys"
    )
    specs = {name: made.spec(medium(config)) for name, made in conditions.conditions(config).items()}
    if not specs:
        return f"{text}; condition is None"
    sampled = conditions.condition(config, jnp.zeros(1)) or {}

    def described(spec):
        return f"{spec.dtype} ({', '.join(['B', *map(str, spec.shape)])}{',' * (not spec.shape)})"

    leaves = [
        f"{name!r}: {jax.tree.map(described, spec)}" + ("" if name in sampled else ", which sampling leaves out")
        for name, spec in specs.items()
    ]
    return f"{text}; condition is a dict of {', and '.join(leaves)}"


@contextlib.contextmanager
def errors_of_network(config: ConfigDict) -> Iterator[None]:
    """Turns what a network raises when it is traced into one line.

    Raises:
        UserError: the options do not fit each other or the images; or the network of a user cannot be called.
    """
    try:
        yield
    except Exception as error:
        if is_path(config.model.name):
            kind = type(error).__name__
            rng = "; its dropout is models.layers.dropout.Dropout, with dropout_keys" if "Rng" in kind else ""
            raise UserError(f"{_named('model', config)}: {kind}: {_one_line(error)}{rng}; {_call(config)}") from error
        if not isinstance(error, ValueError):
            raise
        raise UserError(f"{_named('model', config)}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


def check_network(config: ConfigDict) -> None:
    """Makes sure that the network maps images to images of their shape, in sampling and in training; compiles nothing.

    Raises:
        UserError: the network's options do not fit each other or the images, or the network of a user cannot be called.
    """
    module, inputs = network(config), _inputs(config)
    if is_path(config.model.name) and not isinstance(module, nn.Module):
        raise UserError(
            f"{_named('model', config)}: {type(module).__name__} is no flax.linen.Module, which a network derives from"
        )
    if not draws_samples(config):
        return  # the objective checks what its network returns
    with errors_of_network(config):
        output, variables = jax.eval_shape(lambda key: module.init_with_output(key, *inputs), jax.random.key(0))
    _require_floats(config, output)
    data = medium(config)
    if getattr(output, "shape", None) != (1, *data.event_shape):
        made = "x".join(map(str, getattr(output, "shape", ())[1:])) or type(output).__name__
        raise UserError(
            f"model: the output of {config.model.name} is {made} for images of {data.described}"
            + ("; model.out_channels=0 takes the number of the images" if "out_channels" in config.model else "")
        )
    if is_path(config.model.name):
        _check_calls(config, module, variables)
    if is_path(config.model.name) and not jax.tree.leaves(variables):
        raise UserError(f"{_named('model', config)}: the network has no parameters")


def _require_floats(config: ConfigDict, output: Any) -> None:
    """Raises `UserError` if the network of a user returns something else than an array of floating-point numbers."""
    if is_path(config.model.name) and not jnp.issubdtype(getattr(output, "dtype", None), jnp.floating):
        raise UserError(
            f"{_named('model', config)}: the output is {getattr(output, 'dtype', type(output).__name__)}, "
            "not floating-point numbers"
        )


def _check_calls(config: ConfigDict, module: Any, variables: Any) -> None:
    """Makes sure that the network of a user maps several examples to outputs of their shape, in sampling and in training.

    Raises:
        UserError: it cannot be called so, or its output has another shape or dtype.
    """
    batch = 2
    x, noise_level, condition = jax.tree.map(lambda leaf: jnp.repeat(leaf, batch, 0), _inputs(config))
    sampled = conditions.condition(config, jnp.zeros(batch, jnp.int32))
    keys = jax.random.split(jax.random.key(0), batch)
    calls = {
        "sampling": lambda variables: module.apply(variables, x, noise_level, sampled, train=False),
        "training": lambda variables: module.apply(variables, x, noise_level, condition, train=True, dropout_keys=keys),
    }
    for use, call in calls.items():
        with errors_of_network(config):
            output = jax.eval_shape(call, variables)
        _require_floats(config, output)
        if output.shape != x.shape:
            raise UserError(
                f"{_named('model', config)}: the output in {use} has shape {output.shape} for x of shape {x.shape}; the "
                "shape of x is needed"
            )


def init_variables(config: ConfigDict, strategy: Strategy | None = None) -> Any:
    """The weights of the network before training; see `initialized`."""
    return initialized(config, initialization(config), strategy)


def initialized(config: ConfigDict, init: Callable[[jax.Array], Any], strategy: Strategy | None = None) -> Any:
    """The weights before training by `init`, from `training.seed`, laid out by a strategy if there is one.

    The program runs once, so it is compiled without optimization: that takes a third of the time.
    """
    options = {"compiler_options": {"xla_backend_optimization_level": "0"}}
    key = jax.random.key(config.training.seed)
    return jax.jit(init, **options)(key) if strategy is None else strategy.create(init, key, **options)


def classifier(config: ConfigDict, variables: Any, inputs: Callable) -> sde_lib.NetworkClassifier:
    """log p(class | x_t, t) with these weights, of no class as yet; `inputs` as of `classifier_inputs`."""
    return sde_lib.NetworkClassifier(network=network(config), variables=variables, labels=None, inputs=inputs)


def classifier_inputs(config: ConfigDict) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """(x, t) -> (x, noise_level): what a classifier sees, as a network of the parameterization does."""
    process = sde(config, config.training.t_min)
    of = _parameterization(config)
    return lambda x, t: of.inputs(process, x, t)


def _parameterization(config: ConfigDict) -> sde_lib.Parameterization:
    return choose("parameterization.name", config.parameterization.name, PARAMETERIZATIONS)(config.parameterization)


def denoiser(config: ConfigDict, variables: Any, t_min: float) -> sde_lib.NetworkDenoiser:
    """The Denoiser of the network with these weights, unconditioned as yet."""
    return sde_lib.NetworkDenoiser(
        sde=sde(config, t_min),
        parameterization=_parameterization(config),
        network=network(config),
        variables=variables,
    )


def projection(config: ConfigDict) -> Callable[[Any], Any]:
    """variables -> variables: where the network wants its weights after every update, its `project` if it has one."""
    return getattr(network(config), "project", state.unchanged)
