"""What scanners measured, from .npz files: k-space of MRI, projections of CT; and the intensities that it is of.

MRI: `kspace`, complex (N, H, W) or (N, coils, H, W), with the zero frequency at (H // 2, W // 2); `mask`, (H, W), 1 where
sampled; `maps`, complex (coils, H, W), the coils' sensitivities. It is y = mask F (maps u) of images u >= 0 with the
orthonormal transform F about the middle pixel. Images are real: whatever phase they have must be in `maps`, which may be
(1, H, W) for one coil. It is checked: of an image made of the frequencies whose negatives are sampled too, at most
`MOST_IMAGINARY` of the energy may be imaginary.

CT: `projections`, (N, angles, bins), and `angles`, in degrees, evenly spaced. It is the integral of u along the rays
X cos(angle) + Y sin(angle) = s, X to the right and Y up from the middle, in units of a pixel's side; bins are one pixel
apart and centred on s = 0. `mask`, (angles, bins), may be there: 0 for rays that do not count, as those through metal, where
`projections` may hold anything.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.data.sources import npz
from experiments.data.sources.paths import existing
from experiments.errors import UserError

MOST_IMAGINARY = 0.1
UNEVEN = 0.01  # of the step between angles
LEAST_ARC = 7.0  # degrees; a full turn is 6.28 in radians
LARGEST = 1e15  # of magnitudes; sums of squares of larger ones overflow float32
ARRAYS = {"mri": ("kspace", "mask", "maps"), "ct": ("projections", "angles", "mask")}
OPTIONAL = {"mri": ("maps",), "ct": ("mask",)}


@dataclass(frozen=True)
class KSpace:
    """k-space as above.

    Attributes:
        values: complex64 (N, coils, H, W), 0 where not sampled.
        mask: booleans (H, W).
        maps: complex64 (coils, H, W); None for one coil that sees all alike.
    """

    values: np.ndarray
    mask: np.ndarray
    maps: np.ndarray | None


@dataclass(frozen=True)
class Projections:
    """Projections as above.

    Attributes:
        values: float32 (N, angles, bins), 0 where they do not count.
        angles: (angles,), in radians.
        mask: booleans (angles, bins); None where all rays count.
    """

    values: np.ndarray
    angles: np.ndarray
    mask: np.ndarray | None


def read_kspace(flag: str, text: str, size: tuple[int, int], limit: int | None) -> KSpace:
    """k-space of images of size (height, width).

    Raises:
        UserError: arrays are missing or do not fit, the zero frequency is not in the middle, or images have a phase.
    """
    path, arrays = _arrays(flag, text, "mri")
    values, mask, maps = arrays["kspace"][:limit], arrays["mask"], arrays.get("maps")
    _require_slices(flag, path, "kspace", values)
    if not np.iscomplexobj(values) or values.ndim not in (3, 4) or not values.size:
        raise UserError(f"{flag}: {path}: 'kspace' is {_what(values)}; complex (N, H, W) or (N, coils, H, W) is needed")
    coils = values.shape[1] if values.ndim == 4 else 1
    with np.errstate(over="ignore"):  # infinite then, and refused below
        values = values.reshape(len(values), coils, *values.shape[-2:]).astype(np.complex64)
    height, width = size
    if values.shape[2:] != size:
        raise UserError(
            f"{flag}: {path}: 'kspace' is {_what(arrays['kspace'])}; the model's images are {height} x {width}"
        )
    mask = _mask(flag, path, mask, size, "kspace")
    if maps is not None:
        if not np.iscomplexobj(maps) or maps.shape != (coils, *size):
            raise UserError(
                f"{flag}: {path}: 'maps' is {_what(maps)}; complex ({coils}, {height}, {width}) is needed, as 'kspace' is"
            )
        maps = maps.astype(np.complex64)
        _require_finite(flag, path, "maps", maps)
    elif coils > 1:
        raise UserError(f"{flag}: {path}: 'kspace' of {coils} coils needs 'maps', complex ({coils}, {height}, {width})")
    found = KSpace(values * mask, mask, maps)
    _require_values(flag, path, "kspace", found.values)
    _require_centred(flag, path, found.values)
    _require_real(flag, path, found)
    return found


def read_projections(flag: str, text: str, size: tuple[int, int], most_bins: int, limit: int | None) -> Projections:
    """Projections of images of size (height, width), of which `most_bins` see the corners too.

    Raises:
        UserError: arrays are missing or do not fit.
    """
    path, arrays = _arrays(flag, text, "ct")
    values, angles = arrays["projections"][:limit], arrays["angles"]
    _require_slices(flag, path, "projections", values)
    if values.dtype.kind not in "iuf" or values.ndim != 3 or not values.size:
        raise UserError(f"{flag}: {path}: 'projections' is {_what(values)}; real (N, angles, bins) is needed")
    if angles.shape != values.shape[1:2] or angles.dtype.kind not in "iuf":
        raise UserError(
            f"{flag}: {path}: 'angles' is {_what(angles)}; {values.shape[1]} are needed, as in 'projections'"
        )
    height, width = size
    if not max(size) <= values.shape[2] <= most_bins:
        raise UserError(
            f"{flag}: {path}: 'projections' has {values.shape[2]} bins, one pixel apart: images of {height} x {width} are "
            f"seen by {max(size)} to {most_bins}"
        )
    mask = arrays.get("mask")
    if mask is not None:
        mask = _mask(flag, path, mask, values.shape[1:], "projections")
        values = np.where(mask, values, 0)
    _require_values(flag, path, "projections", values)
    _require_finite(flag, path, "angles", angles)
    steps = np.diff(angles.astype(float))
    if len(steps) and not (steps.min() > 0 and np.ptp(steps) <= UNEVEN * steps.max()):
        raise UserError(f"{flag}: {path}: 'angles' must rise evenly; the steps are {steps.min():g} to {steps.max():g}")
    if len(angles) > 3 and angles[-1] - angles[0] < LEAST_ARC:
        raise UserError(
            f"{flag}: {path}: 'angles' from {angles[0]:g} to {angles[-1]:g} look like radians: degrees are needed"
        )
    return Projections(values.astype(np.float32), np.deg2rad(angles.astype(float)), mask)


def imaginary_share(scan: KSpace) -> float:
    """Of all images' energy, by the frequencies whose negatives are sampled too: 0 for real ones, 1/2 for any phase."""
    both = scan.mask & np.roll(np.flip(scan.mask), [1 - side % 2 for side in scan.mask.shape], (0, 1))
    shifted = np.fft.ifftshift(scan.values * both, (-2, -1))
    images = np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho"), (-2, -1))
    images = (images if scan.maps is None else np.conj(scan.maps) * images).sum(1)
    total = np.square(np.abs(images)).sum()
    return float(np.square(images.imag).sum() / total) if total else 0.0


