"""MNIST (28x28 grey levels) as one .npz file with x_train, y_train, x_test, y_test.

python -m experiments train --config=configs/mnist.py --workdir=runs/mnist --config.data.source=npz:mnist.npz

1.5 M parameters; training on 108,800 images takes 17 minutes on two CPU cores (1,890 CPU-seconds). Frechet distance in
the perceptron's features 1.55 (5,000 samples of 35 evaluations and 5,000 test images); of training images 0.26.
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

    config.data.source = "npz:mnist.npz"
    config.data.image_size = 28
    config.data.num_channels = 1
    config.data.batch_size = 64
    config.data.random_flip = False

    config.sde.sigma_max = 50.0
    sde.choose(config, process)
    config.parameterization.sigma_data = 0.6

    config.model.channels = 16
    config.model.channel_multipliers = (1, 3, 6)
    config.model.blocks_per_level = 1
    config.model.attention_resolutions = (7,)
    config.model.head_channels = 32
    config.model.dropout = 0.0  # few passes over many images

    config.optim.lr = 2e-3
    config.optim.warmup_steps = 200
    config.optim.schedule = "cosine"

    config.training.num_steps = 1_700
    config.training.checkpoint_every = 200
    config.training.log_every = 50
    config.training.sample_every = 400
    config.training.ema_decay = 0.997
    if kind == "conditional":
        classes.conditional(config, 10)
    elif kind == "classifier":
        classes.classifier(config, 10, channel_multipliers=(1, 2, 2), attention_resolutions=(7,))
        config.training.num_steps = 600
    return config
