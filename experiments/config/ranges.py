"""Allowed range of every number in a config: one declaration per key of `configs/base.py` and per option of a network.

A range is an interval: "[" and "]" include the end, "(" and ")" exclude it. Values are compared in float32: 1e-50 is 0
and 1e50 is infinite. NaN is outside of every range, and infinity is allowed only where a declaration names it.
Networks share the declarations of `OPTIONS`; the entry "NETWORK.OPTION" overrides "OPTION" for one network.

`docs/config.md` has the table (`python -m experiments.config.table`).
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.config import sizes
from experiments.errors import UserError

INT32 = 2**31 - 1  # the largest index, step and shape of compiled programs
SEEDS = 2**32 - 1  # JAX uses 32 bits of a seed: larger seeds repeat the keys of smaller ones
LARGEST_STD = 12**-0.5 + 1e-9  # largest width of a power average: equal weights over the whole training


@dataclass(frozen=True)
class Range:
    """Allowed values of a number, or of each entry of a tuple of numbers.

    Attributes:
        low, high: ends of the interval.
        open_low, open_high: whether the end is excluded.
        whole: whether only whole numbers are allowed.
        also: allowed values outside of the interval.
        note: meaning of special values, for messages.
        entries: minimum number of entries of a tuple; None for a single number.
    """

    low: float
    high: float
    open_low: bool
    open_high: bool
    whole: bool = False
    also: tuple[float | None, ...] = ()
    note: str = ""
    entries: int | None = None

    @classmethod
    def of(cls, interval: str, **options: Any) -> "Range":
        """Returns the range of an interval in text, such as "(0, inf)" or "[0, 1)"."""
        low, high = interval[1:-1].split(",")
        return cls(float(low), float(high), interval[0] == "(", interval[-1] == ")", **options)

    def __str__(self) -> str:
        """Returns the range as words that follow "must"."""
        low, high = _text(self.low), _text(self.high)
        least = f"more than {low}" if self.open_low else f"at least {low}"
        if self.whole and self.low == 1:
            least = "more than 0"
        if math.isfinite(self.low) and math.isfinite(self.high):
            text = f"be {least} and at most {high}" if self.whole else f"lie in {self.interval}"
        elif math.isfinite(self.low):
            text = f"be {least}"
        else:
            text = "be a finite number"
        also = "".join(f", or {_text(value)}" for value in self.also)
        return f"{text}{also}{f'; {self.note}' if self.note else ''}"

    @property
    def interval(self) -> str:
        """The interval in text, in the notation of `of`."""
        left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"{left}{_text(self.low)}, {_text(self.high)}{right}"

    def allows(self, value: Any) -> bool:
        """Returns True if `value` is a single number in the range."""
        if value in self.also:
            return True
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        if self.whole:
            return self.low <= value <= self.high
        held = _float32(value)
        above = held > self.low and value > self.low if self.open_low else value >= self.low
        below = held < self.high and value < self.high if self.open_high else value <= self.high
        return math.isfinite(held) and above and below

    def require(self, key: str, value: Any) -> None:
        """Checks that the value of a key is in the range.

        Raises:
            UserError: the value is outside of the range, or of another type.
        """
        if self.entries is None:
            if not self.allows(value):
                raise UserError(f"{key}={value}: must {self.demand(value)}")
            return
        if not isinstance(value, tuple | list):
            raise UserError(f"{key}={value}: must be several numbers")
        text = ",".join(map(str, value)) or "()"
        if len(value) < self.entries:
            raise UserError(
                f"{key}={text}: must have at least {self.entries} {'entry' if self.entries == 1 else 'entries'}"
            )
        if len(value) > MOST_ENTRIES:
            raise UserError(f"{key}: has {len(value)} entries; must have at most {MOST_ENTRIES}")
        for entry in value:
            if not self.allows(entry):
                raise UserError(f"{key}={text}: each entry must {self.demand(entry)}, not {entry}")

    def demand(self, value: Any) -> str:
        """Returns the violated requirement of an invalid value, as words that follow "must"."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and not (self.whole and isinstance(value, float)):
            held, wide = _float32(value), math.isinf(self.high) and math.isfinite(self.low)
            if self.whole or math.isfinite(held) or not wide:
                return str(self)
            finite = "a number" if math.inf in self.also else "finite in float32" if math.isfinite(value) else "finite"
            return f"be {finite}, and {str(self).removeprefix('be ')}"
        return f"be a {'whole ' * self.whole}number, and {str(self).removeprefix('be ')}"


