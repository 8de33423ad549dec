"""The error of the model at each noise level, on images that it was trained on and on others."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from experiments import data
from experiments.devices import distributed
from experiments.evaluation.figures import standard_error_of_mean
from experiments.loading.runs import Run

BATCH = 256  # images at once, on all devices together


def loss_per_noise_level(run: Run, images: data.Images) -> list[dict[str, float]]:
    """The mean squared error of the predicted noise (per value; 1 is no better than guessing 0) at even log-SNRs.

    It is the noise of y = x_0 + noise_to_signal noise, which is all that any process's state says of the data, so the
    figures of processes can be compared.

    Times, noise and images are the same in every evaluation, so that figures can be compared.

    Returns:
        for each level `log_snr`, `noise_to_signal`, `loss`, and `standard_error`, of the loss as a mean over images (None
        of a single image).
    """
    evaluation = run.experiment.evaluation
    everywhere, divided = _shardings()
    denoiser = run.experiment.denoiser(jax.device_put(run.variables, everywhere), evaluation.t_min)
    sde, key = denoiser.sde, jax.random.key(evaluation.seed)
    x0 = np.asarray(run.medium.forward(images.images))
    rows = []
    levels = np.linspace(float(sde.log_snr(sde.t_max)), float(sde.log_snr(sde.t_min)), evaluation.noise_levels)
    for log_snr in tqdm(levels, "loss", unit="level", delay=2, disable=not distributed.is_first()):
        t = sde.time_at_log_snr(jnp.float32(log_snr))
        found = []
        for start in range(0, len(images), BATCH):
            places = np.arange(start, start + BATCH) % len(images)  # the last batch is filled up, and cut again
            labels = None if images.labels is None else jax.device_put(images.labels[places], divided)
            conditioned = denoiser.replace(condition=run.experiment.condition(labels))
            batch, numbers = jax.device_put((x0[places], places), divided)
            found.append(np.asarray(_errors(conditioned, batch, t, numbers, key))[: len(images) - start])
        errors = np.concatenate(found).astype(np.float64)
        rows.append(
            {
                "log_snr": float(log_snr),
                "noise_to_signal": float(sde.noise_to_signal(t)),
                "loss": float(errors.mean()),
                "standard_error": standard_error_of_mean(errors),
            }
        )
    return rows


def _shardings() -> tuple[NamedSharding, NamedSharding]:
    """A copy on each of this process's devices, and a batch divided among them (as many as divide it)."""
    devices = jax.local_devices()
    mesh = Mesh(np.array(devices[: math.gcd(BATCH, len(devices))]), ("devices",))
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("devices"))


@jax.jit
def _errors(denoiser, x0, t, places, key):
    """The mean squared error of the predicted noise of each image, (B,)."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, places)
    noise = jax.vmap(lambda key: jax.random.normal(key, denoiser.sde.state_shape(x0.shape[1:])))(keys)
    error = denoiser(denoiser.sde.perturb(x0, noise, t), t) - x0
    return jnp.square(error / denoiser.sde.noise_to_signal(t)).mean(range(1, x0.ndim))
