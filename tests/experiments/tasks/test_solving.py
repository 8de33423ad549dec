"""How a task draws its answers: settings of every method, keys of the run that are read, what `results.json` says."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

import sde_lib
from experiments import factory
from experiments.editing import build as editing
from experiments.factory.experiment import Experiment
from experiments.generation import answers
from experiments.inverse import build as inverse
from experiments.inverse import problems, solving
from sde_lib import exact, guidance
from sde_lib import inverse as library
from tests.experiments.tiny import fake_run, tiny_config

SHAPE = (4, 4, 1)
A, Y, NOISE = library.Denoising(event_shape=SHAPE), np.full((1, *SHAPE), 0.25, np.float32), library.GaussianNoise(0.3)
PRIOR = exact.Gaussian(sde_lib.VPSDE(t_min=1e-3))

# method -> settings away from every default, the class of its Denoiser or steps, their fields
POSTERIORS = {
    "pigdm": ({"data_std": 0.7}, library.PiGDM, {"data_std": 0.7}),
    "mmps": ({"max_steps": 3, "rtol": 0.2}, library.MMPS, {"max_steps": 3, "rtol": 0.2}),
    "tmpd": ({}, library.TMPD, {}),
    "dps": ({"zeta": 2.0}, library.DPS, {"zeta": 2.0 * 4 / 256}),
    "mcg": ({"zeta": 3.0}, library.ManifoldConstraint, {"zeta": 3.0 * 4 / 256}),
    "ddnm": ({}, library.DDNM, {}),
    "diffpir": ({"strength": 5.0}, library.DiffPIR, {"strength": 5.0}),
}
STEPS = {
    "ddnm+": ({}, library.DDNMPlus, {}),
    "ddrm": ({"eta": 0.3, "eta_b": 0.6}, library.DDRM, {"eta": 0.3, "eta_b": 0.6}),
    "replacement": ({"relaxation": 0.4}, library.Replacement, {"relaxation": 0.4, "predictor": sde_lib.Ancestral()}),
    "projection": (
        {"relaxation": 0.4, "snr": 0.2}, library.Projection,
        {"relaxation": 0.4, "predictor": sde_lib.Ancestral(), "corrector": sde_lib.Langevin(0.2)},
    ),
    "repaint": ({"resamplings": 3, "substeps": 2}, library.RePaint, {"resamplings": 3, "substeps": 2}),
    "resample": ({"gamma": 9.0, "fit_steps": 7}, library.ReSample, {"gamma": 9.0, "fit_steps": 7}),
    "daps": (
        {"ode_steps": 2, "langevin_steps": 3, "step_size": 0.4, "data_std": 2.0}, library.DAPS,
        {"ode_steps": 2, "langevin_steps": 3, "step_size": 0.4, "data_std": 2.0},
    ),
}  # fmt: skip
# Those that are told the noise of y; the others take y as exact.
NOISY = {"pigdm", "mmps", "tmpd", "dps", "diffpir", "ddnm+", "ddrm", "resample", "daps"}


def conditioned(name, settings, config=None):
    config = tiny_config(sampling__sampler="ddim") if config is None else config
    return inverse.conditioned(Experiment(config), name, settings, PRIOR, A, Y, NOISE, SHAPE)


@pytest.mark.parametrize("name", problems.METHODS)
def test_a_method_has_its_settings_its_measurement_and_its_noise(name):
    settings, kind, fields = (POSTERIORS | STEPS)[name]
    assert settings.keys() == problems.METHODS[name].settings.keys()
    posterior, method = conditioned(name, settings)
    if name in POSTERIORS:
        found = posterior
        assert method == factory.sampler(tiny_config(sampling__sampler="ddim")) and found.denoiser is PRIOR
    else:
        found = method
        assert (posterior is PRIOR) == (name != "projection")
    assert type(found) is kind
    assert {key: getattr(found, key) for key in fields} == fields
    inner = found.sampler if name == "repaint" else found
    assert inner.measurement is A and inner.y is Y
    assert name != "repaint" or (type(inner) is library.Replacement and inner.relaxation == 1.0)
    if name in NOISY:
        assert inner.measurement_noise is NOISE


def test_a_projection_without_correction_has_no_langevin_steps():
    assert conditioned("projection", {"relaxation": 1.0, "snr": 0.0})[1].corrector is None


def test_a_projection_ends_with_y_itself_at_the_smallest_time_alone():
    posterior, _ = conditioned("projection", {"relaxation": 1.0, "snr": 0.16})
    assert type(posterior) is guidance.Interval and type(posterior.denoiser) is library.DDNM
    assert posterior.outside is PRIOR and posterior.low == 0
    x = jnp.zeros((1, *SHAPE))
    np.testing.assert_allclose(posterior(x, jnp.float32(1e-3)), Y, rtol=1e-5)
    for t in (1.01e-3, 0.5):
        np.testing.assert_allclose(posterior(x, jnp.float32(t)), PRIOR(x, jnp.float32(t)), atol=1e-7)


def test_an_obstacle_is_looked_for_in_one_step_of_the_process(monkeypatch):
    """From the smallest time of sampling, with the settings and the noise of the problem; of states with a velocity too."""
    seen = {}

    class Step:
        def init(self, x, denoiser, t):
            seen.update(x=x.shape, sde=denoiser.sde)
            return ()

        def step(self, carry, keys, x, t, s, denoiser):
            seen.update(keys=keys.shape)
            return carry, x * (t - s)

    def made(config, name, settings, prior, measurement, y, noise, shape):
        seen.update(settings=settings, name=name, y=y.shape, noise=noise, shape=shape)
        return prior, Step()

    monkeypatch.setattr(inverse, "conditioned", made)
    of = inverse.problem("superres", SHAPE, problems.task("superres", {"factor": 2.0}), NOISE)
    config = tiny_config("vp", sampling__t_min=0.02)
    assert inverse.obstacle(Experiment(config), "dps", {"zeta": 2.0}, of, SHAPE) is None
    assert seen == {
        "settings": {"zeta": 2.0}, "name": "dps", "y": (1, 2, 2, 1), "noise": NOISE, "shape": SHAPE, "x": (1, *SHAPE),
        "keys": (1,), "sde": factory.sde(config, 0.02),
    }  # fmt: skip
    inverse.obstacle(Experiment(tiny_config("critically_damped")), "dps", {"zeta": 2.0}, of, SHAPE)
    assert seen["x"] != (1, *SHAPE)


def test_a_method_that_cannot_names_those_that_can_with_their_own_settings(monkeypatch):
    asked = []

    def obstacle(config, name, settings, of, shape):
        asked.append((name, settings))
        return None if name in ("dps", "daps") else "no"

    monkeypatch.setattr(inverse, "obstacle", obstacle)
    inverse.check_method(None, "dps", {"zeta": 9.0}, None, SHAPE)
    assert asked == [("dps", {"zeta": 9.0})]
    with pytest.raises(inverse.UnsolvableError, match=r"^--method=ddrm: no; methods that can: daps, dps$"):
        inverse.check_method(None, "ddrm", {"eta": 9.0}, None, SHAPE)
    assert dict(asked[2:]) == {name: spec.settings for name, spec in problems.METHODS.items() if name != "ddrm"}
    monkeypatch.setattr(inverse, "obstacle", lambda *_: "no")
    with pytest.raises(inverse.UnsolvableError, match=r"methods that can: none$"):
        inverse.check_method(None, "ddrm", {}, None, SHAPE)


def test_what_keeps_the_pixels_outside_of_a_mask_takes_them_as_exact():
    experiment = Experiment(tiny_config(sampling__sampler="ddim"))
    assert editing.posterior(experiment, "replacement", {}, SHAPE) is None
    found = editing.posterior(experiment, "pigdm", {"data_std": 0.7}, SHAPE)(PRIOR, A, Y)
    assert type(found) is library.PiGDM and found.data_std == 0.7 and found.denoiser is PRIOR and found.y is Y
    assert found.measurement is A and found.measurement_noise == library.GaussianNoise(0.0)


def request(**changes):
    fields = {"workdir": "run", "overrides": [("sampling.steps", "5")], "method": "dps", "settings": {"zeta": 2.0}}
    return SimpleNamespace(**fields | {"answers": 3, "seed": 11} | changes)


@pytest.mark.parametrize("method, subjects", [("dps", ("sampling",)), ("ddrm", ("times", "label"))])
def test_a_run_is_opened_with_the_keys_of_the_method(monkeypatch, method, subjects):
    given = {}
    monkeypatch.setattr(solving, "open_model", lambda *of, **options: given.update(options, of=of) or "model")
    assert solving.open_for(request(method=method), "restore") == "model"
    assert given["of"] == ("--workdir", "run", [("sampling.steps", "5")], "restore")
    assert given["uses"] == ("model", "average", *subjects)
    stored = tiny_config()
    assert given["change"](stored).sampling.to_dict() == inverse.with_sampling(stored, method).sampling.to_dict()


@pytest.mark.parametrize("method, settings, evaluations", [("dps", {"zeta": 2.0}, 5), ("daps", {}, 5 * 5)])
def test_answers_are_drawn_from_the_run_and_told(monkeypatch, method, settings, evaluations):
    config, given = tiny_config(sampling__sampler="ddim", sampling__steps=5), {}
    run = SimpleNamespace(variables={"w": 1}, denoiser=PRIOR, step=70, average="power")
    model = fake_run(config, shape=SHAPE, load=lambda guide: run)
    of = inverse.problem("denoise", SHAPE, {}, NOISE)

    def draw_answers(*of, same, advice):
        given.update(of=of, same=same, advice=advice)
        return answers.Drawn("drawn", 1.25)

    monkeypatch.setattr(solving, "draw_answers", draw_answers)
    settings = problems.METHODS[method].settings | settings
    found = solving.solve(model, request(method=method, settings=settings), of, ("a", "b"), "y")
    assert found.answers == "drawn"
    experiment, draw, *rest = given["of"]
    assert experiment is model.experiment and rest == [run.variables, "y", ("a", "b"), 3, 11]
    assert given["same"] == (of.measurement, NOISE)
    assert given["advice"] == (
        f"--method={method} with 5 steps is unstable here; try more steps, more --noise, or another method, such as diffpir "
        "or dps"
    )
    told = {
        "method": method, "settings": settings, "sampling": config.sampling.to_dict(), "seconds": 1.25, "seed": 11,
        "step": 70, "average": "power",
    }  # fmt: skip
    assert {key: found.told[key] for key in told} == told and found.told.keys() == {*told, "evaluations"}
    _, steps = conditioned(method, settings, config)
    assert found.told["evaluations"] == steps.nfe(5)

    # One answer is a sample of what the prior of its class knows of y.
    seen = {}
    monkeypatch.setattr(solving, "prior", lambda *of: seen.update(prior=of) or PRIOR)
    monkeypatch.setattr(solving.sde_lib, "sample", lambda *of: seen.update(sample=of) or "image")
    assert draw("keys", "numbers", Y, (A, NOISE), "weights") == "image"
    assert seen["prior"] == (model.experiment, "weights", "numbers", None)
    keys, denoiser, method_, times, shape = seen["sample"]
    assert (keys, shape) == ("keys", SHAPE) and type(method_) is type(steps)
    np.testing.assert_array_equal(times, factory.times(config, PRIOR.sde))
    if method == "dps":
        assert denoiser.y is Y and denoiser.measurement is A and denoiser.zeta == 2.0 * 4 / 256


def test_answers_of_a_command_are_drawn_in_the_batches_of_the_run_and_timed(monkeypatch):
    made = []

    class Answers:
        def __init__(self, *of):
            made.append(of)

        def __call__(self, *of, **options):
            made.append((of, options))
            return "drawn"

    monkeypatch.setattr(answers, "Answers", Answers)
    monkeypatch.setattr("experiments.factory.devices.parallel", lambda config: ("strategy", config))
    clock = iter([100.0, 103.456])
    monkeypatch.setattr(answers.time, "perf_counter", lambda: next(clock))
    config = tiny_config(sampling__batch_size=7)
    found = answers.draw_answers(Experiment(config), "draw", "weights", "y", ("a",), 3, 5, same="same", advice="advice")
    assert found == ("drawn", 3.46)
    assert made == [
        ("draw", ("strategy", config), 7),
        (("weights", "y", ("a",), 3, 5), {"same": "same", "advice": "advice", "progress": True}),
    ]


def test_numbers_of_answers_go_beyond_the_integers_of_two_bytes(monkeypatch):
    """Answers 40,000 and on of the second input."""
    taken = []

    class Drawing:
        def __init__(self, *of):
            assert of[2:] == (16, 2 * 40_000)

        def __call__(self, indices, take, same, variables, progress, unit):
            assert (len(indices), unit, progress) == (80_000, "answer", False)
            taken.append(take(np.array([0, 39_999, 40_000, 79_999])))
            yield indices, np.zeros((80_000, 1), np.float32)

    monkeypatch.setattr(answers, "Drawing", Drawing)
    found = answers.Answers(None, None, 16)({}, {"y": np.array([5, 7])}, ("a", "b"), 40_000, 0)
    which, numbers, inputs = taken[0]
    assert found.shape == (2, 40_000, 1) and which.dtype == numbers.dtype == np.int32
    assert (which.tolist(), numbers.tolist()) == ([0, 0, 1, 1], [0, 39_999, 0, 39_999])
    assert inputs["y"].tolist() == [5, 5, 7, 7]


@pytest.mark.parametrize(
    "scale, sampler, evaluations", [(1.0, "ddim", 5), (2.0, "ddim", 10), (2.0, "heun", 18), (2.0, "adaptive", None)]
)
@pytest.mark.parametrize("by", [None, SimpleNamespace(variables="others")])
def test_evaluations_of_guided_answers_are_of_both_networks(monkeypatch, scale, sampler, evaluations, by):
    """None where the sampler chooses them; a guide's weights go with those of the run, and it guides the prior."""
    steps = 2 if sampler == "adaptive" else 5
    config, given = tiny_config(sampling__sampler=sampler, sampling__steps=steps, model__num_classes=3), {}
    config.condition.label.dropout, config.sampling.guidance.scale = 0.1, scale
    run = SimpleNamespace(variables="weights", denoiser=PRIOR, step=70, average="power")
    monkeypatch.setattr(solving, "load_guide", lambda experiment: by)
    monkeypatch.setattr(
        solving,
        "draw_answers",
        lambda *of, **more: given.update(draw=of[1], weights=of[2]) or answers.Drawn("drawn", 1.0),
    )
    of = inverse.problem("denoise", SHAPE, {}, NOISE)
    model = fake_run(config, shape=SHAPE, load=lambda guide: run)
    found = solving.solve(model, request(method="pigdm", settings={"data_std": 0.5}), of, ("a",), "y")
    assert found.told["evaluations"] == evaluations
    assert given["weights"] == ("weights" if by is None else ("weights", "others"))
    seen = []
    monkeypatch.setattr(solving, "prior", lambda *of: seen.append(of) or PRIOR)
    monkeypatch.setattr(solving.sde_lib, "sample", lambda *of: "image")
    given["draw"]("keys", "numbers", Y, (A, NOISE), "both")
    assert seen == [(model.experiment, "both", "numbers", by)]
