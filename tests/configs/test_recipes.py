"""Every key of every experiment: what differs from the defaults is what the paper or the experiment's file says."""

import pytest

import models
from configs.parts.arguments import Words
from configs.parts.sde import PROCESSES
from experiments.config import files as config
from tests.configs.papers import EXPERIMENTS, load
from tests.experiments.tiny import ROOT

DEFAULTS = dict(config.leaves(config.load(f"{ROOT}/configs/base.py")))
EDM2 = {"xxs": (64, 2048, 0.017), "xs": (128, 2048, 0.012), "s": (192, 2048, 0.01), "m": (256, 2048, 0.009),
        "l": (320, 1792, 0.008), "xl": (384, 1280, 0.007), "xxl": (448, 896, 0.0065)}  # fmt: skip
EDM2_64 = {"xs": (1024, 0.012), "s": (1024, 0.01), "m": (2048, 0.009), "l": (1024, 0.008), "xl": (640, 0.007)}
DIT = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "xl": (1152, 28, 16)}
CHAIN = {
    "sde.name": "ddpm", "training.t_min": 1e-3, "sampling.t_min": 1e-3, "evaluation.t_min": 1e-3,
    "parameterization.name": "noise", "parameterization.time_scale": 1000.0, "parameterization.time_offset": -1.0,
    "loss.weighting": "noise", "loss.times": "discrete", "sampling.sampler": "ancestral", "sampling.times": "uniform",
    "sampling.steps": 250, "evaluation.num_samples": 50_000,
}  # fmt: skip
PUBLISHED_BETAS = {"sde.beta_first": 1e-4, "sde.beta_last": 0.02}
EDM = {
    "sde.name": "edm", "sde.t_max": 80.0, "training.t_min": 0.002, "sampling.t_min": 0.002, "evaluation.t_min": 0.002,
    "data.random_flip": False, "optim.grad_clip": 0.0, "evaluation.num_samples": 50_000,
}  # fmt: skip
SCORE_SDE = {
    "training.num_steps": 1_300_000, "training.steps_per_call": 5, "training.checkpoint_every": 10_000,
    "training.sample_every": 50_000, "training.seed": 42, "loss.weighting": "noise", "loss.times": "uniform",
    "sampling.times": "uniform", "sampling.steps": 1000, "evaluation.t_min": 1e-5, "evaluation.num_samples": 50_000,
}  # fmt: skip
VE = SCORE_SDE | {
    "sde.name": "ve", "sde.sigma_min": 0.02, "sde.sigma_max": 100.0, "training.ema_decay": 0.999,
    "parameterization.name": "score", "parameterization.scale_input": False, "parameterization.sigma_scale": 0.5,
    "loss.reduction": "half_sum", "sampling.t_min": 1e-5, "sampling.sampler": "predictor_corrector",
    "sampling.langevin_norm": "sample",
}  # fmt: skip
VP = SCORE_SDE | {"parameterization.name": "noise", "sampling.sampler": "euler_maruyama"}
LANGEVIN = {
    "loss.times": "geometric_sigma", "optim.lr": 1e-4, "optim.warmup_steps": 0, "optim.grad_clip": 0.0,
    "sampling.sampler": "langevin", "sampling.langevin_norm": "process",
}  # fmt: skip
# Data set -> size, channels, source.
IMAGES = {
    "cifar10": (32, 3, "npz:cifar10.npz"), "celeba64": (64, 3, "folder:celeba64"), "imagenet256": (32, 4, "latents"),
    "imagenet64": (64, 3, "folder:imagenet64"), "imagenet512": (64, 4, "latents"),
}  # fmt: skip
# Data set -> noise levels, the largest sigma in units of data in [0, 1], snr, Langevin steps at each level.
NCSNV2 = {"cifar10": (232, 50.0, 0.176, 5), "celeba64": (500, 90.0, 0.128, 5), "lsun": (1086, 190.0, 0.095, 3)}
SIGMA_MAX = {256: 348.0, 1024: 1348.0, "bedroom": 378.0, "church": 380.0}  # of faces by their size, of LSUN by category
DDPMPP = {"embedding": "positional", "fir": False, "progressive_input": "none"}


