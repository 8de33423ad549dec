"""MNIST at 32x32 for restoration: the network of configs/mnist.py, trained for about one hour on two CPU cores.

python -m experiments train --config=configs/mnist32.py --workdir=runs/mnist32 --config.data.source=npz:mnist.npz

5,000 steps take 105 minutes on one core (1.26 CPU-seconds each), or two minutes on an H100. Frechet distance in the
perceptron's features 1.22 (2,000 samples of 35 evaluations); of training images 0.54. With labels
(--config.model.num_classes=10 --config.condition.label.dropout=0.1) 0.72.
"""

from configs import mnist


def get_config(process: str = "vp"):
    """Returns the experiment; `process` is one of `configs/parts/sde.py`: vp, subvp, ve, edm, ..."""
    config = mnist.get_config(process)

    config.data.image_size = 32
    config.data.resize = "center_crop"

    config.model.attention_resolutions = (8,)

    config.training.num_steps = 5_000
    config.training.checkpoint_every = 500
    config.training.sample_every = 1_500
    config.training.ema_decay = 0.999
    return config
