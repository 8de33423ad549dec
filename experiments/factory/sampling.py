"""The sampler and its times."""

import inspect

import jax
from ml_collections import ConfigDict

import sde_lib
from experiments.config import components, named
from experiments.config.choices import choose
from experiments.config.components import component
from experiments.config.named import KEYS_OF_FIELDS, SAMPLERS
from experiments.errors import UserError
from sde_lib.sampling.correctors import NORMS
from sde_lib.sampling.exponential import VARIABLES

# By name: the function (process, steps, ...) -> times, and the keys of `sampling` for its further arguments.
TIME_GRIDS = {
    "uniform": (sde_lib.uniform_times, ()),
    "karras": (sde_lib.karras_times, ("rho",)),
    "log_snr": (sde_lib.log_snr_times, ()),
    "quadratic": (sde_lib.quadratic_times, ()),
}


def predictors() -> dict[str, type[sde_lib.Sampler]]:
    """Returns the samplers whose steps a corrector may follow, by name."""
    return {name: made for name, made in SAMPLERS.items() if made.is_predictor}


def _check_names(sampling: ConfigDict) -> None:
    """Raises `UserError` for an unknown name, of a sampler that does not read it too."""
    for key, known in (("sampler", SAMPLERS), ("predictor", predictors())):
        component(f"sampling.{key}", sampling[key], known)
    for key, names in (("times", TIME_GRIDS), ("variable", VARIABLES), ("langevin_norm", NORMS)):
        choose(f"sampling.{key}", sampling[key], dict.fromkeys(names))


def sampler(config: ConfigDict) -> sde_lib.Sampler:
    """The sampler: the recommended one where `sampling.evaluations` is set.

    Raises:
        UserError: a name or a number of `sampling` is not allowed.
    """
    _check_names(config.sampling)
    try:
        if config.sampling.evaluations:
            return sde_lib.recommended_sampler(config.sampling.evaluations)
        return _made("sampling.sampler", config.sampling.sampler, config.sampling)
    except ValueError as error:
        raise UserError(f"sampling: {error}") from error


def _made(key: str, name: str, sampling: ConfigDict) -> sde_lib.Sampler:
    """Returns the sampler of a name or an import path, with its options from `sampling`.

    Raises:
        UserError: there is none, it has no `step`, or it does not take its options.
        ValueError: as its class.
    """
    if name not in SAMPLERS:
        return _of_user(key, name, sampling)
    if name == "predictor_corrector":
        predictor = _made("sampling.predictor", sampling.predictor, sampling)
        if not predictor.is_predictor:
            raise UserError(
                f"sampling.predictor={sampling.predictor}: is_predictor is False: no corrector may follow its steps"
            )
        return SAMPLERS[name](predictor, _made(key, "langevin", sampling))
    if name == "adaptive" and sampling.steps != 2:
        raise UserError(
            f"sampling.steps={sampling.steps}: adaptive chooses its own steps; set 2, for one solve and the denoising step"
        )
    return SAMPLERS[name](**{field: sampling[key] for field, key in keys(name).items() if key in sampling})


def keys(name: str) -> dict[str, str]:
    """Returns the key of `sampling` for each option of a named sampler, by the field of its class."""
    same = {field: field for field in named.options("sampling.sampler", name)}
    return same | dict(KEYS_OF_FIELDS.get(name, {}))


def _of_user(key: str, path: str, sampling: ConfigDict) -> sde_lib.Sampler:
    """The sampler at an import path: an object, or a class that takes its options from `sampling`.

    Raises:
        UserError: it has no `step`, or does not take its options.
    """
    made = components.load(key, path)
    try:
        if inspect.isclass(made):
            made = made(**{name: sampling[name] for name in components.options(made) if name in sampling})
    except TypeError as error:
        raise UserError(f"{key}={path}: a sampler takes its options by name: {error}") from error
    missing = [name for name in ("init", "step", "finish", "nfe") if not callable(getattr(made, name, None))]
    if missing:
        raise UserError(
            f"{key}={path}: {type(made).__name__} has no {missing[0]}; a sampler derives from sde_lib.Sampler "
            "and defines step(carry, keys, x, t, s, denoiser)"
        )
    try:
        count = made.nfe(5)
    except Exception as error:
        raise UserError(f"{key}={path}: nfe(n_steps): {type(error).__name__}: {error}") from error
    if count is not None and (type(count) is not int or count < 1):
        raise UserError(f"{key}={path}: nfe(5) is {count!r}; a whole number of evaluations, or None, is needed")
    return made


def times(config: ConfigDict, process: sde_lib.Process) -> jax.Array:
    """The sampler's time grid, (steps + 1,) or (evaluations + 1,)."""
    if config.sampling.evaluations:
        return sde_lib.recommended_times(process, config.sampling.evaluations)
    grid, keys = choose("sampling.times", config.sampling.times, TIME_GRIDS)
    return grid(process, config.sampling.steps, *(config.sampling[key] for key in keys))


def sampler_and_steps(config: ConfigDict) -> tuple[str, int]:
    """The name of the sampler and its number of steps, the last to clean data included."""
    sampling = config.sampling
    return ("recommended", sampling.evaluations) if sampling.evaluations else (sampling.sampler, sampling.steps)


def evaluations(config: ConfigDict) -> int | None:
    """Evaluations of the Denoiser for each sample; None where the sampler chooses them as it goes."""
    return sampler(config).nfe(sampler_and_steps(config)[1])
