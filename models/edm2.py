"""The magnitude-preserving U-Net of EDM2: no norms, no biases, and weights of which only the directions count.

Every layer keeps the magnitude of what it is given (`models/layers/magnitude.py`), so activations, weights and updates
have a known size through the whole of a training run. Two things complete the recipe, outside of the network:

- `EDM2.project(variables)` projects the weights onto unit magnitude. The forward pass normalizes them anyway, so it changes
  no output, but it undoes their growth, by which the effective learning rate would decay in an uncontrolled way. The
  training step applies it to the initial weights and after every update ("forced weight normalization").
- the learned uncertainty u(sigma) of eq. 21 is a part of the loss. This network has no output for it.

The size of a model is its number of channels. For ImageNet at 512 pixels (latents of 64 x 64 x 4) and 64 pixels:
XXS 64 (512 pixels only), XS 128, S 192, M 256, L 320, XL 384, XXL 448 (512 pixels only); dropout 0.1 from M on.

Source: Karras et al. (2024), https://arxiv.org/abs/2312.02696, figure 21 and appendix B;
https://github.com/NVlabs/edm2/blob/main/training/networks_edm2.py.
"""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models import checks
from models.layers.dropout import Dropout
from models.layers.magnitude import (
    CosineAttention,
    MPConv,
    MPDense,
    MPFourier,
    mp_concat,
    mp_silu,
    mp_sum,
    normalize,
    normalize_kernel,
)
from models.layers.resampling import RESAMPLINGS

CHOICES = {"dtype": ("float32", "bfloat16")}


def normalized(variables: Any) -> Any:
    """The variables with every kernel at unit magnitude for each of its outputs: forced weight normalization, eq. 66.

    Use it on the parameters at the start of a training step, as the peer does, or on those that an optimizer returns. The
    outputs stay as they are, and applying it twice is applying it once, up to the 1e-4 that `normalize` adds to magnitudes.
    """

    def project(path, leaf):
        return normalize_kernel(leaf) if path[-1].key == "kernel" else leaf

    return jax.tree_util.tree_map_with_path(project, variables)


class EDM2Block(nn.Module):
    """mp_sum(x, Conv(dropout(silu(Conv(silu(x)) (1 + embedding))))), optionally followed by cosine attention.

    A block of the encoder first normalizes every pixel of x; where the number of channels changes, a 1x1 convolution
    does it before that in the encoder, and in the skip branch in the decoder.

    Attributes:
        features: channels of the output.
        flavor: "encoder" or "decoder".
        resampling: "down" or "up" halves or doubles the resolution first.
        num_heads: of the attention; 0 for none.
        dropout: rate of the dropout before the last convolution.
        residual_balance, attention_balance: share of the branch in its sum.
        clip: bound on the absolute value of the output, against overflow in half precision; None for none.
    """

    features: int
    flavor: Literal["encoder", "decoder"]
    resampling: Literal["down", "up"] | None = None
    num_heads: int = 0
    dropout: float = 0.0
    residual_balance: float = 0.3
    attention_balance: float = 0.3
    clip: float | None = 256.0

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array, dropout_keys: jax.Array | None = None) -> jax.Array:
        """Maps (B, H, W, C) to (B, H', W', features) in the dtype of x, with the embedding (B, E)."""

        def skip(x):
            return MPConv(self.features, 1, name="skip")(x) if x.shape[-1] != self.features else x

        if self.resampling:
            x = RESAMPLINGS[self.resampling](x)
        if self.flavor == "encoder":
            x = normalize(skip(x), -1)

        h = MPConv(self.features, name="conv_in")(mp_silu(x))
        gain = self.param("embedding_gain", nn.initializers.zeros, (), jnp.float32)
        scale = MPDense(self.features, name="embedding")(embedding, gain) + 1
        h = mp_silu(h * scale[:, None, None].astype(h.dtype))
        h = Dropout(self.dropout, name="dropout")(h, dropout_keys)
        h = MPConv(self.features, name="conv_out")(h)

        x = mp_sum(skip(x), h, self.residual_balance)
        if self.num_heads:
            x = CosineAttention(self.num_heads, self.attention_balance, name="attention")(x)
        return x if self.clip is None else jnp.clip(x, -self.clip, self.clip)


