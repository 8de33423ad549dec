"""Noise prediction on a chain of steps: DDPM and those after it, whose network sees the number of the step, from 0.

Sources: Ho et al. (2020), https://arxiv.org/abs/2006.11239; Nichol and Dhariwal (2021), https://arxiv.org/abs/2102.09672.
"""

from ml_collections import ConfigDict


def noise_prediction(config: ConfigDict, process: str, *, steps: int = 1000, last: int | None = None) -> None:
    """The process, its network and loss, at each of `steps` steps alone; `last` is the one that sampling starts from.

    The betas are those of the process's own table. iDDPM's last steps have betas near 1, and are left out.
    """
    last = steps if last is None else last
    config.sde.name = process
    config.sde.num_steps = steps
    config.sde.t_max = last / steps
    config.training.t_min = config.sampling.t_min = config.evaluation.t_min = 1 / steps
    config.parameterization.name = "noise"
    config.parameterization.time_scale = float(steps)
    config.parameterization.time_offset = -1.0
    config.loss.weighting = "noise"
    config.loss.times = "discrete"
    config.loss.discrete_levels = last
    config.sampling.sampler = "ancestral"
    config.sampling.times = "uniform"
