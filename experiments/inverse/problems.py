"""The names of tasks and methods, what they are, and the flags that each uses; what they stand for is in `build.py`.

Read before anything slow is loaded, so that a wrong name or a flag that would do nothing is refused at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from experiments.config import ranges
from experiments.config.components import component, is_path
from experiments.errors import UserError, nearest, unknown_name
from experiments.inverse.request import Request

FILE = "FILE"  # any choice that is not among the named ones: an image file
NOISES = ("gaussian", "poisson")
MOST_NOISE = 1000.0  # standard deviation; images lie in [-1, 1]
PEAKS = 1e-3, 1e8  # expected counts of a white pixel; samples of larger ones exceed int32


@dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
        summary: for --help.
        flags: of its own, with their defaults; None is a default that depends on the size of the images.
        choices: for a flag that chooses, what may be chosen and the flags that each choice uses besides.
        noise: the standard deviation of the noise, if none is given.
        image: whether what is measured is an image too: it is then read as one, and can have Poisson noise.
        make: of a task of the user, (shape of an image, options) -> Measurement; imported when it is used.
        baselines: of a task of the user, classical answers: caption -> (measurement, y, standard deviation) -> images.
        help: of a task of the user, the meaning of each flag for --help.
    """

    summary: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    noise: float = 0.05
    image: bool = True
    make: Callable[[tuple[int, ...], Mapping[str, Any]], Any] | None = None
    baselines: Mapping[str, Callable[[Any, Any, float], Any]] = field(default_factory=dict)
    help: Mapping[str, str] = field(default_factory=dict)


KERNELS = {
    "gaussian": ("kernel_width",),
    "anisotropic": ("kernel_width", "kernel_angle"),
    "motion": ("kernel_width", "kernel_angle"),
    "shake": ("kernel_width", "operator_seed"),
    FILE: (),
}
BLUR = {"kernel": "gaussian", "kernel_width": None, "kernel_angle": 45.0, "operator_seed": 0}
HALVES = {f"half-{side}": () for side in ("left", "right", "top", "bottom")}

TASKS = {
    "denoise": Task("the image with noise", noise=0.3),
    "inpaint": Task(
        "pixels are missing (--mask)",
        {"mask": "box", "box": None, "share": 0.3, "operator_seed": 0},
        {"mask": {"box": ("box",), "random": ("share", "operator_seed"), **HALVES, FILE: ()}},
    ),
    "superres": Task(
        "a smaller image (--factor)",
        {"factor": 4.0, "downsampling": "bicubic"},
        {"downsampling": {"bicubic": (), "average": ()}},
    ),
    "deblur": Task(
        "a blurred image (--kernel)",
        {**BLUR, "border": "reflect"},
        {"kernel": KERNELS, "border": {"reflect": (), "wrap": ()}},
    ),
    "deblur-light": Task("as deblur, of the light before it is coded: not linear", BLUR, {"kernel": KERNELS}),
    "colorize": Task("the grey levels of a colour image"),
    "dejpeg": Task(
        "the image from a JPEG file (--quality)",
        {"quality": 10.0, "chroma": None},
        noise=0.0,
    ),
    "hdr": Task("clip(contrast x): what is darkest and lightest is lost", {"contrast": 2.0}),
    "phase": Task("magnitudes of the Fourier transform", {"oversampling": 2.0}, image=False),
    "sensing": Task(
        "few coefficients of a randomized cosine transform", {"share": 0.25, "operator_seed": 0}, image=False
    ),
}


@dataclass(frozen=True)
class Method:
    """How answers are drawn.

    Attributes:
        summary: for --help.
        sampling: the keys of config.sampling that it has of its own, which --steps and --config.sampling override.
        settings: what can be set after its name, with the defaults.
        own_steps: whether it brings a step of its own, so that `sampling.sampler` says nothing.
        noise: what it makes of the measurement's noise: "known", "not asked", "none" (what is measured is taken as
            exact, so that the noise of measurements that are made is 0 unless it is given).
        asks: the most that a step asks of a linear measurement: "products" with A and A^T, "many products", a hundred or
            so, or that of its methods: "pseudo_inverse", "normal_solve" or "singular_values".
    """

    summary: str
    sampling: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    own_steps: bool = False
    noise: str = "known"
    asks: str = "normal_solve"


# The best of what `benchmark --suite=inverse` tried.
ANCESTRAL = {"sampler": "ancestral", "times": "quadratic", "steps": 100}
PUBLISHED = {"sampler": "ddim", "eta": 1.0, "steps": 250}


