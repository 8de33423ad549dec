"""NCSN++ on large faces: what CelebA-HQ and FFHQ share.

Source: Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix H.
"""

from ml_collections import ConfigDict

from configs.parts import networks, score_sde


def images(config: ConfigDict, size: int) -> None:
    """Square RGB faces, mirrored at random."""
    config.data.image_size = size
    config.data.num_channels = 3
    config.data.random_flip = True


def ncsnpp_256(config: ConfigDict) -> None:
    """At 256 px."""
    images(config, 256)
    networks.ncsnpp_256(config)
    score_sde.large_images(config, "ve", sigma_max=348.0, snr=0.075)


def ncsnpp_1024(config: ConfigDict) -> None:
    """At 1024 px: 8 images at a time, and a longer average."""
    images(config, 1024)
    networks.ncsnpp_1024(config)
    score_sde.large_images(config, "ve", sigma_max=1348.0, snr=0.15)
    config.data.batch_size = 8
    config.training.ema_decay = 0.9999
