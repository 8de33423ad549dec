"""The experiments of the papers have the hyperparameters that were published."""

import pytest

from experiments.config import files as config
from tests.configs.papers import EXPERIMENTS, load

ADAM = {"optim.name": "adam", "optim.beta1": 0.9, "optim.eps": 1e-8}
SCORE_SDE = ADAM | {
    "optim.lr": 2e-4,
    "optim.warmup_steps": 5000,
    "optim.grad_clip": 1.0,
    "data.batch_size": 128,
    "training.t_min": 1e-5,
    "sampling.steps": 1000,
    "model.channels": 128,
    "loss.times": "uniform",
}
# Data in [-1, 1] double the sigmas of VE, and the network is told half of them.
VE = SCORE_SDE | {
    "sde.name": "ve",
    "sde.sigma_min": 0.02,
    "sde.sigma_max": 100.0,
    "parameterization.sigma_scale": 0.5,
    "loss.reduction": "half_sum",
    "training.ema_decay": 0.999,
    "sampling.t_min": 1e-5,
    "sampling.sampler": "predictor_corrector",
    "sampling.predictor": "reverse_diffusion",
    "sampling.snr": 0.16,
    "model.fir": True,
    "model.fir_kernel": (1, 3, 3, 1),
    "model.skip_rescale": True,
    "model.fourier_scale": 16,
    "model.blocks_per_level": 4,
}
VP = SCORE_SDE | {
    "sde.name": "vp",
    "sde.beta_min": 0.1,
    "sde.beta_max": 20.0,
    "loss.reduction": "mean",
    "training.ema_decay": 0.9999,
    "sampling.t_min": 1e-3,
    "sampling.sampler": "euler_maruyama",
    "parameterization.time_scale": 999.0,
}
FACES_256 = VE | {
    "data.batch_size": 64,
    "sampling.steps": 2000,
    "sampling.snr": 0.075,
    "sde.sigma_max": 696.0,
    "model.blocks_per_level": 2,
    "training.num_steps": 2_400_000,
}
NCSN = ADAM | {
    "optim.lr": 1e-3,
    "optim.warmup_steps": 0,
    "optim.grad_clip": 0,
    "sampling.sampler": "langevin",
    "sampling.snr": 0.316,
    "sampling.corrector_steps": 100,
    "sampling.steps": 10,
    "loss.times": "geometric_sigma",
    "loss.discrete_levels": 10,
    "model.num_scales": 10,
    "sde.sigma_max": 2.0,
    "training.ema_decay": 0.0,
}
NCSNV2 = NCSN | {
    "optim.lr": 1e-4,
    "sampling.snr": 0.176,
    "sampling.corrector_steps": 5,
    "sampling.steps": 232,
    "loss.discrete_levels": 232,
    "sde.sigma_max": 100.0,
    "training.ema_decay": 0.999,
}
del NCSNV2["model.num_scales"]
EDM = ADAM | {
    "sde.name": "edm",
    "sde.t_max": 80.0,
    "training.t_min": 0.002,
    "sampling.t_min": 0.002,
    "sampling.sampler": "heun",
    "sampling.times": "karras",
    "sampling.rho": 7.0,
    "sampling.steps": 18,
    "parameterization.sigma_data": 0.5,
    "loss.log_sigma_mean": -1.2,
    "loss.log_sigma_std": 1.2,
    "optim.lr": 1e-3,
    "optim.beta2": 0.999,
    "optim.warmup_steps": 19531,  # 10 M images
    "data.batch_size": 512,
    "training.num_steps": 390_625,  # 200 M images
    "model.dropout": 0.13,
    "training.ema": "half_life",
    "training.ema_half_life": 500_000,
    "training.ema_ramp": 0.05,
}
EDM_64 = EDM | {
    "sampling.steps": 256,
    "sampling.churn": 40.0,
    "sampling.churn_min": 0.05,
    "sampling.churn_max": 50.0,
    "sampling.churn_noise": 1.003,
    "optim.lr": 1e-4,
    "optim.warmup_steps": 2441,
    "data.batch_size": 4096,
    "training.num_steps": 610_352,
    "model.dropout": 0.1,
    "training.ema_half_life": 50_000_000,
}
EDM2 = EDM | {
    "loss.log_sigma_mean": -0.4,
    "loss.log_sigma_std": 1.0,
    "loss.learned_uncertainty": True,
    "optim.beta2": 0.99,
    "optim.lr": 0.0170,
    "optim.schedule": "inverse_sqrt",
    "optim.decay_steps": 70_000,
    "optim.warmup_steps": 4883,
    "data.batch_size": 2048,
    "sampling.steps": 32,
    "training.num_steps": 2**20,
    "model.dropout": 0.0,
    "training.ema": "power:0.1,power:0.05",
    "training.ema_snapshot_every": 4096,
    "training.ema_snapshot_dtype": "float16",
}
for key in ("training.ema_half_life", "training.ema_ramp"):
    del EDM2[key]
DIT = ADAM | {
    "optim.lr": 1e-4,
    "optim.warmup_steps": 0,
    "data.batch_size": 256,
    "training.ema_decay": 0.9999,
    "condition.label.dropout": 0.1,
    "sde.num_steps": 1000,
    "sde.beta_first": 1e-4,
    "sde.beta_last": 0.02,
    "sampling.sampler": "ancestral",
    "sampling.steps": 250,
}

