"""Judging a run: the held-out loss at each noise level, and distances between samples and held-out images.

Each figure stands beside its floor: the training images, compared with the held-out ones in the same way. Samples cannot
be expected to come closer to the held-out images than other real images do.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build, data, distributed, metrics, pictures, report
from experiments.runs import Run
from experiments.sampler import Sampler
from experiments.workdir import replace_text

BATCH = 256  # images at once for the held-out loss
STRIP = (8, 12)  # images and times in the picture of noise becoming images


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


def evaluate_run(run: Run, dataset: data.Dataset, strategy: Any) -> dict[str, Any]:
    """Measures the EMA model, writes `metrics.json`, the strip and the report, and prints the figures.

    Returns:
        what `metrics.json` holds.

    Raises:
        RunError: a sample is not finite.
    """
    config, limit = run.config, run.config.evaluation.num_samples
    test, train = _first(dataset.test, limit), _first(dataset.train, limit)
    sampler = Sampler(config, strategy, limit)
    samples = sampler(run.variables, limit, config.evaluation.seed, progress=True)
    features = metrics.fit_features(dataset.train)
    reference = features(test.images)
    measured = {
        "step": run.step,
        "sampling": {
            "sde": config.sde.name,
            "method": config.sampling.method,
            "steps": config.sampling.steps,
            "evaluations": sampler.nfe,
            "num_samples": limit,
            "seed": config.evaluation.seed,
        },
        "features": features.name,
        "reference": f"{len(test)} held-out images",
        "samples": metrics.compare(features(samples), reference),
        "real": {"images": f"{len(train)} training images"} | metrics.compare(features(train.images), reference),
        "held_out_loss": loss_per_noise_level(run, test),
        "training_loss": loss_per_noise_level(run, train),
    }
    strip = _strip(run, sampler)
    if distributed.is_first():
        replace_text(run.workdir.metrics, json.dumps(measured, indent=2) + "\n")
        pictures.save(run.workdir.strip, strip, config.data.image_size)
        report.write(run.workdir)
    print(report.summary(measured))
    print(f"Samples over training: {run.workdir.samples}\nReport: {run.workdir.report}")
    return measured


def _first(images: data.Images, limit: int) -> data.Images:
    return images.take(np.arange(min(limit, len(images))))


def _strip(run: Run, sampler: Sampler) -> np.ndarray:
    """Rows of samples, columns of times: noise on the left, images on the right, each scaled to the width of the data."""
    num_images, num_times = STRIP
    states = sampler.trajectory(run.variables, num_images, seed=0)
    shown = np.unique(np.linspace(0, len(states) - 1, num_times).round().astype(int))
    tiles = run.transform.inverse(states[shown]).swapaxes(0, 1)
    return pictures.grid(tiles.reshape(-1, *tiles.shape[2:]), columns=len(shown))
