"""Guidance by the gradient of a log-likelihood, of the noisy state (classifiers) or of the clean data (energies).

By Bayes' rule score(x | c) = score(x) + grad log p(c | x_t = x). In terms of y = x_t / alpha = x_0 + n noise this is

    D(y | c) = D(y) + n^2 grad_y log p(c | y),

which is exact if p(c | y) is known for the noisy state. For a measurement, a penalty or an energy E = -log p(c | x_0),
only log p(c | x_0) is known, for clean data. Then p(c | y) = E[p(c | x_0) | y] is estimated with a posterior from the
Denoiser.

Gradients are taken with respect to a shift of the data within the state (`with_data_shifted`), which is defined for
every process.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from sde_lib.denoiser import DerivedDenoiser, shifted, with_data_shifted
from sde_lib.exact import isotropic_variance
from sde_lib.sde import expand
from sde_lib.struct import Struct, as_pytree


@struct.dataclass
class NetworkClassifier(Struct):
    """log p(label | x_t) of a noise-conditional classifier network, a `log_likelihood(x, t)` for `ClassifierGuidance`.

    Attributes:
        network: an object with `apply(variables, x, noise_level, None, train=False)` -> logits (B, classes), such as
            the classifiers of `models`; static.
        variables: the network's weights.
        labels: class indices, (B,); None if only `logits` is used.
        inputs: (x, t) -> (x, noise_level), the inputs of the network, with t (B,); None passes x and t. Static, so each
            new function object is recompiled.
        dropout_keys: one key per example, (B,), which runs the network with `train=True`; None disables dropout.
    """

    network: Any = struct.field(pytree_node=False)
    variables: Any
    labels: Array | None
    inputs: Callable[[Array, Array], tuple[Array, Array]] | None = struct.field(pytree_node=False, default=None)
    dropout_keys: Array | None = None

    def logits(self, x: Array, t: ArrayLike) -> Array:
        """Returns the logits of all classes, (B, classes), for x (B, *state) and t () or (B,)."""
        t = jnp.broadcast_to(t, x.shape[:1])
        x, noise_level = (x, t) if self.inputs is None else self.inputs(x, t)
        mode: dict[str, Any] = (
            {"train": False} if self.dropout_keys is None else {"train": True, "dropout_keys": self.dropout_keys}
        )
        return self.network.apply(self.variables, x, noise_level, None, **mode)

    def training(self, keys: Array) -> "NetworkClassifier":
        """Returns the classifier in training mode, with dropout by one key per example."""
        return self.replace(dropout_keys=keys)

    def __call__(self, x: Array, t: ArrayLike) -> Array:
        """Returns log p(label | x_t), (B,), in nats; raises ValueError without labels."""
        if self.labels is None:
            raise ValueError("NetworkClassifier: log p(label | x_t) needs labels")
        logits = self.logits(x, t)
        labels = jnp.broadcast_to(self.labels, logits.shape[:1])
        return jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]


@struct.dataclass
class ClassifierGuidance(DerivedDenoiser):
    """D + scale n^2 grad log p(c | x_t): score = score of D + scale grad log p(c | x_t).

    With an exact classifier, scale 1 gives the conditional Denoiser. Other scales give the score of p(x_t)
    p(c | x_t)^scale. The cost is one evaluation of the Denoiser and one of the classifier with its gradient.

    Sources: Song et al. (2021), https://arxiv.org/abs/2011.13456, section 5 and appendix I.1; Dhariwal and Nichol (2021),
    https://arxiv.org/abs/2105.05233, section 4, for the scale.

    Attributes:
        denoiser: D, unconditional (or conditional, as in Dhariwal and Nichol).
        log_likelihood: (x, t) -> (B,), log p(c | x_t = x) up to a constant independent of x, where entry i depends only
            on x[i]. A function, or a callable pytree (`NetworkClassifier`), whose arrays may change without
            recompilation.
        scale: () or (B,).
    """

    log_likelihood: Callable[[Array, ArrayLike], Array]
    scale: ArrayLike = 1.0

    def __post_init__(self):
        object.__setattr__(self, "log_likelihood", as_pytree(self.log_likelihood))

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Returns x0 and noise from one evaluation; the noise is that of the Denoiser minus scale n grad."""
        y = self.sde.to_data_scale(x, t)

        def total(shift):
            return self.log_likelihood(with_data_shifted(self.sde, x, shift, t), t).sum()

        gradient = jax.grad(total)(jnp.zeros_like(y))
        shift = expand(self.scale * self.sde.noise_to_signal(t) ** 2, y) * gradient
        return shifted(self.sde, x, *self.denoiser.x0_and_noise(x, t), shift, t)


