"""The magnitude-preserving U-Net of EDM2: no group norms, no biases, invariant to the magnitude of its weights.

Every layer preserves the magnitude of its input (`models/layers/magnitude.py`), so the magnitudes of activations,
weights and updates stay constant during training. Two parts of the recipe are outside of the network:

- `EDM2.project(variables)` projects the weights onto unit magnitude. The output does not change, since the forward pass
  normalizes the weights. The projection prevents the growth of the weights, which would decrease the effective learning
  rate in an uncontrolled way. Training applies it to the initial weights and after every update ("forced weight
  normalization").
- The learned uncertainty u(sigma) of eq. 21 is part of the loss; this network has no output for it.

The sizes of the paper differ in `channels`. For ImageNet at 512 pixels (latents of 64 x 64 x 4) and 64 pixels: XXS 64
(512 pixels only), XS 128, S 192, M 256, L 320, XL 384, XXL 448 (512 pixels only); dropout is 0.1 for M and larger
sizes.

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
    """Normalizes every kernel to unit magnitude per output: forced weight normalization, eq. 66.

    Apply it to the parameters at the start of a training step, as EDM2's code does, or after each optimizer update. The
    output of the network is unchanged, and the projection is idempotent, up to the 1e-4 that `normalize` adds to
    magnitudes.
    """

    def project(path, leaf):
        return normalize_kernel(leaf) if path[-1].key == "kernel" else leaf

    return jax.tree_util.tree_map_with_path(project, variables)


class EDM2Block(nn.Module):
    """mp_sum(x, Conv(dropout(silu(Conv(silu(x)) (1 + embedding))))), optionally followed by cosine attention.

    An encoder block first normalizes every pixel of x. A 1x1 convolution changes the number of channels if necessary:
    in the encoder before this normalization, in the decoder in the skip branch.

    Attributes:
        features: channels of the output.
        flavor: "encoder" or "decoder".
        resampling: "down" or "up" halves or doubles the resolution at the start of the block; None keeps it.
        num_heads: number of attention heads; 0 for no attention.
        dropout: dropout rate before the last convolution.
        residual_balance: weight of the residual branch in `mp_sum`.
        attention_balance: weight of the attention branch in `mp_sum`.
        clip: bound on the absolute value of the output, against overflow in half precision; None disables clipping.
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
    """Magnitude-preserving U-Net of EDM2; the initial output is zero. The defaults are those of the size S.

    Attributes:
        channels: channels of the finest level.
        channel_multipliers: channels of each level, finest first, in units of `channels`; each level has half the
            resolution of the previous level.
        blocks_per_level: residual blocks of each level in the encoder; the decoder has one more.
        attention_resolutions: heights in pixels at which every block has attention; the first block of the middle
            always has attention.
        head_channels: channels of each attention head; must divide the channels of every level with attention.
        dropout: dropout rate in each residual block.
        num_classes: number of classes of the condition `label`; 0 for an unconditional network.
        out_channels: channels of the output; 0 for as many as x has. If conditioning images are concatenated to x, the
            number of channels of the noisy images.
        fourier_channels: number of Fourier features of the noise level; 0 for the channels of the finest level.
        embedding_channels: number of features of the embedding; 0 for the channels of the widest level.
        class_balance: weight of the class in the embedding.
        concat_balance: weight of the skip connection where it is concatenated in the decoder.
        residual_balance: weight of each residual branch in its sum with the identity.
        attention_balance: weight of each attention branch in its sum with the identity.
        clip: bound on the absolute value of the output of each block; None disables clipping.
        dtype: dtype of the computation, "float32" or "bfloat16"; parameters, embedding and output are float32.
        remat: recompute the activations of each block in the backward pass: less memory, about a third more time.
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
        """Projects the weights onto unit magnitude, see `normalized`; training applies it after every update."""
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
            condition: leaves by name, or None. If `num_classes` is not 0: `label` (B,), integers in [0, num_classes),
                or num_classes for no class, whose one-hot vector is zero as in the published networks.
            train: whether dropout is enabled.
            dropout_keys: (B,) typed PRNG keys; required if `train` is True and `dropout` is above 0.

        Returns:
            (B, H, W, out_channels) float32.

        Raises:
            ValueError: H or W is not divisible by 2 ** (levels - 1), heads do not divide the channels, an option has an
                unknown value, leaves of the condition are missing or unexpected, or keys are missing.
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

        # A channel of ones replaces the biases, which the layers lack.
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
        """Embeds noise levels (B,) and labels (B,) in (B, embedding channels) float32."""
        width = self.embedding_channels or max(widths)
        embedding = MPFourier(self.fourier_channels or widths[0], name="fourier")(noise_level)
        embedding = MPDense(width, name="noise_level")(embedding)
        if self.num_classes:
            one_hot = jax.nn.one_hot(labels, self.num_classes) * self.num_classes**0.5
            embedding = mp_sum(embedding, MPDense(width, name="classes")(one_hot), self.class_balance)
        return mp_silu(embedding)


# Keys are the values of `model.name` in a config.
NETWORKS = {"edm2": EDM2}
