"""Config -> objects: the only place where a config string is read.

Each function makes one thing from the sections of a config and raises `UserError` for a name that is not known;
`check.py` has what else can be wrong with a config.
"""

import inspect
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

import models
import sde_lib
from experiments import averaging, data, metrics, optimizers, state
from experiments.data.augmentation import augment
from experiments.errors import UserError, unknown_name
from experiments.metrics import feature_networks
from experiments.parallel import STRATEGIES, Strategy
from sde_lib.randomness import fold_in

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

WEIGHTINGS = {
    "edm": lambda c: sde_lib.EDMWeighting(sigma_data=c.parameterization.sigma_data),
    "noise": lambda c: sde_lib.NoiseWeighting(),
    "score": lambda c: sde_lib.ScoreWeighting(),
    "likelihood": lambda c: sde_lib.LikelihoodWeighting(),
    "data": lambda c: sde_lib.DataWeighting(),
    "v": lambda c: sde_lib.VWeighting(),
    "velocity": lambda c: sde_lib.VelocityWeighting(),
    "min_snr": lambda c: sde_lib.MinSNRWeighting(gamma=c.loss.snr_gamma),
    "soft_min_snr": lambda c: sde_lib.SoftMinSNRWeighting(gamma=c.loss.snr_gamma),
    "sigmoid": lambda c: sde_lib.SigmoidWeighting(bias=c.loss.sigmoid_bias),
    "hybrid": lambda c: sde_lib.HybridWeighting(),
    "hybrid_noise": lambda c: sde_lib.HybridNoiseWeighting(),
}

# What the mean over an image's values is multiplied by, from their number.
REDUCTIONS = {"mean": lambda dimensions: 1.0, "half_sum": lambda dimensions: 0.5 * dimensions}

TIME_DISTRIBUTIONS = {
    "log_normal": lambda c: sde_lib.LogNormalSigma(mean=c.log_sigma_mean, std=c.log_sigma_std),
    "uniform": lambda c: sde_lib.UniformTime(),
    "log_snr": lambda c: sde_lib.UniformLogSNR(),
    "logit_normal": lambda c: sde_lib.LogitNormalTime(mean=c.logit_mean, std=c.logit_std),
    "geometric_sigma": lambda c: sde_lib.GeometricSigma(levels=c.discrete_levels),
    "discrete": lambda c: sde_lib.DiscreteTime(steps=c.discrete_levels),
}

# One-step methods: what a corrector may move x between.
PREDICTORS = {
    "euler_maruyama": lambda c: sde_lib.EulerMaruyama(),
    "reverse_diffusion": lambda c: sde_lib.ReverseDiffusion(),
    "ancestral": lambda c: sde_lib.Ancestral(),
    "ddim": lambda c: sde_lib.DDIM(eta=c.eta),
    "heun": lambda c: sde_lib.Heun(
        churn=c.churn, churn_min=c.churn_min, churn_max=c.churn_max, churn_noise=c.churn_noise
    ),
    "probability_flow": lambda c: sde_lib.ProbabilityFlow(),
    "dpm_solver_singlestep": lambda c: sde_lib.SinglestepDPMSolver(c.order, c.stochastic),
    "sscs": lambda c: sde_lib.SSCS(c.order),
}


def _langevin(c: ConfigDict) -> sde_lib.Langevin:
    norms = ("process", "sample", "batch")
    if c.langevin_norm not in norms:
        raise unknown_name("sampling.langevin_norm", c.langevin_norm, norms)
    return sde_lib.Langevin(snr=c.snr, steps=c.corrector_steps, norm=c.langevin_norm)


def _adaptive(c: ConfigDict) -> sde_lib.Adaptive:
    if c.steps != 2:
        raise UserError(
            f"sampling.steps={c.steps}: adaptive chooses its own steps; set 2, for one solve and the denoising step"
        )
    return sde_lib.Adaptive(rtol=c.tolerance, atol=c.tolerance)


