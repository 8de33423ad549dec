"""Training and sampling of EDM and EDM2.

Sources: Karras et al. (2022), https://arxiv.org/abs/2206.00364, table 1 and appendix F.3;
https://github.com/NVlabs/edm#training-new-models. Karras et al. (2024), https://arxiv.org/abs/2312.02696, tables 1 and
6; https://github.com/NVlabs/edm2/blob/main/train_edm2.py.
"""

from collections.abc import Mapping

from ml_collections import ConfigDict

from configs.parts import networks, sde

MILLION = 1_000_000


def edm(
    config: ConfigDict, *, batch_size: int, lr: float, images: float, half_life: float, augmentation: float = 0.0
) -> None:
    """Sets the recipe of EDM.

    Args:
        config: is modified.
        batch_size: images per step.
        lr: learning rate.
        images: length of the training, in millions of images.
        half_life: half-life of the average of the weights, in millions of images.
        augmentation: probability of each transform of the augmentation. It includes mirroring, so data.random_flip is
            off.
    """
    _process(config)
    config.data.augmentation = augmentation
    config.data.random_flip = False
    config.data.batch_size = batch_size
    config.loss.log_sigma_mean = -1.2
    config.loss.log_sigma_std = 1.2

    config.training.num_steps = round(images * MILLION / batch_size)
    config.training.ema = "half_life"
    config.training.ema_half_life = round(half_life * MILLION)
    config.training.ema_ramp = 0.05
    config.optim.lr = lr
    config.optim.beta1 = 0.9
    config.optim.beta2 = 0.999
    config.optim.warmup_steps = round(10 * MILLION / batch_size)
    config.optim.grad_clip = 0.0

    config.sampling.steps = 18


def _process(config: ConfigDict) -> None:
    sde.choose(config, "edm")
    config.parameterization.name = "edm"
    config.parameterization.sigma_data = 0.5
    config.loss.weighting = "edm"
    config.loss.times = "log_normal"
    config.sampling.sampler = "heun"
    config.sampling.times = "karras"
    config.sampling.rho = 7.0
    config.evaluation.num_samples = 50_000


# By network size: (training images in units of 2^20, learning rate).
EDM2_512: Mapping[str, tuple[int, float]] = {
    "xxs": (2048, 0.0170),
    "xs": (2048, 0.0120),
    "s": (2048, 0.0100),
    "m": (2048, 0.0090),
    "l": (1792, 0.0080),
    "xl": (1280, 0.0070),
    "xxl": (896, 0.0065),
}
EDM2_64: Mapping[str, tuple[int, float]] = {
    "xs": (1024, 0.0120),
    "s": (1024, 0.0100),
    "m": (2048, 0.0090),
    "l": (1024, 0.0080),
    "xl": (640, 0.0070),
}


def edm2(
    config: ConfigDict,
    size: str,
    presets: Mapping[str, tuple[int, float]],
    *,
    log_sigma_mean: float,
    log_sigma_std: float,
    decay_steps: int,
) -> None:
    """Sets the recipe of EDM2 for a network size.

    Snapshots of averages of widths 0.05 and 0.1 are stored every 8 * 2^20 images in half precision; the published
    models are post-hoc averages of other widths (`sampling.ema_std`). Sample grids during training use the width 0.1.
    """
    images, lr = presets[size]
    _process(config)
    networks.edm2(config, size)
    config.data.batch_size = 2048
    config.data.random_flip = False
    config.loss.log_sigma_mean = log_sigma_mean
    config.loss.log_sigma_std = log_sigma_std
    config.loss.learned_uncertainty = True

    config.training.num_steps = images * 2**20 // 2048
    config.training.ema = "power:0.1,power:0.05"
    config.training.ema_snapshot_every = 8 * 2**20 // 2048
    config.training.ema_snapshot_dtype = "float16"
    config.optim.lr = lr
    config.optim.schedule = "inverse_sqrt"
    config.optim.decay_steps = decay_steps
    config.optim.beta1 = 0.9
    config.optim.beta2 = 0.99
    config.optim.warmup_steps = round(10 * MILLION / 2048)
    config.optim.grad_clip = 0.0

    config.sampling.steps = 32
