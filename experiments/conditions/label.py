"""Class labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

from experiments.conditions.base import Condition

if TYPE_CHECKING:
    from experiments.media import Medium


@dataclass(frozen=True)
class LabelCondition(Condition):
    """Class labels, int32 (B,) in [0, num_classes). The null, num_classes, means no class.

    Attributes:
        num_classes: number of classes.
        class_names: names by class number; empty if they are not known.
    """

    num_classes: int
    class_names: tuple[str, ...] = ()
    name: ClassVar[str] = "label"
    option: ClassVar[str] = "num_classes"
    noun: ClassVar[str] = "class"

    def spec(self, medium: "Medium") -> jax.ShapeDtypeStruct:
        """Returns int32 ()."""
        return jax.ShapeDtypeStruct((), jnp.int32)

    def of_batch(self, keys: jax.Array, batch: Mapping[str, Any]) -> jax.Array:
        """Returns the field `label` of the batch."""
        return batch["label"]

    def of_user(self, value: int | str) -> jax.Array:
        """Returns the number of a class by its name or number; a name has priority if names are numbers too.

        Raises:
            ValueError: there is no such class.
        """
        text = str(value)
        if text in self.class_names:
            return jnp.int32(self.class_names.index(text))
        if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < self.num_classes:
            return jnp.int32(int(text))
        raise ValueError(f"no class {text!r} among {self.num_classes}")

    def null(self, leaf: jax.Array) -> jax.Array:
        """Returns num_classes for each example."""
        return jnp.full_like(leaf, self.num_classes)


CONDITIONS = {LabelCondition.name: LabelCondition}
