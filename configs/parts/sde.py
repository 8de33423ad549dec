"""Settings of the forward processes by name: the process, and the times at which sampling and evaluation end."""

from ml_collections import ConfigDict


def vp(config: ConfigDict) -> None:
    """VP with beta from 0.1 to 20: sigma / alpha from 0.010 (at t_min) to 152."""
    config.sde.name = "vp"
    config.sampling.t_min = config.evaluation.t_min = 1e-3


def subvp(config: ConfigDict) -> None:
    """Sub-VP: sigma is the square of VP's sigma, so t_min is larger; sigma / alpha is 0.012 at t_min."""
    config.sde.name = "subvp"
    config.sampling.t_min = config.evaluation.t_min = 3e-2


def ve(config: ConfigDict) -> None:
    """VE: sigma from 0.01 to sigma_max, by default 50 (the value for CIFAR-10)."""
    config.sde.name = "ve"
    config.sampling.t_min = config.evaluation.t_min = 1e-5


def cosine(config: ConfigDict) -> None:
    """The cosine schedule: sigma / alpha from 0.010 to 128."""
    config.sde.name = "cosine"
    config.sde.t_max = 0.995
    config.sampling.t_min = config.evaluation.t_min = 2e-3


def edm(config: ConfigDict) -> None:
    """EDM: time is sigma, from 0.002 to 80, the published range."""
    config.sde.name = "edm"
    config.sde.t_max = 80.0
    config.training.t_min = config.sampling.t_min = config.evaluation.t_min = 0.002


def rectified_flow(config: ConfigDict) -> None:
    """Rectified flow: sigma / alpha = t / (1 - t) from 0.010 to 199."""
    config.sde.name = "rectified_flow"
    config.sde.t_max = 0.995
    config.sampling.t_min = config.evaluation.t_min = 1e-2


def ddpm(config: ConfigDict) -> None:
    """DDPM's table of 1,000 betas; t_min is its first step, sigma / alpha from 0.010 to 157."""
    config.sde.name = "ddpm"
    config.training.t_min = config.sampling.t_min = config.evaluation.t_min = 1e-3


def iddpm(config: ConfigDict) -> None:
    """iDDPM's table of 1,000 betas, the cosine clipped: sigma / alpha from 0.009 to 128."""
    config.sde.name = "iddpm"
    config.sde.t_max = 0.995
    config.training.t_min = 1e-3
    config.sampling.t_min = config.evaluation.t_min = 2e-3


def scaled_linear(config: ConfigDict) -> None:
    """Latent diffusion's 1,000 betas, linear in sqrt(beta); t_min is the first step, sigma / alpha from 0.039 to 84."""
    config.sde.name = "scaled_linear"
    config.training.t_min = config.sampling.t_min = config.evaluation.t_min = 1e-3


def critically_damped(config: ConfigDict) -> None:
    """Critically damped Langevin diffusion, published constants, sampler sscs: noise level from 0.010 to 248."""
    config.sde.name = "critically_damped"
    config.training.t_min = 1e-3
    config.sampling.t_min = config.evaluation.t_min = 7.5e-3
    config.sampling.sampler = "sscs"


PROCESSES = {
    "vp": vp,
    "subvp": subvp,
    "ve": ve,
    "cosine": cosine,
    "edm": edm,
    "rectified_flow": rectified_flow,
    "ddpm": ddpm,
    "iddpm": iddpm,
    "scaled_linear": scaled_linear,
    "critically_damped": critically_damped,
}


def choose(config: ConfigDict, name: str) -> None:
    """Sets a process by its name, such as the argument of `configs/digits.py:ve`.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in PROCESSES:
        raise ValueError(f"the SDE {name!r} is unknown: choose from {', '.join(PROCESSES)}")
    PROCESSES[name](config)