def of_dit(name, words, size):
    width, depth, heads = DIT[words[1]]
    steps = 3_000_000 if name == "imagenet512" else 7_000_000 if words[1:] == ["xl", "2"] else 400_000
    keys = CHAIN | PUBLISHED_BETAS | {
        "data.batch_size": 256, "optim.lr": 1e-4, "optim.warmup_steps": 0, "optim.grad_clip": 0.0,
        "training.num_steps": steps, "training.ema": "constant", "condition.label.dropout": 0.1,
    }  # fmt: skip
    options = {"width": width, "depth": depth, "num_heads": heads, "patch_size": int(words[2])}
    return keys, "dit", options | {"num_classes": 1000, "learned_variance": True}


def of_adm(name, words, size):
    keys = CHAIN | {"optim.warmup_steps": 0, "optim.grad_clip": 0.0, "training.ema": "constant"}
    keys |= {"data.batch_size": 2048, "optim.lr": 3e-4} if size == 64 else {"data.batch_size": 256, "optim.lr": 1e-4}
    keys |= {"sde.name": "iddpm", "sde.t_max": 0.992, "loss.discrete_levels": 992} if size == 64 else {}
    keys |= {"training.num_steps": {64: 540_000, 128: 4_360_000, 256: 1_980_000, 512: 1_940_000}[size]}
    options = {
        64: {},
        128: {"channel_multipliers": (1, 1, 2, 3, 4), "num_heads": 4, "head_channels": 0},
        256: {"channel_multipliers": (1, 1, 2, 2, 4, 4)},
        512: {"channel_multipliers": (0.5, 1, 1, 2, 2, 4, 4)},
    }[size]
    options |= {"channels": 256, "blocks_per_level": 2, "dropout": 0.0} if size > 64 else {}
    return keys, "adm", options | {"num_classes": 1000, "learned_variance": True}


def of_edm2(name, words, size):
    width, images, lr = EDM2[words[1]]
    images, lr = EDM2_64[words[1]] if name == "imagenet64" else (images, lr)
    mean, std, decay = (-0.8, 1.6, 35_000) if name == "imagenet64" else (-0.4, 1.0, 70_000)
    keys = EDM | {
        "data.batch_size": 2048, "optim.lr": lr, "optim.beta2": 0.99, "optim.warmup_steps": 4883,
        "optim.schedule": "inverse_sqrt", "optim.decay_steps": decay, "loss.log_sigma_mean": mean,
        "loss.log_sigma_std": std, "loss.learned_uncertainty": True, "training.num_steps": 512 * images,
        "training.ema": "power:0.1,power:0.05", "training.ema_snapshot_every": 4096,
        "training.ema_snapshot_dtype": "float16", "sampling.steps": 32,
    }  # fmt: skip
    dropout = 0.1 if words[1] in ("m", "l", "xl", "xxl") else 0.0
    return keys, "edm2", {"channels": width, "num_classes": 1000, "dropout": dropout}


def of_edm(name, words, size):
    batch, lr, images, half_life, more = {
        "cifar10": (512, 1e-3, 200, 0.5, {"data.augmentation": 0.12}),
        "ffhq": (256, 2e-4, 200, 0.5, {"data.augmentation": 0.15, "sampling.steps": 40}),
        "imagenet64": (4096, 1e-4, 2500, 50, {"sampling.steps": 256, "sampling.churn": 40.0}),
    }[name]
    keys = EDM | more | {
        "data.batch_size": batch, "optim.lr": lr, "optim.warmup_steps": round(1e7 / batch),
        "training.num_steps": round(images * 1e6 / batch), "training.ema": "half_life",
        "training.ema_half_life": round(half_life * 1e6),
    }  # fmt: skip
    if name == "imagenet64":
        return keys, "adm", {"num_classes": 1000}
    options = {"augment_features": 9} | (DDPMPP if "ddpmpp" in words else {})
    options |= {"channel_multipliers": (2, 2, 2), "dropout": 0.13} if name == "cifar10" else {"dropout": 0.05}
    return keys, "ncsnpp", options | ({"num_classes": 10} if "conditional" in words else {})