@dataclass(frozen=True)
class SizeRange(Range):
    """Allowed sizes of images: numbers of pixels, and HEIGHTxWIDTH of two such numbers."""

    def allows(self, value: Any) -> bool:
        """Returns True if `value` is a size."""
        try:
            self.require("size", value)
        except UserError:
            return False
        return True

    def require(self, key: str, value: Any) -> None:
        """Checks that the value of a key is a size; see `sizes.parse`.

        Raises:
            UserError: the value is not a size.
        """
        sizes.parse(value, key)


MOST_ENTRIES = 64  # each entry is a level of a network, and tracing time grows with the levels


def _float32(value: float) -> float:
    """Returns `value` rounded to float32: 0 below the smallest normal number, infinite beyond the largest number."""
    if not abs(value) <= float(np.finfo(np.float32).max):
        return math.nan if math.isnan(value) else math.copysign(math.inf, value)
    return 0.0 if abs(value) < float(np.finfo(np.float32).tiny) else float(np.float32(value))


def _text(value: float | None) -> str:
    if value is None:
        return "none"
    return str(int(value)) if math.isfinite(value) and value == int(value) else f"{value:.4g}"


def _real(interval: str, note: str = "", **options: Any) -> Range:
    return Range.of(interval, note=note, **options)


def _whole(interval: str, note: str = "", **options: Any) -> Range:
    return Range.of(interval, note=note, whole=True, **options)


POSITIVE, NOT_NEGATIVE, ANY = _real("(0, inf)"), _real("[0, inf)"), _real("(-inf, inf)")
COUNT = _whole(f"[1, {INT32}]")
SEED = _whole(f"[0, {SEEDS}]")
PROBABILITY = _real("[0, 1]", "a probability")
PUBLISHED = "0 selects the published value times 1000 / num_steps"


