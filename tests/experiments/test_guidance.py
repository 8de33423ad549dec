"""Guidance from the config to the samples: by the class, by another run, within an interval; what cannot be guided."""

import json
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sde_lib
from experiments.cli import arguments
from experiments.cli import evaluate as command
from experiments.config import files as configs
from experiments.devices.parallel import Pmap
from experiments.errors import UserError
from experiments.evaluation import evaluate
from experiments.evaluation.features import journal_of_samples
from experiments.factory.experiment import Experiment
from experiments.generation.answers import prior
from experiments.generation.guidance import guided
from experiments.generation.sampler import Sampler
from experiments.loading import runs
from experiments.reports import report
from experiments.runs.workdir import Workdir
from tests.experiments.tiny import ROOT, fake_run, tiny_config

pytestmark = pytest.mark.devices

CLASSES = {"model__num_classes": 10, "condition__label__dropout": 0.1}
DRAWN = {"parameterization__name": "data", "sampling__sampler": "ddim", "sampling__steps": 2}


def made(**changes):
    """A class-conditional config; `scale` and the other keys of `sampling.guidance` by name."""
    known = tiny_config().sampling.guidance
    guidance = {name: changes.pop(name) for name in list(changes) if name in known}
    config = tiny_config(**CLASSES | changes)
    config.sampling.guidance.update(guidance)
    return config


class Label:
    """A network whose output is the class in tenths, times a factor; "no class" is 10."""

    def __init__(self, factor=1.0):
        self.factor = factor

    def apply(self, variables, x, noise_level, condition, **mode):
        return jnp.broadcast_to(variables["gain"] * self.factor * condition["label"][:, None, None, None] / 10, x.shape)


WEIGHTS = {"gain": np.float32(1)}


def drawn(monkeypatch, config, guide=None, number=4):
    """The values of samples 0, 1, ..., which are the Denoiser's in the last step, without rounding to grey levels."""
    monkeypatch.setattr("experiments.factory.model.network", lambda config: NETWORKS[config.model.channels])
    monkeypatch.setattr("experiments.media.image.ImageMedium.inverse", lambda self, x: np.asarray(x))
    return Sampler(Experiment(config), Pmap(jax.devices()[:2]), number, guide=guide)(WEIGHTS, number, 0)[:, 0, 0, 0]


NETWORKS = {8: Label(), 16: Label(0.5)}


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0])
def test_samples_are_guided_away_from_no_class(monkeypatch, scale):
    """D = c / 10 of class c and 1 without a class: guided, 1 + scale (c / 10 - 1)."""
    found = drawn(monkeypatch, made(scale=scale, **DRAWN))
    np.testing.assert_allclose(found, 1 + scale * (np.arange(4) / 10 - 1), atol=1e-6)


def test_another_run_guides_with_its_own_network_and_weights(monkeypatch):
    """The weak model gives 3 c / 20 with gain 3: guided, w + scale (c / 10 - w)."""
    config = made(scale=1.5, guide="x", condition__label__dropout=0.0, **DRAWN)
    guide = SimpleNamespace(experiment=Experiment(made(model__channels=16, **DRAWN)), variables={"gain": np.float32(3)})
    c = np.arange(4) / 10
    np.testing.assert_allclose(drawn(monkeypatch, config, guide), 1.5 * c + 1.5 * (c - 1.5 * c), atol=1e-6)
    monkeypatch.setattr("experiments.factory.model.network", lambda config: NETWORKS[config.model.channels])
    found = prior(Experiment(config), (WEIGHTS, guide.variables), jnp.arange(4), guide)(jnp.zeros((4, 8, 8, 1)), 0.5)
    np.testing.assert_allclose(found[:, 0, 0, 0], 1.5 * c + 1.5 * (c - 1.5 * c), atol=1e-6)


def denoiser_of(config, labels=(3, 7)):
    experiment = Experiment(config)
    plain = experiment.denoiser(WEIGHTS).replace(network=Label())
    return experiment.guided(plain, jnp.array(labels)), plain.sde


def value(denoiser, t, x=0.0):
    return np.asarray(denoiser(jnp.full((2, 8, 8, 1), x), t))[:, 0, 0, 0]


