"""The conditions of an experiment: the leaves that its network takes, of labels or of a batch, with their nulls.

A network takes a condition where the option of the network that the condition names (`num_classes`, `augment_features`) is
not 0. Without conditions the network receives None.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments import conditions as defined
from experiments.conditions import Condition, LabelCondition
from experiments.config.records import named
from experiments.errors import UserError
from experiments.factory.media import medium
from experiments.factory.objective import draws_samples

CONDITIONS: dict[str, type[Condition]] = named(defined, "CONDITIONS")


def conditions(config: ConfigDict) -> dict[str, Condition]:
    """Returns the conditions that the network takes, by name; a network that no samples are drawn from takes none."""
    if not draws_samples(config):
        return {}
    sizes = {name: config.model.get(record.option, 0) for name, record in CONDITIONS.items()}
    return {name: CONDITIONS[name](size) for name, size in sizes.items() if size}


def condition(config: ConfigDict, labels: jax.Array | None) -> dict[str, Any] | None:
    """Returns the condition of labels (B,) for a class-conditional model; None for a model without classes."""
    return {LabelCondition.name: labels} if labels is not None and LabelCondition.name in conditions(config) else None


def condition_of_batch(config: ConfigDict, keys: jax.Array, batch: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the condition of a batch of prepared examples with these keys (B,); None for a model without conditions."""
    return {name: made.of_batch(keys, batch) for name, made in conditions(config).items()} or None


def null(config: ConfigDict, condition: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns the condition with each leaf replaced by its null; None for None."""
    if condition is None:
        return None
    known = conditions(config)
    return {name: known[name].null(leaf) for name, leaf in condition.items()}


def placeholder(config: ConfigDict, batch: int = 1) -> dict[str, Any] | None:
    """Returns a condition of zeros for a network's `init`; None for a model without conditions."""
    specs = {name: made.spec(medium(config)) for name, made in conditions(config).items()}
    return jax.tree.map(lambda spec: jnp.zeros((batch, *spec.shape), spec.dtype), specs) or None


def dropout(config: ConfigDict, name: str) -> float:
    """Returns the probability of the null of a condition in training; 0 for a condition without dropout."""
    return config.condition[name].get("dropout", 0.0) if name in config.condition else 0.0


def dropped(config: ConfigDict, keys: jax.Array, condition: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns the condition with some leaves, example by example, replaced by their nulls; see `Condition.dropped`."""
    if condition is None:
        return None
    known, leaves = conditions(config), dict(condition)
    for name, leaf in condition.items():
        if probability := dropout(config, name):
            leaves[name] = known[name].dropped(keys, leaf, probability)
    return leaves


def check_conditions(config: ConfigDict) -> None:
    """Raises `UserError` if a condition that the network does not take has a dropout."""
    known = conditions(config)
    for name, record in CONDITIONS.items():
        if name in known or not (probability := dropout(config, name)):
            continue
        if not draws_samples(config):
            raise UserError(
                f"condition.{name}.dropout={probability}: objective.name={config.objective.name!r} has no condition"
            )
        raise UserError(
            f"condition.{name}.dropout={probability}: model.{record.option}=0 leaves no {record.noun} to drop (a "
            f"network named by model.name starts with its own options: set --config.model.{record.option})"
        )
