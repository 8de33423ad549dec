"""Records of restore tasks and of posterior methods: everything that the commands know of one task or method.

A task has one file in `tasks/`, a method one in `methods/`. These are read before anything slow is loaded, so that a wrong
name or a flag without effect is refused at once: JAX is imported inside their functions alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from experiments.config.ranges import Range
from experiments.errors import UserError

FILE = "FILE"  # any choice that is not among the named ones: an image file
NOISE_OF_METHODS = ("known", "not asked", "none")
NEEDS = ("products", "many products", "pseudo_inverse", "normal_solve", "singular_values")


@dataclass(frozen=True)
class Task:
    """A restore task: a measurement of images, its flags, and classical restorations for comparison.

    Attributes:
        summary: for --help.
        flags: of its own, with their defaults; None is a default that depends on the size of the images.
        choices: for a flag that chooses, the allowed values and the other flags that each value uses.
        noise: the standard deviation of the noise, if none is given.
        image: whether the measured values are an image too, which can be read from a file and have Poisson noise.
        make: (shape of an image, options) -> Measurement.
        baselines: classical restorations: caption -> (measurement, y, standard deviation) -> images.
        help: meaning of each flag for --help; "{choices}" stands for the allowed values.
        view: (measurement, y) -> pictures (N, h, w, C) of y in [-1, 1]; None where y is an image, or has no picture.
        measured: (measurement, shape) -> 1 for the values of y that are measured and 0 for others; None for all.
        kinds: for flags whose type is not that of the default: "count" from 1, "seed", "number", "text", or a function
            of the text.
        cases: restorations by which `rank` compares methods: name -> (standard deviation of the noise, options).
        document: explanation with its source, for `describe`.
        name: by default that of the file, with - for _.
    """

    summary: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    noise: float = 0.05
    image: bool = True
    make: Callable[[tuple[int, ...], Mapping[str, Any]], Any] | None = None
    baselines: Mapping[str, Callable[[Any, Any, float], Any]] = field(default_factory=dict)
    help: Mapping[str, str] = field(default_factory=dict)
    view: Callable[[Any, Any], Any] | None = None
    measured: Callable[[Any, tuple[int, ...]], Any] | None = None
    kinds: Mapping[str, str | Callable[[str], Any]] = field(default_factory=dict)
    cases: Mapping[str, tuple[float, Mapping[str, Any]]] = field(default_factory=dict)
    document: str = ""
    name: str = ""


@dataclass(frozen=True)
class Method:
    """A posterior method: samples of images given a measurement. It defines `posterior`, `steps` or both.

    Attributes:
        summary: for --help.
        sampling: keys of config.sampling that the method sets; --steps and --config.sampling override them.
        settings: options after its name, with their defaults.
        ranges: allowed values of the settings; a setting without a range takes every number.
        posterior: (prior, measurement, y, noise, settings) -> posterior Denoiser; None keeps the prior.
        steps: (measurement, y, noise, settings) -> Sampler; None takes `sampling.sampler`.
        noise: use of the measurement noise: "known", "not asked", "none" (y is taken as exact, so that the noise of
            simulated measurements is 0 unless it is given).
        asks: the most that a step needs of a linear measurement: "products" with A and A^T, "many products", a hundred or
            so, or that of its methods: "pseudo_inverse", "normal_solve" or "singular_values".
        proportional: settings that are given for images of 256 x 256 pixels, in proportion to the side for others.
        masks: whether `edit --masked_by` offers it: a posterior Denoiser that works without noise.
        document: explanation with its source, for `describe`.
        name: by default that of the file, with - for _.
    """

    summary: str
    sampling: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    posterior: Callable[[Any, Any, Any, Any, Mapping[str, Any]], Any] | None = None
    steps: Callable[[Any, Any, Any, Mapping[str, Any]], Any] | None = None
    noise: str = "known"
    asks: str = "normal_solve"
    proportional: tuple[str, ...] = ()
    masks: bool = False
    document: str = ""
    name: str = ""

    @property
    def own_steps(self) -> bool:
        """True for a method that brings its steps, so that `sampling.sampler` has no effect."""
        return self.steps is not None


# Keys of config.sampling that several methods have; the best of what `benchmark --suite=inverse` tried.
ANCESTRAL = {"sampler": "ancestral", "times": "quadratic", "steps": 100}
PUBLISHED = {"sampler": "ddim", "eta": 1.0, "steps": 250}


def between(flag: str, value: float, low: float, high: float) -> float:
    """Returns the value of a flag that lies in [low, high].

    Raises:
        UserError: it lies outside.
    """
    if not low <= value <= high:
        raise UserError(f"{flag}={value}: must be from {low} to {high}")
    return value
