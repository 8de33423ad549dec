"""Training and sampling of "Score-based generative modeling through SDEs", for its networks and for NCSN and NCSNv2.

Adam at 2e-4 with 5,000 steps of warm-up, gradients clipped to norm 1, 1.3 M steps of 128 images; VE's loss is summed
over pixels. The published VE models are for data in [0, 1]. Here data are in [-1, 1], so all sigmas are twice the
published values, and the network is conditioned on half of sigma (`sigma_scale`).

Sources: Song et al. (2021), https://arxiv.org/abs/2011.13456, appendices C, G and H;
https://github.com/yang-song/score_sde/tree/main/configs. For NCSN and NCSNv2: Song and Ermon (2019),
https://arxiv.org/abs/1907.05600; Song and Ermon (2020), https://arxiv.org/abs/2006.09011.
"""

from ml_collections import ConfigDict

from configs.parts import chain, networks


def recipe(
    config: ConfigDict, process: str, *, discrete: bool = False, sigma_max: float = 50.0, steps: int = 1000
) -> None:
    """Sets the shared settings of all experiments of the paper for one process.

    Args:
        config: is modified; its network must be set before.
        process: vp, subvp or ve.
        discrete: whether to train only at the `steps` discrete noise levels of the process, as SMLD and DDPM do.
        sigma_max: ve: in units of data in [0, 1], as published.
        steps: number of steps of the process and of sampling.

    Raises:
        ValueError: sub-VP has no discrete version.
    """
    config.data.batch_size = 128
    config.training.num_steps = 1_300_000
    config.training.steps_per_call = 5
    config.training.checkpoint_every = 10_000
    config.training.sample_every = 50_000
    config.training.t_min = 1e-5
    config.training.seed = 42

    config.optim.lr = 2e-4
    config.optim.beta1 = 0.9
    config.optim.eps = 1e-8
    config.optim.warmup_steps = 5_000
    config.optim.grad_clip = 1.0

    config.loss.importance = False
    config.sampling.times = "uniform"
    config.sampling.steps = steps
    config.evaluation.num_samples = 50_000
    config.evaluation.t_min = 1e-5
    if process != "ve" and config.model.name == "ncsnpp":
        config.model.embedding = "positional"
    if process == "ve":
        _ve(config, discrete, sigma_max, steps)
    elif process == "vp" and discrete:
        _ddpm(config, steps)
    elif discrete:
        raise ValueError("'discrete' goes with vp and ve: sub-VP was made for continuous times")
    else:
        _vp(config, process)


def _ve(config: ConfigDict, discrete: bool, sigma_max: float, steps: int) -> None:
    """Sets VE. The parameterization divides the output by sigma, in score_sde the network does (`scale_by_sigma`)."""
    config.sde.name = "ve"
    config.sde.sigma_min = 2 * 0.01
    config.sde.sigma_max = 2 * sigma_max
    config.training.ema_decay = 0.999
    config.parameterization.name = "score"
    config.parameterization.scale_input = False
    config.parameterization.sigma_scale = 0.5
    config.loss.weighting = "noise"
    config.loss.reduction = "half_sum"
    config.loss.times = "geometric_sigma" if discrete else "uniform"
    config.loss.discrete_levels = steps
    if config.model.name == "ncsnpp" and discrete:
        config.model.embedding = "discrete"
        config.model.sigma_max = sigma_max
        config.model.num_scales = steps
    if config.model.name == "ddpm":
        config.parameterization.levels = steps
    config.sampling.t_min = 1e-5
    config.sampling.sampler = "predictor_corrector"
    config.sampling.predictor = "reverse_diffusion"
    config.sampling.corrector_steps = 1
    config.sampling.langevin_norm = "sample"


def _vp(config: ConfigDict, process: str) -> None:
    config.sde.name = process
    config.sde.beta_min = 0.1
    config.sde.beta_max = 20.0
    config.training.ema_decay = 0.9999
    config.parameterization.name = "noise"
    config.parameterization.time_scale = 999.0
    config.loss.weighting = "noise"
    config.loss.times = "uniform"
    config.sampling.t_min = 1e-3
    config.sampling.sampler = "euler_maruyama"


def _ddpm(config: ConfigDict, steps: int) -> None:
    """Sets DDPM's chain."""
    chain.noise_prediction(config, "ddpm", steps=steps)
    config.sde.beta_first = 1e-4
    config.sde.beta_last = 0.02
    config.training.ema_decay = 0.9999


def deep(config: ConfigDict) -> None:
    """Sets the number of blocks and of training steps of the deep networks."""
    config.model.blocks_per_level = 8
    config.training.num_steps = 950_000


TECHNIQUES = ("124", "5", "1245")  # techniques of the NCSNv2 paper


def ncsn(config: ConfigDict, techniques: str, *, levels: int, sigma_max: float, snr: float) -> None:
    """Sets NCSN with 10 noise levels and without an average of the weights.

    Techniques 1, 2 and 4 use `levels` noise levels up to `sigma_max`; technique 5 uses an average of the weights.
    """
    networks.ncsn(config)
    if techniques.startswith("124"):
        annealed(config, levels=levels, sigma_max=sigma_max, corrections=5, snr=snr, lr=1e-3)
    else:
        annealed(config, levels=10, sigma_max=1.0, corrections=100, snr=0.316, lr=1e-3)
    if not techniques.endswith("5"):
        config.training.ema_decay = 0.0


def annealed(config: ConfigDict, *, levels: int, sigma_max: float, corrections: int, snr: float, lr: float) -> None:
    """Sets training and sampling of NCSN and NCSNv2: few noise levels, and sampling by annealed Langevin dynamics.

    There are `levels` noise levels up to `sigma_max`, in units of data in [0, 1], with `corrections` Langevin steps at
    each level. The published sampler makes Langevin steps at sigma_max too, while this sampler starts from the prior
    there.
    """
    recipe(config, "ve", discrete=True, sigma_max=sigma_max, steps=levels)
    if config.model.name == "ncsn":
        config.model.num_scales = levels
        config.model.sigma_max = sigma_max
    config.optim.lr = lr
    config.optim.warmup_steps = 0
    config.optim.grad_clip = 0.0
    config.sampling.sampler = "langevin"
    config.sampling.langevin_norm = "process"
    config.sampling.corrector_steps = corrections
    config.sampling.snr = snr


def large_images(config: ConfigDict, process: str, *, sigma_max: float = 50.0, snr: float = 0.16) -> None:
    """Sets the recipe for 256 px and more: 2.4 M steps of 64 images.

    VE is continuous, with 2,000 sampling steps; VP is DDPM's chain.
    """
    recipe(config, process, discrete=process == "vp", sigma_max=sigma_max, steps=2000 if process == "ve" else 1000)
    config.data.batch_size = 64
    config.training.num_steps = 2_400_000
    config.training.checkpoint_every = 5_000
    config.sampling.snr = snr
    if process == "vp":
        config.optim.lr = 2e-5