def of_langevin(name, words, size):
    levels, sigma, snr, corrections = NCSNV2[name]
    techniques = next((word for word in words if word in ("124", "5", "1245")), "")
    if "ncsn" in words and "124" not in techniques:
        levels, sigma, snr, corrections = 10, 1.0, 0.316, 100
    keys = VE | LANGEVIN | {"loss.discrete_levels": levels, "sampling.steps": levels, "sampling.snr": snr}
    keys |= {"sde.sigma_max": 2 * sigma, "sampling.corrector_steps": corrections}
    if "ncsn" in words:
        keys |= {"optim.lr": 1e-3, "training.ema_decay": 0.999 if "5" in techniques else 0.0}
        return keys, "ncsn", {"num_scales": levels, "sigma_max": sigma}
    if name == "lsun":
        keys |= {"data.image_size": 128, "training.num_steps": 2_400_000, "training.ema_decay": 0.9999}
        return keys, "ncsnv2", {"channel_multipliers": (1, 2, 2, 4, 4), "dilations": (1, 1, 1, 2, 4)}
    return keys, "ncsnv2", {}


def of_score_sde(name, words, size):
    """Images of 32 and 64 px."""
    discrete = "discrete" in words or name == "celeba64"
    network, options = ("ddpm", {"up_attention": "level"}) if "ddpm" in words else ("ncsnpp", {})
    options |= DDPMPP if "ddpmpp" in words else {}
    options |= {"blocks_per_level": 8} if "deep" in words else {}
    if network == "ncsnpp" and (discrete or "ve" not in words):
        options |= {"embedding": "discrete" if "ve" in words else "positional"}
    if "ve" in words:
        keys = VE | {"sampling.snr": 0.16, "loss.times": "geometric_sigma" if discrete else "uniform"}
        keys |= {"parameterization.levels": 1000} if network == "ddpm" else {}
    elif discrete:
        keys = SCORE_SDE | CHAIN | PUBLISHED_BETAS | {"sampling.steps": 1000}
        keys |= {"sampling.sampler": "reverse_diffusion"} if words[:2] == ["vp", "ncsnpp"] else {}
    else:
        keys = VP | {"sde.name": words[0]}
    keys |= {"training.num_steps": 950_000} if "deep" in words else {}
    if name == "celeba64":
        keys |= {"sampling.snr": 0.17, "sde.sigma_max": 180.0}
        options |= {"sigma_max": 90.0}
    return keys, network, options


def of_large_images(name, words, size):
    """Images of 256 px and more."""
    keys = {"data.batch_size": 64, "training.num_steps": 2_400_000, "training.checkpoint_every": 5_000}
    if "ddpm" in words:
        keys = SCORE_SDE | CHAIN | PUBLISHED_BETAS | keys | {"sampling.steps": 1000, "optim.lr": 2e-5}
        return keys, "ddpm", {"up_attention": "level", "channel_multipliers": (1, 1, 2, 2, 4, 4), "dropout": 0.0}
    keys = VE | keys | {"sampling.steps": 2000, "loss.discrete_levels": 2000, "sampling.snr": 0.075}
    keys |= {"sde.sigma_max": 2 * SIGMA_MAX[words[0] if name == "lsun" else size]}
    options = {"progressive": "output_skip", "progressive_input": "input_skip", "dropout": 0.0, "blocks_per_level": 2}
    options |= {"channel_multipliers": (1, 1, 2, 2, 2, 2, 2)}
    if size == 1024:
        keys |= {"data.batch_size": 8, "sampling.snr": 0.15, "training.ema_decay": 0.9999}
        keys |= {"loss.reduction": "mean"} if name == "ffhq" else {}
        options |= {"channels": 16, "blocks_per_level": 1, "channel_multipliers": (1, 2, 4, 8, 16, 32, 32, 32)}
    return keys, "ncsnpp", options


