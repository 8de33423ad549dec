"""How models are kept elsewhere: each format turns a file or folder into a config and weights, some the other way too.

The config says of a model what its own code base says: network, process, parameterization, size of the images. Files are
read as data alone (`models/pretrained/`), where the layouts of the weights are. `FORMATS`, at the end, has all by name.

| format           | what                                                              | says its architecture |
|------------------|-------------------------------------------------------------------|-----------------------|
| ornstein         | what `export` writes                                              | yes                   |
| diffusers        | a folder: config.json, its weights, scheduler_config.json         | yes                   |
| edm              | .pkl of EDM: DDPM++ or NCSN++ as published                        | yes                   |
| edm2             | .pkl of EDM2                                                      | yes                   |
| score_sde        | .pth of score_sde's PyTorch release                               | no                    |
| score_sde_jax    | checkpoint of its JAX release                                     | no                    |
| guided_diffusion | .pt of guided-diffusion; `guided_diffusion_64` is its 64 px model | no                    |

Our images lie in [-1, 1]. Processes published for [0, 1] (score_sde's VE) have twice the sigma here, and the network is told
the sigma that it knows (`parameterization.sigma_scale`).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import models
from configs import base
from experiments import build
from experiments import config as configs
from experiments.runs import Run
from models.pretrained import diffusers, edm2, files, guided_diffusion, ncsn, score_sde, score_sde_ddpm, song_unet
from models.pretrained.mapping import Weight, flatten, to_tensors, to_variables
from models.pretrained.torch_file import Record, module_tensors

Model = tuple[ConfigDict, Any]


@dataclass(frozen=True)
class Format:
    """How models are kept somewhere.

    Attributes:
        read: (path, config or None) -> (config, variables). Raises ValueError, OSError or ImportError.
        needs_config: whether the file does not say its architecture, so that a config must.
        write: (path, run) -> None, where models can be exported to it.
    """

    read: Callable[[Path, ConfigDict | None], Model]
    needs_config: bool = False
    write: Callable[[Path, Run], None] | None = None


def _config(network: Any, name: str, image_size: int, num_channels: int, **sections: Mapping[str, Any]) -> ConfigDict:
    """A config for the network and images; `sections` change others. `train` and `evaluate` want a source of images."""
    config = base.get_config()
    config.model = ConfigDict({"name": name} | {option: getattr(network, option) for option in models.options(name)})
    changes = {"data": {"source": "npz:images.npz", "image_size": image_size, "num_channels": num_channels}} | sections
    for section, values in changes.items():
        config[section].update(values)
    return config


def _t_min(value: float) -> dict[str, dict[str, float]]:
    return {section: {"t_min": value} for section in ("training", "sampling", "evaluation")}


# ---- our own files ----


def _own_mapping(variables: Any) -> dict:
    """Each weight by its path, laid out as it is."""
    return {path: Weight("/".join(path)) for path in flatten(variables)}


def _read_own(path, config):
    tensors, metadata = files.read_safetensors(path)
    if "config" not in metadata:
        raise ValueError("it was not written by `export`: its metadata has no config")
    config = configs.from_json(metadata["config"])
    shapes = build.abstract_variables(config)
    return config, to_variables(tensors, _own_mapping(shapes), shapes)


def _write_own(path, run):
    metadata = {"config": configs.to_json(run.config), "step": str(run.step)}
    files.write_safetensors(path, to_tensors(run.variables, _own_mapping(run.variables)), metadata)


# ---- diffusers ----

SCHEDULES = {"linear": "ddpm", "squaredcos_cap_v2": "iddpm"}
PREDICTIONS = {"epsilon": "noise", "sample": "data", "v_prediction": "v"}
WEIGHT_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def _read_diffusers(path, config):
    """A pipeline's folder (unet/, scheduler/), or one with the files of both side by side."""
    model = _first(path, ("unet/config.json", "config.json"))
    schedule = _first(path, ("scheduler/scheduler_config.json", "scheduler_config.json"))
    network, facts = diffusers.from_config(json.loads(model.read_text()))
    if facts.image_size is None or facts.image_size[0] != facts.image_size[1]:
        raise ValueError(f"{model.name}: sample_size={facts.image_size} is not the side of square images")
    if network.out_channels:
        raise ValueError(f"{model.name}: images to condition on are joined to its input, which no config can say yet")
    config = _config(
        network, "unet", facts.image_size[0], facts.in_channels, **_scheduler(json.loads(schedule.read_text()))
    )
    tensors = files.read(_first(model.parent, WEIGHT_FILES))
    return config, _diffusers_variables(config, network, tensors)


