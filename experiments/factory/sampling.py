"""The sampler and its times."""

import inspect

import jax
from ml_collections import ConfigDict

import sde_lib
from experiments.config import components
from experiments.config.choices import choose
from experiments.config.components import component, is_path
from experiments.errors import UserError
from sde_lib.sampling.correctors import NORMS
from sde_lib.sampling.exponential import VARIABLES

# One-step samplers: what a corrector may move x between.
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
    return sde_lib.Langevin(snr=c.snr, steps=c.corrector_steps, norm=c.langevin_norm)


def _adaptive(c: ConfigDict) -> sde_lib.Adaptive:
    if c.steps != 2:
        raise UserError(
            f"sampling.steps={c.steps}: adaptive chooses its own steps; set 2, for one solve and the denoising step"
        )
    return sde_lib.Adaptive(rtol=c.tolerance, atol=c.tolerance)


SAMPLERS = PREDICTORS | {
    "dpm_solver": lambda c: sde_lib.DPMSolver(c.order, c.variable, tau=c.stochastic),
    "unipc": lambda c: sde_lib.UniPC(c.order, c.variable, tau=c.stochastic),
    "deis": lambda c: sde_lib.DEIS(c.order, c.variable, corrected=c.corrected),
    "adaptive": _adaptive,
    "langevin": _langevin,
    "predictor_corrector": lambda c: sde_lib.PredictorCorrector(
        predictor=choose("sampling.predictor", c.predictor, PREDICTORS)(c), corrector=_langevin(c)
    ),
}

TIME_GRIDS = {
    "uniform": lambda sde, c: sde_lib.uniform_times(sde, c.steps),
    "karras": lambda sde, c: sde_lib.karras_times(sde, c.steps, c.rho),
    "log_snr": lambda sde, c: sde_lib.log_snr_times(sde, c.steps),
    "quadratic": lambda sde, c: sde_lib.quadratic_times(sde, c.steps),
}


# Names that `sampling` may choose, by key.
NAMES = {
    "sampler": SAMPLERS,
    "times": TIME_GRIDS,
    "predictor": PREDICTORS,
    "variable": VARIABLES,
    "langevin_norm": NORMS,
}


def _check_names(sampling: ConfigDict) -> None:
    """Raises `UserError` for an unknown name, of a sampler that does not read it too."""
    for key, known in NAMES.items():
        component(f"sampling.{key}", sampling[key], dict.fromkeys(known))


def sampler(config: ConfigDict) -> sde_lib.Sampler:
    """The sampler: the recommended one where `sampling.evaluations` is set.

    Raises:
        UserError: a name or a number of `sampling` is not allowed.
    """
    _check_names(config.sampling)
    try:
        if config.sampling.evaluations:
            return sde_lib.recommended_sampler(config.sampling.evaluations)
        if is_path(config.sampling.sampler):
            return _of_user(config.sampling)
        return choose("sampling.sampler", config.sampling.sampler, SAMPLERS)(config.sampling)
    except ValueError as error:
        raise UserError(f"sampling: {error}") from error


def _of_user(sampling: ConfigDict) -> sde_lib.Sampler:
    """The sampler at an import path: an object, or a class that takes its options from `sampling`.

    Raises:
        UserError: it has no `step`, or does not take its options.
    """
    path = sampling.sampler
    made = components.load("sampling.sampler", path)
    try:
        if inspect.isclass(made):
            made = made(**{name: sampling[name] for name in components.options(made) if name in sampling})
    except TypeError as error:
        raise UserError(f"sampling.sampler={path}: a sampler takes its options by name: {error}") from error
    missing = [name for name in ("init", "step", "finish", "nfe") if not callable(getattr(made, name, None))]
    if missing:
        raise UserError(
            f"sampling.sampler={path}: {type(made).__name__} has no {missing[0]}; a sampler derives from sde_lib.Sampler "
            "and defines step(carry, keys, x, t, s, denoiser)"
        )
    try:
        count = made.nfe(5)
    except Exception as error:
        raise UserError(f"sampling.sampler={path}: nfe(n_steps): {type(error).__name__}: {error}") from error
    if count is not None and (type(count) is not int or count < 1):
        raise UserError(
            f"sampling.sampler={path}: nfe(5) is {count!r}; a whole number of evaluations, or None, is needed"
        )
    return made


def times(config: ConfigDict, process: sde_lib.Process) -> jax.Array:
    """The sampler's time grid, (steps + 1,) or (evaluations + 1,)."""
    if config.sampling.evaluations:
        return sde_lib.recommended_times(process, config.sampling.evaluations)
    return choose("sampling.times", config.sampling.times, TIME_GRIDS)(process, config.sampling)


def sampler_and_steps(config: ConfigDict) -> tuple[str, int]:
    """The name of the sampler and its number of steps, the last to clean data included."""
    sampling = config.sampling
    return ("recommended", sampling.evaluations) if sampling.evaluations else (sampling.sampler, sampling.steps)


def evaluations(config: ConfigDict) -> int | None:
    """Evaluations of the Denoiser for each sample; None where the sampler chooses them as it goes."""
    return sampler(config).nfe(sampler_and_steps(config)[1])