HYPERPARAMETERS = {
    "cifar10:ve,ncsnpp": VE | {"model.progressive_input": "residual", "model.embedding": "fourier"},
    "cifar10:ve,ncsnpp,deep": VE | {"model.blocks_per_level": 8, "training.num_steps": 950_000},
    "cifar10:ve,ncsnpp,discrete": VE
    | {"loss.times": "geometric_sigma", "loss.discrete_levels": 1000, "model.embedding": "discrete"},
    "cifar10:ve,ddpm,discrete": {"parameterization.levels": 1000, "sampling.sampler": "predictor_corrector"},
    "cifar10:vp,ddpmpp": VP | {"model.fir": False, "model.progressive_input": "none", "model.embedding": "positional"},
    "cifar10:vp,ddpmpp,deep": VP | {"model.blocks_per_level": 8, "training.num_steps": 950_000},
    "cifar10:subvp,ddpmpp,deep": VP | {"sde.name": "subvp"},
    "cifar10:vp,ddpm,discrete": {
        "sde.name": "ddpm",
        "loss.times": "discrete",
        "loss.discrete_levels": 1000,
        "sampling.sampler": "ancestral",
        "sampling.steps": 1000,
        "parameterization.time_scale": 1000.0,
        "parameterization.time_offset": -1.0,
    },
    "cifar10:vp,ncsnpp,discrete": {
        "sampling.sampler": "reverse_diffusion",
        "sde.name": "ddpm",
        "model.embedding": "positional",
    },
    "cifar10:subvp,ncsnpp": VP | {"sde.name": "subvp", "model.embedding": "positional"},
    "cifar10:ve,ncsn": NCSN,
    "cifar10:ve,ncsn,5": NCSN | {"training.ema_decay": 0.999},
    "cifar10:ve,ncsn,124": NCSNV2
    | {"model.num_scales": 232, "model.sigma_max": 50.0, "training.ema_decay": 0.0, "optim.lr": 1e-3},
    "cifar10:ve,ncsnv2": NCSNV2,
    "celeba64:ve,ncsnpp": VE | {"sampling.snr": 0.17, "sde.sigma_max": 180.0, "loss.times": "geometric_sigma"},
    "celeba64:ve,ncsnv2": NCSNV2
    | {"sampling.snr": 0.128, "sampling.steps": 500, "loss.discrete_levels": 500, "sde.sigma_max": 180.0},
    "lsun:bedroom,ve,ncsnpp": FACES_256 | {"sde.sigma_max": 756.0},
    "lsun:church,ve,ncsnpp": FACES_256 | {"sde.sigma_max": 760.0},
    "lsun:church,vp,ddpm": {"optim.lr": 2e-5, "data.batch_size": 64, "sde.name": "ddpm", "model.dropout": 0.0},
    "lsun:bedroom,ve,ncsnv2": {
        "data.image_size": 128,
        "sampling.snr": 0.095,
        "sampling.corrector_steps": 3,
        "sampling.steps": 1086,
    },
    "celebahq:256,ve,ncsnpp": FACES_256 | {"model.progressive": "output_skip", "model.progressive_input": "input_skip"},
    "ffhq:256,ve,ncsnpp": FACES_256,
    "celebahq:1024,ve,ncsnpp": FACES_256
    | {
        "sde.sigma_max": 2696.0,
        "sampling.snr": 0.15,
        "data.batch_size": 8,
        "training.ema_decay": 0.9999,
        "model.channels": 16,
        "model.blocks_per_level": 1,
        "data.image_size": 1024,
    },
    "ffhq:1024,ve,ncsnpp": {"loss.reduction": "mean", "sde.sigma_max": 2696.0},
    "ffhq:64,edm,ddpmpp": EDM
    | {
        "data.batch_size": 256,
        "optim.lr": 2e-4,
        "model.dropout": 0.05,
        "optim.warmup_steps": 39062,
        "training.num_steps": 781_250,
        "sampling.steps": 40,
        "model.channel_multipliers": (1, 2, 2, 2),
    },
    "cifar10:edm,ddpmpp": EDM | {"model.num_classes": 0, "model.channel_multipliers": (2, 2, 2)},
    "cifar10:edm,ncsnpp,conditional": EDM | {"model.num_classes": 10, "model.embedding": "fourier"},
    "imagenet64:edm,adm": EDM_64,
    "imagenet64:edm2,s": EDM2
    | {
        "loss.log_sigma_mean": -0.8,
        "loss.log_sigma_std": 1.6,
        "optim.lr": 0.01,
        "optim.decay_steps": 35_000,
        "training.num_steps": 2**19,
    },
    "imagenet:64": {
        "sde.name": "iddpm",
        "optim.lr": 3e-4,
        "data.batch_size": 2048,
        "sampling.steps": 250,
        "parameterization.time_scale": 1000.0,
        "parameterization.time_offset": -1.0,
    },
    "imagenet:256": {"sde.name": "ddpm", "optim.lr": 1e-4, "data.batch_size": 256, "loss.discrete_levels": 1000},
    "imagenet512:edm2,xxs": EDM2,
    "imagenet512:edm2,xxl": EDM2 | {"optim.lr": 0.0065, "model.dropout": 0.1, "training.num_steps": 448 * 1024},
    "imagenet256:dit,xl,2": DIT | {"training.num_steps": 7_000_000},
    "imagenet512:dit,xl,2": DIT | {"data.image_size": 64, "training.num_steps": 3_000_000},
}


@pytest.mark.parametrize("experiment", HYPERPARAMETERS)
def test_it_has_the_published_hyperparameters(experiment):
    assert experiment in EXPERIMENTS
    values = dict(config.leaves(load(experiment)))
    expected = HYPERPARAMETERS[experiment]
    assert {key: values[key] for key in expected} == expected
