"""The error of the model at each noise level, on images that it was trained on and on others."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build, data
from experiments.runs import Run

BATCH = 256  # images at once


def loss_per_noise_level(run: Run, images: data.Images) -> list[dict[str, float]]:
    """The mean squared error of the predicted noise (per pixel; 1 is no better than guessing 0) at even log-SNRs.

    It is the noise of y = x_0 + noise_to_signal noise, which is all that any process's state says of the data, so the
    figures of processes can be compared.

    Times, noise and images are the same in every evaluation, so that figures can be compared.
    """
    evaluation = run.config.evaluation
    denoiser = build.denoiser(run.config, run.variables, evaluation.t_min)
    sde = denoiser.sde

    @jax.jit
    def errors(denoiser, x0, t, places):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(evaluation.seed), places)
        noise = jax.vmap(lambda key: jax.random.normal(key, denoiser.sde.state_shape(x0.shape[1:])))(keys)
        error = denoiser(denoiser.sde.perturb(x0, noise, t), t) - x0
        return jnp.square(error / denoiser.sde.noise_to_signal(t)).mean((1, 2, 3))

    x0 = np.asarray(run.transform.forward(images.images))
    rows = []
    for log_snr in np.linspace(float(sde.log_snr(sde.t_max)), float(sde.log_snr(sde.t_min)), evaluation.noise_levels):
        t = sde.time_at_log_snr(jnp.float32(log_snr))
        total = 0.0
        for start in range(0, len(images), BATCH):
            places = np.arange(start, start + BATCH) % len(images)  # the last batch is filled up, and cut again
            labels = None if images.labels is None else jnp.asarray(images.labels[places])
            conditioned = denoiser.replace(condition=build.condition(run.config, labels))
            values = errors(conditioned, x0[places], t, places)
            total += float(values[: len(images) - start].sum())
        rows.append(
            {"log_snr": float(log_snr), "noise_to_signal": float(sde.noise_to_signal(t)), "loss": total / len(images)}
        )
    return rows
