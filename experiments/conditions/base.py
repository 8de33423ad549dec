"""Interface of conditions.

A network receives a dict of leaves by name with one entry per example: `{"label": (B,), "augmentation": (B, k)}`. Each
leaf has an explicit null value for "no condition". In training, the leaf of each example is replaced by the null with
probability `condition.NAME.dropout`, so that one network is both the conditional and the unconditional model of
classifier-free guidance.

Source: Ho and Salimans (2022), https://arxiv.org/abs/2207.12598, section 3.2 and algorithm 1.
"""

import abc
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from experiments.media import Medium


class Condition(abc.ABC):
    """One leaf of the condition: its shape, its values and its null.

    A leaf is an array (B, ...) or a pytree of such arrays. `of_batch`, `null` and `dropped` are pure and run in
    compiled programs.

    Attributes:
        name: name of the leaf, and of its section in the config, `condition.NAME`.
        option: name of the network's option for this leaf, a number; 0 means that the network does not use the leaf.
        noun: noun for messages; it also seeds the random numbers of the dropout.
        in_plane: whether the leaf has the rows and columns of the data, so that spatial transforms apply to it too.
    """

    name: ClassVar[str]
    option: ClassVar[str]
    noun: ClassVar[str]
    in_plane: ClassVar[bool] = False

    @abc.abstractmethod
    def spec(self, medium: "Medium") -> Any:
        """Returns the shapes and dtypes of the leaf of one example, without the batch axis."""

    @abc.abstractmethod
    def of_batch(self, keys: jax.Array, batch: Mapping[str, Any]) -> Any:
        """Returns the leaf of a batch of training examples.

        Args:
            keys: (B,) typed PRNG keys: example i depends only on `keys[i]`.
            batch: the prepared examples; the condition reads its own field.
        """

    @abc.abstractmethod
    def of_user(self, value: Any) -> Any:
        """Returns the leaf of one example, without the batch axis, for the value of a user's flag.

        Raises:
            ValueError: the condition does not allow this value.
        """

    @abc.abstractmethod
    def null(self, leaf: Any) -> Any:
        """Returns the null with the shape and dtype of a leaf."""

    def dropped(self, keys: jax.Array, leaf: Any, probability: float) -> Any:
        """Replaces each example of the leaf by the null with the given probability, independently.

        Args:
            keys: (B,) typed PRNG keys: example i depends only on `keys[i]`.
            leaf: the leaf of the batch.
            probability: probability of the null.
        """
        tag = dropout_tag(self)
        drawn = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, tag)))(keys)

        def replaced(null, value):
            return jnp.where((drawn < probability).reshape(-1, *[1] * (value.ndim - 1)), null, value)

        return jax.tree.map(replaced, self.null(leaf), leaf)


def dropout_tag(condition: Condition) -> int:
    """Returns the number, specific to a condition, that is folded into an example's key for the dropout."""
    return zlib.crc32(f"{condition.noun} dropout".encode())