METHODS = {
    "pigdm": Method("pseudo-inverse guidance; any task", ANCESTRAL, {"data_std": 0.5}),
    "mmps": Method(
        "moment matching, by the network's Jacobian; any task",
        ANCESTRAL,
        {"max_steps": 1, "rtol": 1e-3},
        asks="products",
    ),
    "tmpd": Method("moment projection, by the network's Jacobian; any task", ANCESTRAL, asks="products"),
    "dps": Method("the gradient of the misfit; any task", PUBLISHED, {"zeta": 1.0}, noise="not asked", asks="products"),
    "mcg": Method(
        "the same, and what is measured put in place; linear, no noise",
        PUBLISHED,
        {"zeta": 1.0},
        noise="none",
        asks="pseudo_inverse",
    ),
    "ddnm": Method(
        "what is measured put in place; linear, no noise",
        {"sampler": "ddim", "eta": 0.85, "steps": 100},
        noise="none",
        asks="pseudo_inverse",
    ),
    "ddnm+": Method("the same with noise; linear, spectral", {"steps": 100}, own_steps=True, asks="singular_values"),
    "ddrm": Method(
        "each singular direction by itself; linear, spectral",
        {"times": "quadratic", "steps": 50},
        {"eta": 0.85, "eta_b": 1.0},
        True,
        asks="singular_values",
    ),
    "diffpir": Method("a compromise at each step; any task", ANCESTRAL, {"strength": 3.0}),
    "replacement": Method(
        "noisy measurements put in place (score_sde); linear, no noise",
        {"steps": 250},
        {"relaxation": 1.0},
        True,
        "none",
        "pseudo_inverse",
    ),
    "projection": Method(
        "a projection before each step (Song et al. 2022, for MRI and CT); linear, no noise",
        {"steps": 125},
        {"relaxation": 1.0, "snr": 0.16},
        True,
        "none",
        "pseudo_inverse",
    ),
    "repaint": Method(
        "the same, each step made again and again; linear, no noise",
        {"steps": 25},
        {"resamplings": 10, "substeps": 10},
        True,
        "none",
        "pseudo_inverse",
    ),
    "resample": Method(
        "made to fit at each step by optimisation, then noise; any task",
        {"times": "quadratic", "steps": 100},
        {"gamma": 40.0, "fit_steps": 50},
        True,
        asks="many products",
    ),
    "daps": Method(
        "data drawn anew at each noise level by Langevin dynamics; any task",
        {"steps": 100},
        {"ode_steps": 5, "langevin_steps": 100, "step_size": 0.1, "data_std": float("inf")},
        True,
        asks="many products",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Restoration(Request):
    """What `restore` is asked.

    Attributes:
        task: its name.
        peak: of Poisson noise, in place of Gaussian; None for Gaussian.
    """

    task: str
    peak: float | None


def task_of(name: str) -> Task:
    """Returns the task of a name, or the `Task` of the user at an import path.

    Raises:
        UserError: there is no such task, or the object at the import path is none.
    """
    found = component("--task", name, TASKS)
    missing = [part for part in ("summary", "flags", "choices", "noise", "image", "make") if not hasattr(found, part)]
    std = getattr(found, "noise", None)
    if not missing and (not isinstance(std, int | float) or not 0 <= std <= MOST_NOISE):
        raise UserError(f"--task={name}: its noise is {std!r}; a standard deviation of at least 0 is needed")
    if missing or (is_path(name) and not callable(found.make)):
        what = f"{type(found).__name__} has no {missing[0]}" if missing else "its make is no function"
        raise UserError(
            f"--task={name}: {what}; a task is an experiments.inverse.problems.Task whose make(shape, options) returns a "
            "Measurement"
        )
    return found


def task(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a task: its defaults, and over them the flags that were given.

    Args:
        name: of the task.
        given: the flags of tasks on the command line, without those left out.

    Raises:
        UserError: there is no such task, a choice is unknown, or a flag would do nothing.
    """
    spec = task_of(name)
    options = {**spec.flags, **given}
    conditional = {flag for choices in spec.choices.values() for uses in choices.values() for flag in uses}
    used, because = set(spec.flags) - conditional, ""
    for flag, choices in spec.choices.items():
        choice = options[flag]
        key = choice if choice in choices else FILE
        if key not in choices or (key == FILE and "." not in choice):
            raise unknown_name(f"--{flag}", choice, choices)
        used |= set(choices[key])
        because += f" --{flag}={choice}"
    for flag in given:
        if flag not in used:
            allowed = ", ".join(f"--{name}" for name in spec.flags if name in used) or "no flags of its own"
            raise UserError(f"--{flag}={given[flag]} does nothing for --task={name}{because}, which uses {allowed}")
    return {flag: value for flag, value in options.items() if flag in used}


def method(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the settings of NAME or NAME:SETTING=VALUE,SETTING=VALUE.

    Raises:
        UserError: there is no such method or setting, or a value is of another kind.
    """
    return named_settings("--method", text, {name: spec.settings for name, spec in METHODS.items()})


def named_settings(flag: str, text: str, known: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
    """The name and the settings of NAME or NAME:SETTING=VALUE,SETTING=VALUE.

    Args:
        flag: that the text was given to, for messages.
        text: of the user.
        known: names, and the settings of each with their defaults.

    Raises:
        UserError: there is no such name or setting, or a value is of another kind.
    """
    name, _, rest = text.partition(":")
    if name not in known:
        raise unknown_name(flag, name, known)
    settings = dict(known[name])
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if key not in settings or not equals:
            known = ", ".join(f"{key}={value}" for key, value in settings.items()) or "none"
            raise UserError(
                f"{flag}={text}: {part!r} is no setting of {name}, which are {known}{nearest(key, settings)}"
            )
        try:
            settings[key] = type(settings[key])(value)
        except ValueError:
            kind = "a whole number" if type(settings[key]) is int else "a number"
            raise UserError(f"{flag}={text}: {key} must be {kind}, such as {settings[key]}") from None
        if not (allowed := ranges.of_setting(name, key)).allows(settings[key]):
            raise UserError(f"{flag}={text}: {key} must {allowed.demand(settings[key])}")
    return name, settings


def check_overrides(name: str, overrides: list[tuple[str, str]]) -> None:
    """Makes sure that no (key, text) pair of the config does nothing for the method of that name.

    Raises:
        UserError: one does.
    """
    for key, text in overrides:
        if key in ("sampling.sampler", "sampling.evaluations") and METHODS[name].own_steps:
            raise UserError(f"--config.{key}={text} does nothing: --method={name} brings its own steps")


def check_std(std: float) -> None:
    """Makes sure that --noise is a standard deviation that float32 can restore from.

    Raises:
        UserError: it is negative, above `MOST_NOISE`, or no number.
    """
    if not 0 <= std <= MOST_NOISE:
        raise UserError(f"--noise={std}: must be at least 0 and at most {MOST_NOISE:g}; black to white is 2")


def noise(
    name: str, method_name: str, std: float | None, kind: str, peak: float | None, *, given: bool
) -> tuple[float, float | None]:
    """The standard deviation of Gaussian noise and the peak of Poisson noise, one of which counts.

    Args:
        name: of the task.
        method_name: of the method.
        std, kind, peak: --noise, --noise_kind and --peak, None where they are left out.
        given: whether the measurements are given, so that only the method has a use for the noise.

    Raises:
        UserError: they do not go together, or would do nothing.
    """
    if kind not in NOISES:
        raise unknown_name("--noise_kind", kind, NOISES)
    unused = METHODS[method_name].noise in ("none", "not asked")
    if given and unused and (std is not None or kind != "gaussian"):
        what = f"--noise={std}" if std is not None else f"--noise_kind={kind}"
        raise UserError(f"{what} does nothing: --method={method_name} does not ask for the noise of --input")
    if kind == "gaussian":
        if peak is not None:
            raise UserError(f"--peak={peak} does nothing without --noise_kind=poisson")
        if std is not None:
            check_std(std)
        return (0.0 if METHODS[method_name].noise == "none" else task_of(name).noise) if std is None else std, None
    if std is not None:
        raise UserError(f"--noise={std} does nothing with --noise_kind=poisson, which --peak sets")
    if peak is None:
        raise UserError("--noise_kind=poisson needs --peak, the expected count of a white pixel, such as --peak=100")
    if not PEAKS[0] <= peak <= PEAKS[1]:
        raise UserError(
            f"--peak={peak}: must be at least {PEAKS[0]:g} and at most {PEAKS[1]:g}, the expected count of a white pixel"
        )
    if not task_of(name).image:
        raise UserError(f"--noise_kind=poisson: counts are of light, but --task={name} measures no image")
    return 0.0, peak


def flags() -> list[str]:
    """The flags of all tasks."""
    return list(dict.fromkeys(flag for spec in TASKS.values() for flag in spec.flags))


def choices(flag: str) -> list[str]:
    """What a flag of the tasks may choose."""
    found = (spec.choices[flag] for spec in TASKS.values() if flag in spec.choices)
    return list(dict.fromkeys(choice for choices in found for choice in choices))


def table(entries: Mapping[str, Task | Method]) -> str:
    """Names and summaries, a line each, for --help."""
    width = max(map(len, entries)) + 2
    return "\n".join(f"  {name:{width}}{entry.summary}" for name, entry in entries.items())
