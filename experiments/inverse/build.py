"""Tasks and posterior methods of the records -> measurements, noise, Denoisers and sampling methods."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import sde_lib
from experiments.config.components import is_path
from experiments.data.inputs import images
from experiments.data.sources.rendering import Rendering
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.inverse import problems
from sde_lib import exact, inverse

Shape = tuple[int, int, int]

CONTRACT = "make(shape, options) returns a Measurement whose forward maps images (B, *shape) to floats (B, ...)"
METHOD_CONTRACT = (
    "posterior(prior, measurement, y, noise, settings) returns a Denoiser and steps(measurement, y, noise, settings) a "
    "Sampler, of states of the shape of x"
)


@dataclass(frozen=True)
class Problem:
    """What is measured of images, and with what noise.

    Attributes:
        name: of the task.
        measurement: A.
        noise: of what is measured.
        measured: None, or 1 for the values of y that there are and 0 for others, of a shape that y broadcasts against.
        view: from y (N, *measured) to pictures (N, h, w, C) of it in [-1, 1]; None where there are no pictures.
        baseline: from y to plain answers to stand beside, by name; none for some tasks.
    """

    name: str
    measurement: inverse.Measurement
    noise: inverse.Noise
    measured: np.ndarray | None
    view: Callable[[np.ndarray], np.ndarray] | None
    baseline: Callable[[jax.Array], dict[str, jax.Array]]

    def measure(self, keys: jax.Array, x: jax.Array) -> jax.Array:
        """y (N, *measured) of images x (N, H, W, C), with noise, each by its key."""
        return self.select(self.noise.sample(keys, self.measurement.forward(x)))

    def select(self, y: jax.Array) -> jax.Array:
        """y with 0 for what is not measured."""
        return y if self.measured is None else self.measured * y

    def misfit(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """The root of the mean square of y - A x over what is measured, (N,): about the noise, for a good answer."""
        squares = jnp.square(self.select(y - self.measurement.forward(x)))
        weights = jnp.broadcast_to(1.0 if self.measured is None else self.measured, squares.shape[1:])
        return jnp.sqrt(squares.reshape(len(squares), -1).sum(1) / weights.sum())


def noise(std: float, peak: float | None = None) -> inverse.Noise:
    """Gaussian noise of a standard deviation; with a peak, Poisson noise of so many counts where the image is white."""
    return inverse.GaussianNoise(std) if peak is None else inverse.PoissonNoise(peak)


def problem(
    name: str,
    shape: Shape,
    options: Mapping[str, Any],
    noise: inverse.Noise,
    rendering: Rendering = images.RENDERING,
) -> Problem:
    """The task of that name for images of a shape.

    Args:
        name: of the task.
        shape: (H, W, C).
        options: those of `problems.task`.
        noise: of what is measured.
        rendering: of the picture of a mask or a kernel.

    Raises:
        UserError: an option does not fit the images.
    """
    task, own = problems.task_of(name), is_path(name)
    try:
        measurement = task.make(shape, {**options, "rendering": rendering})
        y = jax.eval_shape(measurement.forward, jax.ShapeDtypeStruct((2, *shape), jnp.float32))
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"--task={name}: {' '.join(str(error).split())}") from error
    except UserError:
        raise
    except Exception as error:
        if not own:
            raise
        raise UserError(f"--task={name}: {_reason(error)}; {CONTRACT}") from error
    if own and (getattr(y, "shape", ())[:1] != (2,) or not jnp.issubdtype(y.dtype, jnp.inexact)):
        found = f"{y.dtype} {y.shape}" if hasattr(y, "shape") else type(y).__name__
        raise UserError(f"--task={name}: forward gives {found} for images {(2, *shape)}; {CONTRACT}")
    if own and isinstance(measurement, inverse.LinearMeasurement):
        _require_linear(name, measurement, shape)
    if own and task.image and (len(y.shape) != 4 or y.shape[3] != shape[2]):
        raise UserError(
            f"--task={name}: forward gives {y.shape} for images {(2, *shape)}, which are no images (B, h, w, {shape[2]}): "
            "set image=False, and a view(measurement, y) for pictures of them"
        )
    measured = None if task.measured is None else task.measured(measurement, shape)
    view = _view(name, task, measurement)
    std = math.sqrt(float(jnp.mean(noise.variance(jnp.zeros(())))))  # of Poisson noise, that of middle grey

    def baseline(y):
        if own:
            return {of: _of_user(name, of, task.baselines[of], measurement, y, std) for of in task.baselines}
        return {caption: of(measurement, y, std) for caption, of in task.baselines.items()}

    return Problem(name, measurement, noise, measured, view, baseline)


def _view(
    name: str, task: problems.Task, measurement: inverse.Measurement
) -> Callable[[np.ndarray], np.ndarray] | None:
    """Returns the function from measured values to pictures; None for values that are no images, without a view."""
    if task.view is None:
        return np.asarray if task.image else None
    if not is_path(name):
        return functools.partial(task.view, measurement)

    def view(y):
        try:
            found = np.asarray(task.view(measurement, y), np.float32)
        except Exception as error:
            raise UserError(f"--task={name}: view(measurement, y): {_reason(error)}") from error
        if found.ndim != 4 or len(found) != len(y) or not np.isfinite(found).all():
            raise UserError(
                f"--task={name}: view(measurement, y) gives {found.shape}, or values that are not finite; pictures "
                "(N, h, w, C) in [-1, 1] are needed"
            )
        return found

    return view


def _require_linear(name: str, measurement: inverse.LinearMeasurement, shape: Shape) -> None:
    """Makes sure that a `LinearMeasurement` of the user is linear, as its methods take it to be.

    Raises:
        UserError: the measurement of two images together is not that of each added.
    """
    a, b = jax.random.normal(jax.random.key(0), (2, 1, *shape))
    together, added = measurement.forward(a + b), measurement.forward(a) + measurement.forward(b)
    if not np.allclose(together, added, rtol=1e-3, atol=1e-3 * float(jnp.abs(added).max())):
        raise UserError(
            f"--task={name}: forward(a + b) is not forward(a) + forward(b): a LinearMeasurement is linear, without a "
            "constant; derive another from sde_lib.inverse.Measurement"
        )


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]


def _of_user(name: str, caption: str, of: Callable, measurement: inverse.Measurement, y: Any, std: float) -> np.ndarray:
    """What a baseline of the task of a user gives.

    Raises:
        UserError: it cannot be called, or gives something else than finite images.
    """
    baseline = f"--task={name}: the baseline {caption!r}"
    try:
        found = np.asarray(of(measurement, y, std), np.float32)
    except Exception as error:
        raise UserError(f"{baseline}: {_reason(error)}; it is called as f(measurement, y, std)") from error
    if found.ndim != 4 or len(found) != len(y) or not np.isfinite(found).all():
        raise UserError(
            f"{baseline} gives {found.shape}, or values that are not finite; images (N, H, W, C) are needed"
        )
    return found


PUBLISHED_SIDE = 256  # pixels of the images for which the papers set what depends on the size


def conditioned(
    experiment: Experiment,
    name: str,
    settings: Mapping[str, Any],
    prior: sde_lib.Denoiser,
    measurement: inverse.Measurement,
    y: jax.Array,
    noise: inverse.Noise,
    shape: Shape,
) -> tuple[sde_lib.Denoiser, sde_lib.Sampler]:
    """What draws images behind y: the Denoiser and the method for `sde_lib.sample`.

    Settings that the method names `proportional`, such as the step length zeta of DPS and MCG in the space of images, are
    multiplied by the side over 256 (of a rectangle, the side of the square of as many pixels).

    Raises:
        ValueError: the method cannot work with this measurement; of its noise it says so when it is used.
    """
    method, scale = problems.method_of(name), math.sqrt(shape[0] * shape[1]) / PUBLISHED_SIDE
    settings = {key: value * scale if key in method.proportional else value for key, value in settings.items()}
    posterior, steps = prior, experiment.sampler
    if method.posterior is not None:
        posterior = method.posterior(prior, measurement, y, noise, settings)
    if method.steps is not None:
        steps = method.steps(measurement, y, noise, settings)
    return posterior, steps


class UnsolvableError(UserError):
    """A method cannot solve a problem of this kind."""


def check_method(experiment: Experiment, name: str, settings: Mapping[str, Any], of: Problem, shape: Shape) -> None:
    """Makes sure that a method can solve a problem; compiles nothing.

    Raises:
        UnsolvableError: it cannot; those that can are named.
    """
    reason = obstacle(experiment, name, settings, of, shape)
    if reason is not None:
        able = [
            other
            for other, spec in problems.METHODS.items()
            if other != name and obstacle(experiment, other, spec.settings, of, shape) is None
        ]
        raise UnsolvableError(f"--method={name}: {reason}; methods that can: {', '.join(able) or 'none'}")


def obstacle(experiment: Experiment, name: str, settings: Mapping[str, Any], of: Problem, shape: Shape) -> str | None:
    """Why a method cannot solve a problem, as its classes say; None if it can.

    A step is traced, with an exact Denoiser; the measurement's arrays may be `jax.ShapeDtypeStruct`.
    """
    process = experiment.sde(experiment.sampling.t_min)
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    y = jax.eval_shape(lambda measurement, x: measurement.forward(x), of.measurement, images)
    x = jax.ShapeDtypeStruct((1, *process.state_shape(shape)), jnp.float32)

    def step(measurement, y, x):
        denoiser, method = conditioned(
            experiment, name, settings, exact.Gaussian(process), measurement, y, of.noise, shape
        )
        t, keys = jnp.asarray([0.5, 0.25]) * process.t_max, jax.random.split(jax.random.key(0), 1)
        carry = method.init(x, denoiser, t)
        return method.step(carry, keys, x, t[0], t[1], denoiser)[1], denoiser(x, t[0])

    try:
        found = jax.eval_shape(step, of.measurement, y, x)
    except ValueError as error:
        return str(error)
    except Exception as error:
        if not is_path(name):
            raise
        raise UserError(f"--method={name}: {_reason(error)}; {METHOD_CONTRACT}") from error
    if is_path(name) and found[0].shape != x.shape:
        raise UserError(f"--method={name}: gives {found[0].shape} for x of {x.shape}; {METHOD_CONTRACT}")
    return None


def with_sampling(config: ConfigDict, name: str) -> ConfigDict:
    """A copy of the config with the method's own keys of `sampling`, without a recommended sampler."""
    config = config.copy_and_resolve_references()
    config.sampling.evaluations = 0
    config.sampling.update(dict(problems.method_of(name).sampling))
    return config
