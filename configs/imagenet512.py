"""Latents of ImageNet (512x512 images as 64x64x4, 1,000 classes); for many accelerators.

    python -m experiments import --from=edm2-img512-s-2147483-0.130.pkl --format=edm2 --workdir=runs/edm2

The argument selects the network: `edm2` and its size (xxs, xs, s, m, l, xl, xxl), or `dit`.

| argument | published    | parameters |     state | an image |
|----------|--------------|------------|-----------|----------|
| edm2,xxs |              |     31.3 M |  0.58 GiB |  266 MiB |
| edm2,xs  | 3.53 (2.91)  |    124.7 M |  2.32 GiB |  531 MiB |
| edm2,s   | 2.56 (2.23)  |    280.2 M |  5.22 GiB |  797 MiB |
| edm2,m   | 2.25 (2.01)  |    497.8 M |  9.27 GiB | 1141 MiB |
| edm2,l   | 2.06 (1.88)  |    777.5 M | 14.48 GiB | 1426 MiB |
| edm2,xl  | 1.96 (1.85)  |   1119.3 M | 20.85 GiB | 1712 MiB |
| edm2,xxl | 1.91 (1.81)  |   1523.2 M | 28.37 GiB | 1997 MiB |
| dit,xl,2 | 12.03 (3.04) |    674.8 M | 12.57 GiB | 8395 MiB |

Memory: the training state, and the additional memory per image of the batch (less with `model.remat`).

Published: FID of 50,000 samples without guidance (with guidance). Sources: Karras et al. (2024),
https://arxiv.org/abs/2312.02696, table 2; Peebles and Xie (2023), https://arxiv.org/abs/2212.09748, table 3.

Latents are outputs of Stable Diffusion's encoder. The encoder and sources of latents are not implemented: the model can
be imported and sampled, but `train` cannot train it.
"""

from configs import base
from configs.parts import dit, edm
from configs.parts.arguments import Words


def get_config(argument: str = ""):
    """Returns the experiment for an argument; see the module docstring."""
    words = Words(argument)
    config = base.get_config()
    config.data.source = "latents"
    config.data.image_size = 64
    config.data.num_channels = 4

    if words.one_of("network", ("edm2", "dit"), default="edm2") == "dit":
        words.flag("xl"), words.flag("2")
        dit.dit(config, "xl", 2)
        config.training.num_steps = 3_000_000
    else:
        size = words.one_of("size", edm.EDM2_512, default="s")
        edm.edm2(config, size, edm.EDM2_512, log_sigma_mean=-0.4, log_sigma_std=1.0, decay_steps=70_000)
    words.done()
    return config
