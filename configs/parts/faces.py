"""NCSN++ on large images of faces: shared settings of CelebA-HQ and FFHQ.

Source: Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix H.
"""

from ml_collections import ConfigDict

from configs.parts import networks, score_sde


def images(config: ConfigDict, size: int) -> None:
    """Sets square RGB images, mirrored at random."""
    config.data.image_size = size
    config.data.num_channels = 3
    config.data.random_flip = True


def ncsnpp_256(config: ConfigDict) -> None:
    """Sets the experiment at 256 px."""
    images(config, 256)
    networks.ncsnpp_256(config)
    score_sde.large_images(config, "ve", sigma_max=348.0, snr=0.075)


def ncsnpp_1024(config: ConfigDict) -> None:
    """Sets the experiment at 1024 px, with a batch size of 8 and a longer average of the weights."""
    images(config, 1024)
    networks.ncsnpp_1024(config)
    score_sde.large_images(config, "ve", sigma_max=1348.0, snr=0.15)
    config.data.batch_size = 8
    config.training.ema_decay = 0.9999
