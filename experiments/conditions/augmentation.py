"""How an example was augmented in training, so that samples are not augmented.

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
    """The labels of the augmentation: float32 (B, features); the null is zeros, which stands for an image as it is.

    `data.augmentation` is the probability of the augmentation, whose labels `experiments/data/augmentation.py` lists.
    Training on null labels with an augmented image would teach the network to augment samples, so the condition has no
    dropout. Samples are drawn with the null, for which the leaf may be left out.

    Attributes:
        features: the number of labels; EDM's augmentation has 9.
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
        """Returns stated labels, `features` numbers.

        Raises:
            ValueError: the numbers are more or fewer.
        """
        labels = jnp.asarray(value, jnp.float32)
        if labels.shape != (self.features,):
            raise ValueError(f"the augmentation has {self.features} labels, not {labels.shape}")
        return labels

    def null(self, leaf: jax.Array) -> jax.Array:
        """Returns zeros."""
        return jnp.zeros_like(leaf)


CONDITIONS = {AugmentationCondition.name: AugmentationCondition}