METHODS = PREDICTORS | {
    "dpm_solver": lambda c: sde_lib.DPMSolver(c.order, c.variable, stochastic=c.stochastic),
    "unipc": lambda c: sde_lib.UniPC(c.order, c.variable, stochastic=c.stochastic),
    "deis": lambda c: sde_lib.DEIS(c.order, c.variable, corrected=c.corrected),
    "adaptive": _adaptive,
    "langevin": _langevin,
    "predictor_corrector": lambda c: sde_lib.PredictorCorrector(
        predictor=_choose("sampling.predictor", c.predictor, PREDICTORS)(c), corrector=_langevin(c)
    ),
}

TIME_GRIDS = {
    "uniform": lambda sde, c: sde_lib.uniform_times(sde, c.steps),
    "karras": lambda sde, c: sde_lib.karras_times(sde, c.steps, c.rho),
    "log_snr": lambda sde, c: sde_lib.log_snr_times(sde, c.steps),
    "quadratic": lambda sde, c: sde_lib.quadratic_times(sde, c.steps),
}


def _choose(key: str, name: str, table: dict[str, Any]) -> Any:
    if name not in table:
        raise unknown_name(key, name, table)
    return table[name]


def sde(config: ConfigDict, t_min: float) -> sde_lib.SDE:
    """The forward process, from `t_min` (training's, sampling's or evaluation's) on."""
    process = _choose("sde.name", config.sde.name, PROCESSES)
    names = inspect.signature(process).parameters
    try:
        return process(**{k: v for k, v in config.sde.items() if k in names}, t_min=t_min)
    except ValueError as error:
        raise UserError(f"sde: {error}") from error


def transform(config: ConfigDict) -> data.DataTransform | data.LatentTransform:
    """Between what the source holds and what the model sees."""
    return data.LatentTransform() if config.data.source == data.LATENTS else data.DataTransform()


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


QUANTIZATION = sde_lib.Quantization.between(-1, 1)  # bins around what DataTransform makes of the grey levels
DEQUANTIZATIONS = {
    "none": lambda keys, images: data.DataTransform().forward(images),
    "uniform": lambda keys, images: sde_lib.dequantize(fold_in(keys, DEQUANTIZATION), images, QUANTIZATION),
}
DEQUANTIZATION, AUGMENTATION = zlib.crc32(b"dequantization"), zlib.crc32(b"augmentation")  # as CLASS_DROPOUT below


def preparation(config: ConfigDict) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array | None]]:
    """(keys, images) -> (x0, labels): what training makes of uint8 images (B, H, W, C), each by its own key (B,).

    x0 is float32, of the images' shape; the labels (B, 9) say how it was augmented, None without augmentation.
    """
    dequantize = _choose("data.dequantization", config.data.dequantization, DEQUANTIZATIONS)
    probability = config.data.augmentation

    def prepare(keys, images):
        x0 = dequantize(keys, images)
        return augment(fold_in(keys, AUGMENTATION), x0, probability) if probability else (x0, None)

    return prepare


CLASS_DROPOUT = zlib.crc32(b"class dropout")  # folded into an example's key, apart from the loss's own numbers


def _drop_classes(config: ConfigDict, keys: jax.Array, labels: jax.Array | None) -> jax.Array | None:
    """The labels with some, each by its own key, replaced by `num_classes`, which stands for no class."""
    if not config.training.class_dropout:
        return labels
    drawn = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, CLASS_DROPOUT)))(keys)
    return jnp.where(drawn < config.training.class_dropout, config.model.num_classes, labels)


LOSS = "loss"  # the collection, beside the network's own, of what the loss learns; networks do not see it


