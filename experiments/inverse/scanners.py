"""Names of modalities and of masks -> what a scanner measures of an image."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.inputs import images, scans
from experiments.data.sources.rendering import Rendering
from experiments.errors import UserError
from experiments.inverse import baselines
from experiments.inverse.build import Problem
from sde_lib import inverse

CENTER = 0.32  # of the lines sampled, those in the middle: 8 % of all lines at an acceleration of 4, as fastMRI's
# Pixels up to which two matrices multiply faster than the measurement does, on a CPU: for CT five times at 32 x 32 and no
# longer at 64 x 64; several coils' Fourier transforms are always faster.
FASTER_BY_MATRICES = {"mri": 0, "ct": 32 * 32}
PERCENTILE = 99.5  # of a plain reconstruction, which is white where no intensity is given


def _lines(make: Callable[..., jax.Array]) -> Callable[[tuple[int, int], Mapping[str, Any]], jax.Array]:
    """As many lines, columns of k-space, as sample 1 / acceleration of the points."""

    def mask(shape, o):
        total = round(shape[1] / o["acceleration"])
        if not total:
            raise ValueError(f"acceleration={o['acceleration']} samples none of the {shape[1]} lines")
        center = min(max(round(CENTER * total), 1), total)
        return make(o, shape, o["acceleration"], center)

    return mask


def _turned(
    make: Callable[[tuple[int, int], int], jax.Array],
) -> Callable[[tuple[int, int], Mapping[str, Any]], jax.Array]:
    """As few spokes or turns as sample 1 / acceleration of the points."""

    def mask(shape, o):
        for count in range(1, 4 * max(shape)):
            found = make(shape, count)
            if found.mean() >= 1 / o["acceleration"]:
                return found
        return jnp.ones(shape, bool)

    return mask


MASKS = {
    "random_lines": _lines(lambda o, *of: inverse.random_lines_mask(jax.random.key(o["operator_seed"]), *of)),
    "equispaced": _lines(lambda o, *of: inverse.equispaced_mask(*of)),
    "radial": _turned(inverse.radial_mask),
    "spiral": _turned(inverse.spiral_mask),
}


def _kspace(shape, mask, maps) -> inverse.LinearMeasurement:
    mask = jnp.asarray(mask, jnp.float32)
    if maps is None:
        return inverse.FourierSampling(event_shape=shape, mask=mask)
    return inverse.MultiCoilFourierSampling(event_shape=shape, mask=mask, coil_maps=jnp.asarray(maps, jnp.float32))


def _radon(shape, angles, detectors=None, mask=None) -> inverse.Radon:
    mask = None if mask is None else jnp.asarray(mask, jnp.float32)
    angles = jnp.asarray(angles, jnp.float32)
    return inverse.CompletedRadon(event_shape=shape, angles=angles, detectors=detectors, mask=mask)


def _simulated_mri(shape, o):
    maps = inverse.birdcage_maps(shape[:2], o["coils"]) if o["coils"] > 1 else None
    return _kspace(shape, MASKS[o["mask"]](shape[:2], o), maps)


def _sees(radon: inverse.Radon) -> bool:
    """Whether a ray that is not lost goes through the image."""
    return bool(radon.forward(jnp.ones((1, *radon.event_shape))).any())


def _simulated_ct(shape, o):
    radon = _radon(shape, inverse.parallel_angles(o["angles"], np.deg2rad(o["arc"])))
    if o["metal"] is None:
        return radon
    metal = images.read_mask(
        "--metal", o["metal"], shape, o["rendering"],
        white=": every ray through the image goes through metal",
        black=": metal is white; without any, leave it out",
    )  # fmt: skip
    masked = radon.replace(mask=jnp.asarray(inverse.metal_mask(radon, metal), jnp.float32))
    if not _sees(masked):
        raise UserError(f"--metal={o['metal']}: every ray through the image goes through metal")
    return masked


SIMULATED = {"mri": _simulated_mri, "ct": _simulated_ct}


def _read_mri(flag, text, shape, limit):
    scan = scans.read_kspace(flag, text, shape[:2], limit)
    maps = None if scan.maps is None else scans.channels(scan.maps)
    y = scans.channels(scan.values)
    return _kspace(shape, scan.mask, maps), y[:, 0] if maps is None else y


def _read_ct(flag, text, shape, limit):
    scan = scans.read_projections(flag, text, shape[:2], _radon(shape, np.zeros(1)).num_detectors(), limit)
    radon = _radon(shape, scan.angles, scan.values.shape[2], scan.mask)
    if not _sees(radon):
        raise UserError(f"{flag}: {text}: none of the rays that 'mask' leaves goes through the image")
    return radon, scan.values[..., None]


READ = {"mri": _read_mri, "ct": _read_ct}


def _log_magnitude(y: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Of k-space (N, [coils,] H, W, 2), of all coils together: four powers of ten below the largest are black."""
    power = np.square(y).sum(-1)
    power = power.reshape(len(y), -1, *power.shape[-2:]).sum(1)[..., None]
    largest = power.max((1, 2, 3), keepdims=True)
    return 1 + np.log10(np.maximum(power / np.where(largest > 0, largest, 1), 1e-8)) / 4