@pytest.mark.parametrize("low, high", [(0.5, 2.0), (0.5, math.inf), (0.0, 2.0), (0.0, math.inf)])
def test_guidance_is_within_its_interval_of_noise_levels_alone(low, high):
    """Whichever end of the interval is set; without any, guidance is everywhere."""
    guided, sde = denoiser_of(made(scale=3.0, low=low, high=high, parameterization__name="data"))
    c = np.array([0.3, 0.7])
    for level in (0.4, 0.6, 1.9, 2.1):
        t = sde.time_at_log_snr(jnp.float32(-2 * np.log(level)))
        np.testing.assert_allclose(value(guided, t), 1 + 3 * (c - 1) if low < level <= high else c, atol=1e-6)


def test_rescaling_and_thresholding_are_those_of_the_library():
    """Of Denoisers with a spread, against the same objects made by hand."""
    rng = np.random.default_rng(0)
    x, labels = jnp.asarray(rng.normal(0, 2, (2, 8, 8, 1)), jnp.float32), jnp.array([3, 7])

    class Scaled(Label):
        def apply(self, variables, x, noise_level, condition, **mode):
            return x * (1 + condition["label"][:, None, None, None] / 10)

    experiment = Experiment(made(scale=2.0, rescale=0.7, threshold=0.9, parameterization__name="data"))
    plain = experiment.denoiser(WEIGHTS).replace(network=Scaled())
    by_hand = sde_lib.ClassifierFree(plain, {"label": labels}, {"label": 10}, 2.0, 0.7)
    expected = sde_lib.Thresholding(by_hand, quantile=0.9)(x, 0.5)
    np.testing.assert_allclose(experiment.guided(plain, labels)(x, 0.5), expected, rtol=1e-6)
    assert np.abs(expected - by_hand(x, 0.5)).max() > 0.1
    clipped = Experiment(made(threshold=1.0, parameterization__name="data"))
    conditional = plain.replace(condition={"label": labels})(x, 0.5)
    np.testing.assert_allclose(clipped.guided(plain, labels)(x, 0.5), np.clip(conditional, -1, 1), rtol=1e-6)
    assert np.abs(conditional).max() > 1


def test_evaluations_count_both_models():
    for scale, factor in ((1.0, 1), (2.0, 2), (0.0, 2)):
        experiment = Experiment(made(scale=scale, sampling__steps=5))
        assert (experiment.evaluations, experiment.network_evaluations) == (9, 9 * factor)
        assert Sampler(experiment, Pmap(jax.devices()[:1])).nfe == 9 * factor
    assert Experiment(made(scale=2.0, sampling__sampler="adaptive", sampling__steps=2)).network_evaluations is None


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"scale": 2.0, "model__num_classes": 0},
            "scale=2: this model has no classes (model.num_classes=0) to guide to",
        ),
        (
            {"scale": 2.0, "condition__label__dropout": 0.0},
            "classifier-free guidance is unavailable; name a weaker run with",
        ),
        (
            {"scale": 2.0, "low": 2.0, "high": 1.0},
            "sampling.guidance.low=2: must be less than sampling.guidance.high=1",
        ),
        (
            {"scale": 2.0, "low": 200.0, "high": 300.0},
            "low=200 and high=300: no noise level is guided: sigma / alpha of sampling is 0.0105 to 152",
        ),
        ({"scale": 2.0, "high": 0.01}, "low=0 and high=0.01: no noise level is guided"),
        (
            {"guide": "runs/x"},
            "sampling.guidance.guide=runs/x has no effect at sampling.guidance.scale=1, which disables",
        ),
        ({"low": 0.5}, "sampling.guidance.low=0.5 has no effect at"),
        ({"high": 0.5}, "sampling.guidance.high=0.5 has no effect at"),
        ({"rescale": 0.5}, "sampling.guidance.rescale=0.5 has no effect at"),
        ({"scale": -1.0}, "sampling.guidance.scale=-1.0: must lie in [0, 10000]; 1 disables guidance"),
        ({"threshold": 1.5}, "sampling.guidance.threshold=1.5: must lie in [0, 1]; 0 disables, 1 clips"),
    ],
)
def test_what_cannot_be_guided_is_refused(changes, said):
    with pytest.raises(UserError) as error:
        Experiment.from_config(made(**changes), "sampling")
    assert said in str(error.value)
    Experiment.from_config(made(scale=2.0, low=0.5, high=1.0, rescale=0.5), "sampling")
    Experiment.from_config(made(scale=2.0, guide="x", condition__label__dropout=0.0, model__num_classes=0), "sampling")


