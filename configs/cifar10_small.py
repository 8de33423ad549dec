"""CIFAR-10 (32x32 RGB) for restoring in colour: the network of configs/mnist32.py, trained on one CPU core for an hour.

python -m experiments train --config=configs/cifar10_small.py --workdir=runs/colour --config.data.source=npz:cifar10.npz

A prior for restoration, which needs little of one; what generates well is configs/cifar10.py. 3,000 steps take a core 66
minutes. Frechet distance 1.52 in the features of our perceptron, 1,000 samples of 35 evaluations; training images have 0.69.
"""

from configs import mnist32


def get_config(process: str = "vp"):
    """The experiment; `process` is one of `configs/parts/sde.py`: vp, subvp, ve, edm, ..."""
    config = mnist32.get_config(process)

    config.data.source = "npz:cifar10.npz"
    config.data.num_channels = 3
    config.data.random_flip = True

    config.parameterization.sigma_data = 0.5

    config.training.num_steps = 3_000
    return config