def _stretched(y: np.ndarray, measured: np.ndarray | None) -> np.ndarray:
    """Sinograms (N, angles, bins, 1), from their least to their largest value; lost rays are black."""
    there = np.ones((1, 1, 1), bool) if measured is None else measured != 0
    low = y.min((1, 2, 3), keepdims=True, where=there, initial=np.inf)
    high = y.max((1, 2, 3), keepdims=True, where=there, initial=-np.inf)
    return np.where(there, 2 * (y - low) / np.where(high > low, high - low, 1) - 1, -1)


VIEWS = {"mri": _log_magnitude, "ct": _stretched}
PLAIN = {
    "mri": ("zero-filled", baselines.zero_filled),
    "ct": ("filtered back-projection", baselines.filtered_back_projection),
}


def scan_problem(name: str, measurement: inverse.LinearMeasurement, std: float) -> Problem:
    """The problem of a modality: its measurement, with Gaussian noise."""
    caption, plain = PLAIN[name]
    measured = None if measurement.mask is None else np.asarray(measurement.mask)[..., None]

    def baseline(y):
        return {caption: plain(measurement, y), "total variation": baselines.total_variation(measurement, y, std)}

    view = functools.partial(VIEWS[name], measured=measured)
    return Problem(name, measurement, inverse.GaussianNoise(std), measured, view, baseline)


def for_checks(of: Problem) -> Problem:
    """The problem with all that `for_methods` may give a method, for `check_method`: nothing is decomposed yet."""
    if hasattr(of.measurement, "singular_values") or not inverse.Decomposed.fits(of.measurement):
        return of
    return dataclasses.replace(of, measurement=inverse.Decomposed.abstract(of.measurement))


def for_methods(of: Problem, asks: str) -> tuple[Problem, float]:
    """The problem in units of y in which A has norm 1, and the unit: y / unit is its measurement.

    Methods whose steps are set by hand (DPS, DAPS) are set for such an A; a projection sums up to a whole diagonal. Where
    images are small, A is decomposed if that serves what the method asks. What has closed singular values is left as it
    is: k-space of one coil, whose norm is 1.

    Args:
        of: the problem.
        asks: as of `records.Method`.
    """
    if hasattr(of.measurement, "singular_values"):
        return of, 1.0
    unit = float(jax.jit(inverse.operator_norm)(of.measurement)) or 1.0  # of a scan that measures nothing, any
    measurement = inverse.Scaled(measurement=of.measurement, factor=1 / unit)
    if _is_served(of, asks) and inverse.Decomposed.fits(measurement):
        measurement = inverse.Decomposed.of(measurement)
    return dataclasses.replace(of, measurement=measurement, noise=inverse.GaussianNoise(of.noise.std / unit)), unit


def _is_served(of: Problem, asks: str) -> bool:
    """Whether a decomposition is of use: for many products of small images, and for solves that have no closed form.

    CT has its filtered back-projection as a closed pseudo-inverse. The exact one of few angles, besides, makes too much of
    the noise: `projection` fell from 29 to 16 dB.
    """
    if asks == "products":
        return False
    if asks == "many products":
        return int(np.prod(of.measurement.event_shape)) <= FASTER_BY_MATRICES[of.name]
    own = getattr(type(of.measurement), asks, None)
    return own is None or own is getattr(inverse.LinearMeasurement, asks, None)


def simulated(
    name: str, shape: tuple[int, int, int], options: Mapping[str, Any], rendering: Rendering = images.RENDERING
) -> inverse.LinearMeasurement:
    """The measurement of a scanner with the options of `modalities.options`; `rendering` is of the picture of metal.

    Raises:
        UserError: an option does not fit the images.
    """
    try:
        return SIMULATED[name](shape, {**options, "rendering": rendering})
    except ValueError as error:
        raise UserError(f"--modality={name}: {error}") from error


def read_scan(
    name: str, flag: str, text: str, shape: tuple[int, int, int], limit: int | None
) -> tuple[inverse.LinearMeasurement, np.ndarray]:
    """What a scanner has measured, y (N, *measured) of intensities, and how.

    Raises:
        UserError: the file is not as `scans` wants it.
    """
    return READ[name](flag, text, shape, limit)


def white_of(name: str, measurement: inverse.LinearMeasurement, y: np.ndarray) -> float:
    """The intensity that is white: a percentile of the plain reconstructions of all slices."""
    intensities = _intensities(name, measurement, jnp.asarray(y))
    return float(np.percentile(intensities, PERCENTILE))


def _intensities(name, measurement, y):
    # The plain reconstruction is of -1 + u where y is A(-1 + u) = A u - A(1).
    black = measurement.forward(jnp.full((1, *measurement.event_shape), baselines.BLACK, y.dtype))
    return PLAIN[name][1](measurement, y + black) - baselines.BLACK


def on_the_models_scale(measurement: inverse.LinearMeasurement, y: np.ndarray, low: float, high: float) -> jax.Array:
    """y of intensities u as that of x = 2 (u - low) / (high - low) - 1: A x = (2 A u - (high + low) A(1)) / (high - low)."""
    one = measurement.forward(jnp.ones((1, *measurement.event_shape), jnp.float32))
    return (2 * jnp.asarray(y) - (high + low) * one) / (high - low)
