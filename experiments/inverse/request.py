"""What `restore` and `reconstruct` are both asked, checked as far as it can be without the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Request:
    """Answers to an inverse problem.

    Attributes:
        workdir, overrides: the run, and (key, text) pairs of config.sampling.
        options: how measurements are made.
        method, settings: the name of the method and its settings.
        input: what was measured, or None.
        truth: to compare with, or to measure, or None.
        out: the folder to write.
        answers: how many for each input.
        seed: of the answers, and of the noise of measurements that are made.
        limit: only so many inputs; None for all.
        noise: standard deviation of Gaussian noise.
    """

    workdir: Path
    overrides: list[tuple[str, str]]
    options: Mapping[str, Any]
    method: str
    settings: Mapping[str, Any]
    input: str | None
    truth: str | None
    out: Path
    answers: int
    seed: int
    limit: int | None
    noise: float
