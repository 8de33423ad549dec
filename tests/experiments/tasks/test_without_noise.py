"""Every posterior method on every task without noise: right values where they are known, finite ones elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.factory.experiment import Experiment
from experiments.inverse import build as inverse
from experiments.inverse import modalities, problems
from experiments.inverse import scanners as reconstruction
from sde_lib import VPSDE, exact
from sde_lib import inverse as operators
from tests.experiments.tiny import tiny_config

COLOUR, GREY = (4, 4, 3), (4, 4, 1)
SDE, STD, T, S = VPSDE(), 0.5, 0.5, 0.3
# As few inner steps as show each part of a method, for the sake of compilation.
SETTINGS = {
    "mmps": {"max_steps": 4}, "repaint": {"resamplings": 2, "substeps": 2}, "daps": {"langevin_steps": 3, "ode_steps": 2},
    "pigdm": {"data_std": STD}, "resample": {"fit_steps": 5},
}  # fmt: skip


def restored(name, shape=COLOUR, **options):
    return inverse.problem(name, shape, problems.task(name, options), inverse.noise(0.0))


def scanned(name, **options):
    measurement = reconstruction.simulated(name, GREY, modalities.options(name, options, measured=False))
    return reconstruction.scan_problem(name, measurement, 0.0)


# Tasks, and the same without information: a mean of the data at which the derivative is 0, or a mask of zeros.
TASKS = {
    "denoise": (lambda: restored("denoise"), None),
    "inpaint": (lambda: restored("inpaint"), "mask"),
    "superres": (lambda: restored("superres", factor=2.0), None),
    "deblur": (lambda: restored("deblur", kernel_width=0.5), None),
    "motion": (lambda: restored("deblur", kernel="motion", kernel_width=2.0), None),
    "deblur-light": (lambda: restored("deblur-light", kernel_width=0.5), None),
    "colorize": (lambda: restored("colorize"), None),
    "dejpeg": (lambda: restored("dejpeg"), 9.0),
    "hdr": (lambda: restored("hdr"), 9.0),
    "phase": (lambda: restored("phase", GREY), 0.0),
    "sensing": (lambda: restored("sensing", share=0.5), None),
    "mri": (lambda: scanned("mri", acceleration=2.0), "mask"),
    "coils": (lambda: scanned("mri", acceleration=2.0, coils=2), "mask"),
    "ct": (lambda: scanned("ct", angles=3), None),
}  # fmt: skip
# For independent pixels of one spread E[x_0 | x_t, y] is D + A^+ (y - A D) by each of these, where A is linear and well
# conditioned; by TMPD where values measured are independent too.
EXACT = {"pigdm", "mmps", "ddnm", "diffpir", "mcg", "tmpd"}
CONDITIONED = {"denoise", "inpaint", "superres", "colorize", "sensing", "mri"}


def test_every_task_is_here():
    assert {of().name for of, _ in TASKS.values()} == set(problems.TASKS) | set(modalities.MODALITIES)


QUICK = ("inpaint", "hdr", "phase", "coils")  # a task of each kind; `pytest -m thorough` tries the others


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=[] if task in QUICK else [pytest.mark.thorough]) for task in TASKS]
)
def test_methods_without_noise_are_right_or_finite_or_refuse(task):
    """At a D that y contradicts, and where y carries no information: there the prior's D is right."""
    of, blind = TASKS[task][0](), TASKS[task][1]
    measurement, refused = of.measurement, set()
    shape = GREY if of.name in (*modalities.MODALITIES, "phase") else COLOUR
    rng = np.random.default_rng(0)
    truth, x = (jnp.asarray(scale * rng.normal(size=(2, *shape)), jnp.float32) for scale in (0.3, 0.4))
    y = measurement.forward(truth)

    @jax.jit
    def steps(measurement, y, x, mean):
        """Of each method that can: the Denoiser at time T, the state after a step to S, and the Denoiser there."""
        found, prior = {}, exact.Gaussian(SDE, mean, STD)
        for name, spec in problems.METHODS.items():
            settings = {**spec.settings, **SETTINGS.get(name, {})}
            config = inverse.with_sampling(tiny_config(), name)
            try:
                denoiser, method = inverse.conditioned(
                    Experiment(config), name, settings, prior, measurement, y, of.noise, shape
                )
                keys = jax.random.split(jax.random.key(0), len(x))
                moved = method.step(method.init(x, denoiser, jnp.array([T, S])), keys, x, T, S, denoiser)[1]
            except ValueError as error:
                assert "needs a " in str(error) or "needs measurement noise" in str(error), error
                refused.add(name)
            else:
                found[name] = denoiser(x, T), moved, denoiser(moved, S)
        return found, prior(x, T), measurement.pseudo_inverse(y - measurement.forward(prior(x, T))) if linear else None

    linear = isinstance(measurement, operators.LinearMeasurement)
    found, d, correction = steps(measurement, y, x, 0.1)
    for name, arrays in found.items():
        assert np.isfinite(arrays).all(), name
        if name in EXACT and task in CONDITIONED and (name, task) != ("tmpd", "superres"):
            np.testing.assert_allclose(arrays[0], d + correction, atol=2e-4, err_msg=name)
    if blind is not None:
        if blind == "mask":
            dark, y, mean, start = measurement.replace(mask=jnp.zeros_like(measurement.mask)), 0 * y, 0.1, x
        else:
            dark, mean, start = measurement, blind, jnp.full_like(x, SDE.alpha(T) * blind)
        found, d, _ = steps(dark, y, start, mean)
        for name, arrays in found.items():
            assert np.isfinite(arrays).all(), name
            if problems.METHODS[name].posterior is not None and name != "projection":
                np.testing.assert_allclose(arrays[0], d, atol=1e-6, err_msg=name)
    spectral = set() if hasattr(measurement, "singular_values") else {"ddnm+", "ddrm"}
    assert refused == {"daps"} | spectral | (
        set() if linear else {"ddnm", "mcg", "replacement", "projection", "repaint"}
    )