def _init(config: ConfigDict) -> Callable[[jax.Array], Any]:
    """key -> the weights before training: the network's collections, and that of the loss if it learns anything."""
    image = jnp.zeros((1, config.data.image_size, config.data.image_size, config.data.num_channels))
    labels = condition(config, jnp.zeros((1,), jnp.int32))
    log_variance = sde_lib.LearnedLogVariance.init(config.loss.uncertainty_channels)
    learned = {LOSS: {"log_variance": log_variance.weights}} if config.loss.learned_uncertainty else {}
    return lambda key: network(config).init(key, image, jnp.zeros((1,)), labels) | learned


def abstract_variables(config: ConfigDict) -> Any:
    """The shapes and dtypes of the weights; compiles nothing.

    Raises:
        UserError: the network's options do not fit each other or the images.
    """
    try:
        return jax.eval_shape(_init(config), jax.random.key(0))
    except ValueError as error:
        raise UserError(f"model: {error}") from error


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
        parameterization=_choose("parameterization.name", config.parameterization.name, PARAMETERIZATIONS)(
            config.parameterization
        ),
        network=network(config),
        variables=variables,
    )


def loss(config: ConfigDict) -> Callable:
    """(draws, variables, x0, condition, augmentation) -> (B,), the experiment's denoising score-matching loss in training.

    The augmentation may be left out.

    With `return_times=True` the function also gives the examples' times, (B,).

    Raises:
        UserError: the numbers of the weighting or the times do not fit, or the times have no density to divide by.
    """
    make_weighting = _choose("loss.weighting", config.loss.weighting, WEIGHTINGS)
    make_times = _choose("loss.times", config.loss.times, TIME_DISTRIBUTIONS)
    process = sde(config, config.training.t_min)
    importance = config.loss.importance
    dimensions = config.data.image_size**2 * config.data.num_channels
    scale = _choose("loss.reduction", config.loss.reduction, REDUCTIONS)(dimensions)
    try:
        weighting, times = make_weighting(config), make_times(config.loss)
        jax.eval_shape(lambda u: weighting(process, times.quantile(process, u)), jnp.zeros(1))
        if importance:
            jax.eval_shape(lambda t: times.log_density(process, t), jnp.ones(1))
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"loss: {error}") from error

    def compute(draws, variables, x0, condition, augmentation=None, *, return_times=False):
        condition = _drop_classes(config, draws.keys, condition)
        model = denoiser(config, variables, config.training.t_min)
        model = model.replace(condition=condition, augmentation=augmentation)
        drawn_times, log_variance = times, None
        if config.loss.low_discrepancy:
            drawn_times = sde_lib.LowDiscrepancyTimes(draws.shared, draws.places, draws.size, times)
        if config.loss.learned_uncertainty:
            log_variance = sde_lib.LearnedLogVariance(variables[LOSS]["log_variance"])
        losses, t = sde_lib.denoising_score_matching(
            draws.keys,
            model,
            x0,
            weighting=weighting,
            times=drawn_times,
            importance=importance,
            log_variance=log_variance,
            train=True,
            return_times=True,
        )
        return (scale * losses, t) if return_times else scale * losses

    return compute


def loss_bin_edges(config: ConfigDict) -> np.ndarray:
    """The log-SNRs between the bins of noise levels in which the loss is watched, rising, (training.loss_bins + 1,).

    They are even from the process's at t_max, the first bin's end, to that at `training.t_min`.
    """
    process = sde(config, config.training.t_min)
    noisiest, cleanest = (float(process.log_snr(jnp.float32(t))) for t in (process.t_max, process.t_min))
    return np.linspace(noisiest, cleanest, config.training.loss_bins + 1)


