"""Noise prediction on a discrete chain: DDPM and its successors, with a network conditioned on the step index, from 0.

Sources: Ho et al. (2020), https://arxiv.org/abs/2006.11239; Nichol and Dhariwal (2021),
https://arxiv.org/abs/2102.09672.
"""

from ml_collections import ConfigDict


def noise_prediction(config: ConfigDict, process: str, *, steps: int = 1000, last: int | None = None) -> None:
    """Sets process, parameterization, loss and sampler of a chain of `steps` discrete times.

    Args:
        config: is modified.
        process: name of the process, which defines the betas.
        steps: number of steps of the chain.
        last: step at which sampling starts; by default `steps`. iDDPM's last steps, with betas near 1, are left out.
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
