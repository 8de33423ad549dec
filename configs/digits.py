"""scikit-learn's handwritten digits (1,797 images, 8x8, no download): the recommended first experiment.

python -m experiments train --config=configs/digits.py --workdir=runs/digits          (VP; `:subvp`, `:ve`)
python -m experiments train --config=configs/digits.py:conditional --workdir=runs/classes     (class-conditional)
python -m experiments evaluate --workdir=runs/classes --sweep-guidance=1,1.5,2,3
python -m experiments train --config=configs/digits.py:classifier --workdir=runs/classifier   (for guidance)
python -m experiments evaluate --workdir=runs/digits --guide=runs/classifier --sweep-guidance=1,2,4

On two CPU cores: 4 minutes and a Frechet distance of 0.73; class-conditional, 5 minutes and 0.37 (898 samples; training
images: 0.45). The classifier takes 1.5 minutes and has an accuracy of 0.57, the mean over evenly spaced log-SNRs from
noise to clean data.
"""

from configs import base
from configs.parts import classes, sde


def get_config(argument: str = "vp"):
    """Returns the experiment for an argument.

    The argument is a process of `configs/parts/sde.py` (vp, subvp, ve, edm, ...), `conditional` or `classifier`, or a
    process and one of the latter, such as ve,conditional.
    """
    config = base.get_config()
    process, kind = classes.split(argument)

    config.data.source = "digits"
    config.data.image_size = 8
    config.data.num_channels = 1
    config.data.batch_size = 64
    config.data.test_fraction = 0.5
    config.data.random_flip = False

    config.sde.sigma_max = 20.0
    sde.choose(config, process)
    config.parameterization.sigma_data = 0.75
    config.loss.log_sigma_mean = -0.5
    config.loss.log_sigma_std = 1.0

    config.model.channels = 32
    config.model.channel_multipliers = (1, 2)
    config.model.blocks_per_level = 1
    config.model.attention_resolutions = ()
    config.model.head_channels = 32
    config.model.resampling = "plain"
    config.model.dropout = 0.1

    config.optim.lr = 2e-3
    config.optim.warmup_steps = 200
    config.optim.schedule = "cosine"

    config.training.num_steps = 1_500
    config.training.steps_per_call = 20
    config.training.log_every = 20
    config.training.checkpoint_every = 500
    config.training.sample_every = 500
    config.training.ema_decay = 0.998

    config.sampling.batch_size = 64
    config.evaluation.num_samples = 898
    if kind == "conditional":
        classes.conditional(config, 10)
    elif kind == "classifier":  # a minute of training on two CPU cores
        classes.classifier(config, 10, channel_multipliers=(1, 2), attention_resolutions=(4,))
        config.training.num_steps = 1_000
    return config
