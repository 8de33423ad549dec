"""The interface of conditions.

A network receives a dict of leaves by name, one entry an example: `{"label": (B,), "augmentation": (B, k)}`. Each leaf has
an explicit null, the value for "no condition". Training replaces a leaf by its null with the probability
`condition.NAME.dropout`, example by example, so that one network serves as the conditional and the unconditional model of
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

    A leaf is an array (B, ...), or any pytree of such arrays. `of_batch`, `null` and `dropped` are pure and run in compiled
    programs.

    Attributes:
        name: of the leaf, and of its section of the config, `condition.NAME`.
        option: of the network: a number that is not 0 where the network takes the leaf.
        noun: for messages; names the random numbers of the dropout.
        in_plane: whether the leaf has the rows and columns of the data, so that transforms of the example move it too.
    """

    name: ClassVar[str]
    option: ClassVar[str]
    noun: ClassVar[str]
    in_plane: ClassVar[bool] = False

    @abc.abstractmethod
    def spec(self, medium: "Medium") -> Any:
        """Returns the shapes and dtypes of the leaf of one example, without the axis of the batch."""

    @abc.abstractmethod
    def of_batch(self, keys: jax.Array, batch: Mapping[str, Any]) -> Any:
        """Returns the leaf of a batch of training examples.

        Args:
            keys: (B,) typed PRNG keys: example i depends on `keys[i]` alone.
            batch: the prepared examples, of which the leaf reads its own field.
        """

    @abc.abstractmethod
    def of_user(self, value: Any) -> Any:
        """Returns the leaf of one example, without the axis of the batch, that a user states by a flag.

        Raises:
            ValueError: the condition has no such value.
        """

    @abc.abstractmethod
    def null(self, leaf: Any) -> Any:
        """Returns the null in the shape and dtype of a leaf."""

    def dropped(self, keys: jax.Array, leaf: Any, probability: float) -> Any:
        """Returns the leaf with some examples, each by its own key, replaced by the null.

        Args:
            keys: (B,) typed PRNG keys of the examples.
            leaf: of the batch.
            probability: of the null.
        """
        tag = dropout_tag(self)
        drawn = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, tag)))(keys)

        def replaced(null, value):
            return jnp.where((drawn < probability).reshape(-1, *[1] * (value.ndim - 1)), null, value)

        return jax.tree.map(replaced, self.null(leaf), leaf)


def dropout_tag(condition: Condition) -> int:
    """Returns the number that is folded into an example's key for the dropout of a condition; each condition has its own."""
    return zlib.crc32(f"{condition.noun} dropout".encode())
