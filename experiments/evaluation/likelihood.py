"""Bits per dimension of held-out images: the code length under the probability flow of the model's densities.

Grey levels have no density; each image is dequantized uniformly within its levels' bins, which gives a bound from above
(`sde_lib.dequantization`), and the density is that at t_min (`sde_lib.likelihood`). Published figures are of t_min = 1e-5.
"""

from collections.abc import Callable

import jax
import numpy as np
from tqdm import tqdm

import sde_lib
from experiments import data
from experiments.devices import distributed
from experiments.devices.parallel import BATCH, SAME, STATE, Strategy
from experiments.errors import RunError
from experiments.evaluation.features import weights_hash
from experiments.evaluation.figures import Figure, standard_error_of_mean
from experiments.evaluation.journal import Journal
from experiments.factory.experiment import Experiment
from experiments.loading.runs import Run

KEYS = ("seed", "likelihood_t_min", "likelihood_probes", "likelihood_tolerance")


def journal_of_bits(run: Run, images: data.Images) -> Journal:
    """The journal of the bits per dimension of images, which other weights, images or settings do not share."""
    evaluation = run.experiment.evaluation
    identity = run.experiment.record("sde", "model", "parameterization")
    identity |= {"evaluation": {key: getattr(evaluation, key) for key in KEYS}}
    identity |= {"step": run.step, "weights": weights_hash(run.variables), "images": images.fingerprint()}
    return Journal(run.workdir.evaluation, "likelihood", identity)


def _bits(experiment: Experiment) -> Callable:
    """(places, images, labels, data of the seed's key, variables) -> bits per dimension, (B,)."""
    evaluation = experiment.evaluation
    quantization = sde_lib.Quantization.between(-1.0, 1.0)
    divergence = sde_lib.Hutchinson(num_probes=evaluation.likelihood_probes)
    tolerance = evaluation.likelihood_tolerance

    def bits(places, images, labels, key_data, variables):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.wrap_key_data(key_data), places)
        model = experiment.denoiser(variables, evaluation.likelihood_t_min)
        model = model.replace(condition=experiment.condition(labels))
        dequantization, probes = jax.vmap(jax.random.split, out_axes=1)(keys)
        x, log_ratio = sde_lib.UniformDequantizer()(dequantization, images, quantization)
        found = sde_lib.log_likelihood(probes, model, x, divergence=divergence, rtol=tolerance, atol=tolerance)
        return sde_lib.bits_per_dim(found.log_prob, x, log_ratio=log_ratio)

    return bits


def bits_per_dim(run: Run, images: data.Images, strategy: Strategy, journal: Journal) -> Figure:
    """The mean bits per dimension of images, computed on all devices for those that the journal has not.

    The first process keeps the journal and tells the others.

    Image i depends on `evaluation.seed` and i alone, as to dequantization and probes.

    Raises:
        RunError: the flow could not be solved for an image.
    """
    experiment, key_data = (
        run.experiment,
        np.asarray(jax.random.key_data(jax.random.key(run.experiment.evaluation.seed))),
    )
    compute = strategy.map(_bits(experiment), (BATCH, BATCH, BATCH, SAME, STATE), BATCH)
    missing = np.asarray(distributed.first_tells(lambda: journal.missing(len(images)).tolist()), int)
    size = strategy.num_devices * min(experiment.sampling.batch_size, -(-len(images) // strategy.num_devices))
    mine, variables = strategy.rows(size), strategy.place(run.variables)
    with tqdm(total=len(missing), unit="img", desc="likelihood", disable=not distributed.is_first()) as bar:
        for start in range(0, len(missing), size):
            asked = missing[start : start + size]
            places = np.resize(asked, size)[mine]
            labels = np.zeros(len(places)) if images.labels is None else images.labels[places]
            inputs = (array.astype(np.int32) for array in (places, images.images[places], labels))
            found = strategy.gather(compute(*map(strategy.shard, inputs), key_data, variables))
            found = np.asarray(found, np.float64)[: len(asked)]
            _require_solved(found, asked, experiment)
            if distributed.is_first():
                journal.write(asked, {"bits": found})
            bar.update(len(asked))

    def mean() -> tuple[float, float | None, int]:
        bits = journal.column("bits", len(images))
        return float(bits.mean()), standard_error_of_mean(bits), len(bits)

    return Figure(*distributed.first_tells(mean))


def _require_solved(found: np.ndarray, numbers: np.ndarray, experiment: Experiment) -> None:
    bad = numbers[~np.isfinite(found)]
    if bad.size:
        raise RunError(
            f"the probability flow of held-out image {bad[0]} cannot be solved (of {len(numbers)}, {bad.size} cannot): "
            f"try a larger evaluation.likelihood_tolerance than {experiment.evaluation.likelihood_tolerance:g}, or a larger "
            f"evaluation.likelihood_t_min than {experiment.evaluation.likelihood_t_min:g}"
        )
