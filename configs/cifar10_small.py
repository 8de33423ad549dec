"""CIFAR-10 (32x32 RGB) for restoration in colour: the network of configs/mnist32.py, trained for one hour on one core.

python -m experiments train --config=configs/cifar10_small.py --workdir=runs/colour --config.data.source=npz:cifar10.npz

A prior for restoration, for which a small model is sufficient; for generation, use configs/cifar10.py. 3,000 steps take
66 minutes on one core. Frechet distance in the perceptron's features 1.52 (1,000 samples of 35 evaluations); of
training images 0.69.
"""

from configs import mnist32


def get_config(process: str = "vp"):
    """Returns the experiment; `process` is one of `configs/parts/sde.py`: vp, subvp, ve, edm, ..."""
    config = mnist32.get_config(process)

    config.data.source = "npz:cifar10.npz"
    config.data.num_channels = 3
    config.data.random_flip = True

    config.parameterization.sigma_data = 0.5

    config.training.num_steps = 3_000
    return config
