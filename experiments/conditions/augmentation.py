"""Augmentation labels: conditions the network on the augmentation of each example, so samples are not augmented.

Source: Karras et al. (2022), https://arxiv.org/abs/2206.00364, appendix F.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

from experiments.conditions.base import Condition

if TYPE_CHECKING:
    from experiments.media import Medium


@dataclass(frozen=True)
class AugmentationCondition(Condition):
    """Augmentation labels, float32 (B, features). The null, zeros, means an image without augmentation.

    `data.augmentation` is the probability of the augmentation; `experiments/data/augmentation.py` lists its labels. The
    condition has no dropout: augmented images with null labels would teach the network to generate augmented samples.
    Samples are drawn with the null; the leaf may then be left out.

    Attributes:
        features: number of labels; EDM's augmentation has 9.
    """

    features: int
    name: ClassVar[str] = "augmentation"
    option: ClassVar[str] = "augment_features"
    noun: ClassVar[str] = "augmentation"

    def spec(self, medium: "Medium") -> jax.ShapeDtypeStruct:
        """Returns float32 (features,)."""
        return jax.ShapeDtypeStruct((self.features,), jnp.float32)

    def of_batch(self, keys: jax.Array, batch: Mapping[str, Any]) -> jax.Array:
        """Returns the field `augmentation` of the batch; zeros for a batch that is not augmented."""
        if "augmentation" in batch:
            return batch["augmentation"]
        return jnp.zeros((len(keys), self.features))

    def of_user(self, value: Any) -> jax.Array:
        """Returns the labels of a user as float32 (features,).

        Raises:
            ValueError: there are more or fewer than `features` labels.
        """
        labels = jnp.asarray(value, jnp.float32)
        if labels.shape != (self.features,):
            raise ValueError(f"the augmentation has {self.features} labels, not {labels.shape}")
        return labels

    def null(self, leaf: jax.Array) -> jax.Array:
        """Returns zeros."""
        return jnp.zeros_like(leaf)


CONDITIONS = {AugmentationCondition.name: AugmentationCondition}
