"""What can be wrong with a config, told before anything is compiled."""

import jax
from ml_collections import ConfigDict

import sde_lib
from experiments import build, writers
from experiments.errors import UserError

# These must be more than 0, where they are among the keys: networks and processes differ in theirs.
POSITIVE = (
    "data.batch_size", "data.image_size", "data.num_channels", "training.num_steps", "training.steps_per_call",
    "training.checkpoint_every", "training.keep_checkpoints", "training.log_every", "training.sample_every",
    "sampling.steps", "sampling.batch_size", "sampling.corrector_steps", "evaluation.num_samples",
    "evaluation.noise_levels", "optim.lr", "parameterization.sigma_data", "sampling.t_min", "training.t_min",
    "evaluation.t_min", "loss.snr_gamma", "loss.log_sigma_std", "loss.logit_std", "sde.t_max", "sde.sigma_min",
    "sampling.snr", "sampling.rho", "model.channels", "loss.uncertainty_channels", "sde.beta", "sde.mass",
    "training.ema_half_life", "optim.decay_steps",
)  # fmt: skip


def check(config: ConfigDict) -> None:
    """Raises `UserError` for whatever in the config cannot work, without compiling anything."""
    for key in POSITIVE:
        section, name = key.split(".")
        if name in config[section] and not config[section][name] > 0:
            raise UserError(f"{key}={config[section][name]}: must be more than 0")
    for key in ("training", "sampling", "evaluation"):
        if config[key].t_min >= config.sde.t_max:
            raise UserError(f"{key}.t_min={config[key].t_min}: must be less than sde.t_max={config.sde.t_max}")
    if not 0 <= config.training.ema_decay < 1:
        raise UserError(f"training.ema_decay={config.training.ema_decay}: must lie in [0, 1)")
    if config.model.num_classes and config.sampling.label >= config.model.num_classes:
        raise UserError(
            f"sampling.label={config.sampling.label}: the classes are 0 to {config.model.num_classes - 1}; "
            "-1 takes each in turn"
        )
    if config.training.ema_ramp < 0:
        raise UserError(f"training.ema_ramp={config.training.ema_ramp}: must be at least 0, which is no ramp")
    if not 0 <= config.training.class_dropout <= 1:
        raise UserError(f"training.class_dropout={config.training.class_dropout}: must lie in [0, 1]")
    if config.training.class_dropout and not config.model.num_classes:
        raise UserError(
            f"training.class_dropout={config.training.class_dropout}: model.num_classes=0 leaves no class to drop"
        )
    if config.training.loss_bins < 0:
        raise UserError(f"training.loss_bins={config.training.loss_bins}: must be at least 0, which is none")
    writers.check(config.training.writers)
    build.abstract_variables(config)
    build.loss(config), build.optimizer(config), build.ema(config), build.parallel(config)
    _check_sampling(config)


class _AnyNetwork:
    """Stands for the network where only shapes are asked for."""

    def apply(self, variables, x, *args, **kwargs):
        return x


def _check_sampling(config: ConfigDict) -> None:
    """Raises `UserError` if the method, its times or the parameterization do not work on the process; compiles nothing."""
    model = build.denoiser(config, None, config.sampling.t_min).replace(network=_AnyNetwork())
    stepper, size, channels = build.method(config), config.data.image_size, config.data.num_channels

    def run(key, model):
        return sde_lib.sample(key[None], model, stepper, build.times(config, model.sde), (size, size, channels))

    try:
        jax.eval_shape(run, jax.random.key(0), model)
    except (ValueError, NotImplementedError) as error:
        raise UserError(
            f"sampling.method={config.sampling.method!r} on sde.name={config.sde.name!r} with "
            f"parameterization.name={config.parameterization.name!r}: {error}"
        ) from error
