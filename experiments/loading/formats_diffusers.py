"""Models of diffusers: the folders of `UNet2DModel` and `DiTTransformer2DModel`, and their single files of weights.

A folder says all: config.json the architecture, scheduler_config.json the process. A pipeline's folder has them in unet/ or
transformer/ and in scheduler/; what `export` writes has them side by side. A single file of weights says nothing, so that
it needs both beside it (or, in a pipeline's folder, in scheduler/), or a config of ours.

A U-Net with "skip" blocks is NCSN++, with score_sde's VE for its process; all others have the process of a chain.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import factory
from experiments.config import sizes
from experiments.errors import nearest
from experiments.files import strict_json
from experiments.loading.model_config import Model, chain, model_config, smallest_time
from experiments.loading.runs import Run
from models.pretrained import diffusers, diffusers_ncsnpp, dit, files
from models.pretrained.mapping import to_tensors, to_variables
from sde_lib.processes import PUBLISHED_BETAS, published_betas

SCHEDULES = {"linear": "ddpm", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "iddpm"}
PREDICTIONS = {"epsilon": "noise", "sample": "data", "v_prediction": "v"}
# Those that say their process by a schedule of betas; what else they differ in is how they sample.
SCHEDULERS = (
    "DDIMScheduler", "DDIMInverseScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler",
    "DEISMultistepScheduler", "DPMSolverMultistepScheduler", "DPMSolverMultistepInverseScheduler",
    "DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "LMSDiscreteScheduler",
    "PNDMScheduler", "RePaintScheduler", "SASolverScheduler", "UniPCMultistepScheduler",
)  # fmt: skip
MODEL_FILES = ("unet/config.json", "transformer/config.json", "config.json")
SCHEDULER_FILES = ("scheduler/scheduler_config.json", "scheduler_config.json")
WEIGHT_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
AUTOENCODERS = ("vae", "vqvae")  # folders of a pipeline whose network is of latents


def read(path: Path, config: ConfigDict | None) -> Model:
    """The model in a folder or single file; `config` is for a file that has no config.json beside it.

    Raises:
        ValueError: something is missing, or has no counterpart here; the file and the key are named.
    """
    if config is not None:
        if path.is_dir():
            raise ValueError("a folder says its architecture; leave --config out, or name its file of weights")
        return config, _variables(config, files.read(path))
    if path.is_dir():
        folder, model = path, _first(path, MODEL_FILES)
        weights = _first(model.parent, WEIGHT_FILES)
    else:
        weights, model = path, path.with_name("config.json")
        if not model.is_file():
            raise ValueError(
                "a single file does not say its architecture: it needs its config.json beside it, or --config=FILE "
                "with overrides"
            )
        folder = path.parent.parent if path.parent.name in ("unet", "transformer") else path.parent
    scheduler = _json(_first(folder, SCHEDULER_FILES))
    described = _json(model)
    kind = described.get("_class_name", "UNet2DModel")
    if kind not in NETWORKS:
        raise ValueError(
            f"config.json: _class_name={kind!r} has no counterpart here: only {', '.join(NETWORKS)}"
            f"{nearest(str(kind), NETWORKS)}"
        )
    name, network, size, channels = NETWORKS[kind](described)
    process = PROCESSES.get(name, _chain)(scheduler)
    latents = any((folder / part).is_dir() for part in AUTOENCODERS)
    config = model_config(network, name, size, channels, latents=latents, **process)
    return config, _variables(config, files.read(weights))


def write(path: Path, run: Run) -> None:
    """A folder that the network's `from_pretrained` and a scheduler's `from_pretrained` read.

    Raises:
        ValueError: diffusers has no such network, or no such scheduler; the option is named.
    """
    config = run.config
    layout, describe = _choose(LAYOUTS, config), _choose(DESCRIPTIONS, config)
    network = factory.network(config)
    described, scheduler = describe(network, config), _scheduler(config)
    tensors = to_tensors(run.variables, layout(network, run.variables, config.data.num_channels, ()))
    path.mkdir(parents=True)
    (path / "config.json").write_text(strict_json.dumps(described) + "\n")
    (path / "scheduler_config.json").write_text(strict_json.dumps(scheduler) + "\n")
    files.write_safetensors(path / WEIGHT_FILES[0], tensors, {"format": "pt"})


# ---- networks ----


def _unet(described: Mapping[str, Any]):
    """(model.name, network, size and channels of its images) of a config.json."""
    if diffusers_ncsnpp.has_skip_blocks(described):
        network, facts = diffusers_ncsnpp.from_config(described)
        return "ncsnpp", network, facts.image_size[0], facts.in_channels
    network, facts = diffusers.from_config(described)
    if facts.image_size is None:
        raise ValueError("config.json: sample_size=None is no size of images")
    if network.out_channels:
        raise ValueError("config.json: images to condition on are joined to its input, which no config can say yet")
    return "unet", network, facts.image_size, facts.in_channels


def _dit(described: Mapping[str, Any]):
    try:
        network = dit.from_diffusers_config(described)
    except ValueError as error:
        raise ValueError(f"config.json: {error}") from error
    return "dit", network, described.get("sample_size", 32), described.get("in_channels", 4)


# By the class that config.json names; Transformer2DModel is what the first releases called a DiT.
NETWORKS = {"UNet2DModel": _unet, "DiTTransformer2DModel": _dit, "Transformer2DModel": _dit}


def _unet_layout(network, shapes, channels, names):
    return diffusers.mapping(network, shapes, old_names=diffusers.has_old_names(names))


def _ncsnpp_layout(network, shapes, channels, names):
    return diffusers_ncsnpp.mapping(network, shapes, old_names=diffusers.has_old_names(names))


def _dit_layout(network, shapes, channels, names):
    return dit.diffusers_mapping(network, channels)


def _described_unet(network, config):
    size = sizes.parse(config.data.image_size)
    return diffusers.to_config(network, diffusers.Facts(size, config.data.num_channels))


def _described_dit(network, config):
    height, width = sizes.parse(config.data.image_size)
    if height != width:
        raise ValueError(f"DiTTransformer2DModel has no network of images of {height}x{width}, only of square ones")
    return dit.to_diffusers_config(network, config.data.num_channels, height)


# By model.name: where the weights are, as a function of (network, shapes, channels of x, the file's names), and config.json.
LAYOUTS: dict[str, Callable] = {name: _unet_layout for name in ("unet", "ddpm", "adm")}
LAYOUTS |= {"dit": _dit_layout, "ncsnpp": _ncsnpp_layout}
DESCRIPTIONS: dict[str, Callable] = {name: _described_unet for name in ("unet", "ddpm", "adm")} | {
    "dit": _described_dit
}


def _choose(table, config):
    if config.model.name not in table:
        raise ValueError(f"model.name={config.model.name!r} is no network of diffusers: only {', '.join(table)}")
    return table[config.model.name]


def _variables(config, tensors):
    layout, network, shapes = _choose(LAYOUTS, config), factory.network(config), factory.abstract_variables(config)
    return to_variables(tensors, layout(network, shapes, config.data.num_channels, tensors), shapes)


# ---- schedulers ----


def _known(settings, key, default, table):
    value = settings.get(key, default)
    if value not in table:
        raise ValueError(f"scheduler_config.json: {key}={value!r} has no counterpart here: only {', '.join(table)}")
    return value


def _chain(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sections of a config that a scheduler_config.json decides: the process of a schedule of betas."""
    _known(settings, "_class_name", SCHEDULERS[0], SCHEDULERS)
    if settings.get("trained_betas") is not None:
        raise ValueError("scheduler_config.json: trained_betas has no counterpart here: only schedules by name")
    if settings.get("rescale_betas_zero_snr"):
        raise ValueError("scheduler_config.json: rescale_betas_zero_snr=True has no counterpart here: only False")
    name = SCHEDULES[_known(settings, "beta_schedule", "linear", SCHEDULES)]
    betas = {"beta_first": settings.get("beta_start", 1e-4), "beta_last": settings.get("beta_end", 0.02)}
    prediction = PREDICTIONS[_known(settings, "prediction_type", "epsilon", PREDICTIONS)]
    return chain(name, settings.get("num_train_timesteps", 1000), prediction, **({} if name == "iddpm" else betas))


