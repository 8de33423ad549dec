"""CIFAR-10 (32x32 RGB) as one .npz file with x_train, y_train, x_test, y_test; for an accelerator.

    python -m experiments train --config=configs/cifar10.py:ve,ncsnpp,deep --workdir=runs/ve_deep

The argument selects a process, a network and variants. `deep` has 8 residual blocks per level, `discrete` is trained at
1,000 discrete noise levels (SMLD, DDPM), `conditional` is class-conditional; 124 and 5 are techniques of the NCSNv2
paper for the training of NCSN.

| argument               | published         | parameters |    state | an image |
|------------------------|-------------------|------------|----------|----------|
| ve,ncsn                | 25.32 (8.87)      |     30.1 M | 0.56 GiB |  112 MiB |
| ve,ncsn,124            |                   |     39.8 M | 0.74 GiB |  112 MiB |
| ve,ncsn,5              |                   |     30.1 M | 0.56 GiB |  112 MiB |
| ve,ncsn,1245           |                   |     39.8 M | 0.74 GiB |  112 MiB |
| ve,ncsnv2              | 10.87 (8.40)      |     29.7 M | 0.55 GiB |  117 MiB |
| ve,ddpm,discrete       |                   |     35.2 M | 0.66 GiB |   89 MiB |
| ve,ncsnpp,discrete     | 2.45 (9.73)       |     62.7 M | 1.17 GiB |  169 MiB |
| ve,ncsnpp              | 2.38 (9.83)       |     62.8 M | 1.17 GiB |  169 MiB |
| ve,ncsnpp,deep         | 2.20 (9.89)       |    107.6 M | 2.00 GiB |  293 MiB |
| vp,ddpm,discrete       | 3.24              |     35.2 M | 0.66 GiB |   89 MiB |
| vp,ddpm                | ; 3.69            |     35.2 M | 0.66 GiB |   89 MiB |
| vp,ddpmpp,discrete     | 2.78 (9.64)       |     61.8 M | 1.15 GiB |  169 MiB |
| vp,ddpmpp              | 2.55 (9.58); 3.93 |     61.8 M | 1.15 GiB |  169 MiB |
| vp,ddpmpp,deep         | 2.41 (9.68); 3.08 |    106.6 M | 1.99 GiB |  293 MiB |
| vp,ncsnpp,discrete     |                   |     62.7 M | 1.17 GiB |  169 MiB |
| vp,ncsnpp              |                   |     62.7 M | 1.17 GiB |  169 MiB |
| vp,ncsnpp,deep         |                   |    107.5 M | 2.00 GiB |  293 MiB |
| subvp,ddpm             | ; 3.56            |     35.2 M | 0.66 GiB |   89 MiB |
| subvp,ddpmpp           | 2.61 (9.56); 3.16 |     61.8 M | 1.15 GiB |  169 MiB |
| subvp,ddpmpp,deep      | 2.41 (9.57); 2.92 |    106.6 M | 1.99 GiB |  293 MiB |
| subvp,ncsnpp           |                   |     62.7 M | 1.17 GiB |  169 MiB |
| subvp,ncsnpp,deep      |                   |    107.5 M | 2.00 GiB |  293 MiB |
| edm,ddpmpp             | 1.97              |     55.7 M | 1.04 GiB |  245 MiB |
| edm,ddpmpp,conditional | 1.79              |     55.7 M | 1.04 GiB |  245 MiB |
| edm,ncsnpp             | 1.98              |     56.4 M | 1.05 GiB |  245 MiB |
| edm,ncsnpp,conditional | 1.79              |     56.4 M | 1.05 GiB |  245 MiB |

Memory: the training state, and the additional memory per image of the batch (less with `model.remat`).

Published: FID of 50,000 samples (Inception Score), with the sampler of the config; after the semicolon, FID of the
probability flow. Sources: Song et al. (2021), https://arxiv.org/abs/2011.13456, tables 2 and 3; Karras et al. (2022),
https://arxiv.org/abs/2206.00364, table 2.

An argument with only a process (`configs/cifar10.py:vp`, any of `configs/parts/sde.py`) selects an experiment that is
not from a paper: DDPM's U-Net of 35.7 M parameters with EDM's preconditioning, loss and noise levels. No result was
measured.
"""

from configs import base
from configs.parts import edm, networks, score_sde, sde
from configs.parts.arguments import Words


def get_config(argument: str = ""):
    """Returns the experiment for an argument; see the module docstring."""
    words = Words(argument)
    config = base.get_config()
    config.data.source = "npz:cifar10.npz"
    config.data.image_size = 32
    config.data.num_channels = 3
    config.data.random_flip = True

    if not argument or argument in sde.PROCESSES:
        _ours(config, argument or "vp")
        return config
    network = words.one_of("network", ("ddpm", "ddpmpp", "ncsnpp", "ncsn", "ncsnv2"))
    process = words.one_of("process", ("vp", "subvp", "ve", "edm"))
    if network is None or process is None:
        for variant in ("deep", "discrete", "conditional"):
            words.flag(variant)
        words.done()
        raise ValueError("name a process and a network, such as ve,ncsnpp, or only a process")
    if process == "edm":
        _edm(config, words, network)
    elif network in ("ncsn", "ncsnv2"):
        _ncsn(config, words, network, process)
    else:
        _score_sde(config, words, network, process)
    words.done()
    return config


def _score_sde(config, words, network, process):
    discrete = words.flag("discrete")
    {"ddpm": networks.ddpm, "ddpmpp": networks.ddpmpp, "ncsnpp": networks.ncsnpp}[network](config)
    score_sde.recipe(config, process, discrete=discrete, sigma_max=50.0)
    config.sampling.snr = 0.16
    if (process, network, discrete) == ("vp", "ncsnpp", True):
        config.sampling.sampler = "reverse_diffusion"
    if network != "ddpm" and words.flag("deep"):
        score_sde.deep(config)


def _ncsn(config, words, network, process):
    if process != "ve":
        raise ValueError(f"{network} goes with ve, not with {process}")
    if network == "ncsnv2":
        networks.ncsnv2(config)
        score_sde.annealed(config, levels=232, sigma_max=50.0, corrections=5, snr=0.176, lr=1e-4)
        return
    techniques = words.one_of("set of techniques", score_sde.TECHNIQUES, default="")
    score_sde.ncsn(config, techniques, levels=232, sigma_max=50.0, snr=0.176)


def _edm(config, words, network):
    if network not in ("ddpmpp", "ncsnpp"):
        raise ValueError(f"edm goes with ddpmpp and ncsnpp, not with {network}")
    {"ddpmpp": networks.edm_ddpmpp, "ncsnpp": networks.edm_ncsnpp}[network](config)
    edm.edm(config, batch_size=512, lr=1e-3, images=200, half_life=0.5, augmentation=0.12)
    if words.flag("conditional"):
        config.model.num_classes = 10


def _ours(config, process):
    config.sde.sigma_max = 50.0
    sde.choose(config, process)
    config.data.batch_size = 128
    config.parameterization.sigma_data = 0.5

    config.model.channels = 128
    config.model.channel_multipliers = (1, 2, 2, 2)
    config.model.blocks_per_level = 2
    config.model.attention_resolutions = (16,)
    config.model.dropout = 0.13

    config.optim.lr = 2e-4
    config.optim.warmup_steps = 5_000

    config.training.num_steps = 400_000
    config.training.ema_decay = 0.9999

    config.sampling.steps = 35
    config.evaluation.num_samples = 10_000
