"""Names of tasks and of posterior methods -> measurements, noise, Denoisers and sampling methods.

`problems.py` has the same names with what they are and the flags they take.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import sde_lib
from experiments.data.inputs import images
from experiments.data.sources.rendering import Rendering
from experiments.errors import UserError, counted, unknown_name
from experiments.factory.experiment import Experiment
from experiments.inverse import baselines, problems
from sde_lib import exact, guidance, inverse

Shape = tuple[int, int, int]

CONTRACT = "make(shape, options) returns a Measurement whose forward maps images (B, *shape) to floats (B, ...)"


@dataclass(frozen=True)
class Problem:
    """What is measured of images, and with what noise.

    Attributes:
        name: of the task.
        measurement: A.
        noise: of what is measured.
        measured: None, or 1 for the values of y that there are and 0 for others, of a shape that y broadcasts against.
        view: from y (N, *measured) to pictures (N, h, w, C) of it in [-1, 1].
        baseline: from y to plain answers to stand beside, by name; none for some tasks.
    """

    name: str
    measurement: inverse.Measurement
    noise: inverse.Noise
    measured: np.ndarray | None
    view: Callable[[np.ndarray], np.ndarray]
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


def _inpaint(shape: Shape, o: Mapping[str, Any]) -> inverse.Measurement:
    mask = o["mask"]
    if mask == "box":
        return inverse.Inpainting.box(shape, o["box"] or min(shape[:2]) // 2)
    if mask == "random":
        return inverse.Inpainting.random(jax.random.key(o["operator_seed"]), shape, o["share"])
    if mask in problems.HALVES:
        return inverse.Inpainting.half(shape, mask.removeprefix("half-"))
    read = images.read_mask(
        "--mask", mask, shape, o["rendering"],
        white=", so that nothing is missing: --task=denoise is for noise alone", black=", so that nothing is measured",
    )  # fmt: skip
    return inverse.Inpainting.free(shape, read)


def _superres(shape: Shape, o: Mapping[str, Any]) -> inverse.Measurement:
    make = {"bicubic": inverse.SuperResolution.bicubic, "average": inverse.SuperResolution.average}
    return make[o["downsampling"]](shape, o["factor"])


def _odd(width: float) -> int:
    """The smallest odd number from `width` on."""
    return 2 * math.ceil((width - 1) / 2) + 1


def _kernel(shape: Shape, o: Mapping[str, Any]) -> np.ndarray:
    """The kernel (h, w). Widths are those of the papers for 256 pixels, less for smaller images, but a blur still."""
    relative = min(shape[:2]) / 256
    name, width = o["kernel"], o.get("kernel_width")
    side = max(shape[:2])
    if width is not None:
        # Gaussian kernels are 8 standard deviations wide; wider ones blur no more and need memory.
        most = side / 2 if name in ("gaussian", "anisotropic") else side
        if not 0 < width <= most:
            raise UserError(
                f"--kernel_width={width}: must be more than 0, in pixels, and at most {most:g} for --kernel={name} of "
                f"{shape[0]}x{shape[1]} images"
            )
    if name == "gaussian":
        std = width or max(3 * relative, 1.0)
        return inverse.gaussian_kernel(_odd(8 * std), std)
    if name == "anisotropic":
        std = width or max(20 * relative, 2.0)
        return inverse.gaussian_kernel(_odd(8 * std), (std / 4, std), o["kernel_angle"])
    if name == "motion":
        length = width or max(61 * relative, 3.0)
        return inverse.motion_kernel(_odd(length + 1), length, o["kernel_angle"])
    if name == "shake":
        size = _odd(width or max(61 * relative, 5.0))
        return inverse.shake_kernel(jax.random.key(o["operator_seed"]), size)
    kernel = images.read_grey("--kernel", name, rendering=o["rendering"])
    if not kernel.sum() > 0:
        raise UserError(f"--kernel={name} is black: a kernel needs light")
    if max(kernel.shape) > 2 * side + 1:
        raise UserError(
            f"--kernel={name}: is {kernel.shape[1]}x{kernel.shape[0]}, but {shape[0]}x{shape[1]} images need at most "
            f"{2 * side + 1} pixels to a side"
        )
    return kernel / kernel.sum()


def _deblur(shape: Shape, o: Mapping[str, Any]) -> inverse.Measurement:
    kernel = _kernel(shape, o)
    if o["kernel"] == "gaussian":
        row = kernel.sum(0)
        return inverse.SeparableBlur.of_kernels(shape, row, row, border=o["border"])
    if o["border"] == "wrap":
        return inverse.PeriodicBlur(event_shape=shape, kernel=kernel)
    return inverse.Blur(event_shape=shape, kernel=kernel, border=o["border"])


def _colorize(shape: Shape, o: Mapping[str, Any]) -> inverse.Measurement:
    if shape[2] != 3:
        raise UserError(f"--task=colorize: the model's images have {counted(shape[2], 'channel')}; colours are 3")
    return inverse.Colorization(event_shape=shape)


def _dejpeg(shape: Shape, o: Mapping[str, Any]) -> inverse.Measurement:
    chroma, known = o["chroma"], ("4:2:0", "4:4:4")
    if chroma is not None and shape[2] == 1:
        raise UserError(f"--chroma={chroma} does nothing: the model's images are grey")
    if chroma not in (None, *known):
        raise unknown_name("--chroma", chroma, known)
    return inverse.JPEG(quality=_between("--quality", o["quality"], 1, 100), subsampled_chroma=chroma != "4:4:4")


MEASUREMENTS = {
    "denoise": lambda shape, o: inverse.Denoising(event_shape=shape),
    "inpaint": _inpaint,
    "superres": _superres,
    "deblur": _deblur,
    "deblur-light": lambda shape, o: inverse.NonlinearBlur(kernel=_kernel(shape, o)),
    "colorize": _colorize,
    "dejpeg": _dejpeg,
    "hdr": lambda shape, o: inverse.HighDynamicRange(scale=_between("--contrast", o["contrast"], 1, 1000)),
    "phase": lambda shape, o: inverse.PhaseRetrieval(oversampling=_between("--oversampling", o["oversampling"], 1, 8)),
    "sensing": lambda shape, o: inverse.CompressedSensing.random(jax.random.key(o["operator_seed"]), shape, o["share"]),
}


def _between(flag: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise UserError(f"{flag}={value}: must be from {low} to {high}")
    return value


def _magnitudes(y: np.ndarray) -> np.ndarray:
    """The logarithm of magnitudes, zero frequency in the middle, from the least to the largest of each."""
    y = np.fft.fftshift(np.log10(np.maximum(y, 0) + 1e-3), (1, 2))  # noise makes some less than 0
    low, high = y.min((1, 2, 3), keepdims=True), y.max((1, 2, 3), keepdims=True)
    return 2 * (y - low) / np.maximum(high - low, 1e-6) - 1


# name -> caption -> (measurement, y, standard deviation of the noise) -> images
BASELINES = {
    "denoise": {"total variation": baselines.total_variation},
    "inpaint": {"biharmonic": lambda a, y, std: baselines.biharmonic(a, y)},
    "superres": {"bicubic": lambda a, y, std: baselines.bicubic(a, y)},
    "deblur": {"Wiener": baselines.wiener},
    "deblur-light": {"as measured": lambda a, y, std: y},
    "colorize": {"grey": lambda a, y, std: a.pseudo_inverse(y)},
    "dejpeg": {"as measured": lambda a, y, std: y},
    "phase": {"hybrid input-output": lambda a, y, std: baselines.hybrid_input_output(a, y)},
    "hdr": {"y / contrast": lambda a, y, std: y / a.scale},
    "sensing": {"total variation": baselines.total_variation},
}


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
    task = problems.task_of(name)
    make = task.make or MEASUREMENTS[name]
    try:
        measurement = make(shape, {**options, "rendering": rendering})
        y = jax.eval_shape(measurement.forward, jax.ShapeDtypeStruct((2, *shape), jnp.float32))
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"--task={name}: {' '.join(str(error).split())}") from error
    except UserError:
        raise
    except Exception as error:
        if task.make is None:
            raise
        raise UserError(
            f"--task={name}: {type(error).__name__}: {' '.join(str(error).split())[:400]}; {CONTRACT}"
        ) from error
    if task.make is not None and (getattr(y, "shape", ())[:1] != (2,) or not jnp.issubdtype(y.dtype, jnp.inexact)):
        found = f"{y.dtype} {y.shape}" if hasattr(y, "shape") else type(y).__name__
        raise UserError(f"--task={name}: forward gives {found} for images {(2, *shape)}; {CONTRACT}")
    measured = np.broadcast_to(measurement.mask, shape) if name == "inpaint" else None
    if measured is not None and not measured.any():
        flags = " ".join(
            f"--{flag}={options[flag]}" for flag in ("mask", "box", "share") if options.get(flag) is not None
        )
        raise UserError(f"{flags}: no pixel of the {shape[0]}x{shape[1]} ones is measured: leave some")
    views = {"phase": _magnitudes, "sensing": lambda y: np.asarray(measurement.pseudo_inverse(jnp.asarray(y)))}
    std = math.sqrt(float(jnp.mean(noise.variance(jnp.zeros(())))))  # of Poisson noise, that of middle grey

    def baseline(y):
        found = {caption: of(measurement, y, std) for caption, of in BASELINES.get(name, {}).items()}
        return found | {
            caption: _of_user(name, caption, of, measurement, y, std) for caption, of in task.baselines.items()
        }

    return Problem(name, measurement, noise, measured, views.get(name, np.asarray), baseline)


def _of_user(name: str, caption: str, of: Callable, measurement: inverse.Measurement, y: Any, std: float) -> np.ndarray:
    """What a baseline of the task of a user gives.

    Raises:
        UserError: it cannot be called, or gives something else than finite images.
    """
    baseline = f"--task={name}: the baseline {caption!r}"
    try:
        found = np.asarray(of(measurement, y, std), np.float32)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise UserError(f"{baseline}: {reason}; it is called as f(measurement, y, std)") from error
    if found.ndim != 4 or len(found) != len(y) or not np.isfinite(found).all():
        raise UserError(
            f"{baseline} gives {found.shape}, or values that are not finite; images (N, H, W, C) are needed"
        )
    return found


PUBLISHED_SIDE = 256  # pixels of the images for which the papers set what depends on the size


# name -> (prior, measurement, y, noise, settings) -> the Denoiser that knows y
POSTERIORS = {
    "pigdm": lambda prior, a, y, noise, s: inverse.PiGDM(prior, a, y, noise, **s),
    "mmps": lambda prior, a, y, noise, s: inverse.MMPS(prior, a, y, noise, **s),
    "tmpd": lambda prior, a, y, noise, s: inverse.TMPD(prior, a, y, noise),
    "dps": lambda prior, a, y, noise, s: inverse.DPS(prior, a, y, noise, **s),
    "ddnm": lambda prior, a, y, noise, s: inverse.DDNM(prior, a, y),
    "mcg": lambda prior, a, y, noise, s: inverse.ManifoldConstraint(prior, a, y, **s),
    "diffpir": lambda prior, a, y, noise, s: inverse.DiffPIR(prior, a, y, noise, **s),
    # It ends with y itself: the denoising step is at the smallest time.
    "projection": lambda prior, a, y, noise, s: guidance.Interval(
        inverse.DDNM(prior, a, y), prior, high=1.001 * prior.sde.noise_to_signal(prior.sde.t_min)
    ),
}

# name -> (measurement, y, noise, settings) -> the steps of a method that brings its own
STEPS = {
    "ddnm+": lambda a, y, noise, s: inverse.DDNMPlus(a, y, noise),
    "ddrm": lambda a, y, noise, s: inverse.DDRM(a, y, noise, **s),
    "replacement": lambda a, y, noise, s: inverse.Replacement(a, y, **s),
    "projection": lambda a, y, noise, s: inverse.Projection(
        a, y, sde_lib.Ancestral(), sde_lib.Langevin(s["snr"]) if s["snr"] else None, s["relaxation"]
    ),
    "repaint": lambda a, y, noise, s: inverse.RePaint(inverse.Replacement(a, y), **s),
    "resample": lambda a, y, noise, s: inverse.ReSample(a, y, noise, **s),
    "daps": lambda a, y, noise, s: inverse.DAPS(a, y, noise, **s),
}


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

    DPS and MCG make steps of one length, zeta, in the space of images; so that a pixel moves as far whatever the image's
    size, the published zeta, for 256 x 256 pixels, is taken in proportion to the side (of a rectangle, of the
    square of as many pixels).

    Raises:
        ValueError: the method cannot work with this measurement; of its noise it says so when it is used.
    """
    if "zeta" in settings:
        settings = {**settings, "zeta": settings["zeta"] * math.sqrt(shape[0] * shape[1]) / PUBLISHED_SIDE}
    posterior = POSTERIORS.get(name, lambda prior, *_: prior)(prior, measurement, y, noise, settings)
    if name in STEPS:
        return posterior, STEPS[name](measurement, y, noise, settings)
    return posterior, experiment.sampler


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
        jax.eval_shape(step, of.measurement, y, x)
    except ValueError as error:
        return str(error)
    return None


def with_sampling(config: ConfigDict, name: str) -> ConfigDict:
    """A copy of the config with the method's own keys of `sampling`, without a recommended sampler."""
    config = config.copy_and_resolve_references()
    config.sampling.evaluations = 0
    config.sampling.update(dict(problems.METHODS[name].sampling))
    return config
