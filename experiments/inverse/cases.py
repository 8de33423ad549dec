"""The restorations and reconstructions by which `rank` compares methods."""

from typing import Any, NamedTuple

from experiments.inverse.tasks import TASKS


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
    case: Case("restore", name, noise, dict(options))
    for name, task in TASKS.items()
    for case, (noise, options) in task.cases.items()
} | {
    "mri": Case("reconstruct", "mri", 0.02, {"mask": "random_lines", "acceleration": 4.0}),
    "mri-coils": Case("reconstruct", "mri", 0.02, {"mask": "radial", "acceleration": 6.0, "coils": 4}),
    "ct": Case("reconstruct", "ct", 0.02, {"angles": 20}),
    "ct-limited": Case("reconstruct", "ct", 0.02, {"angles": 40, "arc": 90.0}),
}