class EDM2(nn.Module):
    """Magnitude-preserving U-Net; its output starts at zero.

    The defaults are those of the model S.

    Attributes:
        channels: channels of the finest level.
        channel_multipliers: channels of each level, finest first, in units of `channels`; every further level halves
            the resolution.
        blocks_per_level: residual blocks of each level on the way down; one more on the way up.
        attention_resolutions: heights in pixels at which every block has attention (the coarsest level's first block on
            the way up has it at any).
        head_channels: channels of each head; they divide the channels of every level with attention.
        dropout: rate of the dropout in each residual block, in training.
        num_classes: 0 for an unconditional network; else the condition's `label` is below it.
        out_channels: of the output; 0 for as many as x has. Fewer where x carries further channels as a condition.
        fourier_channels: features of the noise level; 0 for as many as the finest level has channels.
        embedding_channels: of the embedding; 0 for as many as the widest level has channels.
        class_balance: share of the class in the embedding.
        concat_balance: share of what the way down kept where it is joined to the way up.
        residual_balance, attention_balance: share of a branch in its sum with the identity.
        clip: bound on the absolute value of every block's output; None for none.
        dtype: of the computation, "float32" or "bfloat16"; parameters, embedding and output are float32.
        remat: recompute every block's inner values in the backward pass, for less memory and about a third more time.
    """

    channels: int = 192
    channel_multipliers: tuple[int, ...] = (1, 2, 3, 4)
    blocks_per_level: int = 3
    attention_resolutions: tuple[int, ...] = (16, 8)
    head_channels: int = 64
    dropout: float = 0.0
    num_classes: int = 0
    out_channels: int = 0
    fourier_channels: int = 0
    embedding_channels: int = 0
    class_balance: float = 0.5
    concat_balance: float = 0.5
    residual_balance: float = 0.3
    attention_balance: float = 0.3
    clip: float | None = 256.0
    dtype: str = "float32"
    remat: bool = False

    @staticmethod
    def project(variables: Any) -> Any:
        """Where training keeps the weights: see `normalized`."""
        return normalized(variables)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        noise_level: jax.Array,
        condition: Mapping[str, jax.Array] | None = None,
        *,
        train: bool = False,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Maps noisy images to images.

        Args:
            x: (B, H, W, C) of unit variance at every noise level; H and W divisible by 2 ** (levels - 1).
            noise_level: (B,), log(sigma) / 4.
            condition: leaves by name, or None. `label` (B,), integers in [0, num_classes) or the null num_classes, for
                which the published networks see a vector of zeros, where `num_classes` is not 0.
            train: whether dropout is on.
            dropout_keys: (B,) typed PRNG keys; needed with `train` where `dropout` is above 0.

        Returns:
            (B, H, W, out_channels) float32.

        Raises:
            ValueError: for a size that cannot be halved often enough, heads that do not divide the channels, an unknown
                choice, and for leaves of the condition or keys missing or in excess.
        """
        levels = len(self.channel_multipliers)
        checks.choices(self, CHOICES)
        checks.divisible(self, x.shape, 2 ** (levels - 1), f"{levels} levels need")
        leaves = checks.condition(self, len(x), condition)
        dropout_keys = checks.dropout(self, train, dropout_keys)
        out_channels = self.out_channels or x.shape[-1]
        widths = [self.channels * multiplier for multiplier in self.channel_multipliers]
        embedding = self._embed(noise_level, leaves.get("label"), widths)
        block_type = nn.remat(EDM2Block) if self.remat else EDM2Block

        def block(h, level, flavor, name, resampling=None, attention=False):
            return block_type(
                widths[level],
                flavor,
                resampling,
                self._heads(widths[level]) if attention else 0,
                self.dropout,
                self.residual_balance,
                self.attention_balance,
                self.clip,
                name=name,
            )(h, embedding, dropout_keys)

        # A channel of ones stands in for the biases that no layer has.
        h = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1).astype(self.dtype)
        h = MPConv(widths[0], name="conv_in")(h)
        skips = [h]
        for level in range(levels):
            attention = h.shape[1] in self.attention_resolutions
            for i in range(self.blocks_per_level):
                h = block(h, level, "encoder", f"down_{level}_{i}", attention=attention)
                skips.append(h)
            if level < levels - 1:
                h = block(h, level, "encoder", f"down_{level}_resample", "down")
                skips.append(h)

        h = block(h, levels - 1, "decoder", "middle_0", attention=True)
        h = block(h, levels - 1, "decoder", "middle_1")

        for level in reversed(range(levels)):
            attention = h.shape[1] in self.attention_resolutions
            for i in range(self.blocks_per_level + 1):
                h = mp_concat(h, skips.pop(), self.concat_balance)
                h = block(h, level, "decoder", f"up_{level}_{i}", attention=attention)
            if level > 0:
                h = block(h, level, "decoder", f"up_{level}_resample", "up")

        gain = self.param("out_gain", nn.initializers.zeros, (), jnp.float32)
        return MPConv(out_channels, name="conv_out")(h, gain).astype(jnp.float32)

    def _heads(self, width):
        if width % self.head_channels:
            raise ValueError(f"EDM2: head_channels={self.head_channels} does not divide {width} channels")
        return width // self.head_channels

    def _embed(self, noise_level, labels, widths):
        """(B,) noise levels and (B,) labels to (B, embedding channels) float32."""
        width = self.embedding_channels or max(widths)
        embedding = MPFourier(self.fourier_channels or widths[0], name="fourier")(noise_level)
        embedding = MPDense(width, name="noise_level")(embedding)
        if self.num_classes:
            one_hot = jax.nn.one_hot(labels, self.num_classes) * self.num_classes**0.5
            embedding = mp_sum(embedding, MPDense(width, name="classes")(one_hot), self.class_balance)
        return mp_silu(embedding)


# By the name that a config gives.
NETWORKS = {"edm2": EDM2}
