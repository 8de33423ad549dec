"""ADM, the U-Net of guided-diffusion: `UNet` with the defaults of the paper.

Differences from the defaults of `UNet`: residual blocks change the resolution; attention heads have 64 channels; every
norm has 32 groups and an epsilon of 1e-5; the embedding of the noise level has cosines first.

The published networks predict the noise and a variance (`learned_variance=True`); `noise_level` is the integer step,
0 to 999. All networks except the "uncond" and LSUN ones have `num_classes=1000`. The options that differ from the
defaults (ImageNet, 64 px) are:

    ImageNet, 128 px   channels=256, channel_multipliers=(1, 1, 2, 3, 4), blocks_per_level=2, num_heads=4,
                       head_channels=0, dropout=0.0
    ImageNet, 256 px   channels=256, channel_multipliers=(1, 1, 2, 2, 4, 4), blocks_per_level=2, dropout=0.0
    ImageNet, 512 px   channels=256, channel_multipliers=(0.5, 1, 1, 2, 2, 4, 4), blocks_per_level=2, dropout=0.0
    LSUN, 256 px       as ImageNet 256 px, with dropout=0.1 (horse also without)
    64 to 256 px       channels=192, channel_multipliers=(1, 1, 2, 2, 4, 4), blocks_per_level=2, num_heads=4,
                       head_channels=0, dropout=0.0, out_channels=3
    128 to 512 px      channels=192, channel_multipliers=(1, 1, 2, 2, 4, 4), blocks_per_level=2, dropout=0.0,
                       attention_resolutions=(32, 16), out_channels=3

In the two super-resolution networks, the small image is upsampled bilinearly and concatenated to the channels of x.

The two layouts of queries, keys and values in guided-diffusion (`use_new_attention_order`) are the same function with
differently ordered weights; the reader of the file reorders them (`models/pretrained/guided_diffusion.py`).

Source: Dhariwal and Nichol (2021), https://arxiv.org/abs/2105.05233;
https://github.com/openai/guided-diffusion (README.md for the flags, guided_diffusion/unet.py for the network).
"""

from models.unet import UNet


class ADM(UNet):
    """The U-Net of ADM; by default the network for ImageNet at 64 px, without classes and learned variance.

    Options, call, shapes and errors are those of `UNet`.
    """

    channels: int = 192
    channel_multipliers: tuple[float, ...] = (1, 2, 3, 4)
    blocks_per_level: int = 3
    attention_resolutions: tuple[int, ...] = (32, 16, 8)
    head_channels: int = 64
    dropout: float = 0.1
    embedding: str = "positional_adm"
    resampling: str = "block"
    norm_groups: int = 32
    norm_epsilon: float = 1e-5


# Keys are the values of `model.name` in a config.
NETWORKS = {"adm": ADM}
