"""DDPM's U-Net: `UNet` with the options of the paper.

Which of them differ from `UNet`'s own: the embedding shifts before the norm; a strided convolution halves the resolution;
32 groups in every norm, whatever the channels; one head.

The published networks predict the noise; `noise_level` is the integer step, 0 to 999. They are, beside the defaults
(CIFAR-10, 32 px, 35.7 M parameters):

    LSUN and CelebA-HQ, 256 px (113.7 M)   channel_multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0

score_sde's DDPM (https://github.com/yang-song/score_sde_pytorch/blob/main/models/ddpm.py) is the same network with
`up_attention="level"`.

Source: Ho et al. (2020), https://arxiv.org/abs/2006.11239, appendix B;
https://github.com/hojonathanho/diffusion/blob/master/diffusion_tf/models/unet.py.
"""

from models.unet import UNet


class DDPM(UNet):
    """DDPM's U-Net, by default that of CIFAR-10; the options are those of `UNet`, and so are call, shapes and errors."""

    dropout: float = 0.1
    scale_shift: bool = False
    resampling: str = "strided"
    norm_groups: int = 32


# By the name that a config gives.
NETWORKS = {"ddpm": DDPM}
