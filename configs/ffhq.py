"""FFHQ (64x64, 256x256 or 1024x1024 RGB) as a folder of images; for accelerators.

    python -m experiments train --config=configs/ffhq.py:256,ve,ncsnpp --workdir=runs/ffhq

The argument selects the image size, and `ve,ncsnpp` (256, 1024), `edm,ddpmpp` or `edm,ncsnpp` (64).

| argument       | published | parameters |    state |  an image |
|----------------|-----------|------------|----------|-----------|
| 64,edm,ddpmpp  | 2.39      |     61.8 M | 1.15 GiB |   640 MiB |
| 64,edm,ncsnpp  | 2.53      |     62.8 M | 1.17 GiB |   641 MiB |
| 256,ve,ncsnpp  |           |     65.6 M | 1.22 GiB |  4917 MiB |
| 1024,ve,ncsnpp |           |    105.8 M | 1.97 GiB | 11009 MiB |

Memory: the training state, and the additional memory per image of the batch (less with `model.remat`).

Published: FID, if the paper reports it. Sources: Song et al. (2021),
https://arxiv.org/abs/2011.13456, appendix H; https://github.com/yang-song/score_sde/tree/main/configs/ve;
Karras et al. (2022), https://arxiv.org/abs/2206.00364, table 2; https://github.com/NVlabs/edm#training-new-models.
"""

from configs import base
from configs.parts import edm, faces, networks
from configs.parts.arguments import Words


def get_config(argument: str = ""):
    """Returns the experiment for an argument; see the module docstring."""
    words = Words(argument)
    size = words.one_of("size", ("64", "256", "1024"), default="256")
    network = words.one_of("network", ("ncsnpp", "ddpmpp") if size == "64" else ("ncsnpp",), default="ncsnpp")
    words.flag("edm" if size == "64" else "ve")

    config = base.get_config()
    config.data.source = "folder:ffhq"
    if size == "64":
        faces.images(config, 64)
        {"ddpmpp": networks.edm_ddpmpp, "ncsnpp": networks.edm_ncsnpp}[network](config)
        edm.edm(config, batch_size=256, lr=2e-4, images=200, half_life=0.5, augmentation=0.15)
        config.model.channel_multipliers = (1, 2, 2, 2)
        config.model.dropout = 0.05
        config.sampling.steps = 40
    elif size == "256":
        faces.ncsnpp_256(config)
    else:
        faces.ncsnpp_1024(config)
        config.loss.reduction = "mean"  # as published; CelebA-HQ's experiment uses the sum
    words.done()
    return config
