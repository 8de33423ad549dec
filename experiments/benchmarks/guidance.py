"""What guidance and measurements cost beside plain sampling, for the network of an experiment.

Each Denoiser that differentiates the network, or a classifier, runs in the compiled loop of `sample`, with the same method
and steps as the plain one, and takes turns with it; a row is the least of several rounds. A product with the Jacobian is
worth about one evaluation, so that a posterior of k products costs some 1 + k. Weights are those before training, whose
values cost what any do. The measurement is half of the image, which costs nothing beside the network.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

import models
import sde_lib
from experiments.benchmarks.speed import minima
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from sde_lib import guidance, inverse

STEPS = 8
MMPS_STEPS = (1, 2, 3, 5)
PLAIN = "plain"
NO_STOP = 1e-30  # MMPS goes on to its last step, whatever it has found


def benchmark(experiment: Experiment) -> str:
    """Measures and returns a table; takes some minutes, mostly compilation."""
    medium = experiment.medium
    if not medium.has_pixels:
        raise UserError(f"--suite=guidance: is of images, not of {medium.noun}")
    size, shape = experiment.sampling.batch_size, medium.event_shape
    keys = jax.random.split(jax.random.key(0), size)
    cases = dict(_denoisers(experiment, size, shape))
    times = sde_lib.log_snr_times(cases[PLAIN].sde, STEPS)

    def sampler(denoiser):
        return lambda: sde_lib.sample(keys, denoiser, sde_lib.DDIM(), times, shape)

    _, least = minima(**{name: sampler(denoiser) for name, denoiser in cases.items()})
    device = f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}"
    return f"{experiment.model_name}, batch {size}, {STEPS} evaluations in a compiled loop, {device}\n\n{table(least)}"


def table(seconds: dict[str, float]) -> str:
    """Rows, in the order given: the time of an evaluation, and how many plain ones it is worth."""
    lines = ["| Denoiser | ms per evaluation | plain evaluations |", "|---|---|---|"]
    for name, value in seconds.items():
        lines.append(f"| {name} | {1e3 * value / STEPS:.1f} | {value / seconds[PLAIN]:.2f} |")
    return "\n".join(lines)


def _denoisers(experiment: Experiment, size: int, shape: tuple[int, ...]) -> Iterator[tuple[str, sde_lib.Denoiser]]:
    labels = jnp.arange(size) % max(experiment.num_classes, 1)
    plain = experiment.denoiser(experiment.init_variables(), experiment.sampling.t_min)
    plain = plain.replace(condition=experiment.condition(labels))
    yield PLAIN, plain
    yield "ClassifierGuidance", guidance.ClassifierGuidance(plain, _classifier(experiment, labels, shape))
    measurement = inverse.Inpainting.half(shape, "right")
    y = measurement.forward(jnp.zeros((1, *shape)))
    yield "DPS", inverse.DPS(plain, measurement, y)
    yield "PiGDM", inverse.PiGDM(plain, measurement, y, 0.05)
    yield "TMPD", inverse.TMPD(plain, measurement, y, 0.05)
    for steps in MMPS_STEPS:
        posterior = inverse.MMPS(plain, measurement, y, 0.05, rtol=NO_STOP, max_steps=steps)
        yield f"MMPS, {steps} {'step' if steps == 1 else 'steps'}", posterior


def _classifier(experiment: Experiment, labels: jax.Array, shape: tuple[int, ...]) -> guidance.NetworkClassifier:
    """The encoder of a U-Net as wide and deep as the network, where that says so."""
    known = models.options("unet_classifier")
    options = experiment.record("model")["model"]
    options = {name: value for name, value in options.items() if name in known and name != "num_classes"}
    network = models.create("unet_classifier", **options | {"num_classes": 10})
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, *shape)), jnp.zeros((1,)))
    return guidance.NetworkClassifier(network, variables, labels)