def expected(experiment):
    """What differs from base.py, the network, and what differs from its own defaults, by the words of the experiment."""
    name, _, argument = experiment.partition(":")
    words = argument.split(",")
    size, channels, source = IMAGES.get(name, (None, 3, f"folder:{name}"))
    size = size or next((int(word) for word in words if word.isdecimal()), 256)
    if "dit" in words:
        family = of_dit
    elif name == "imagenet":
        family = of_adm
    elif "edm2" in words:
        family = of_edm2
    elif "edm" in words:
        family = of_edm
    elif "ncsn" in words or "ncsnv2" in words:
        family = of_langevin
    else:
        family = of_large_images if name in ("lsun", "celebahq", "ffhq") else of_score_sde
    keys, network, options = family(name, words, size)
    source = f"folder:lsun_{words[0]}" if name == "lsun" else source
    return {"data.source": source, "data.image_size": size, "data.num_channels": channels} | keys, network, options


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_of_a_paper_differs_from_the_defaults_as_published(experiment):
    loaded = load(experiment)
    keys, network, options = expected(experiment)
    found = {key: value for key, value in config.leaves(loaded) if not key.startswith("model.")}
    assert {key: value for key, value in found.items() if value != DEFAULTS[key]} == {
        key: value for key, value in keys.items() if value != DEFAULTS[key]
    }
    assert loaded.model.to_dict() == {"name": network} | models.options(network) | options


# What training, sampling and evaluation of our own experiments were when the results in their files were measured.
MNIST = {
    "data.source": "npz:mnist.npz", "data.image_size": 28, "data.num_channels": 1, "data.batch_size": 64,
    "data.random_flip": False, "parameterization.sigma_data": 0.6, "model.channels": 16,
    "model.channel_multipliers": (1, 3, 6), "model.blocks_per_level": 1, "model.attention_resolutions": (7,),
    "model.head_channels": 32, "model.dropout": 0.0, "optim.lr": 2e-3, "optim.warmup_steps": 200,
    "optim.schedule": "cosine", "training.num_steps": 1700, "training.checkpoint_every": 200, "training.log_every": 50,
    "training.sample_every": 400, "training.ema_decay": 0.997,
}  # fmt: skip
MNIST32 = MNIST | {
    "data.image_size": 32, "data.resize": "center_crop", "model.attention_resolutions": (8,),
    "training.num_steps": 5000, "training.checkpoint_every": 500, "training.sample_every": 1500,
    "training.ema_decay": 0.999,
}  # fmt: skip
OURS = {
    "mnist": MNIST,
    "mnist32": MNIST32,
    "cifar10_small": MNIST32 | {
        "data.source": "npz:cifar10.npz", "data.num_channels": 3, "data.random_flip": True,
        "parameterization.sigma_data": 0.5, "training.num_steps": 3000,
    },
    "brain_mri": {
        "data.source": "npz:brain_mri64.npz", "data.image_size": 64, "data.num_channels": 1, "data.batch_size": 32,
        "sde.sigma_max": 80.0, "model.channels": 16, "model.channel_multipliers": (1, 2, 4, 8), "model.blocks_per_level": 1,
        "model.attention_resolutions": (8,), "model.head_channels": 32, "model.dropout": 0.0, "optim.lr": 2e-3,
        "optim.warmup_steps": 200, "optim.schedule": "cosine", "training.num_steps": 4000,
        "training.checkpoint_every": 500, "training.log_every": 50, "training.sample_every": 1500,
        "training.ema_decay": 0.999,
    },
    "digits": {
        "data.source": "digits", "data.image_size": 8, "data.num_channels": 1, "data.batch_size": 64,
        "data.test_fraction": 0.5, "data.random_flip": False, "sde.sigma_max": 20.0, "parameterization.sigma_data": 0.75,
        "loss.log_sigma_mean": -0.5, "loss.log_sigma_std": 1.0, "model.channels": 32, "model.channel_multipliers": (1, 2),
        "model.blocks_per_level": 1, "model.attention_resolutions": (), "model.head_channels": 32,
        "model.resampling": "plain", "optim.lr": 2e-3, "optim.warmup_steps": 200, "optim.schedule": "cosine",
        "training.num_steps": 1500, "training.steps_per_call": 20, "training.log_every": 20,
        "training.checkpoint_every": 500, "training.sample_every": 500, "training.ema_decay": 0.998,
        "sampling.batch_size": 64, "evaluation.num_samples": 898,
    },
    "cifar10": {
        "data.source": "npz:cifar10.npz", "model.dropout": 0.13, "training.num_steps": 400_000, "sampling.steps": 35,
        "evaluation.num_samples": 10_000,
    },
}  # fmt: skip
# Process -> time of the prior, smallest time of training, and that of sampling and evaluation.
TIMES = {
    "vp": (1.0, 1e-5, 1e-3), "subvp": (1.0, 1e-5, 3e-2), "ve": (1.0, 1e-5, 1e-5), "cosine": (0.995, 1e-5, 2e-3),
    "edm": (80.0, 0.002, 0.002), "rectified_flow": (0.995, 1e-5, 1e-2), "ddpm": (1.0, 1e-3, 1e-3),
    "iddpm": (0.995, 1e-3, 2e-3), "scaled_linear": (1.0, 1e-3, 1e-3), "critically_damped": (1.0, 1e-3, 7.5e-3),
}  # fmt: skip


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("name", OURS)
def test_an_experiment_of_ours_differs_from_the_defaults_as_it_was_measured(name, process):
    """Whatever the process: it has its own times, and the one with velocities its own method."""
    t_max, trained, sampled = TIMES[process]
    keys = OURS[name] | {
        "sde.name": process, "sde.t_max": t_max, "training.t_min": trained, "sampling.t_min": sampled,
        "evaluation.t_min": sampled,
    }  # fmt: skip
    keys |= {"sampling.sampler": "sscs"} if process == "critically_damped" else {}
    found = dict(config.leaves(config.load(f"{ROOT}/configs/{name}.py:{process}")))
    assert {key: value for key, value in found.items() if value != DEFAULTS[key]} == {
        key: value for key, value in keys.items() if value != DEFAULTS[key]
    }


