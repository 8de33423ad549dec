"""Validation of a config by subject, before anything is compiled.

A command names the subjects that it uses, so that a trained run is not refused because of settings that only training reads:

| subject    | what is validated                                                                             |
|------------|-----------------------------------------------------------------------------------------------|
| model      | process, parameterization, network and the shape of images                                    |
| average    | the average of the weights that is sampled from                                               |
| flow       | the smallest time, the number of steps and the batch of sampling                              |
| times      | `flow`, and the time grid on the process                                                      |
| method     | `times`, and the sampling method on the process                                               |
| label      | the class that is sampled, and guidance                                                       |
| sampling   | `method` and `label`                                                                          |
| data       | the source of images                                                                          |
| training   | loss, optimizer, averages, augmentation, and the batch on the devices of this machine         |
| writers    | the packages of the log writers                                                               |
| evaluation | features, reference, likelihood                                                               |
| files      | contents of the files that evaluation reads: weights of features, statistics                  |
"""

import sys
from collections.abc import Iterable

import jax
import numpy as np
from ml_collections import ConfigDict

import sde_lib
from experiments import factory
from experiments.config import ranges
from experiments.config.components import is_path
from experiments.data import augmentation
from experiments.errors import UserError, counted
from experiments.factory import guidance
from experiments.learning import posthoc
from experiments.logs import writers

MANY_SNAPSHOTS = 500


def check(config: ConfigDict, *subjects: str, overrides: Iterable[tuple[str, str]] = ()) -> None:
    """Validates the subjects of a config, those of training by default; compiles nothing.

    Args:
        config: of the experiment.
        subjects: names of `SUBJECTS`.
        overrides: (key, text) pairs that were applied; their numbers are validated for any subjects.

    Raises:
        UserError: a setting that a subject reads cannot work; the message names its key.
    """
    given = [key for key, _ in overrides]
    ranges.check_keys(config, given)
    for subject in subjects or everything(config):
        SUBJECTS[subject](config)
    if not {"label", "sampling"}.isdisjoint(subjects or everything(config)):
        guidance.require_effect(config, given if subjects and given else None)


def _check_smallest_time(config: ConfigDict, section: str) -> None:
    """Raises `UserError` if the process cannot be computed with from a section's smallest time to that of the prior."""
    largest = factory.t_max(config)
    if config[section].t_min >= largest:
        raise UserError(f"{section}.t_min={config[section].t_min}: must be less than sde.t_max={largest}")
    for warning in factory.check_ends(config, f"{section}.t_min"):
        print(f"warning: {warning}", file=sys.stderr)


def _check_model(config: ConfigDict) -> None:
    ranges.check(
        config, "sde.", "model.", "parameterization.", "data.image_size", "data.num_channels", "data.event_shape"
    )
    ranges.check(config, "loss.uncertainty_channels")
    factory.check_network(config)


def _check_average(config: ConfigDict) -> None:
    ranges.check(config, "sampling.ema_std")
    factory.sampling_ema(config)
    std = config.sampling.ema_std
    if std and config.sampling.ema:
        raise UserError(f"sampling.ema_std={std}: sampling.ema={config.sampling.ema!r} chooses an average too; set one")


def _check_flow(config: ConfigDict) -> None:
    factory.require_samples(config)
    ranges.check(config, "sde.", *(f"sampling.{name}" for name in ("t_min", "steps", "rho", "batch_size")))
    _check_smallest_time(config, "sampling")
    factory.sde(config, config.sampling.t_min)
    factory.parallel(config)


def _check_times(config: ConfigDict) -> None:
    _check_flow(config)
    factory.check_times(config)


class _AnyNetwork:
    """Stands for the network where only shapes are computed; `calls` counts how often it is traced."""

    def __init__(self):
        self.calls = 0

    def apply(self, variables, x, *args, **kwargs):
        self.calls += 1
        return x


def _check_label(config: ConfigDict) -> None:
    ranges.check(config, "sampling.label")
    factory.check_sampling_label(config)
    factory.check_guidance(config)
    model = factory.denoiser(config, None, config.sampling.t_min).replace(network=_AnyNetwork())
    factory.check_guidance_shapes(config, model, factory.medium(config).event_shape)


def _check_sampling(config: ConfigDict) -> None:
    _check_sampler(config)
    _check_label(config)


def _check_sampler(config: ConfigDict) -> None:
    ranges.check(config, "sampling.")
    _check_times(config)
    model = factory.denoiser(config, None, config.sampling.t_min).replace(network=_AnyNetwork())
    stepper, shape = factory.sampler(config), factory.medium(config).event_shape
    times = factory.times(config, model.sde)

    def run(key, model):
        return sde_lib.sample(jax.random.split(key), model, stepper, times, shape)

    own = is_path(config.sampling.sampler) and not config.sampling.evaluations
    try:
        drawn = jax.eval_shape(run, jax.random.key(0), model)
        if own and drawn.shape != (2, *shape):
            raise ValueError(f"two samples have shape {drawn.shape}, not {(2, *shape)}")
    except Exception as error:
        if not isinstance(error, ValueError | NotImplementedError) and not own:
            raise
        kind = "" if isinstance(error, ValueError | NotImplementedError) else f"{type(error).__name__}: "
        chosen = f"sampler={config.sampling.sampler!r}"
        if config.sampling.evaluations:
            chosen = f"evaluations={config.sampling.evaluations}"
        raise UserError(
            f"sampling.{chosen} on sde.name={config.sde.name!r} with "
            f"parameterization.name={config.parameterization.name!r}: {kind}{' '.join(str(error).split())[:400]}"
            + ("; a sampler defines step(carry, keys, x, t, s, denoiser) -> (carry, x)" if own else "")
        ) from error
    if own:
        _require_count(config, stepper, model, times)


