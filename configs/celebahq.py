"""CelebA-HQ (256x256 or 1024x1024 RGB) as a folder of images; for accelerators.

    python -m experiments train --config=configs/celebahq.py:256,ve,ncsnpp --workdir=runs/celebahq

The argument selects the image size (256, 1024) and `ve,ncsnpp` or, at 256, `vp,ddpm`.

| argument       | published | parameters |    state |  an image |
|----------------|-----------|------------|----------|-----------|
| 256,ve,ncsnpp  |           |     65.6 M | 1.22 GiB |  4917 MiB |
| 256,vp,ddpm    |           |    111.6 M | 2.08 GiB |  4178 MiB |
| 1024,ve,ncsnpp |           |    105.8 M | 1.97 GiB | 11009 MiB |

Memory: the training state, and the additional memory per image of the batch (less with `model.remat`).

The papers show samples but report no metrics. Sources: Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix
H; Ho et al. (2020), https://arxiv.org/abs/2006.11239; https://github.com/yang-song/score_sde/tree/main/configs.
"""

from configs import base
from configs.parts import faces, networks, score_sde
from configs.parts.arguments import Words


def get_config(argument: str = ""):
    """Returns the experiment for an argument; see the module docstring."""
    words = Words(argument)
    size = words.one_of("size", ("256", "1024"), default="256")
    network = words.one_of("network", ("ncsnpp", "ddpm") if size == "256" else ("ncsnpp",), default="ncsnpp")
    words.flag("vp" if network == "ddpm" else "ve")

    config = base.get_config()
    config.data.source = "folder:celebahq"
    if network == "ddpm":
        faces.images(config, 256)
        networks.ddpm_256(config)
        score_sde.large_images(config, "vp")
    elif size == "256":
        faces.ncsnpp_256(config)
    else:
        faces.ncsnpp_1024(config)
    words.done()
    return config
