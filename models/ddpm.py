"""The U-Net of DDPM: `UNet` with the defaults of the paper.

Differences from the defaults of `UNet`: the embedding is added as a shift before the norm; a strided convolution halves
the resolution; every norm has 32 groups for any number of channels; dropout is 0.1.

The published networks predict the noise; `noise_level` is the integer step, 0 to 999. The defaults are the network for
CIFAR-10 (32 px, 35.7 M parameters). The other networks:

    LSUN and CelebA-HQ, 256 px (113.7 M)   channel_multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0

score_sde's DDPM (https://github.com/yang-song/score_sde_pytorch/blob/main/models/ddpm.py) is the same network with
`up_attention="level"`.

Source: Ho et al. (2020), https://arxiv.org/abs/2006.11239, appendix B;
https://github.com/hojonathanho/diffusion/blob/master/diffusion_tf/models/unet.py.
"""

from models.unet import UNet


class DDPM(UNet):
    """The U-Net of DDPM; by default the network for CIFAR-10. Options, call, shapes and errors are those of `UNet`."""

    dropout: float = 0.1
    scale_shift: bool = False
    resampling: str = "strided"
    norm_groups: int = 32


# Keys are the values of `model.name` in a config.
NETWORKS = {"ddpm": DDPM}