def binned_loss(config: ConfigDict) -> Callable:
    """`loss`, and for each example in which bin its noise level lies: (B,), {BINNED_LOSS: (B, bins), BIN_SHARE: (B, bins)}.

    The first is the example's loss in its own bin and 0 in the others, the second 1 and 0: the quotient of their means over
    any examples is the mean loss in a bin. Without bins it is an empty dict.
    """
    compute, edges = loss(config), loss_bin_edges(config)
    process, bins = sde(config, config.training.t_min), config.training.loss_bins

    def binned(draws, variables, x0, condition, augmentation=None):
        losses, t = compute(draws, variables, x0, condition, augmentation, return_times=True)
        if not bins:
            return losses, {}
        share = (process.log_snr(t) - edges[0]) / (edges[-1] - edges[0])
        hit = jnp.clip(jnp.floor(share * bins), 0, bins - 1)[:, None] == jnp.arange(bins)
        return losses, {BINNED_LOSS: jnp.where(hit, losses[:, None], 0), BIN_SHARE: hit.astype(losses.dtype)}

    return binned


BINNED_LOSS, BIN_SHARE = "binned_loss", "bin_share"  # metrics of the training step: see `binned_loss`


def projection(config: ConfigDict) -> Callable[[Any], Any]:
    """variables -> variables: where the network wants its weights after every update, its `project` if it has one."""
    return getattr(network(config), "project", state.unchanged)


# The rules of a moving average: the keys of `training` with their numbers, which the text may give instead.
EMAS = {
    "warmup": (("ema_decay",), lambda c, decay: averaging.warmup(decay)),
    "constant": (("ema_decay",), lambda c, decay: averaging.constant(decay)),
    "half_life": (
        ("ema_half_life", "ema_ramp"),
        lambda c, images, ramp: averaging.half_life(images, ramp, c.data.batch_size),
    ),
    "power": (("ema_std",), lambda c, std: averaging.power(std)),
}


def _ema_numbers(config: ConfigDict, text: str) -> dict[str, float]:
    """The rule's numbers by their keys: those in `text`, `RULE:NUMBER:NUMBER`, and of the config where it has none."""
    name, *given = text.split(":")
    keys, _ = _choose("training.ema", name, EMAS)
    try:
        numbers = [float(number) for number in given]
    except ValueError:
        numbers = [math.nan]
    if len(numbers) > len(keys) or not all(map(math.isfinite, numbers)):
        raise UserError(
            f"training.ema={text!r}: after {name} come {' and '.join(keys)}, as numbers with colons between, or nothing"
        )
    return {key: config.training[key] for key in keys} | dict(zip(keys, numbers, strict=False))


def emas(config: ConfigDict) -> dict[str, averaging.Rule]:
    """The moving averages by name, which is their text in `training.ema`: n -> the share of the weights of update n + 1.

    Raises:
        UserError: a name is unknown or there twice, or a number of a rule does not fit.
    """
    names, rules = config.training.ema.split(","), {}
    for text in names:
        numbers = _ema_numbers(config, text)
        try:
            rules[text] = EMAS[text.split(":")[0]][1](config, *numbers.values())
        except ValueError as error:
            where = f"ema={text!r}" if ":" in text else ", ".join(f"{key}={number}" for key, number in numbers.items())
            raise UserError(f"training.{where}: {error}") from error
    if len(rules) < len(names):
        raise UserError(f"training.ema={config.training.ema!r}: the same average is there twice")
    return rules


def power_emas(config: ConfigDict) -> dict[int, float]:
    """Which of the averages are power functions: their place among `emas`, and their width."""
    texts = config.training.ema.split(",")
    widths = {i: _ema_numbers(config, text).get("ema_std") for i, text in enumerate(texts)}
    return {i: std for i, std in widths.items() if std is not None}


def sampling_ema(config: ConfigDict) -> int:
    """The place among `emas` of the average that is sampled from.

    Raises:
        UserError: `sampling.ema` is none of them.
    """
    names = list(emas(config))
    return _choose("sampling.ema", config.sampling.ema or names[0], {name: i for i, name in enumerate(names)})


def method(config: ConfigDict) -> sde_lib.Method:
    """The sampling method."""
    try:
        return _choose("sampling.method", config.sampling.method, METHODS)(config.sampling)
    except ValueError as error:
        raise UserError(f"sampling: {error}") from error


