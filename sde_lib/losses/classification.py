"""Loss of noise-conditional classifiers: the cross-entropy of the class given noisy data.

    loss(x_0, c) = -log p(c | x_t, t),     x_t = alpha x_0 + sigma noise,  t ~ p(t),  noise ~ N(0, I)

The minimizer is the posterior p(c | x_t) at every time in the support of p(t). Classifier guidance
(`ClassifierGuidance`) uses the gradient of log p(c | x_t).

Sources: Song et al. (2021), https://arxiv.org/abs/2011.13456, section 5 and appendix I.1; Dhariwal and Nichol (2021),
https://arxiv.org/abs/2105.05233, section 4.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from sde_lib.guidance.likelihood import NetworkClassifier
from sde_lib.losses.time_distributions import TimeDistribution, UniformTime
from sde_lib.randomness import split, standard_normal
from sde_lib.sde import Process


def noisy_classification(
    keys: Array,
    classifier: NetworkClassifier,
    sde: Process,
    x0: Array,
    labels: Array,
    *,
    times: TimeDistribution | Callable[[Array, Process], Array] | None = None,
    train: bool = False,
) -> tuple[Array, Array, Array]:
    """Returns the cross-entropy of each example at one random time and noise, the logits and the times.

    The times and the noise are those of `denoising_score_matching` with the same keys.

    Args:
        keys: one per example, (B,); the result for example i depends only on `keys[i]`.
        classifier: the classifier; its field `labels` is not used.
        sde: the forward process.
        x0: clean data, (B, *event).
        labels: the class indices, integers (B,).
        times: the distribution of t; None selects `UniformTime()`.
        train: True runs the network in training mode, with dropout.

    Returns:
        The cross-entropies in nats (B,), the logits (B, classes) and the times (B,).
    """
    times = UniformTime() if times is None else times
    key_time, key_noise, key_network = split(keys, 3)
    t = times(key_time, sde)
    noise = standard_normal(key_noise, sde.clean_state(x0))
    model = classifier.training(key_network) if train else classifier
    logits = model.logits(sde.perturb(x0, noise, t), t)
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probs, labels[:, None], axis=1)[:, 0], logits, t