def channels(values: np.ndarray) -> np.ndarray:
    """Complex (...) as float32 (..., 2), real and imaginary part."""
    return np.stack([values.real, values.imag], -1).astype(np.float32)


def _arrays(flag: str, text: str, modality: str) -> tuple[Path, dict[str, np.ndarray]]:
    path = existing(text, flag)
    if path.suffix.lower() != ".npz":
        what = path.suffix or "a file without an ending"
        raise UserError(f"{flag}: {path}: unknown file type {what}: measurements are read from .npz files")
    with npz.opened(path, flag) as file:
        for name in ARRAYS[modality]:
            if name not in file.files and name not in OPTIONAL[modality]:
                known = ", ".join(file.files) or "none"
                raise UserError(
                    f"{flag}: {path} has no array {name!r}, which --modality={modality} needs; it has {known}"
                )
        return path, {name: npz.array(path, file, name, flag) for name in ARRAYS[modality] if name in file.files}


def _mask(flag: str, path: Path, mask: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """A mask as booleans.

    Args:
        flag, path: of the file, for messages.
        mask: as read.
        shape: that it must have.
        name: of the array that it masks.

    Raises:
        UserError: it has another shape, values other than 0 and 1, or no 1.
    """
    if mask.shape != shape:
        fault = ""
    elif mask.dtype.kind not in "biuf":
        fault = "; its values are no numbers"
    elif not (finite := np.isfinite(mask)).all():
        fault = f"; {(~finite).sum()} of its {mask.size} values are not finite"
    elif not mask.any():
        fault = "; all values are 0: nothing is measured"
    elif np.isin(mask, (0, 1)).all():
        return mask.astype(bool)
    elif mask.min() < 0:
        fault = f"; the smallest value is {mask.min():g}"
    elif mask.max() != 1:
        fault = f"; the largest value is {mask.max():g}: divide by it"
    else:
        fault = f"; there are others between: {mask[(mask > 0) & (mask < 1)][0]:g}"
    sides = ", ".join(map(str, shape))
    raise UserError(f"{flag}: {path}: 'mask' is {_what(mask)}; ({sides}) of 0 and 1 is needed, as {name!r} is{fault}")


def _require_slices(flag: str, path: Path, name: str, values: np.ndarray) -> None:
    if values.ndim > 2 and not len(values):
        raise UserError(f"{flag}: {path}: {name!r} is {_what(values)}: there are no slices")


def _require_values(flag: str, path: Path, name: str, values: np.ndarray) -> None:
    """Raises `UserError` for measurements that are not finite, all 0, or beyond what float32 can square and add."""
    _require_finite(flag, path, name, values)
    largest = np.abs(values).max()
    if not largest:
        raise UserError(f"{flag}: {path}: all values of {name!r} that 'mask' leaves are 0: nothing is measured")
    if largest > LARGEST:
        raise UserError(
            f"{flag}: {path}: magnitudes of {name!r} reach {largest:.3g}; at most {LARGEST:g} is needed: divide by it"
        )


def _require_centred(flag: str, path: Path, values: np.ndarray) -> None:
    """Images are positive, so no frequency is as strong as 0."""
    strength = np.abs(values).sum((0, 1))
    place = np.unravel_index(strength.argmax(), strength.shape)
    middle = tuple(side // 2 for side in strength.shape)
    if max(abs(a - b) for a, b in zip(place, middle, strict=True)) > min(strength.shape) // 4:
        place = ", ".join(map(str, place))
        raise UserError(
            f"{flag}: {path}: 'kspace' is strongest at ({place}); the zero frequency must be at {middle}: apply fftshift"
        )


def _require_real(flag: str, path: Path, scan: KSpace) -> None:
    share = imaginary_share(scan)
    if share > MOST_IMAGINARY:
        raise UserError(
            f"{flag}: {path}: {share:.0%} of the image's energy is imaginary, but the model's images are real: put the "
            "image's phase into 'maps', complex (coils, H, W)"
        )


def _require_finite(flag: str, path: Path, name: str, values: np.ndarray) -> None:
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise UserError(f"{flag}: {path}: {bad} of the {values.size} values of {name!r} are not finite")


def _what(array: np.ndarray) -> str:
    return f"{array.dtype}{array.shape}"