def _diffusers_variables(config, network, tensors):
    shapes = build.abstract_variables(config)
    old = diffusers.has_old_names(tensors)
    return to_variables(tensors, diffusers.mapping(network, shapes, old_names=old), shapes)


def _scheduler(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sections of a config that a scheduler_config.json decides."""

    def known(key, default, table):
        value = settings.get(key, default)
        if value not in table:
            raise ValueError(f"scheduler_config.json: {key}={value!r} has no counterpart here: only {', '.join(table)}")
        return table[value]

    if settings.get("trained_betas") is not None:
        raise ValueError("scheduler_config.json: trained_betas has no counterpart here: only schedules by name")
    steps = settings.get("num_train_timesteps", 1000)
    process = {"name": known("beta_schedule", "linear", SCHEDULES), "num_steps": steps}
    if process["name"] == "ddpm":
        process |= {"beta_first": settings.get("beta_start", 1e-4), "beta_last": settings.get("beta_end", 0.02)}
    prediction = known("prediction_type", "epsilon", PREDICTIONS)
    return {
        "sde": process,
        "parameterization": {"name": prediction, "time_scale": float(steps), "time_offset": -1.0},
        "loss": {"weighting": prediction, "times": "discrete", "discrete_levels": steps},
        "training": {"t_min": 1 / steps},
        "evaluation": {"t_min": 1 / steps},
        "sampling": {"t_min": 1 / steps, "method": "ddim", "times": "uniform", "steps": 50},
    }


def _write_diffusers(path, run):
    """A folder that `UNet2DModel.from_pretrained` and a scheduler's `from_pretrained` read."""
    config = run.config
    if config.model.name not in ("unet", "ddpm", "adm"):
        raise ValueError(f"model.name={config.model.name!r} is no network of diffusers: only unet, ddpm and adm")
    network, p = build.network(config), config.parameterization
    facts = diffusers.Facts((config.data.image_size, config.data.image_size), config.data.num_channels)
    described = diffusers.to_config(network, facts)
    schedule = {ours: theirs for theirs, ours in SCHEDULES.items()}.get(config.sde.name)
    prediction = {ours: theirs for theirs, ours in PREDICTIONS.items()}.get(p.name)
    if schedule is None or prediction is None or (p.time_scale, p.time_offset) != (config.sde.num_steps, -1):
        raise ValueError(
            f"sde.name={config.sde.name!r} with parameterization {p.name!r}, time_scale={p.time_scale:g} and "
            f"time_offset={p.time_offset:g} is no scheduler of diffusers: it needs ddpm or iddpm, and a network that "
            "predicts noise, data or v from its index (time_scale=sde.num_steps, time_offset=-1)"
        )
    scheduler = {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": config.sde.num_steps,
        "beta_schedule": schedule,
        "beta_start": config.sde.beta_first,
        "beta_end": config.sde.beta_last,
        "prediction_type": prediction,
    }
    tensors = to_tensors(run.variables, diffusers.mapping(network, run.variables))
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    (path / "scheduler_config.json").write_text(json.dumps(scheduler, indent=2) + "\n")
    files.write_safetensors(path / WEIGHT_FILES[0], tensors, {"format": "pt"})


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise ValueError(f"the folder has no {' and no '.join(names)}")
    return found[0]


# ---- score_sde ----

# By model.name: the layouts of the PyTorch and of the JAX release, as functions of (network, shapes).
SCORE_SDE = {
    "ncsnpp": (score_sde.torch_mapping, score_sde.jax_mapping),
    "ddpm": (score_sde_ddpm.torch_mapping, score_sde_ddpm.jax_mapping),
    "ncsn": (lambda network, shapes: ncsn.mapping(network), None),
    "ncsnv2": (lambda network, shapes: ncsn.mapping(network), None),
}


def _score_sde_layout(config, release):
    layout = SCORE_SDE.get(config.model.name, (None, None))[release]
    if layout is None:
        known = ", ".join(name for name, layouts in SCORE_SDE.items() if layouts[release])
        raise ValueError(f"model.name={config.model.name!r} is no network of this release: only {known}")
    return layout


def _read_score_sde(path, config):
    layout = _score_sde_layout(config, 0)
    tree = files.read(path)
    if not isinstance(tree, dict) or not {"model", "ema"} <= tree.keys():
        raise ValueError("it is no checkpoint of score_sde: it does not hold `model` and `ema`")
    tensors = score_sde.named_ema(tree["ema"]["shadow_params"], tree["model"])
    shapes = build.abstract_variables(config)
    return config, to_variables(tensors, layout(build.network(config), shapes), shapes)


def _read_score_sde_jax(path, config):
    layout = _score_sde_layout(config, 1)
    tree = files.read(path)
    if not isinstance(tree, dict) or "params_ema" not in tree:
        raise ValueError("it is no checkpoint of score_sde: it does not hold `params_ema`")
    shapes = build.abstract_variables(config)
    mapping = layout(build.network(config), shapes)
    return config, to_variables(score_sde.by_path(tree["params_ema"]), mapping, shapes)


# ---- guided-diffusion ----


def _read_guided_diffusion(new_attention_order):
    def read(path, config):
        tensors, shapes = files.read(path), build.abstract_variables(config)
        if config.model.name not in ("unet", "adm"):
            raise ValueError(f"model.name={config.model.name!r} is no network of guided-diffusion: only adm")
        mapping = guided_diffusion.mapping(build.network(config), shapes, new_attention_order=new_attention_order)
        return config, to_variables(tensors, mapping, shapes)

    return read


# ---- EDM and EDM2 ----

# What EDM's preconditionings are here. VE's and VP's times are ours; data in [-1, 1], sigma as EDM has it.
PRECONDITIONINGS = {
    "EDMPrecond": {"sde": {"name": "edm", "t_max": 80.0}, "parameterization": {"name": "edm"}} | _t_min(0.002),
    "VPPrecond": {
        "sde": {"name": "vp"},
        "parameterization": {"name": "noise", "time_scale": 999.0},
    },
    "VEPrecond": {
        "sde": {"name": "ve", "sigma_min": 0.02, "sigma_max": 100.0},
        "parameterization": {"name": "score", "scale_input": False, "sigma_scale": 0.5},
    },
}


def _pickled_network(path: Path, classes: Mapping[str, Any]) -> Record:
    tree = files.read(path)
    network = tree.get("ema") if isinstance(tree, dict) else None
    if not isinstance(network, Record):
        raise ValueError("it is no pickle of EDM's: it does not hold the network `ema`")
    if network.class_name not in classes:
        raise ValueError(f"its network is {network.class_name}: only {', '.join(classes)}")
    return network


def _read_edm(path, config):
    pickled = _pickled_network(path, PRECONDITIONINGS)
    inner = pickled.state["_modules"]["model"]
    if inner.class_name != "SongUNet":
        raise ValueError(f"its network is {inner.class_name}: only SongUNet (DDPM++ and NCSN++)")
    settings = inner.state["_init_kwargs"]
    sections = {section: dict(values) for section, values in PRECONDITIONINGS[pickled.class_name].items()}
    if pickled.class_name == "EDMPrecond":
        sections["parameterization"]["sigma_data"] = float(pickled.state["sigma_data"])
    network, size = song_unet.from_settings(settings), settings["img_resolution"]
    config = _config(network, "ncsnpp", size, settings["in_channels"], **sections)
    shapes = build.abstract_variables(config)
    tensors = song_unet.named_model(module_tensors(pickled))
    return config, to_variables(tensors, song_unet.mapping(network, shapes, size), shapes)


def _read_edm2(path, config):
    pickled = _pickled_network(path, ("Precond",))
    settings = pickled.state["_modules"]["unet"].state["_init_kwargs"]
    network, size = edm2.from_settings(settings), settings["img_resolution"]
    sections = PRECONDITIONINGS["EDMPrecond"] | {
        "parameterization": {"name": "edm", "sigma_data": float(pickled.state["sigma_data"])}
    }
    config = _config(network, "edm2", size, settings["img_channels"], **sections)
    shapes = build.abstract_variables(config)
    named = module_tensors(pickled)
    tensors = {n.removeprefix("unet."): tensor for n, tensor in named.items() if n not in edm2.UNCERTAINTY}
    return config, to_variables(tensors, edm2.mapping(network, size), shapes)


FORMATS = {
    "ornstein": Format(_read_own, write=_write_own),
    "diffusers": Format(_read_diffusers, write=_write_diffusers),
    "edm": Format(_read_edm),
    "edm2": Format(_read_edm2),
    "score_sde": Format(_read_score_sde, needs_config=True),
    "score_sde_jax": Format(_read_score_sde_jax, needs_config=True),
    "guided_diffusion": Format(_read_guided_diffusion(new_attention_order=False), needs_config=True),
    "guided_diffusion_64": Format(_read_guided_diffusion(new_attention_order=True), needs_config=True),
}
