"""Latents of ImageNet (256x256 images as 32x32x4, 1,000 classes); for many accelerators.

    python -m experiments import --from=DiT-XL-2-256x256.pt --format=dit --workdir=runs/dit

The argument selects the size (s, b, l, xl) and the patch size of DiT: `dit,xl,2`.

| argument | published   | parameters |     state | an image |
|----------|-------------|------------|-----------|----------|
| dit,s,2  | 68.40       |     32.9 M |  0.61 GiB |  209 MiB |
| dit,s,4  | 100.41      |     32.9 M |  0.61 GiB |   46 MiB |
| dit,s,8  | 153.60      |     33.1 M |  0.62 GiB |   11 MiB |
| dit,b,2  | 43.47       |    130.3 M |  2.43 GiB |  418 MiB |
| dit,b,4  | 68.38       |    130.4 M |  2.43 GiB |   91 MiB |
| dit,b,8  | 122.74      |    130.9 M |  2.44 GiB |   22 MiB |
| dit,l,2  | 23.33       |    457.8 M |  8.53 GiB | 1109 MiB |
| dit,l,4  | 45.64       |    458.0 M |  8.53 GiB |  242 MiB |
| dit,l,8  | 118.87      |    458.6 M |  8.54 GiB |   58 MiB |
| dit,xl,2 | 19.47, 9.62 |    674.8 M | 12.57 GiB | 1427 MiB |
| dit,xl,4 | 43.01       |    675.0 M | 12.57 GiB |  315 MiB |
| dit,xl,8 | 106.41      |    675.7 M | 12.59 GiB |   77 MiB |

Memory: the training state, and the additional memory per image of the batch (less with `model.remat`).

Published: FID of 50,000 samples without guidance, after 400,000 steps and, for XL/2, after 7 M steps; the latter
improves to 2.27 with guidance of scale 1.5. Source: Peebles and Xie (2023), https://arxiv.org/abs/2212.09748, tables 1,
2 and 4.

Latents are outputs of Stable Diffusion's encoder. The encoder and sources of latents are not implemented: the model can
be imported and sampled, but `train` cannot train it.
"""

from configs import base
from configs.parts import dit, networks
from configs.parts.arguments import Words


def get_config(argument: str = ""):
    """Returns the experiment for an argument; see the module docstring."""
    words = Words(argument)
    config = base.get_config()
    config.data.source = "latents"
    config.data.image_size = 32
    config.data.num_channels = 4

    words.flag("dit")
    size = words.one_of("size", networks.DIT_SIZES, default="xl")
    patch_size = words.one_of("patch", ("2", "4", "8"), default="2")
    dit.dit(config, size, int(patch_size))
    words.done()
    return config
