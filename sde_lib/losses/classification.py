"""Training of noise-conditional classifiers: the cross-entropy of the class of noisy data.

    loss(x_0, c) = -log p(c | x_t, t),     x_t = alpha x_0 + sigma noise,  t ~ p(t),  noise ~ N(0, I)

Its minimum over p is the posterior p(c | x_t) at every time that p(t) covers. The gradient of its logarithm guides samples
to a class, see `ClassifierGuidance`.

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
        keys: (B,), one per example; example i depends on `keys[i]` alone.
        classifier: the classifier; its own labels are not used.
        sde: the forward process.
        x0: clean data, (B, *event).
        labels: the classes, (B,) whole numbers.
        times: the distribution of t; None is `UniformTime()`.
        train: run the network as in training (dropout on).

    Returns:
        the cross-entropies in nats (B,), the logits (B, classes), the times (B,).
    """
    times = UniformTime() if times is None else times
    key_time, key_noise, key_network = split(keys, 3)
    t = times(key_time, sde)
    noise = standard_normal(key_noise, sde.clean_state(x0))
    model = classifier.training(key_network) if train else classifier
    logits = model.logits(sde.perturb(x0, noise, t), t)
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probs, labels[:, None], axis=1)[:, 0], logits, t
