"""LSUN bedrooms and churches (256x256 RGB) as a folder of images; for accelerators.

    python -m experiments train --config=configs/lsun.py:church,ve,ncsnpp --workdir=runs/church

The argument selects the category (`bedroom`, `church`) and `ve,ncsnpp` or `vp,ddpm`; `ncsnv2` is for bedrooms of
128x128.

| argument          | published | parameters |    state | an image |
|-------------------|-----------|------------|----------|----------|
| bedroom,ve,ncsnpp |           |     65.6 M | 1.22 GiB | 4917 MiB |
| church,ve,ncsnpp  |           |     65.6 M | 1.22 GiB | 4917 MiB |
| bedroom,vp,ddpm   | 6.36      |    111.6 M | 2.08 GiB | 4178 MiB |
| church,vp,ddpm    | 7.89      |    111.6 M | 2.08 GiB | 4178 MiB |
| bedroom,ve,ncsnv2 |           |     83.4 M | 1.55 GiB | 1551 MiB |

Memory: the training state, and the additional memory per image of the batch (less with `model.remat`).

Published: FID. Sources: Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix H, which reports no metrics; Ho
et al. (2020), https://arxiv.org/abs/2006.11239, table 3; Song and Ermon (2020), https://arxiv.org/abs/2006.09011;
https://github.com/yang-song/score_sde/tree/main/configs.
"""

from configs import base
from configs.parts import networks, score_sde
from configs.parts.arguments import Words

SIGMA_MAX = {"bedroom": 378.0, "church": 380.0}  # the largest distance between two images


def get_config(argument: str = ""):
    """Returns the experiment for an argument; see the module docstring."""
    words = Words(argument)
    category = words.one_of("category", SIGMA_MAX, default="bedroom")
    network = words.one_of("network", ("ncsnpp", "ddpm", "ncsnv2"), default="ncsnpp")
    words.flag("vp" if network == "ddpm" else "ve")

    config = base.get_config()
    config.data.source = f"folder:lsun_{category}"
    config.data.image_size = 256
    config.data.num_channels = 3
    config.data.random_flip = True

    if network == "ncsnpp":
        networks.ncsnpp_256(config)
        score_sde.large_images(config, "ve", sigma_max=SIGMA_MAX[category], snr=0.075)
    elif network == "ddpm":
        networks.ddpm_256(config)
        score_sde.large_images(config, "vp")
    elif category == "church":
        raise ValueError("ncsnv2 goes with bedroom, not with church")
    else:
        networks.ncsnv2_128(config)
        score_sde.annealed(config, levels=1086, sigma_max=190.0, corrections=3, snr=0.095, lr=1e-4)
        config.data.image_size = 128
        config.training.num_steps = 2_400_000
        config.training.ema_decay = 0.9999
    words.done()
    return config
