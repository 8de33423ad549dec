"""The noise levels between which a config's process is trained, sampled and measured, and the sampling grid between them."""

from ml_collections import ConfigDict

import sde_lib
from experiments.errors import UserError
from experiments.factory.model import process_options, sde
from experiments.factory.sampling import times

# Data of unit variance shift the prior's mean by a tenth of its standard deviation, or less.
PRIOR_LEVEL = 10.0
# Noise of a tenth of the data's standard deviation: what the denoising step of sampling averages over, at most.
CLEAN_LEVEL = 0.1
# Below half of the least noise that a network was trained on, it is no longer near to it.
TRAINED_RATIO = 2.0


def _number(value: float) -> str:
    """A number of the config, without digits left out that count."""
    if isinstance(value, str | bool | tuple):
        return repr(value)
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _described(config: ConfigDict) -> str:
    """The process in words: its name and the keys that it reads."""
    options = {"name": repr(config.sde.name)} | {key: _number(value) for key, value in process_options(config).items()}
    return ", ".join(f"sde.{key}={value}" for key, value in options.items())


def check_ends(config: ConfigDict, key: str) -> list[str]:
    """Makes sure that the process can be computed with from a smallest time on.

    Args:
        config: of the experiment.
        key: of the smallest time, as "sampling.t_min".

    Returns:
        warnings for people: a prior that the process does not reach, or a last step of sampling that leaves much noise.

    Raises:
        UserError: sigma / alpha at an end is not finite or beyond what float32 carries, or does not rise with the time.
    """
    section, name = key.split(".")
    t_min = config[section][name]
    try:
        process = sde(config, t_min)
        ends = sde_lib.check_ends(process)
    except ValueError as error:
        raise UserError(f"{_described(config)}, {key}={_number(t_min)}: {error}") from error
    if ends is None or section != "sampling":
        return []
    warnings = []
    if ends.largest < PRIOR_LEVEL:
        warnings.append(
            f"{_described(config)}: sigma / alpha is only {ends.largest:.3g} at t_max: x_t still shows the data there, but "
            f"sampling starts from pure noise; at least {PRIOR_LEVEL:g} is advised"
        )
    if ends.smallest > CLEAN_LEVEL:
        warnings.append(
            f"{_described(config)}, {key}={_number(t_min)}: sigma / alpha is still {ends.smallest:.3g} there, and the "
            f"denoising step averages over the details that this noise hides; at most {CLEAN_LEVEL:g} is advised"
        )
    trained = config.training.t_min
    if not 0 < trained < process.t_max:
        return warnings  # training alone refuses it
    least = float(process.noise_to_signal(trained))
    if least > TRAINED_RATIO * ends.smallest:
        warnings.append(
            f"{key}={_number(t_min)}: sigma / alpha is {ends.smallest:.3g} there, but training.t_min={_number(trained)} "
            f"ends at {least:.3g}: the network is evaluated below the noise it was trained on"
        )
    return warnings


def check_times(config: ConfigDict) -> None:
    """Makes sure that the sampling grid is finite and decreases.

    Raises:
        UserError: it does not, or cannot be made.
    """
    process, sampling = sde(config, config.sampling.t_min), config.sampling
    try:
        sde_lib.check_times(times(config, process), process)
    except ValueError as error:
        names = ("evaluations", "t_min") if sampling.evaluations else ("times", "steps", "rho", "t_min")
        keys = {name: repr(sampling[name]) if name == "times" else sampling[name] for name in names}
        described = ", ".join(f"sampling.{key}={value}" for key, value in keys.items())
        raise UserError(f"{described} with {_described(config)}: {error}") from error
