"""ImageNet (64, 128, 256 or 512 px RGB, 1,000 classes) as a folder of images by class: ADM; for many accelerators.

    python -m experiments import --from=256x256_diffusion.pt --format=guided_diffusion --config=configs/imagenet.py:256 \\
        --workdir=runs/adm
    python -m experiments train --config=configs/imagenet.py:64 --workdir=runs/imagenet

The argument is the size of the images. The published file for 64 px is of the format guided_diffusion_64.

| argument | published    | parameters |     state |  an image |
|----------|--------------|------------|-----------|-----------|
| 64       | 2.07         |    295.9 M |  5.51 GiB |  1299 MiB |
| 128      | 5.91 (2.97)  |    421.5 M |  7.85 GiB |  2719 MiB |
| 256      | 10.94 (4.59) |    553.8 M | 10.32 GiB | 10122 MiB |
| 512      | 23.24 (7.72) |    559.0 M | 10.41 GiB | 24748 MiB |

Memory: the training state, and the additional memory per image of the batch (less with `model.remat`).

Published: FID of 50,000 samples of 250 steps without guidance (with classifier guidance). Source: Dhariwal and Nichol
(2021), https://arxiv.org/abs/2105.05233, tables 4 and 5.
"""

from configs import base
from configs.parts import adm
from configs.parts.arguments import Words


def get_config(argument: str = ""):
    """Returns the experiment for an argument; see the module docstring."""
    words = Words(argument)
    words.flag("adm")
    size = int(words.one_of("size", ("64", "128", "256", "512"), default="64"))
    words.done()
    config = base.get_config()
    config.data.source = "folder:imagenet"
    config.data.image_size = size
    config.data.num_channels = 3
    adm.adm(config, size)
    return config
