"""The three processes of Song et al. (2021), https://arxiv.org/abs/2011.13456, chosen by name."""

from ml_collections import ConfigDict


def vp(config: ConfigDict) -> None:
    """VP: beta from 0.1 to 20; sigma / alpha from 0.010 (t_min) to 152."""
    config.sde.name = "vp"
    config.sampling.t_min = config.evaluation.t_min = 1e-3


def subvp(config: ConfigDict) -> None:
    """Sub-VP: its sigma is the square of VP's, so the same noise level comes later in t: 0.012 at t_min."""
    config.sde.name = "subvp"
    config.sampling.t_min = config.evaluation.t_min = 3e-2


def ve(config: ConfigDict) -> None:
    """VE: sigma from 0.01 to sigma_max, by default 50 (CIFAR-10's)."""
    config.sde.name = "ve"
    config.sampling.t_min = config.evaluation.t_min = 1e-5


PROCESSES = {"vp": vp, "subvp": subvp, "ve": ve}


def choose(config: ConfigDict, name: str) -> None:
    """Sets the process by the config's argument, as in `configs/digits.py:ve`."""
    if name not in PROCESSES:
        raise ValueError(f"the SDE {name!r} is unknown: choose from {', '.join(PROCESSES)}")
    PROCESSES[name](config)
