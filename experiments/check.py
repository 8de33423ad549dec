"""What can be wrong with a config, told before anything is compiled."""

import jax
from ml_collections import ConfigDict

import sde_lib
from experiments import averaging, build, posthoc, writers
from experiments.data import augmentation
from experiments.errors import UserError
from experiments.evaluation import likelihood

# These must be more than 0, where they are among the keys: networks and processes differ in theirs.
POSITIVE = (
    "data.batch_size", "data.image_size", "data.num_channels", "training.num_steps", "training.steps_per_call",
    "training.checkpoint_every", "training.keep_checkpoints", "training.log_every", "training.sample_every",
    "sampling.steps", "sampling.batch_size", "sampling.corrector_steps", "evaluation.num_samples",
    "evaluation.noise_levels", "evaluation.neighbours", "evaluation.likelihood_t_min", "evaluation.likelihood_probes",
    "evaluation.likelihood_tolerance", "optim.lr", "parameterization.sigma_data", "sampling.t_min", "training.t_min",
    "evaluation.t_min", "loss.snr_gamma", "loss.log_sigma_std", "loss.logit_std", "sde.t_max", "sde.sigma_min",
    "sampling.snr", "sampling.rho", "model.channels", "loss.uncertainty_channels", "sde.beta", "sde.mass",
    "training.ema_half_life", "optim.decay_steps", "optim.accumulate", "data.worker_timeout",
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
    if config.training.max_skips < 0:
        raise UserError(f"training.max_skips={config.training.max_skips}: must be at least 0")
    if config.model.num_classes and config.sampling.label >= config.model.num_classes:
        raise UserError(
            f"sampling.label={config.sampling.label}: the classes are 0 to {config.model.num_classes - 1}; "
            "-1 takes each in turn"
        )
    for key in ("training_images", "likelihood_images"):
        if config.evaluation[key] < 0:
            raise UserError(
                f"evaluation.{key}={config.evaluation[key]}: must be at least 0, which measures nothing of it"
            )
    if config.training.ema_ramp < 0:
        raise UserError(f"training.ema_ramp={config.training.ema_ramp}: must be at least 0, which is no ramp")
    if not 0 <= config.training.class_dropout <= 1:
        raise UserError(f"training.class_dropout={config.training.class_dropout}: must lie in [0, 1]")
    if config.training.class_dropout and not config.model.num_classes:
        raise UserError(
            f"training.class_dropout={config.training.class_dropout}: model.num_classes=0 leaves no class to drop"
        )
    _check_data(config)
    if config.training.loss_bins < 0:
        raise UserError(f"training.loss_bins={config.training.loss_bins}: must be at least 0, which is none")
    writers.check(config.training.writers)
    build.abstract_variables(config)
    build.loss(config), build.optimizer(config), build.skips_nonfinite(config)
    _check_averages(config)
    _check_parts(config)
    build.check_features(config)
    likelihood.check(config)
    _check_sampling(config)


def _check_data(config: ConfigDict) -> None:
    """Raises `UserError` for what does not fit among the keys of `data`, and between them and the model."""
    if not 0 <= config.data.augmentation <= 1:
        raise UserError(f"data.augmentation={config.data.augmentation}: is a probability, and must lie in [0, 1]")
    told = config.model.get("augment_features", 0)
    if config.data.augmentation and told != augmentation.LABELS:
        raise UserError(
            f"data.augmentation={config.data.augmentation}: the network must be told of it, or samples are augmented too: "
            + (
                f"model.augment_features={told}, but there are {augmentation.LABELS} labels"
                if "augment_features" in config.model
                else f"model.name={config.model.name!r} has no augment_features"
            )
        )
    if config.data.workers < 0:
        raise UserError(f"data.workers={config.data.workers}: must be at least 0, which is none")
    build.preparation(config)


def _check_parts(config: ConfigDict) -> None:
    """Raises `UserError` if the batch cannot be shared by the devices and then be split for accumulation."""
    parts, devices = config.optim.accumulate, build.parallel(config).num_devices
    if config.data.batch_size % (devices * parts):
        raise UserError(
            f"optim.accumulate={parts}: data.batch_size={config.data.batch_size} on {devices} devices has "
            f"{config.data.batch_size // devices} examples on each, which cannot be split into {parts} equal parts"
        )


def _check_averages(config: ConfigDict) -> None:
    """Raises `UserError` if a moving average, its snapshots, or the choice for sampling cannot work."""
    build.emas(config), build.sampling_ema(config)
    training, std = config.training, config.sampling.ema_std
    posthoc.dtype(training.ema_snapshot_dtype)
    if training.ema_snapshot_every < 0:
        raise UserError(
            f"training.ema_snapshot_every={training.ema_snapshot_every}: must be at least 0, which is never"
        )
    if training.ema_snapshot_every and not build.power_emas(config):
        raise UserError(
            f"training.ema_snapshot_every={training.ema_snapshot_every}: training.ema={training.ema!r} tracks no power "
            "average to keep; EDM2 tracks power:0.05,power:0.1"
        )
    if not std:
        return
    if config.sampling.ema:
        raise UserError(f"sampling.ema_std={std}: sampling.ema={config.sampling.ema!r} chooses an average too; set one")
    if not training.ema_snapshot_every:
        raise UserError(
            f"sampling.ema_std={std}: this run keeps no snapshots to make it of (training.ema_snapshot_every=0); it "
            f"tracks {', '.join(build.emas(config))}: choose with sampling.ema"
        )
    try:
        averaging.power_exponent(std)
    except ValueError as error:
        raise UserError(f"sampling.ema_std={std}: {error}") from error


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
