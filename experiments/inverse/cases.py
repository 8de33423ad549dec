"""The restorations and reconstructions by which `rank` compares methods."""

from typing import Any, NamedTuple


class Case(NamedTuple):
    """Arguments of `requests.restoration` or `requests.reconstruction` but for what is common to all cases.

    Attributes:
        command: "restore" or "reconstruct".
        name: of the task or modality.
        noise: standard deviation; stated, since the default of methods for exact measurements is 0.
        options: of the task or modality.
    """

    command: str
    name: str
    noise: float
    options: dict[str, Any] = {}


CASES = {
    "denoise": Case("restore", "denoise", 0.3),
    "inpaint-box": Case("restore", "inpaint", 0.05, {"mask": "box"}),
    "inpaint-random": Case("restore", "inpaint", 0.05, {"mask": "random", "share": 0.3}),
    "superres": Case("restore", "superres", 0.05, {"factor": 4.0}),
    "deblur": Case("restore", "deblur", 0.05, {"kernel": "gaussian"}),
    "deblur-motion": Case("restore", "deblur", 0.05, {"kernel": "motion"}),
    "deblur-light": Case("restore", "deblur-light", 0.05, {"kernel": "motion"}),
    "colorize": Case("restore", "colorize", 0.05),
    "sensing": Case("restore", "sensing", 0.05, {"share": 0.25}),
    "dejpeg": Case("restore", "dejpeg", 0.02, {"quality": 10.0}),
    "hdr": Case("restore", "hdr", 0.05),
    "phase": Case("restore", "phase", 0.05),
    "mri": Case("reconstruct", "mri", 0.02, {"mask": "random_lines", "acceleration": 4.0}),
    "mri-coils": Case("reconstruct", "mri", 0.02, {"mask": "radial", "acceleration": 6.0, "coils": 4}),
    "ct": Case("reconstruct", "ct", 0.02, {"angles": 20}),
    "ct-limited": Case("reconstruct", "ct", 0.02, {"angles": 40, "arc": 90.0}),
}