def test_flags_are_short_for_keys():
    options = SimpleNamespace(guidance_scale=2.0, guidance_interval="0.2,inf", guide="runs/a@8")
    overrides = arguments.guidance_overrides(options)
    assert overrides == [
        ("sampling.guidance.scale", "2.0"), ("sampling.guidance.low", "0.2"), ("sampling.guidance.high", "inf"),
        ("sampling.guidance.guide", "runs/a@8"),
    ]  # fmt: skip
    config = configs.apply(tiny_config(), overrides)
    assert config.sampling.guidance.to_dict() == {
        "name": "linear",
        "scale": 2.0, "low": 0.2, "high": np.inf, "rescale": 0.0, "threshold": 0.0, "guide": "runs/a@8",
    }  # fmt: skip
    assert configs.from_json(configs.to_json(config)).to_dict() == config.to_dict()
    assert arguments.guidance_overrides(SimpleNamespace()) == []
    with pytest.raises(UserError, match=r"--guidance_interval=2: must be two numbers, LOW,HIGH, such as 0\.2,2"):
        arguments.guidance_overrides(SimpleNamespace(guidance_interval="2"))


def test_a_sweep_with_a_scale_of_1_may_have_a_guide_and_an_interval():
    experiment = Experiment(made(scale=2.0, guide="x", low=0.5))
    assert experiment.with_guidance(1.0).network_evaluations == experiment.evaluations
    with pytest.raises(UserError, match="has no effect"):
        Experiment.from_config(made(guide="x"), "sampling")


def test_guidance_of_a_trained_run_is_disabled_by_a_scale_of_1():
    """The stored settings wait for another scale; a setting that is given has no effect."""
    stored = made(low=0.5, rescale=0.7)
    scale = ("sampling.guidance.scale", "1")
    assert not Experiment.from_config(stored, "sampling", overrides=[scale]).is_guided
    with pytest.raises(UserError, match=r"^sampling\.guidance\.low=0\.5 has no effect at sampling\.guidance\.scale=1"):
        Experiment.from_config(stored, "sampling", overrides=[scale, ("sampling.guidance.low", "0.5")])


def test_an_interval_up_to_the_ends_of_sampling_is_taken():
    for interval in ({"low": 151.0}, {"high": 0.0106}):
        assert Experiment.from_config(made(scale=2.0, **interval), "label").is_guided


def test_a_guide_of_the_config_must_be_passed():
    experiment = Experiment(made(scale=2.0, guide="runs/weak"))
    with pytest.raises(
        UserError, match=r"^sampling\.guidance\.guide=runs/weak: open it with .*load_guide and pass it as guide"
    ):
        guided(experiment, "weights", jnp.zeros(1, jnp.int32))


def test_a_run_from_before_guidance_has_none():
    stored = tiny_config().to_dict()
    del stored["sampling"]["guidance"]
    assert (
        configs.from_json(json.dumps(stored)).sampling.guidance.to_dict() == tiny_config().sampling.guidance.to_dict()
    )
    stored["sampling"]["guidance"] = {"scale": "2"}
    with pytest.raises(ValueError, match=r"sampling\.guidance\.scale='2' must be a number"):
        configs.from_json(json.dumps(stored))
    stored["sampling"]["guidance"] = 2
    with pytest.raises(ValueError, match=r"sampling\.guidance must be a section"):
        configs.from_json(json.dumps(stored))


