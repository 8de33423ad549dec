"""What `reconstruct` knows before anything slow is loaded: modalities, the flags of each, and the request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.errors import UserError, unknown_name
from experiments.inverse import problems
from experiments.inverse.request import Request

# The flags that say how a measurement is made of --truth, with their defaults.
MODALITIES = {
    "mri": {"mask": "random_lines", "acceleration": 4.0, "coils": 1, "operator_seed": 0},
    "ct": {"angles": 30, "arc": 180.0, "metal": None},
}
MASKS = ("random_lines", "equispaced", "radial", "spiral")
DEFAULT_METHODS = {"mri": "pigdm", "ct": "projection"}
NOISE = 0.02


@dataclass(frozen=True, kw_only=True)
class Reconstruction(Request):
    """What `reconstruct` is asked.

    Attributes:
        modality: its name.
        axis, window, chosen: of a volume: across which axis its slices lie, what is black and white, which slices.
        white: the intensity that is white in what `input` measures; None to estimate it.
    """

    modality: str
    axis: str
    window: tuple[float, float] | None
    chosen: slice
    white: float | None


def flags() -> list[str]:
    """Those of all modalities."""
    return [flag for flags in MODALITIES.values() for flag in flags]


def options(name: str, given: Mapping[str, Any], *, measured: bool) -> dict[str, Any]:
    """How measurements are made: the defaults, and over them the flags that were given.

    Args:
        name: of the modality.
        given: the flags of modalities on the command line, without those left out.
        measured: whether there are measurements already.

    Raises:
        UserError: there is no such modality or mask, or a flag would do nothing or cannot be.
    """
    if name not in MODALITIES:
        raise unknown_name("--modality", name, MODALITIES)
    if measured:
        for flag, value in given.items():
            raise UserError(f"--{flag}={value} does nothing with --input, which says itself how it was measured")
        return {}
    found = {**MODALITIES[name], **given}
    if found.get("mask", MASKS[0]) not in MASKS:
        raise unknown_name("--mask", found["mask"], MASKS)
    unused = [] if found.get("mask") == "random_lines" else ["operator_seed"]
    for flag in given:
        if flag not in MODALITIES[name] or flag in unused:
            chosen = f" --mask={found['mask']}" if flag in MODALITIES[name] else ""
            allowed = ", ".join(f"--{flag}" for flag in MODALITIES[name] if flag not in unused)
            raise UserError(f"--{flag}={given[flag]} does nothing for --modality={name}{chosen}, which uses {allowed}")
    if "acceleration" in found and not found["acceleration"] >= 1:
        raise UserError(f"--acceleration={found['acceleration']}: must be at least 1, which samples all")
    if "arc" in found and not 0 < found["arc"] <= 360:
        raise UserError(f"--arc={found['arc']}: must be more than 0 and at most 360 degrees")
    return found


def noise(method: str, std: float | None, *, measured: bool) -> float:
    """The standard deviation of the noise.

    Raises:
        UserError: it is outside of the range of `problems.check_std`, or would do nothing.
    """
    use = problems.method_of(method).noise
    if std is None:
        return 0.0 if use == "none" else NOISE
    problems.check_std(std)
    if measured and use in ("none", "not asked"):
        raise UserError(f"--noise={std} does nothing: --method={method} does not ask for the noise of --input")
    return std


def of_volume(
    truth: str | None, axis: str | None, window: str | None, slices: str | None
) -> tuple[str, tuple[float, float] | None, slice]:
    """The axis, what is black and white, and which slices, of --axis, --window and --slices.

    Args:
        truth: --truth.
        axis, window, slices: as they were given, None where they are left out.

    Raises:
        UserError: one of them is not as it should be, or the truth is no volume.
    """
    from experiments.data.inputs import volumes

    for flag, text in (("axis", axis), ("window", window), ("slices", slices)):
        if text is not None and (truth is None or not volumes.is_volume(truth)):
            raise UserError(f"--{flag}={text} does nothing: it is for a --truth that is a volume (NIfTI or DICOM)")
    if axis is not None and axis not in volumes.AXES:
        raise unknown_name("--axis", axis, volumes.AXES)
    try:
        low_and_high = None if window is None else tuple(float(part) for part in window.split(","))
        ordered = low_and_high is None or (len(low_and_high) == 2 and low_and_high[0] < low_and_high[1])
    except ValueError:
        ordered = False
    if not ordered:
        raise UserError(f"--window={window}: must be two rising numbers, LOW,HIGH, such as -160,240")
    try:
        parts = [int(part) if part else None for part in (slices or ":").split(":")]
        if not 2 <= len(parts) <= 3 or (parts[2:] and not parts[2] > 0):
            raise ValueError
    except (ValueError, TypeError):
        raise UserError(f"--slices={slices}: must be FIRST:END or FIRST:END:STEP, such as 20:60:4") from None
    return axis or "axial", low_and_high, slice(*parts)
