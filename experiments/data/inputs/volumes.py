"""Slices of volumes: NIfTI and DICOM in, NIfTI out. Both are read as data; nothing in them is executed.

| input                        | slices                                                                               |
|------------------------------|--------------------------------------------------------------------------------------|
| `.nii`, `.nii.gz`            | of the volume turned to its nearest right-anterior-superior (RAS) axes, along `axis`  |
| `.dcm`, a folder of a series | the same, after the files are sorted by position and their rescale slope is applied  |

As shown, an axial slice has anterior on top, the others superior; right is at the right, and in sagittal slices anterior is.

Intensities v become (v - low) / (high - low), clipped to [0, 1]: the window is the user's, or the DICOM file's own, or the
percentiles 0.5 and 99.5 of the whole volume. `Volume.intensities` is the way back.

Source: DICOM PS3.3, C.7.6.2.1.1, https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_C.7.6.2.html, for the
position of pixels; DICOM counts left and posterior as positive, NIfTI right and anterior.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.data.sources.paths import existing
from experiments.errors import UserError
from experiments.files import naming

AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
NIFTI, DICOM = (".nii", ".nii.gz"), (".dcm", ".ima")
PERCENTILES = (0.5, 99.5)
UNEVEN = 0.05  # of the smallest gap between slices, by which another may be wider


@dataclasses.dataclass(frozen=True)
class Volume:
    """Slices of one volume.

    Attributes:
        names: N.
        slices: float32 (N, H, W) in [0, 1].
        low, high: the intensities that are black and white.
        window: where these are from, in words.
        affine: (4, 4), from (column, row, slice, 1) to millimetres right, anterior and superior.
    """

    names: tuple[str, ...]
    slices: np.ndarray
    low: float
    high: float
    window: str
    affine: np.ndarray

    def intensities(self, unit: np.ndarray) -> np.ndarray:
        """Of values on the scale of `slices`."""
        return self.low + (self.high - self.low) * unit

    def fitted(self, size: tuple[int, int]) -> "Volume":
        """Slices of size (height, width): padded with black to its aspect ratio, then resized with antialiasing."""
        (height, width), (rows, columns) = self.slices.shape[1:], size
        tall = max(height, round(width * rows / columns))
        wide = max(width, round(height * columns / rows))
        above, left = (tall - height) // 2, (wide - width) // 2
        margins = ((0, 0), (above, tall - height - above), (left, wide - width - left))
        slices = np.pad(self.slices, margins)
        if (tall, wide) != size:
            bicubic = Image.Resampling.BICUBIC
            slices = np.stack([np.asarray(Image.fromarray(image).resize((columns, rows), bicubic)) for image in slices])
        scale = np.array([wide / columns, tall / rows])
        change = np.diag([*scale, 1.0, 1.0])
        change[:2, 3] = (scale - 1) / 2 - np.array([left, above])  # centres of pixels, where indices point to
        return dataclasses.replace(self, slices=slices.clip(0, 1), affine=self.affine @ change)


def is_volume(text: str) -> bool:
    """Whether a file or folder, by its name or by what is in it, is NIfTI or DICOM."""
    path = Path(text).expanduser()
    if path.is_dir():
        return any(file.suffix.lower() in DICOM for file in path.iterdir())
    return path.name.lower().endswith(NIFTI) or path.suffix.lower() in DICOM


def read(
    flag: str,
    text: str,
    axis: str = "axial",
    window: tuple[float, float] | None = None,
    chosen: slice = slice(None),
    limit: int | None = None,
) -> Volume:
    """The slices of a volume.

    Args:
        flag: that the text was given to, for messages.
        text: a NIfTI file, a DICOM file, or a folder of the DICOM files of one series.
        axis: a name of `AXES`, across which the slices lie.
        window: (low, high); None as above.
        chosen: which of the slices.
        limit: of these, only the first so many.

    Raises:
        UserError: it is no such volume, or none of its slices is chosen.
    """
    path = existing(text, flag)
    data, affine, own_window = _nifti(flag, path) if path.name.lower().endswith(NIFTI) else _dicom(flag, path)
    if not np.isfinite(data).all():
        raise UserError(f"{flag}: {path}: {int((~np.isfinite(data)).sum())} of {data.size} intensities are not finite")
    slices, affine = _slices(data, affine, AXES[axis])
    low, high, words = _window(flag, path, slices, window, own_window)
    numbers = np.arange(len(slices))[chosen][:limit]
    if not len(numbers):
        raise UserError(f"{flag}: {path} has {len(slices)} {axis} slices, of which none is chosen")
    affine = affine.copy()
    affine[:, 3] += affine[:, 2] * numbers[0]
    affine[:, 2] *= numbers[1] - numbers[0] if len(numbers) > 1 else 1
    names = tuple(f"{axis}_{number:04d}" for number in numbers)
    unit = np.clip((slices[numbers] - low) / (high - low), 0, 1).astype(np.float32)
    return Volume(names, unit, low, high, words, affine)


def write(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    """Writes (N, H, W) as NIfTI, float32.

    Raises:
        OSError: the file cannot be written.
    """
    nibabel = _library("--out", path, "nibabel")
    image = nibabel.Nifti1Image(np.asarray(values, np.float32).transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm")
    with naming(path):
        image.to_filename(path)


def _library(flag: str, path: Path, name: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise UserError(f'{flag}: {path} needs {name}: pip install -e ".[medical]"') from error


def _nifti(flag: str, path: Path) -> tuple[np.ndarray, np.ndarray, None]:
    """Intensities float32 (x, y, z) and their affine, as the file has them."""
    nibabel = _library(flag, path, "nibabel")
    try:
        image = nibabel.load(path)
        data = np.asanyarray(image.dataobj)
    except (nibabel.filebasedimages.ImageFileError, OSError, ValueError, EOFError) as error:
        raise UserError(f"{flag}: {path} is not a NIfTI file ({str(error).splitlines()[0]})") from error
    shape = data.shape
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3 or not data.size:
        raise UserError(f"{flag}: {path} has the dimensions {_sides(shape)}: one volume of three is needed")
    if data.dtype.kind not in "iuf":
        raise UserError(f"{flag}: {path} holds {data.dtype}: one real intensity for each voxel is needed")
    affine = np.asarray(image.affine, float)
    if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UserError(f"{flag}: {path} has axes that do not span space (its affine is singular)")
    return data.astype(np.float32), affine, None


def _dicom(flag: str, path: Path) -> tuple[np.ndarray, np.ndarray, tuple[float, float] | None]:
    """Intensities float32 (column, row, slice), their affine, and the window that the files ask for."""
    pydicom = _library(flag, path, "pydicom")
    files = sorted(f for f in path.iterdir() if f.suffix.lower() in DICOM) if path.is_dir() else [path]
    read = []
    for file in files:
        try:
            read.append(pydicom.dcmread(file))
        except (pydicom.errors.InvalidDicomError, OSError, EOFError, ValueError) as error:
            raise UserError(f"{flag}: {file} is not a DICOM file ({str(error).splitlines()[0]})") from error
    series = {str(data.get("SeriesInstanceUID", "")) for data in read}
    if len(series) > 1:
        raise UserError(f"{flag}: {path} holds {len(series)} series: a folder of one is needed")
    pixels = [_pixels(flag, file, data) for file, data in zip(files, read, strict=True)]
    if len({image.shape for image in pixels}) > 1:
        raise UserError(f"{flag}: {path}: the slices have different sizes")
    first = read[0]
    across, down = np.split(np.asarray(first.ImageOrientationPatient, float), 2)
    normal = np.cross(across, down)
    positions = np.array([np.asarray(data.ImagePositionPatient, float) for data in read])
    order = np.argsort(positions @ normal)
    positions = positions[order]
    affine = np.eye(4)
    row_spacing, column_spacing = (float(value) for value in first.PixelSpacing)
    affine[:3, 0], affine[:3, 1] = across * column_spacing, down * row_spacing
    affine[:3, 2] = normal * float(first.get("SliceThickness") or 1)
    if len(read) > 1:
        gaps = np.diff(positions @ normal)
        if not (gaps.min() > 0 and np.ptp(gaps) <= UNEVEN * gaps.min()):
            raise UserError(
                f"{flag}: {path}: its slices are {gaps.min():g} to {gaps.max():g} mm apart: some are missing or double"
            )
        affine[:3, 2] = (positions[-1] - positions[0]) / (len(read) - 1)
    affine[:3, 3] = positions[0]
    centre, width = (_first_number(first.get(name)) for name in ("WindowCenter", "WindowWidth"))
    own = (centre - width / 2, centre + width / 2) if width > 0 and np.isfinite(centre) else None
    data = np.stack([pixels[i] for i in order], -1).transpose(1, 0, 2)
    return data, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, own


def _first_number(value: Any) -> float:
    """Of an attribute of a DICOM file, which may have several; NaN where it is missing or empty."""
    return float("nan") if value is None or value == "" else float(np.atleast_1d(value)[0])


def _pixels(flag: str, file: Path, data: Any) -> np.ndarray:
    """Intensities float32 (row, column) of one file."""
    for name in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "PixelData"):
        if data.get(name) is None:
            raise UserError(f"{flag}: {file} has no {name}: slices of MRI or CT are needed")
    if data.get("PhotometricInterpretation") != "MONOCHROME2" or int(data.get("NumberOfFrames") or 1) > 1:
        raise UserError(
            f"{flag}: {file} has {data.get('NumberOfFrames') or 1} frames of {data.get('PhotometricInterpretation')}: "
            "one of MONOCHROME2 is needed in each file"
        )
    try:
        pixels = data.pixel_array
    except Exception as error:  # of whichever decoder its compression asks for
        reason = str(error).splitlines()[0]
        raise UserError(f"{flag}: {file}: its pixels cannot be decoded ({reason})") from error
    slope, intercept = (float(data.get(name, value)) for name, value in (("RescaleSlope", 1), ("RescaleIntercept", 0)))
    return pixels.astype(np.float32) * slope + intercept


def _slices(data: np.ndarray, affine: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Slices (N, H, W) across an axis of RAS, and their affine from (column, row, slice)."""
    data, affine = _canonical(data, affine)
    right, up = (i for i in range(3) if i != axis)
    slices = np.flip(data.transpose(axis, up, right), 1)
    turn = np.zeros((4, 4))
    turn[right, 0] = turn[axis, 2] = turn[3, 3] = 1
    turn[up, 1], turn[up, 3] = -1, data.shape[up] - 1
    return slices, affine @ turn


def _canonical(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The volume with its axes permuted and flipped so that they point most nearly right, anterior, superior."""
    import nibabel

    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(data, affine))
    return np.asarray(turned.dataobj), turned.affine


def _window(flag, path, slices, window, own) -> tuple[float, float, str]:
    """(low, high), and where they are from."""
    if window is not None:
        return *window, "--window"
    if own is not None:
        return *own, "the file's window"
    low, high = (float(value) for value in np.percentile(slices, PERCENTILES))
    if not high > low:
        raise UserError(f"{flag}: {path}: nearly all intensities are {low:g}: give --window=LOW,HIGH")
    return low, high, "percentiles {} and {} of the volume".format(*PERCENTILES)


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "none"
