"""What `edit` may be asked for by name, and the request; the objects are made in `build.py`.

Read before anything slow is loaded, as `problems.py` is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.editing.styles import STYLES
from experiments.inverse import problems

# Features of a style -> how far their figures may be from the style's, unless the user says so.
STYLE_STD = {name: features.std for name, features in STYLES.items()}

# What keeps the pixels outside of a mask -> its settings: those of `restore` that are Denoisers and work without noise.
MASKED_BY: Mapping[str, Mapping[str, Any]] = {
    "replacement": {},
    **{name: method.settings for name, method in problems.METHODS.items() if method.masks},
}


@dataclass(frozen=True)
class Edit:
    """What the command line asks for.

    Attributes:
        workdir, overrides: the run, and (key, text) pairs of config.sampling.
        input: IMAGES.
        out: the folder to write.
        strength: of the noise, in (0, 1].
        mask, strokes, style: files, or None.
        masked_by, settings: what keeps the pixels outside of the mask, by name, and its settings.
        style_features: the name of what is compared with the style.
        style_std: how far its figures may be from the style's.
        label: the class by name or number, or None.
        answers: how many for each input.
        seed: of the answers.
        limit: only so many inputs; None for all.
    """

    workdir: Path
    overrides: list[tuple[str, str]]
    input: str
    out: Path
    strength: float
    mask: str | None
    masked_by: str
    settings: Mapping[str, Any]
    strokes: str | None
    style: str | None
    style_features: str
    style_std: float
    label: int | str | None
    answers: int
    seed: int
    limit: int | None