def times(config: ConfigDict, process: sde_lib.SDE) -> jax.Array:
    """The sampling method's time grid, (steps + 1,)."""
    return _choose("sampling.times", config.sampling.times, TIME_GRIDS)(process, config.sampling)


def _perceptron(config: ConfigDict, train: data.Source) -> metrics.Perceptron:
    return metrics.Perceptron(metrics.fit_features(train))


def _published(config: ConfigDict, train: data.Source) -> feature_networks.FeatureNetwork:
    return feature_networks.load(config.evaluation.features, _path(config.evaluation.feature_weights))


def _path(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


FEATURES = {"perceptron": _perceptron} | dict.fromkeys(feature_networks.names(), _published)


def feature_network(config: ConfigDict, train: data.Source) -> Any:
    """The network in whose features samples are compared; the perceptron is fitted to the training images.

    Raises:
        UserError: the name is unknown, or the weights are missing, or of another network.
    """
    return _choose("evaluation.features", config.evaluation.features, FEATURES)(config, train)


def check_features(config: ConfigDict) -> None:
    """Raises `UserError` where `feature_network` or `reference` cannot work; reads no weights."""
    name, weights = config.evaluation.features, config.evaluation.feature_weights
    published = _choose("evaluation.features", name, FEATURES) is _published
    if weights and not published:
        raise UserError(f"evaluation.feature_weights={weights}: {name} takes none, it is fitted to the training images")
    for key in ("feature_weights", "statistics"):
        path = config.evaluation[key]
        if path and not Path(path).expanduser().is_file():
            raise UserError(f"evaluation.{key}={path}: no such file")
    if published and not weights and feature_networks.KINDS[name].packaged_file is None:
        raise UserError(
            f"evaluation.features={name!r} needs evaluation.feature_weights: the file "
            f"{feature_networks.KINDS[name].published_as}"
        )
    reference(config)


def reference(config: ConfigDict) -> bool:
    """Whether samples are compared with the training images rather than the held-out ones."""
    return _choose("evaluation.reference", config.evaluation.reference, {"training": True, "held_out": False})


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
    return _choose("optim.schedule", optim.schedule, schedules)()


OPTIMIZERS = {
    "adam": lambda c, numbers: optimizers.adam(*numbers),
    "adamw": lambda c, numbers: optimizers.adamw(*numbers),
    "muon": lambda c, numbers: optimizers.muon(*numbers, momentum=c.momentum),
}


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Gradient clipping, then the optimizer."""
    optim = config.optim
    numbers = (learning_rate(config), optim.beta1, optim.beta2, optim.eps, optim.weight_decay)
    chosen = _choose("optim.name", optim.name, OPTIMIZERS)(optim, numbers)
    return optax.chain(optax.clip_by_global_norm(optim.grad_clip), chosen) if optim.grad_clip else chosen


NONFINITE = {"stop": False, "skip": True}


def skips_nonfinite(config: ConfigDict) -> bool:
    """Whether steps whose loss or gradient is not finite are left out, instead of ending the run."""
    return _choose("training.on_nonfinite", config.training.on_nonfinite, NONFINITE)


def parallel(config: ConfigDict, devices: list[jax.Device] | None = None) -> Strategy:
    """The mapping over devices, by default all there are in all processes.

    Raises:
        UserError: the devices do not divide the batch.
    """
    strategy = _choose("parallel.strategy", config.parallel.strategy, STRATEGIES)(devices)
    count, batch = strategy.num_devices, config.data.batch_size
    if batch % count:
        hosts = "" if jax.process_count() == 1 else f" of {jax.process_count()} processes"
        raise UserError(
            f"data.batch_size={batch} cannot be shared by {count} devices{hosts}: choose a multiple of {count}"
        )
    return strategy
