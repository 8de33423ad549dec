"""ImageNet (64x64 RGB, 1,000 classes) as a folder of images by class; for many accelerators.

    python -m experiments train --config=configs/imagenet64.py:edm,adm --workdir=runs/imagenet64

The argument selects the recipe: `edm,adm`, or `edm2` and its size (xs, s, m, l, xl).

| argument | published | parameters |     state | an image |
|----------|-----------|------------|-----------|----------|
| edm,adm  | 1.36      |    295.9 M |  5.51 GiB | 1299 MiB |
| edm2,xs  |           |    124.7 M |  2.32 GiB |  531 MiB |
| edm2,s   | 1.58      |    280.2 M |  5.22 GiB |  797 MiB |
| edm2,m   | 1.43      |    497.8 M |  9.27 GiB | 1141 MiB |
| edm2,l   | 1.33      |    777.5 M | 14.48 GiB | 1426 MiB |
| edm2,xl  | 1.33      |   1119.3 M | 20.85 GiB | 1712 MiB |

Memory: the training state, and the additional memory per image of the batch (less with `model.remat`).

Published: FID of 50,000 samples with the sampler of the config: EDM's stochastic sampler of 256 steps with churn; for
EDM2, Heun with 32 steps. Sources: Karras et al. (2022), https://arxiv.org/abs/2206.00364, section 5; Karras et al.
(2024), https://arxiv.org/abs/2312.02696, table 3.
"""

from configs import base
from configs.parts import edm, networks
from configs.parts.arguments import Words


def get_config(argument: str = ""):
    """Returns the experiment for an argument; see the module docstring."""
    words = Words(argument)
    config = base.get_config()
    config.data.source = "folder:imagenet64"
    config.data.image_size = 64
    config.data.num_channels = 3

    recipe = words.one_of("recipe", ("edm", "edm2"), default="edm")
    if recipe == "edm2":
        size = words.one_of("size", edm.EDM2_64, default="s")
        edm.edm2(config, size, edm.EDM2_64, log_sigma_mean=-0.8, log_sigma_std=1.6, decay_steps=35_000)
    else:
        words.flag("adm")
        networks.adm(config, 64)
        edm.edm(config, batch_size=4096, lr=1e-4, images=2500, half_life=50)
        config.sampling.steps = 256
        config.sampling.churn = 40.0
        config.sampling.churn_min = 0.05
        config.sampling.churn_max = 50.0
        config.sampling.churn_noise = 1.003
    words.done()
    return config
