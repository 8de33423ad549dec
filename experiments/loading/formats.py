"""How models are kept elsewhere: each format turns a file or folder into a config and weights, some the other way too.

The config says of a model what its own code base says: network, process, parameterization, size of the images. Files are
read as data alone (`models/pretrained/`), where the layouts of the weights are. `FORMATS`, at the end, has all by name.

| format           | what                                                              | says its architecture |
|------------------|-------------------------------------------------------------------|-----------------------|
| ornstein         | what `export` writes                                              | yes                   |
| diffusers        | folders and single files (`formats_diffusers.py`)                 | folders               |
| dit              | .pt of facebookresearch/DiT                                       | in its weights        |
| edm              | .pkl of EDM: DDPM++, NCSN++, ADM under EDM, VP, VE, iDDPM         | yes                   |
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

from experiments import factory
from experiments.config import files as configs
from experiments.data.sources.names import ORDERS
from experiments.files import strict_json
from experiments.loading import formats_diffusers
from experiments.loading.model_config import Model, chain, model_config, smallest_time
from experiments.loading.runs import Run
from models.pretrained import (
    classifier,
    dhariwal_unet,
    dit,
    edm2,
    files,
    guided_diffusion,
    ncsn,
    score_sde,
    score_sde_ddpm,
    song_unet,
)
from models.pretrained.mapping import Weight, flatten, to_tensors, to_variables
from models.pretrained.torch_file import Record, module_tensors


@dataclass(frozen=True)
class Format:
    """How models are kept somewhere.

    Attributes:
        read: (path, config or None) -> (config, variables). Raises ValueError, OSError or ImportError.
        needs_config: whether the file does not say its architecture, so that a config must.
        takes_config: whether some of its files do not.
        write: (path, run) -> None, where models can be exported to it.
        read_classes: path -> the `class_names` and `class_order` of the run's `data.json`, empty without names; None for
            formats that store no names. Raises ValueError.
    """

    read: Callable[[Path, ConfigDict | None], Model]
    needs_config: bool = False
    takes_config: bool = False
    write: Callable[[Path, Run], None] | None = None
    read_classes: Callable[[Path], dict[str, Any]] | None = None


# ---- our own files ----


CLASS_KEYS = ("class_names", "class_order")  # of a run's data.json that an export keeps


def _own_mapping(variables: Any) -> dict:
    """Each weight by its path, laid out as it is."""
    return {path: Weight("/".join(path)) for path in flatten(variables)}


def _read_own(path, config):
    tensors, metadata = files.read_safetensors(path)
    if "config" not in metadata:
        raise ValueError("it was not written by `export`: its metadata has no config")
    config = configs.from_json(metadata["config"])
    shapes = factory.abstract_variables(config)
    return config, to_variables(tensors, _own_mapping(shapes), shapes)


def _write_own(path, run):
    metadata = {"config": configs.to_json(run.config), "step": str(run.step)}
    if run.class_names is not None:
        stored = run.workdir.read_data()
        metadata["classes"] = strict_json.dumps({key: stored[key] for key in CLASS_KEYS if key in stored})
    files.write_safetensors(path, to_tensors(run.variables, _own_mapping(run.variables)), metadata)


def _read_own_classes(path):
    stored = json.loads(files.read_safetensors_metadata(path).get("classes", "{}"))
    names = stored.get("class_names", []) if isinstance(stored, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its metadata has no texts as names of the classes")
    if stored.get("class_order", "natural") not in ORDERS:
        raise ValueError(f"its metadata has class_order={stored['class_order']!r}: only {', '.join(ORDERS)}")
    return {key: stored[key] for key in CLASS_KEYS if key in stored}


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
    shapes = factory.abstract_variables(config)
    return config, to_variables(tensors, layout(factory.network(config), shapes), shapes)


def _read_score_sde_jax(path, config):
    layout = _score_sde_layout(config, 1)
    tree = files.read(path)
    if not isinstance(tree, dict) or "params_ema" not in tree:
        raise ValueError("it is no checkpoint of score_sde: it does not hold `params_ema`")
    shapes = factory.abstract_variables(config)
    mapping = layout(factory.network(config), shapes)
    return config, to_variables(score_sde.by_path(tree["params_ema"]), mapping, shapes)


# ---- guided-diffusion ----


def _read_guided_diffusion(new_attention_order):
    def read(path, config):
        tensors, shapes = files.read(path), factory.abstract_variables(config)
        if config.model.name not in ("unet", "adm"):
            raise ValueError(f"model.name={config.model.name!r} is no network of guided-diffusion: only adm")
        if classifier.is_classifier(tensors):
            raise ValueError(
                "it is a classifier of noisy images, not a model to sample from: "
                "models.pretrained.classifier.read_guided_diffusion reads it"
            )
        mapping = guided_diffusion.mapping(factory.network(config), shapes, new_attention_order=new_attention_order)
        return config, to_variables(tensors, mapping, shapes)

    return read


# ---- EDM and EDM2 ----


def _edm(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        "sde": {"name": "edm", "t_max": 80.0},
        "parameterization": {"name": "edm", "sigma_data": float(state["sigma_data"])},
    } | smallest_time(0.002)


def _vp(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Its time is ours."""
    _require_published(state, beta_d=19.9, beta_min=0.1, M=1000)
    return {"sde": {"name": "vp"}, "parameterization": {"name": "noise", "time_scale": 999.0}}