KEYS: dict[str, Range] = {
    "sde.t_max": POSITIVE,
    "sde.beta_min": NOT_NEGATIVE,
    "sde.beta_max": POSITIVE,
    "sde.sigma_min": POSITIVE,
    "sde.sigma_max": POSITIVE,
    "sde.num_steps": _whole("[2, 1000000]"),
    "sde.beta_first": _real("(0, 1)", PUBLISHED, also=(0,)),
    "sde.beta_last": _real("(0, 1)", PUBLISHED, also=(0,)),
    "sde.beta_limit": _real("(0, 1)"),
    "sde.offset": POSITIVE,
    "sde.beta": POSITIVE,
    "sde.mass": POSITIVE,
    "sde.gamma": _real("(0, 1]"),
    "parameterization.sigma_data": POSITIVE,
    "parameterization.sigma_scale": POSITIVE,
    "parameterization.levels": _whole("[2, 1000000]", "0 passes log(sigma) to the network", also=(0,)),
    "parameterization.time_scale": POSITIVE,
    "parameterization.time_offset": ANY,
    "loss.snr_gamma": POSITIVE,
    "loss.sigmoid_bias": ANY,
    "loss.log_sigma_mean": ANY,
    "loss.log_sigma_std": POSITIVE,
    "loss.logit_mean": ANY,
    "loss.logit_std": POSITIVE,
    "loss.discrete_levels": COUNT,
    "loss.uncertainty_channels": _whole("[1, 65536]"),
    "data.image_size": SizeRange.of(f"[1, {sizes.MOST}]", whole=True),
    "data.num_channels": _whole("[1, 4096]"),
    "data.event_shape": _whole("[1, 16777216]", entries=0),
    "data.range": _real("(-inf, inf)", entries=2),
    "data.batch_size": _whole("[1, 16777216]"),
    "data.test_fraction": _real("(0, 1)"),
    "data.validation_fraction": _real("[0, 1)", "0 disables the validation split"),
    "data.white": _real("[0, inf)", "0 refuses images that are not of 8 bits"),
    "data.memory_gb": _real("[0, inf)", "0 caches no images in memory"),
    "data.augmentation": _real("[0, 1]", "a probability; 0 disables the augmentation"),
    "data.workers": _whole("[0, 1024]", "0 reads in a thread of the main process"),
    "data.worker_timeout": _real("(0, 1e9]"),
    "training.num_steps": COUNT,
    "training.steps_per_call": _whole("[1, 1000000]"),
    "training.checkpoint_every": COUNT,
    "training.keep_checkpoints": COUNT,
    "training.log_every": COUNT,
    "training.sample_every": COUNT,
    "training.loss_bins": _whole("[0, 1000]", "0 disables the loss by noise level"),
    "training.ema_decay": _real("[0, 1)"),
    "training.ema_half_life": _whole(f"[1, {2**53}]"),
    "training.ema_ramp": _real("[0, inf)", "0 disables the ramp"),
    "training.ema_std": Range.of(f"(0, {LARGEST_STD}]"),
    "training.ema_snapshot_every": _whole(f"[0, {INT32}]", "0 disables snapshots"),
    "training.max_skips": _whole(f"[0, {INT32}]"),
    "condition.label.dropout": _real("[0, 1]", "a probability; 0 disables the dropout of classes"),
    "training.t_min": POSITIVE,
    "training.seed": SEED,
    "optim.lr": POSITIVE,
    "optim.warmup_steps": _whole(f"[0, {INT32}]", "0 disables the warm-up"),
    "optim.decay_steps": COUNT,
    "optim.beta1": _real("[0, 1)"),
    "optim.beta2": _real("[0, 1)"),
    "optim.eps": POSITIVE,
    "optim.momentum": _real("[0, 1)"),
    "optim.weight_decay": _real("[0, inf)", "0 disables the decay"),
    "optim.grad_clip": _real("[0, inf)", "0 disables clipping"),
    "optim.accumulate": _whole("[1, 1000000]"),
    "sampling.ema_std": _real(f"(0, {LARGEST_STD}]", "0 selects the average of sampling.ema", also=(0,)),
    "sampling.evaluations": _whole("[1, 1000000]", "0 disables the recommended sampler", also=(0,)),
    "sampling.steps": _whole("[1, 1000000]"),
    "sampling.rho": _real("(0, inf)", also=(math.inf,)),
    "sampling.t_min": POSITIVE,
    "sampling.batch_size": _whole("[1, 16777216]"),
    "sampling.label": _whole(f"[0, {INT32}]", "-1 cycles through the classes", also=(-1,)),
    "sampling.guidance.scale": _real("[0, 10000]", "1 disables guidance"),
    "sampling.guidance.low": NOT_NEGATIVE,
    "sampling.guidance.high": _real("(0, inf)", also=(math.inf,)),
    "sampling.guidance.rescale": _real("[0, 1]", "0 disables"),
    "sampling.guidance.threshold": _real("[0, 1]", "0 disables, 1 clips"),
    "sampling.eta": _real("[0, 1]", "0 is deterministic, 1 ancestral"),
    "sampling.order": _whole("[1, 3]"),
    "sampling.stochastic": _real("[0, inf)", "0 is the probability flow, 1 the reverse-time SDE"),
    "sampling.tolerance": POSITIVE,
    "sampling.max_steps": COUNT,
    "sampling.churn": _real("[0, inf)", "0 is deterministic"),
    "sampling.churn_min": NOT_NEGATIVE,
    "sampling.churn_max": _real("[0, inf)", also=(math.inf,)),
    "sampling.churn_noise": NOT_NEGATIVE,
    "sampling.snr": POSITIVE,
    "sampling.corrector_steps": _whole("[1, 10000]"),
    "evaluation.num_samples": _whole("[4, 1000000000]", "precision and recall compare 3 nearest neighbours"),
    "evaluation.neighbours": _whole("[4, 10000000]", "precision and recall compare 3 nearest neighbours"),
    "evaluation.training_images": _whole(f"[2, {INT32}]", "0 disables the search for copies", also=(0,)),
    "evaluation.noise_levels": _whole("[1, 10000]"),
    "evaluation.t_min": POSITIVE,
    "evaluation.likelihood_images": _whole(
        f"[2, {INT32}]", "0 disables bits per dimension; 1 has no standard error", also=(0,)
    ),
    "evaluation.likelihood_t_min": POSITIVE,
    "evaluation.likelihood_probes": _whole("[1, 65536]"),
    "evaluation.likelihood_tolerance": _real("(0, 1)"),
    "evaluation.seed": SEED,
}