@struct.dataclass
class EnergyGuidance(DerivedDenoiser):
    """D + scale n^2 grad_y log p(c | y), where log p(c | y) is estimated from log p(c | x_0) and the Denoiser.

    The posterior of x_0 given y is taken as

    - `draws` None: a point mass at D(y); log p(c | y) = log p(c | x_0 = D(y)), as in DPS and FreeDoM;
    - `draws` (M, *event), samples of N(0, I): the Gaussian N(D(y), r^2 I) with r^2 = n^2 s^2 / (n^2 + s^2), s =
      `data_std`; log p(c | y) = log of the mean of p(c | D(y) + r draw), as in LGD. The draws are shared by all
      examples and times, so that a sample depends only on its own key and the guided score is the gradient of one
      function.

    With `through_denoiser` the gradient is backpropagated through D: one evaluation and one vector-Jacobian product.
    Without, dD/dy is approximated by that of Gaussian data, s^2 / (n^2 + s^2): one evaluation and no derivative of D,
    with less memory (as in MPGD). For Gaussian data of standard deviation s and a Gaussian likelihood, both variants
    converge to the exact posterior as M grows; for a linear log-likelihood both are exact without draws.

    With a point mass, a likelihood of small variance, such as a precise measurement, makes the guidance stiff at scale
    1. Then reduce the scale at large n, pass `draws`, or use a posterior Denoiser of `inverse`.

    Sources: Chung et al. (2023), https://arxiv.org/abs/2209.14687, eq. 10, for the point; Yu et al. (2023),
    https://arxiv.org/abs/2303.09833, for energies; Song et al. (2023), https://proceedings.mlr.press/v202/song23k.html,
    for the draws; He et al. (2024), https://arxiv.org/abs/2311.16424, for guidance without the derivative.

    Attributes:
        denoiser: D.
        log_likelihood: x0 -> (B,), log p(c | x_0) or minus an energy, up to a constant, differentiable, where entry i
            depends only on x0[i]. A function or a callable pytree.
        scale: () or (B,).
        draws: samples of N(0, I), (M, *event), with M evaluations of `log_likelihood`; None for a point mass.
        data_std: s, the standard deviation of the data; not used with `draws` None and `through_denoiser`.
        through_denoiser: True differentiates D; static.
    """

    log_likelihood: Callable[[Array], Array]
    scale: ArrayLike = 1.0
    draws: Array | None = None
    data_std: ArrayLike = 1.0
    through_denoiser: bool = struct.field(pytree_node=False, default=True)

    def __post_init__(self):
        object.__setattr__(self, "log_likelihood", as_pytree(self.log_likelihood))

    def _log_evidence(self, x0: Array, level: Array) -> Array:
        """Returns log p(c | y), (B,), with x0 = D(y) and level = n."""
        if self.draws is None:
            return self.log_likelihood(x0)
        std = expand(jnp.sqrt(isotropic_variance(level, self.data_std)), x0)
        log_probs = jax.vmap(lambda draw: self.log_likelihood(x0 + std * draw))(self.draws)
        return jax.nn.logsumexp(log_probs, axis=0) - jnp.log(len(self.draws))

    def x0_and_noise(self, x: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Returns x0 and noise from one evaluation of the Denoiser."""
        level = self.sde.noise_to_signal(t)

        def total(shift):
            x0, noise = self.denoiser.x0_and_noise(with_data_shifted(self.sde, x, shift, t), t)
            return self._log_evidence(x0, level).sum(), (x0, noise)

        if self.through_denoiser:
            zero_shift = jnp.zeros_like(self.sde.to_data_scale(x, t))
            gradient, (x0, noise) = jax.grad(total, has_aux=True)(zero_shift)
            variance = level**2
        else:
            x0, noise = self.denoiser.x0_and_noise(x, t)
            gradient = jax.grad(lambda x0: self._log_evidence(x0, level).sum())(x0)
            variance = isotropic_variance(level, self.data_std)
        return shifted(self.sde, x, x0, noise, expand(self.scale * variance, x0) * gradient, t)
