"""Training and sampling of diffusion transformers (DiT): DDPM's chain on latents, with ADM's settings.

The published network also learns a variance, by iDDPM's variational bound; here only the mean is trained.

Source: Peebles and Xie (2023), https://arxiv.org/abs/2212.09748, section 4; https://github.com/facebookresearch/DiT.
"""

from ml_collections import ConfigDict

from configs.parts import chain, networks


def dit(config: ConfigDict, size: str, patch_size: int) -> None:
    """Sets the paper's recipe for a network size, with 7 M steps for DiT-XL/2 and 400,000 for other networks."""
    networks.dit(config, size, patch_size)
    chain.noise_prediction(config, "ddpm")
    config.sde.beta_first = 1e-4
    config.sde.beta_last = 0.02

    config.data.batch_size = 256
    config.data.random_flip = True
    config.training.num_steps = 7_000_000 if (size, patch_size) == ("xl", 2) else 400_000
    config.training.ema = "constant"
    config.training.ema_decay = 0.9999
    config.condition.label.dropout = 0.1
    config.optim.lr = 1e-4
    config.optim.warmup_steps = 0
    config.optim.grad_clip = 0.0

    config.sampling.steps = 250
    config.evaluation.num_samples = 50_000
