"""The process, the network, its weights before training, and the Denoiser that they make."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import models
import sde_lib
from experiments import state
from experiments.build.choices import choose
from experiments.errors import UserError, unknown_name
from experiments.parallel import Strategy

PROCESSES = {
    "vp": sde_lib.VPSDE,
    "subvp": sde_lib.SubVPSDE,
    "ve": sde_lib.VESDE,
    "cosine": sde_lib.CosineVPSDE,
    "edm": sde_lib.EDMSDE,
    "rectified_flow": sde_lib.RectifiedFlow,
    "ddpm": sde_lib.DiscreteVP.linear,
    "iddpm": sde_lib.DiscreteVP.cosine,
    "scaled_linear": sde_lib.DiscreteVP.scaled_linear,
    "critically_damped": sde_lib.CriticallyDampedLangevin,
}

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
    """The forward process, from `t_min` (training's, sampling's or evaluation's) on."""
    process = choose("sde.name", config.sde.name, PROCESSES)
    try:
        return process(**process_options(config), t_min=t_min)
    except ValueError as error:
        raise UserError(f"sde: {error}") from error


def process_options(config: ConfigDict) -> dict[str, Any]:
    """The keys of `sde` that the process takes, without those whose 0 leaves a number to the process."""
    parameters = inspect.signature(choose("sde.name", config.sde.name, PROCESSES)).parameters
    known = {k: v for k, v in config.sde.items() if k in parameters}
    return {k: v for k, v in known.items() if v != 0 or parameters[k].default is not None}


def network(config: ConfigDict) -> Any:
    """The Flax module."""
    options = config.model.to_dict()
    name = options.pop("name")
    if name not in models.names():
        raise unknown_name("model.name", name, models.names())
    try:
        return models.create(name, **options)
    except ValueError as error:
        raise UserError(f"model: {error}") from error


def compute_dtype(config: ConfigDict) -> str:
    """The dtype of the network's computation."""
    return config.model.get("dtype", "float32")


def condition(config: ConfigDict, labels: jax.Array | None) -> jax.Array | None:
    """What the network is conditioned on: the labels of a class-conditional model, else nothing."""
    return labels if config.model.num_classes else None


def _inputs(config: ConfigDict) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """One image of zeros, its noise level and its label: what the network is initialized with."""
    image = jnp.zeros((1, config.data.image_size, config.data.image_size, config.data.num_channels))
    return image, jnp.zeros((1,)), condition(config, jnp.zeros((1,), jnp.int32))


def _init(config: ConfigDict) -> Callable[[jax.Array], Any]:
    """key -> the weights before training: the network's collections, and that of the loss if it learns anything."""

    def init(key):
        variables = network(config).init(key, *_inputs(config))
        if not config.loss.learned_uncertainty:
            return variables
        log_variance = sde_lib.LearnedLogVariance.init(config.loss.uncertainty_channels)
        return variables | {LOSS: {"log_variance": log_variance.weights}}

    return init


def abstract_variables(config: ConfigDict) -> Any:
    """The shapes and dtypes of the weights; compiles nothing.

    Raises:
        UserError: the network's options do not fit each other or the images.
    """
    try:
        return jax.eval_shape(_init(config), jax.random.key(0))
    except ValueError as error:
        raise UserError(f"model: {error}") from error


def check_network(config: ConfigDict) -> None:
    """Makes sure that the network maps images to images of their shape; compiles nothing.

    Raises:
        UserError: the network's options do not fit each other or the images.
    """
    try:
        output, _ = jax.eval_shape(
            lambda key: network(config).init_with_output(key, *_inputs(config)), jax.random.key(0)
        )
    except ValueError as error:
        raise UserError(f"model: {error}") from error
    size, channels = config.data.image_size, config.data.num_channels
    if output.shape != (1, size, size, channels):
        made = "x".join(map(str, output.shape[1:]))
        raise UserError(
            f"model: the output of {config.model.name} is {made} for images of {size}x{size}x{channels}"
            + ("; model.out_channels=0 takes the number of the images" if "out_channels" in config.model else "")
        )


def init_variables(config: ConfigDict, strategy: Strategy | None = None) -> Any:
    """The weights before training, from `training.seed`, laid out by a strategy if there is one.

    The program runs once, so it is compiled without optimization: that takes a third of the time.
    """
    options = {"compiler_options": {"xla_backend_optimization_level": "0"}}
    init, key = _init(config), jax.random.key(config.training.seed)
    return jax.jit(init, **options)(key) if strategy is None else strategy.create(init, key, **options)


def denoiser(config: ConfigDict, variables: Any, t_min: float) -> sde_lib.NetworkDenoiser:
    """The Denoiser of the network with these weights, unconditioned as yet."""
    return sde_lib.NetworkDenoiser(
        sde=sde(config, t_min),
        parameterization=choose("parameterization.name", config.parameterization.name, PARAMETERIZATIONS)(
            config.parameterization
        ),
        network=network(config),
        variables=variables,
    )


def projection(config: ConfigDict) -> Callable[[Any], Any]:
    """variables -> variables: where the network wants its weights after every update, its `project` if it has one."""
    return getattr(network(config), "project", state.unchanged)
