"""Requests to `restore` and `reconstruct`, checked as far as possible without the model.

The command line and `rank` build their requests here, so that both are checked alike.
"""

from collections.abc import Mapping
from typing import Any

from experiments.errors import UserError
from experiments.inverse import modalities, problems
from experiments.inverse.modalities import Reconstruction
from experiments.inverse.problems import Restoration

DEFAULT_METHOD = "pigdm"  # of restore; modalities have one each


def restoration(
    task: str,
    options: Mapping[str, Any],
    *,
    method: str | None = None,
    noise: float | None = None,
    noise_kind: str = "gaussian",
    peak: float | None = None,
    **shared: Any,
) -> Restoration:
    """Returns a request to `restore`.

    Args:
        task: name of the task.
        options: options of the task that differ from its defaults.
        method: NAME or NAME:SETTING=VALUE,...; None for `DEFAULT_METHOD`.
        noise, noise_kind, peak: as --noise, --noise_kind and --peak; None for the default of the task.
        **shared: the other fields of `Request`.

    Raises:
        UserError: the task, an option, the method or the noise is unknown, out of range, or has no effect.
    """
    options = problems.task(task, options)
    name, settings = _method(method or DEFAULT_METHOD, shared["overrides"])
    measured = _is_measured(shared, "IMAGES")
    std, peak = problems.noise(task, name, noise, noise_kind, peak, given=measured)
    return Restoration(**shared, options=options, method=name, settings=settings, noise=std, task=task, peak=peak)


def reconstruction(
    modality: str,
    options: Mapping[str, Any],
    *,
    method: str | None = None,
    noise: float | None = None,
    white: float | None = None,
    axis: str | None = None,
    window: str | None = None,
    slices: str | None = None,
    **shared: Any,
) -> Reconstruction:
    """Returns a request to `reconstruct`.

    Args:
        modality: name of the modality.
        options: options of the modality that differ from its defaults.
        method: as of `restoration`; None for the default of the modality.
        noise: standard deviation; None for the default.
        white: intensity that is white in `input`; None to estimate it.
        axis, window, slices: as --axis, --window and --slices.
        **shared: the other fields of `Request`.

    Raises:
        UserError: as of `restoration`.
    """
    given = shared["input"] is not None
    options = modalities.options(modality, options, measured=given)
    measured = _is_measured(shared, "FILE")
    if white is not None and shared["truth"] is not None:
        raise UserError(f"--white={white} does nothing: --truth says what is white")
    if white is not None and not 0 < white < float("inf"):
        raise UserError(f"--white={white}: must be more than 0")
    name, settings = _method(method or modalities.DEFAULT_METHODS[modality], shared["overrides"])
    std = modalities.noise(name, noise, measured=measured)
    axis, window, chosen = modalities.of_volume(shared["truth"], axis, window, slices)
    return Reconstruction(
        **shared, options=options, method=name, settings=settings, noise=std, modality=modality, axis=axis,
        window=window, chosen=chosen, white=white,
    )  # fmt: skip


def _is_measured(shared: Mapping[str, Any], kind: str) -> bool:
    """Returns True if measurements are given, False if --truth is to be measured.

    Raises:
        UserError: neither is given; the message names the kind of file.
    """
    if shared["input"] is None and shared["truth"] is None:
        raise UserError(f"--input={kind} is needed, or --truth={kind} to be measured")
    return shared["input"] is not None


def _method(text: str, overrides: list[tuple[str, str]]) -> tuple[str, dict[str, Any]]:
    """Returns the name and the settings of a method.

    Raises:
        UserError: there is no such method or setting, or an override has no effect on it.
    """
    name, settings = problems.method(text)
    problems.check_overrides(name, overrides)
    return name, settings
