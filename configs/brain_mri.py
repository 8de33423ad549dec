"""Slices of brain MRI (64x64 grey levels, T1 with contrast agent) as one .npz file with `images`, for reconstruction.

python -m experiments train --config=configs/brain_mri.py --workdir=runs/brain --config.data.source=npz:brain_mri64.npz

2.8 M parameters; 4,000 steps take 116 minutes on one core (1.74 CPU-seconds each), or three minutes on an H100. Frechet
distance in the perceptron's features 11.4 (2,000 samples of 35 evaluations); of training images 1.6. Other slices of
the patients of held-out slices are in the training set.
"""

from configs import base
from configs.parts import sde


def get_config(process: str = "vp"):
    """Returns the experiment; `process` is one of `configs/parts/sde.py`: vp, subvp, ve, edm, ..."""
    config = base.get_config()

    config.data.source = "npz:brain_mri64.npz"
    config.data.image_size = 64
    config.data.num_channels = 1
    config.data.batch_size = 32
    config.data.random_flip = True  # mirrored slices are plausible data

    config.sde.sigma_max = 80.0
    sde.choose(config, process)
    config.parameterization.sigma_data = 0.5

    config.model.channels = 16
    config.model.channel_multipliers = (1, 2, 4, 8)
    config.model.blocks_per_level = 1
    config.model.attention_resolutions = (8,)
    config.model.head_channels = 32
    config.model.dropout = 0.0

    config.optim.lr = 2e-3
    config.optim.warmup_steps = 200
    config.optim.schedule = "cosine"

    config.training.num_steps = 4_000
    config.training.checkpoint_every = 500
    config.training.log_every = 50
    config.training.sample_every = 1_500
    config.training.ema_decay = 0.999
    return config