def _ve(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Its time is ours; data in [-1, 1], sigma as EDM has it."""
    return {
        "sde": {"name": "ve", "sigma_min": 0.02, "sigma_max": 100.0},
        "parameterization": {"name": "score", "scale_input": False, "sigma_scale": 0.5},
    }


def _iddpm(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Its table of noise levels u_j, j = M ... 0, is sigma / alpha of iDDPM's chain at its steps k = M - j, t = k / M.

    At a step the network sees the index M - 1 - j = k - 1, here M t - 1. EDM rounds any other noise level to the nearest
    step; here the network sees a number between two indices.
    """
    _require_published(state, C_1=0.001, C_2=0.008)
    return chain("iddpm", int(state.get("M", 1000)))


def _require_published(state: Mapping[str, Any], **published: float) -> None:
    """Raises ValueError where the preconditioning was made with other constants; a file that says none has these."""
    for key, value in published.items():
        if (found := state.get(key, value)) != value:
            raise ValueError(f"its preconditioning has {key}={found}, which has no counterpart here: only {value}")


PRECONDITIONINGS = {"EDMPrecond": _edm, "VPPrecond": _vp, "VEPrecond": _ve, "iDDPMPrecond": _iddpm}
# By the class of the network: ours by name, from its arguments; where its weights are; its tensors by name.
EDM_NETWORKS = {
    "SongUNet": ("ncsnpp", song_unet.from_settings, song_unet.mapping, song_unet.named_model),
    "DhariwalUNet": ("adm", dhariwal_unet.from_settings, dhariwal_unet.mapping, dhariwal_unet.named_model),
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
    if inner.class_name not in EDM_NETWORKS:
        raise ValueError(f"its network is {inner.class_name}: only {', '.join(EDM_NETWORKS)}")
    name, from_settings, mapping, named_model = EDM_NETWORKS[inner.class_name]
    settings = inner.state["_init_kwargs"]
    network, size = from_settings(settings), settings["img_resolution"]
    config = model_config(
        network, name, size, settings["in_channels"], **PRECONDITIONINGS[pickled.class_name](pickled.state)
    )
    shapes = factory.abstract_variables(config)
    return config, to_variables(named_model(module_tensors(pickled)), mapping(network, shapes, size), shapes)


def _read_edm2(path, config):
    pickled = _pickled_network(path, ("Precond",))
    settings = pickled.state["_modules"]["unet"].state["_init_kwargs"]
    network, size = edm2.from_settings(settings), settings["img_resolution"]
    config = model_config(network, "edm2", size, settings["img_channels"], **_edm(pickled.state))
    shapes = factory.abstract_variables(config)
    named = module_tensors(pickled)
    tensors = {n.removeprefix("unet."): tensor for n, tensor in named.items() if n not in edm2.UNCERTAINTY}
    return config, to_variables(tensors, edm2.mapping(network, size), shapes)


# ---- facebookresearch/DiT ----


def _read_dit(path, config):
    """The weights alone, or a checkpoint of its train.py, whose `ema` they are."""
    tree = files.read(path)
    tensors = tree.get("ema", tree) if isinstance(tree, dict) else {}
    network = dit.from_facebook_tensors(tensors) if config is None else factory.network(config)
    if config is None:
        size, channels = dit.facebook_input(tensors, network)
        config = model_config(network, "dit", size, channels, **chain("ddpm", 1000))
    elif config.model.name not in ("dit",):
        raise ValueError(f"model.name={config.model.name!r} is no network of facebookresearch/DiT: only dit")
    shapes, mapping = factory.abstract_variables(config), dit.facebook_mapping(network, config.data.num_channels)
    return config, to_variables(dit.drop_facebook_positions(tensors, network), mapping, shapes)


FORMATS = {
    "ornstein": Format(_read_own, write=_write_own, read_classes=_read_own_classes),
    "diffusers": Format(formats_diffusers.read, takes_config=True, write=formats_diffusers.write),
    "dit": Format(_read_dit, takes_config=True),
    "edm": Format(_read_edm),
    "edm2": Format(_read_edm2),
    "score_sde": Format(_read_score_sde, needs_config=True),
    "score_sde_jax": Format(_read_score_sde_jax, needs_config=True),
    "guided_diffusion": Format(_read_guided_diffusion(new_attention_order=False), needs_config=True),
    "guided_diffusion_64": Format(_read_guided_diffusion(new_attention_order=True), needs_config=True),
}