@pytest.mark.parametrize(
    "short, whole",
    [
        ("celeba64", "celeba64:ve,ncsnpp"), ("celeba64:discrete,ncsnpp", "celeba64:ve,ncsnpp"),
        ("celeba64:5,ncsn", "celeba64:ve,ncsn,5"), ("celebahq", "celebahq:256,ve,ncsnpp"),
        ("celebahq:ddpm", "celebahq:256,vp,ddpm"), ("celebahq:1024", "celebahq:1024,ve,ncsnpp"),
        ("ffhq", "ffhq:256,ve,ncsnpp"), ("ffhq:64", "ffhq:64,edm,ncsnpp"), ("ffhq:1024", "ffhq:1024,ve,ncsnpp"),
        ("lsun", "lsun:bedroom,ve,ncsnpp"), ("lsun:ddpm,church", "lsun:church,vp,ddpm"),
        ("lsun:ncsnv2", "lsun:bedroom,ve,ncsnv2"), ("imagenet", "imagenet:64"), ("imagenet:adm,512", "imagenet:512"),
        ("imagenet64", "imagenet64:edm,adm"), ("imagenet64:edm2", "imagenet64:edm2,s"),
        ("imagenet256", "imagenet256:dit,xl,2"), ("imagenet256:8,s", "imagenet256:dit,s,8"),
        ("imagenet512", "imagenet512:edm2,s"), ("imagenet512:dit", "imagenet512:dit,xl,2"),
        ("cifar10:deep,ncsnpp,ve", "cifar10:ve,ncsnpp,deep"), ("cifar10:", "cifar10:vp"),
        ("digits", "digits:vp"), ("mnist32", "mnist32:vp"), ("brain_mri", "brain_mri:vp"),
        ("cifar10_small", "cifar10_small:vp"),
    ],
)  # fmt: skip
def test_words_may_be_left_out_and_come_in_any_order(short, whole):
    assert load(short).to_dict() == load(whole).to_dict()


def test_the_words_of_an_argument_are_taken_once():
    words = Words("b,,a,x")
    assert words.one_of("letter", ("c", "b"), default="c") == "b" and words.one_of("letter", ("c", "b")) is None
    assert words.one_of("letter", ("c",), default="c") == "c"
    assert [words.flag("a"), words.flag("a")] == [True, False]
    with pytest.raises(ValueError, match="the word 'x' is unknown here: there are c, b, c, b, c, a, a"):
        words.done()
    assert words.flag("x")
    words.done()
    with pytest.raises(ValueError, match="a and b are both a letter: choose one"):
        Words("a,b").one_of("letter", "ab")