# Options of networks by name, and by NETWORK.OPTION where a network differs from the rest.
WIDTH = _whole("[1, 65536]")
LEVELS = _real("(0, 1024]", entries=1)
WHOLE_LEVELS = _whole("[1, 1024]", entries=1)
INPUT_CHANNELS = "0 uses the number of the input"
OPTIONS: dict[str, Range] = {
    "channels": WIDTH,
    "channel_multipliers": LEVELS,
    "edm2.channel_multipliers": WHOLE_LEVELS,
    "ncsn.channel_multipliers": WHOLE_LEVELS,
    "ncsnpp.channel_multipliers": WHOLE_LEVELS,
    "ncsnv2.channel_multipliers": WHOLE_LEVELS,
    "blocks_per_level": _whole("[1, 256]"),
    "attention_resolutions": _whole("[1, 16384]", entries=0),
    "num_heads": _whole("[1, 65536]"),
    "head_channels": _whole("[0, 65536]", "0 uses num_heads instead"),
    "edm2.head_channels": WIDTH,
    "dropout": _real("[0, 1)", "a probability"),
    "num_classes": _whole("[0, 10000000]", "0 is unconditional"),
    "augment_features": _whole("[0, 65536]", "0 disables the input"),
    "fourier_scale": POSITIVE,
    "norm_groups": _whole("[0, 65536]", "0 selects 32, or fewer for few channels"),
    "norm_epsilon": POSITIVE,
    "out_channels": _whole("[0, 4096]", INPUT_CHANNELS),
    "width": WIDTH,
    "depth": _whole("[1, 1024]"),
    "patch_size": _whole("[1, 16384]"),
    "mlp_ratio": _real("(0, 1024]"),
    "position_span": _whole("[0, 65536]", "0 uses the index of the patch as position"),
    "mlp_norm_epsilon": POSITIVE,
    "out_features": _whole("[0, 65536]", INPUT_CHANNELS),
    "fourier_channels": _whole("[0, 65536]", "0 uses the number of the finest level"),
    "embedding_channels": _whole("[0, 65536]", "0 uses the number of the widest level"),
    "class_balance": _real("[0, 1]"),
    "concat_balance": _real("[0, 1]"),
    "residual_balance": _real("[0, 1]"),
    "attention_balance": _real("[0, 1]"),
    "clip": _real("(0, inf)", also=(None,)),
    "dilations": _whole("[1, 1024]", entries=1),
    "num_scales": _whole("[2, 1000000]"),
    "sigma_min": POSITIVE,
    "sigma_max": POSITIVE,
    "fir_kernel": _real("(-inf, inf)", entries=1),
    "init_scale": NOT_NEGATIVE,
}


def of(key: str, network: str) -> Range | None:
    """Returns the range of a config key, or None for a key whose value is not a number.

    Args:
        key: dotted key.
        network: `model.name`; the keys of the section `model` are options of this network.
    """
    section, _, name = key.partition(".")
    if section == "model":
        return OPTIONS.get(f"{network}.{name}", OPTIONS.get(name))
    return KEYS.get(key)


def _leaves(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def check(config: ConfigDict, *prefixes: str) -> None:
    """Checks that the numbers of a config are in their ranges.

    Args:
        config: of the experiment.
        prefixes: prefixes of the keys to check; all keys by default.

    Raises:
        UserError: a number is outside of its range; the message names the key, the value and the range.
    """
    for key, value in _leaves(config):
        if key.startswith(prefixes or ("",)) and (allowed := of(key, config.model.name)) is not None:
            allowed.require(key, value)


def check_keys(config: ConfigDict, keys: Iterable[str]) -> None:
    """Checks the numbers of these keys only; see `check`."""
    for key, value in _leaves(config):
        if key in keys and (allowed := of(key, config.model.name)) is not None:
            allowed.require(key, value)