@pytest.fixture
def stored_runs(tmp_path, monkeypatch):
    """Folders of runs with checkpoints of steps 8 and 16, whose weights are not read."""

    def make(name, **changes):
        config, workdir = made(**changes), Workdir(tmp_path / name)
        workdir.claim(config)
        for step in (8, 16):
            (workdir.checkpoints / str(step)).mkdir(parents=True)
        return str(workdir.path)

    def load(path, step=None):
        return runs.Run(Workdir(path), Experiment(Workdir(tmp_path / path).read_config()), step or 16, "weights")

    monkeypatch.setattr(runs, "load_run", load)
    monkeypatch.chdir(tmp_path)
    return make


def test_a_guide_is_the_newest_checkpoint_or_the_one_named(stored_runs):
    stored_runs("weak")
    for text, step in (("weak", 16), ("weak@8", 8)):
        assert runs.load_guide(Experiment(made(scale=2.0, guide=text))).step == step
    assert runs.load_guide(Experiment(made(scale=2.0))) is None
    assert runs.load_guide(Experiment(made(guide="weak"))) is None  # at scale 1


@pytest.mark.parametrize(
    "text, changes, said",
    [
        ("weak@9", {}, "--guide=weak@9: the run has no checkpoint of step 9; it has 8, 16"),
        ("weak@last", {}, "--guide=weak@last: the step after @ must be a whole number, as in --guide=RUN@1000"),
        ("weak@", {}, "--guide=weak@: the step after @ must be a whole number"),
        ("week", {}, "--guide=week holds no run (no config.json)"),
        ("weak", {"data__image_size": 16}, "--guide=weak: it is a model of 16x16x1, not of 8x8x1"),
        ("weak", {"model__num_classes": 4}, "--guide=weak: it has 4 classes, and the model 10"),
        (
            "weak",
            {"sde__beta_max": 10.0},
            "--guide=weak: its process differs in sde.beta_max; both must be of one process",
        ),
    ],
)
def test_a_guide_that_does_not_fit_is_refused(stored_runs, text, changes, said):
    stored_runs("weak", **changes)
    with pytest.raises(UserError) as error:
        runs.load_guide(Experiment(made(scale=2.0, guide=text)))
    assert said in str(error.value)


def test_another_guide_is_another_journal(tmp_path):
    network = SimpleNamespace(name="n", preprocessing="p", sha256="0")

    def folder(config, guide=None):
        run = fake_run(config, workdir=Workdir(tmp_path), step=1, variables={"a": np.zeros(1)}, event_shape=(8, 8, 1))
        return journal_of_samples(run, network, guide=guide).folder

    guides = [SimpleNamespace(variables={"a": np.full(1, value)}) for value in (1.0, 2.0)]
    found = [folder(made()), folder(made(scale=2.0)), *(folder(made(scale=2.0), guide) for guide in guides)]
    assert len(set(found)) == 4


@pytest.mark.parametrize(
    "text, scales",
    [("1,1.5,2,3", [1, 1.5, 2, 3]), ("3,1", [1, 3]), (None, []), ("0", [0])],
)
def test_scales_are_in_rising_order(text, scales):
    assert command._scales(text) == scales


@pytest.mark.parametrize("text", ["", "1,", "1,1", "a", "-1", "1;2", "1e5", "nan"])
def test_scales_are_different_numbers(text):
    with pytest.raises(
        UserError, match=f"--sweep-guidance={text}: must be different numbers from 0 with commas between"
    ):
        command._scales(text)


def test_flags_of_sweeps_exclude_each_other(fails):
    run = "--workdir=run"
    assert "choose one of them" in fails("evaluate", run, "--sweep-guidance=1,2", "--sweep-checkpoints")
    assert "choose one of them" in fails("evaluate", run, "--sweep-guidance=1,2", "--guidance=3")
    assert "so it needs --sweep-checkpoints or --sweep-guidance" in fails("evaluate", run, "--metric=recall")


FIGURES = {1.0: (3.0, 0.5, 0.9), 2.0: (1.0, 0.8, 0.7), 3.0: (2.0, 0.9, 0.2)}  # distance, precision, recall by scale


