"""Named components of a config (processes, samplers, guidance, objectives) and the options of each component."""

import functools
import importlib
from collections.abc import Mapping
from operator import getitem
from typing import Any

import sde_lib
from configs import base
from experiments.config import components
from experiments.config.records import named
from experiments.errors import UserError
from sde_lib import guidance, sampling

PROCESSES = named(sde_lib, "PROCESSES")
SAMPLERS = named(sampling, "SAMPLERS")
GUIDANCES = named(guidance, "GUIDANCES")

# Samplers share the section `sampling`; these fields of samplers have another name there.
KEYS_OF_FIELDS: Mapping[str, Mapping[str, str]] = {
    "adaptive": {"rtol": "tolerance", "atol": "tolerance"},
    "dpm_solver": {"tau": "stochastic"},
    "dpm_solver_singlestep": {"tau": "stochastic"},
    "langevin": {"steps": "corrector_steps", "norm": "langevin_norm"},
    "unipc": {"tau": "stochastic"},
}
# Keys whose components may add options to the section of the key.
EXTENDED = ("sde.name", "sampling.sampler", "sampling.guidance.name", "objective.name")
# Keys of these sections that are not options of the component; an option of this name would set them.
KEYS_OF_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "sampling.sampler": (
        "sampler", "steps", "times", "rho", "t_min", "evaluations", "batch_size", "label", "ema", "ema_std", "guidance"
    ),
    "sampling.guidance.name": ("low", "high", "threshold", "guide"),
}  # fmt: skip


def table(key: str) -> Mapping[str, Any]:
    """Returns the named components that a key of `EXTENDED` can be set to."""
    if key == "objective.name":  # objectives are a higher layer than configs, so their package is imported late
        return named(importlib.import_module("experiments.objectives"), "OBJECTIVES")
    return {"sde.name": PROCESSES, "sampling.sampler": SAMPLERS, "sampling.guidance.name": GUIDANCES}[key]


def options(key: str, name: str) -> dict[str, Any]:
    """Returns the options of a component, as keys of its section, with the component's own defaults.

    Args:
        key: one of `EXTENDED`.
        name: name or import path of the component; an unknown name has no options.

    Raises:
        UserError: the import path cannot be imported, or an option has the name of another key of the section.
    """
    known = table(key)
    if name in known:
        renamed = KEYS_OF_FIELDS.get(name, {}) if key == "sampling.sampler" else {}
        own = {field: value for field, value in components.options(known[name]).items() if field not in renamed}
        section = functools.reduce(getitem, key.split(".")[:-1], base.get_config())
        return {field: value for field, value in own.items() if value is not None or field in section}
    if not components.is_path(name):
        return {}
    made, section = components.load(key, name), key.rpartition(".")[0]
    for field in components.fields(made):
        if field in KEYS_OF_SECTIONS.get(key, ()):
            raise UserError(
                f"{key}={name}: its option {field!r} has the name of {section}.{field}, a key that it would set; choose "
                "another name"
            )
    return components.options(made)