def _require_count(config: ConfigDict, stepper: sde_lib.Sampler, model: sde_lib.Denoiser, times: jax.Array) -> None:
    """Makes sure that a user's sampler that inherits `nfe` evaluates the Denoiser as often as `nfe` states.

    Raises:
        UserError: `init`, `step` or `finish` evaluates it more or less often.
    """
    if type(stepper).nfe is not sde_lib.Sampler.nfe:
        return
    shape, counts = factory.medium(config).event_shape, {}

    def traced(method: str, *arguments):
        model.network.calls = 0
        returned = getattr(stepper, method)(*arguments)
        counts[method] = model.network.calls
        return returned

    def run(key, model):
        x = model.sde.prior_sample(key, shape)[None]
        carry = traced("init", x, model, times)
        carry, x = traced("step", carry, key[None], x, times[0], times[1], model)
        return traced("finish", carry, x, times[-2], model)

    jax.eval_shape(run, jax.random.key(0), model)
    for method, stated in (("init", 0), ("step", stepper.evaluations_per_step), ("finish", 1)):
        if counts[method] != stated:
            raise UserError(
                f"sampling.sampler={config.sampling.sampler}: {method} evaluates the Denoiser {counts[method]} times, and "
                f"nfe counts {stated}; define nfe(n_steps), the number in n steps, the last of which is `finish`"
            )


def _check_data(config: ConfigDict) -> None:
    keys = ("image_size", "num_channels", "test_fraction", "validation_fraction", "memory_gb", "white")
    ranges.check(config, *(f"data.{key}" for key in keys))
    factory.rendering(config)


def _check_training(config: ConfigDict) -> None:
    ranges.check(config, "training.", "optim.", "loss.", "data.", "condition.")
    _check_smallest_time(config, "training")
    factory.check_conditions(config)
    factory.loss(config), factory.optimizer(config), factory.skips_nonfinite(config)
    factory.check_training_times(config)
    _check_augmentation(config)
    _check_averages(config)
    _check_batch(config)


def _check_augmentation(config: ConfigDict) -> None:
    """Raises `UserError` for what training cannot make of images, or makes without the network's knowledge."""
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
    factory.preparation(config)


def _check_averages(config: ConfigDict) -> None:
    """Raises `UserError` if a moving average or its snapshots cannot work."""
    factory.emas(config)
    training = config.training
    posthoc.dtype(training.ema_snapshot_dtype)
    if training.ema_snapshot_every and not factory.power_emas(config):
        raise UserError(
            f"training.ema_snapshot_every={training.ema_snapshot_every}: training.ema={training.ema!r} tracks no power "
            "average to keep; EDM2 tracks power:0.05,power:0.1"
        )
    if config.sampling.ema_std:
        _check_snapshots(config)


def _check_snapshots(config: ConfigDict) -> None:
    """Raises `UserError` if the snapshots of training cannot make the average that is sampled from at its end."""
    std, every, last = config.sampling.ema_std, config.training.ema_snapshot_every, config.training.num_steps
    if not every:
        raise UserError(
            f"sampling.ema_std={std}: this run keeps no snapshots to make it of (training.ema_snapshot_every=0); it "
            f"tracks {', '.join(factory.ema_names(config))}: choose with sampling.ema"
        )
    steps = sorted({*range(every, last, every), last}) if last <= MANY_SNAPSHOTS * every else []
    if not steps:
        return  # many snapshots make every average
    widths = sorted(set(factory.power_emas(config).values()))
    error = posthoc.fit(np.repeat(steps, len(widths)), np.tile(widths, len(steps)), last, std).error
    if error > posthoc.LARGEST_ERROR:
        raise UserError(
            f"sampling.ema_std={std}: the {len(steps) * len(widths)} snapshots of training.ema_snapshot_every={every} do "
            f"not make such an average (its profile would be off by {error:.0%}): keep them more often, or choose with "
            "sampling.ema"
        )


def _check_batch(config: ConfigDict) -> None:
    """Raises `UserError` if the batch cannot be shared by the devices and then be split for accumulation."""
    strategy = factory.parallel(config)
    factory.require_shares(config, strategy)
    parts, devices = config.optim.accumulate, strategy.num_devices
    if config.data.batch_size % (devices * parts):
        raise UserError(
            f"optim.accumulate={parts}: data.batch_size={config.data.batch_size} on {counted(devices, 'device')} has "
            f"{counted(config.data.batch_size // devices, 'example')} on each, which cannot be split into {parts} "
            "equal parts"
        )


def _check_evaluation(config: ConfigDict) -> None:
    ranges.check(config, "evaluation.")
    _check_smallest_time(config, "evaluation")
    if not factory.draws_samples(config):
        return
    factory.check_features(config)
    factory.check_likelihood(config)


SUBJECTS = {
    "model": _check_model,
    "average": _check_average,
    "flow": _check_flow,
    "times": _check_times,
    "sampler": _check_sampler,
    "label": _check_label,
    "sampling": _check_sampling,
    "data": _check_data,
    "training": _check_training,
    "writers": lambda config: writers.check(config.training.writers),
    "evaluation": _check_evaluation,
    "files": factory.check_files,
}
# What `train` reads, from the start to the evaluation at its end.
# Of what no samples are drawn from, all but "sampling" and "files", which are of the judging of samples.
EVERYTHING = ("model", "average", "sampling", "data", "training", "writers", "evaluation", "files")


def everything(config: ConfigDict) -> tuple[str, ...]:
    """Returns the subjects that `train` reads for the objective of a config."""
    left_out = () if factory.draws_samples(config) else ("sampling", "files")
    return tuple(subject for subject in EVERYTHING if subject not in left_out)
