"""The moving averages of the weights, which `training.ema` names."""

import math

from ml_collections import ConfigDict

from experiments.config import ranges
from experiments.config.choices import choose
from experiments.errors import UserError
from experiments.learning import averaging

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
    keys, _ = choose("training.ema", name, EMAS)
    try:
        numbers = [float(number) for number in given]
    except ValueError:
        numbers = [math.nan]
    if len(numbers) > len(keys) or not all(map(math.isfinite, numbers)):
        raise UserError(
            f"training.ema={text!r}: after {name} come {' and '.join(keys)}, as numbers with colons between, or nothing"
        )
    for key, number in zip(keys, numbers, strict=False):
        allowed = ranges.KEYS[f"training.{key}"]
        if not allowed.allows(int(number) if allowed.whole and number.is_integer() else number):
            raise UserError(f"training.ema={text!r}: {key} must {allowed}")
    return {key: config.training[key] for key in keys} | dict(zip(keys, numbers, strict=False))


def emas(config: ConfigDict) -> dict[str, averaging.Rule]:
    """The moving averages by name, which is their text in `training.ema`: n -> the share of the weights of update n + 1.

    Raises:
        UserError: a name is unknown or there twice, or a number of a rule does not fit.
    """
    names, rules = ema_names(config), {}
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


def ema_names(config: ConfigDict) -> list[str]:
    """The names of the moving averages, in the order of `training.ema`."""
    return config.training.ema.split(",")


def power_emas(config: ConfigDict) -> dict[int, float]:
    """Which of the averages are power functions: their place among `emas`, and their width."""
    widths = {i: _ema_numbers(config, text).get("ema_std") for i, text in enumerate(ema_names(config))}
    return {i: std for i, std in widths.items() if std is not None}


def sampling_ema(config: ConfigDict) -> int:
    """The place among `emas` of the average that is sampled from.

    Raises:
        UserError: `sampling.ema` is none of them.
    """
    names = ema_names(config)
    return choose("sampling.ema", config.sampling.ema or names[0], {name: i for i, name in enumerate(names)})