def _variance_exploding(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sections of ScoreSdeVeScheduler. Its images lie in [0, 1]: here every sigma is twice what the network knows."""
    _known(settings, "_class_name", None, ("ScoreSdeVeScheduler",))
    sigmas = {"sigma_min": 2 * settings.get("sigma_min", 0.01), "sigma_max": 2 * settings.get("sigma_max", 1348.0)}
    sections = smallest_time(settings.get("sampling_eps", 1e-5)) | {
        "sde": {"name": "ve"} | sigmas,
        "parameterization": {"name": "score", "scale_input": False, "sigma_scale": 0.5},
        "loss": {"weighting": "score", "times": "uniform"},
    }
    sections["sampling"] |= {"snr": settings.get("snr", 0.15)}
    return sections


# By model.name, where it is not a chain's.
PROCESSES = {"ncsnpp": _variance_exploding}


def _scheduler(config: ConfigDict) -> dict[str, Any]:
    """The scheduler_config.json of a process and parameterization."""
    p = config.parameterization
    schedule = {ours: theirs for theirs, ours in SCHEDULES.items()}.get(config.sde.name)
    prediction = {ours: theirs for theirs, ours in PREDICTIONS.items()}.get(p.name)
    if schedule is None or prediction is None or (p.time_scale, p.time_offset) != (config.sde.num_steps, -1):
        raise ValueError(
            f"sde.name={config.sde.name!r} with parameterization {p.name!r}, time_scale={p.time_scale:g} and "
            f"time_offset={p.time_offset:g} is no scheduler of diffusers: it needs {', '.join(SCHEDULES.values())}, and a "
            "network that predicts noise, data or v from its index (time_scale=sde.num_steps, time_offset=-1)"
        )
    first, last = PUBLISHED_BETAS["linear"]  # which the cosine does not read
    if schedule in PUBLISHED_BETAS:
        given = factory.process_options(config)
        first, last = published_betas(schedule, config.sde.num_steps, given.get("beta_first"), given.get("beta_last"))
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": config.sde.num_steps,
        "beta_schedule": schedule,
        "beta_start": first,
        "beta_end": last,
        "prediction_type": prediction,
    }


# ---- files ----


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise ValueError(f"the folder {folder.name} has no {' and no '.join(names)}")
    return found[0]


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path.name} is truncated or not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return found
