"""The files of edits without chance: one picture of each kind for each input.

| file             | has                                                |
|------------------|----------------------------------------------------|
| `sheet.png`      | a row for each input, a column for each kind       |
| `NAME_KIND.png`  | one picture                                        |
| `answers.npz`    | an array for each kind, floats on the scale [0, 1] |
| `results.json`   | the settings and the figures                       |
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.files import Results, replace_file, strict_json
from experiments.inverse.results import unit
from experiments.media import Medium
from experiments.plotting import sheet


def write(
    out: Path,
    names: Sequence[str],
    kinds: Mapping[str, np.ndarray],
    medium: Medium,
    told: Mapping[str, Any],
    notes: Mapping[str, Sequence[str]] | None = None,
) -> Results:
    """Writes the files into a folder, made if need be; the summary of the results is left to the command.

    Args:
        out: the folder.
        names: of the N inputs.
        kinds: images (N, H, W, C) in the model's range, by kind.
        medium: of the images.
        told: what `results.json` says.
        notes: texts below the pictures of a kind.
    """
    out.mkdir(parents=True, exist_ok=True)
    pictures = {kind: medium.inverse(images) for kind, images in kinds.items()}
    columns = [sheet.Column(kind, medium.shown(shown), (notes or {}).get(kind, ())) for kind, shown in pictures.items()]
    sheet.save(out / "sheet.png", columns, names)
    files = []
    for kind, shown in pictures.items():
        for name, picture in zip(names, shown, strict=True):
            files.append(out / f"{name}_{kind}.png")
            sheet.save_picture(files[-1], picture)
    arrays = {"names": np.array(names), **{kind: unit(images) for kind, images in kinds.items()}}
    with replace_file(out / "answers.npz") as file:
        np.savez_compressed(file, **arrays)
    strict_json.write(out / "results.json", told)
    files = (out / "sheet.png", *files, out / "answers.npz", out / "results.json")
    return Results(files=files, metrics=told, arrays=arrays)
