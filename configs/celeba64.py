"""CelebA (64x64 RGB) as a folder of aligned, cropped faces; for accelerators.

    python -m experiments train --config=configs/celeba64.py:ve,ncsnpp --workdir=runs/celeba

The argument selects the network: `ncsnpp` (with 1,000 noise levels), `ncsn` (optionally with the techniques 124 and 5
of the NCSNv2 paper) or `ncsnv2`. The process is VE.

| argument     | published | parameters |    state | an image |
|--------------|-----------|------------|----------|----------|
| ve,ncsnpp    |           |     62.7 M | 1.17 GiB |  641 MiB |
| ve,ncsn      |           |     30.1 M | 0.56 GiB |  445 MiB |
| ve,ncsn,124  |           |     51.4 M | 0.96 GiB |  445 MiB |
| ve,ncsn,5    |           |     30.1 M | 0.56 GiB |  445 MiB |
| ve,ncsn,1245 |           |     51.4 M | 0.96 GiB |  445 MiB |
| ve,ncsnv2    | 10.23     |     29.7 M | 0.55 GiB |  468 MiB |

Memory: the training state, and the additional memory per image of the batch (less with `model.remat`).

Sources: Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix G; Song and Ermon (2020),
https://arxiv.org/abs/2006.09011; https://github.com/yang-song/score_sde/tree/main/configs/ve.
"""

from configs import base
from configs.parts import networks, score_sde
from configs.parts.arguments import Words


def get_config(argument: str = ""):
    """Returns the experiment for an argument; see the module docstring."""
    words = Words(argument)
    config = base.get_config()
    config.data.source = "folder:celeba64"
    config.data.image_size = 64
    config.data.num_channels = 3
    config.data.random_flip = True

    words.flag("ve")
    network = words.one_of("network", ("ncsnpp", "ncsn", "ncsnv2"), default="ncsnpp")
    if network == "ncsnpp":
        words.flag("discrete")
        networks.ncsnpp(config)
        score_sde.recipe(config, "ve", discrete=True, sigma_max=90.0)
        config.sampling.snr = 0.17
    elif network == "ncsnv2":
        networks.ncsnv2(config)
        score_sde.annealed(config, levels=500, sigma_max=90.0, corrections=5, snr=0.128, lr=1e-4)
    else:
        techniques = words.one_of("set of techniques", score_sde.TECHNIQUES, default="")
        score_sde.ncsn(config, techniques, levels=500, sigma_max=90.0, snr=0.128)
    words.done()
    return config