@pytest.mark.parametrize("metric, best", [(None, 2.0), ("precision", 3.0), ("recall", 1.0)])
def test_the_best_scale_is_published_with_all(monkeypatch, tmp_path, metric, best):
    def figures(scale):
        return dict(zip(("frechet_distance", "precision", "recall"), FIGURES[scale], strict=True))

    class Judge:
        def __init__(self, run, dataset, strategy):
            self.of(run)

        def of(self, run):
            self.scale = run.experiment.config.sampling.guidance.scale
            self.sampler = SimpleNamespace(nfe=7 if self.scale == 1 else 14)
            return self

        def measure_once(self, run):
            assert run.experiment.config.sampling.guidance.scale == self.scale
            return {"samples": figures(self.scale), "scale": self.scale, "step": 8}

        def forget(self):
            published.append("forgotten")

    published = []
    monkeypatch.setattr(evaluate, "Judge", Judge)
    monkeypatch.setattr(
        evaluate,
        "_write",
        lambda run, sampler, measured: published.append(("written", run.experiment.config.sampling.guidance.scale)),
    )
    run = runs.Run(Workdir(tmp_path), Experiment(made()), 8, "weights")
    measured = evaluate.sweep_guidance(
        run,
        None,
        None,
        lambda workdir, measured: published.append(("published", measured["scale"])),
        [1.0, 2.0, 3.0],
        metric,
    )
    assert published == [("written", best), ("published", best), "forgotten"]
    assert measured["chosen_by"] == (metric or "frechet_distance") and measured["samples"] == figures(best)
    assert measured["guidance"] == [
        {"scale": scale, "evaluations": 7 if scale == 1 else 14, **figures(scale)} for scale in FIGURES
    ]
    assert report._scales(measured) == [
        ["guidance", "Frechet distance", "precision", "recall", "evaluations"],
        ["1", "3.000", "0.500", "0.900", "7"],
        ["2", "1.000", "0.800", "0.700", "14"],
        ["3", "2.000", "0.900", "0.200", "14"],
    ]
    chosen = metric or "frechet_distance"
    expected = f"Best of 3 scales by {chosen}: {best:g} with {figures(best)[chosen]:.3f}"
    assert report._best_scale(measured) == expected
    page = report._guidance(measured)
    assert page.count("image/svg+xml") == 2 and "precision, recall by the scale of guidance" in page
    with pytest.raises(UserError, match=r"--metric='recal' is unknown: .*did you mean 'recall'"):
        evaluate.sweep_guidance(run, None, None, None, [1.0], "recal")
    unguided = runs.Run(Workdir(tmp_path), Experiment(made(condition__label__dropout=0.0)), 8, "weights")
    with pytest.raises(UserError, match=r"sampling\.guidance\.scale=2: this model was trained without class dropout"):
        evaluate.sweep_guidance(unguided, None, None, None, [1.0, 2.0])


def test_digits_with_classes():
    plain, classes = (configs.load(f"{ROOT}/configs/digits.py:{word}") for word in ("vp", "conditional"))
    differing = configs.differences(plain, classes)
    assert differing == ["condition.label.dropout: 0.0 -> 0.1", "model.num_classes: 0 -> 10"]
    both = configs.load(f"{ROOT}/configs/digits.py:ve,conditional")
    assert (both.sde.name, both.model.num_classes) == ("ve", 10)
    with pytest.raises(UserError, match=r"'vpp' is unknown: choose from vp, .*; did you mean 'vp'"):
        configs.load(f"{ROOT}/configs/digits.py:vpp,conditional")
    with pytest.raises(UserError, match=r"'conditonal' is unknown: .*; did you mean 'conditional'\?"):
        configs.load(f"{ROOT}/configs/digits.py:conditonal")
    for words in ("classifier,conditional", "vp,ve"):
        with pytest.raises(UserError, match=f"'{words}': one process and one of conditional, classifier at most"):
            configs.load(f"{ROOT}/configs/digits.py:{words}")


def test_samples_of_a_class_are_those_of_its_number_under_guidance(monkeypatch):
    config = made(scale=2.0, sampling__label=4, **DRAWN)
    np.testing.assert_allclose(drawn(monkeypatch, config), np.full(4, 1 + 2 * (0.4 - 1)), atol=1e-6)
