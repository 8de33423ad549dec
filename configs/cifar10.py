"""CIFAR-10 (32x32 RGB) as one .npz file with x_train, y_train, x_test, y_test; for an accelerator.

    python -m experiments train --config=configs/cifar10.py --workdir=runs/cifar10 --config.data.source=npz:cifar10.npz

DDPM's U-Net (35.7 M parameters: 128 channels, multipliers 1, 2, 2, 2, attention at 16) with EDM's preconditioning, loss
and noise levels. Expected result: none measured yet.
"""

from configs import base
from configs.parts import sde


def get_config(process: str = "vp"):
    """The experiment; `process` is one of `configs/parts/sde.py`: vp, subvp, ve, edm, ..."""
    config = base.get_config()

    config.data.source = "npz:cifar10.npz"
    config.data.image_size = 32
    config.data.num_channels = 3
    config.data.batch_size = 128
    config.data.random_flip = True

    config.sde.sigma_max = 50.0
    sde.choose(config, process)
    config.parameterization.sigma_data = 0.5

    config.model.channels = 128
    config.model.channel_multipliers = (1, 2, 2, 2)
    config.model.blocks_per_level = 2
    config.model.attention_resolutions = (16,)
    config.model.dropout = 0.13

    config.optim.lr = 2e-4
    config.optim.warmup_steps = 5_000

    config.training.num_steps = 400_000
    config.training.ema_decay = 0.9999

    config.sampling.steps = 35
    config.evaluation.num_samples = 10_000
    return config
