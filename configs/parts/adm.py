"""Training and sampling of ADM (guided-diffusion) on ImageNet.

The published networks also learn a variance, by iDDPM's variational bound; here only the mean is trained.

Source: Dhariwal and Nichol (2021), https://arxiv.org/abs/2105.05233, appendix I (tables 11 and 12);
https://github.com/openai/guided-diffusion.
"""

from ml_collections import ConfigDict

from configs.parts import chain, networks


def adm(config: ConfigDict, size: int) -> None:
    """Sets the recipe for images of `size` px: 64, 128, 256 or 512."""
    networks.adm(config, size)
    config.model.learned_variance = True
    if size == 64:
        chain.noise_prediction(config, "iddpm", last=992)
    else:
        chain.noise_prediction(config, "ddpm")
    config.data.batch_size = 2048 if size == 64 else 256
    config.data.random_flip = True
    config.optim.lr = 3e-4 if size == 64 else 1e-4
    config.optim.weight_decay = 0.0
    config.optim.warmup_steps = 0
    config.optim.grad_clip = 0.0
    config.training.num_steps = {64: 540_000, 128: 4_360_000, 256: 1_980_000, 512: 1_940_000}[size]
    config.training.ema = "constant"
    config.training.ema_decay = 0.9999
    config.sampling.steps = 250
    config.evaluation.num_samples = 50_000
