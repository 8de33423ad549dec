"""Sampling a run: image i depends on the seed and i alone, and what is written is what was drawn."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

import sde_lib
from experiments import factory, load_run
from experiments.__main__ import main
from experiments.config import files as config
from experiments.devices.parallel import Pmap
from experiments.errors import RunError
from experiments.factory.experiment import Experiment
from experiments.generation.sampler import Sampler
from tests.experiments.tiny import tiny_config

pytestmark = pytest.mark.devices


@pytest.fixture(scope="module")
def run(tiny_run):
    return load_run(tiny_run)


def draw(run, n, *, seed=0, devices=8, **sampling):
    config = run.config.copy_and_resolve_references()
    config.sampling.update(sampling)
    return Sampler(Experiment(config), Pmap(jax.devices()[:devices]), n)(run.variables, n, seed)


def assert_same_pictures(a, b):
    """Equal but for the rounding of a rare pixel that lies between two of the 256 levels."""
    difference = np.abs(a.astype(int) - b.astype(int))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


@pytest.mark.parametrize("method", ["heun", "predictor_corrector"])
def test_image_i_is_the_same_for_any_batch_size_and_number_of_devices(run, method):
    eight = draw(run, 21, sampler=method)
    one = draw(run, 21, sampler=method, devices=1, batch_size=5)
    assert_same_pictures(eight, one)
    assert len(np.unique(eight.reshape(21, -1), axis=0)) == 21


def test_more_samples_begin_with_the_same_ones_and_seeds_differ(run):
    few, many, other = draw(run, 5), draw(run, 40), draw(run, 5, seed=1)
    assert_same_pictures(few, many[:5])
    assert (few != other).any((1, 2, 3)).all()


def test_the_sampler_draws_what_a_notebook_draws(run):
    """The same keys through sde_lib, with no config."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), np.arange(6))
    times = sde_lib.karras_times(run.denoiser.sde, 4)
    x = sde_lib.sample(keys, run.denoiser, sde_lib.Heun(), times, run.event_shape)
    assert_same_pictures(run.medium.inverse(x), draw(run, 6))


@pytest.mark.parametrize(
    "label, classes, expected",
    [
        (-1, 3, [0, 1, 2, 0, 1, 2, 0]),
        (0, 3, [0] * 7),
        (2, 3, [2] * 7),
        (-1, 0, [0] * 7),
    ],
)
def test_the_class_of_each_sample(label, classes, expected):
    """-1 takes the classes in turn, by the number of the sample; each other label is that of all samples."""
    config = tiny_config(model__num_classes=classes, sampling__label=label)
    strategy = Pmap(jax.devices()[:1])
    labels = Sampler(Experiment(config), strategy).labels(np.arange(7))
    assert labels.tolist() == expected and labels.dtype == np.int32
    given = Sampler(Experiment(config), strategy, labels=np.array([2, 0, 1, 1])).labels(np.array([3, 0]))
    assert given.tolist() == [1, 2] and given.dtype == np.int32


@pytest.mark.parametrize("process", ["vp", "ve"])
def test_each_frame_of_a_trajectory_is_scaled_by_its_own_time(monkeypatch, process):
    """Of data N(0, 1) the flow is (sigma_s^2 + alpha_s^2)^(1/2) times a constant: so scaled, all frames are alike."""

    def exactly(config, variables, t_min):
        return sde_lib.exact.Gaussian(factory.sde(config, t_min), mean=0.0, std=1.0)

    monkeypatch.setattr("experiments.factory.model.denoiser", exactly)
    config = tiny_config(process, sampling__sampler="dpm_solver", sampling__steps=300, sampling__times="log_snr")
    monkeypatch.setattr(sde_lib.exact.Gaussian, "condition", None, raising=False)
    monkeypatch.setattr(sde_lib.exact.Gaussian, "replace", lambda self, **_: self)
    frames = Sampler(Experiment(config), Pmap(jax.devices()[:1]), 2).trajectory(None, 2, 0)
    assert len(frames) == 301
    np.testing.assert_allclose(frames[:-1], np.broadcast_to(frames[:1], frames[:-1].shape), rtol=0.02)
    noise_to_signal = float(factory.sde(config, config.sampling.t_min).noise_to_signal(config.sampling.t_min))
    np.testing.assert_allclose(frames[-1], frames[-2] / np.sqrt(1 + noise_to_signal**2), rtol=1e-4)


def test_sample_writes_images_and_grid(tiny_run, run, tmp_path, capsys):
    out = tmp_path / "deep" / "samples.npz"
    arguments = ["--num_samples=10", "--sampler=predictor_corrector", "--steps=6", "--seed=3", f"--out={out}"]
    assert main(["sample", f"--workdir={tiny_run}", *arguments, "--config.sampling.snr=0.1"]) == 0
    assert "10 samples by predictor_corrector, 6 steps, 11 evaluations each, from step 40" in capsys.readouterr().out
    with np.load(out, allow_pickle=False) as file:
        samples = file["samples"]
    expected = draw(run, 10, seed=3, sampler="predictor_corrector", steps=6, snr=0.1)
    assert samples.dtype == np.uint8
    assert_same_pictures(samples, expected)
    picture = np.asarray(Image.open(tmp_path / "deep" / "grid.png"))
    np.testing.assert_array_equal(picture[::6, ::6][:8, 9:17], samples[1, :, :, 0])


def test_a_sample_that_is_not_finite_is_named(run):
    broken = jax.tree.map(lambda w: w * np.nan, run.variables)
    sampler = Sampler(run.experiment, Pmap(), 5)
    with pytest.raises(RunError, match=r"sample 0 is not finite \(of 5 from number 0 on, 5 are not\)"):
        sampler(broken, 5, 0)


def test_samples_follow_the_ema_weights(run):
    """Another EMA gives other samples: it is these weights that are drawn from."""
    changed = jax.tree.map(lambda w: w * 1.1, run.variables)
    sampler = Sampler(run.experiment, Pmap(), 5)
    assert (sampler(run.variables, 5, 0) != sampler(changed, 5, 0)).any((1, 2, 3)).all()


def test_trajectory_runs_from_the_prior_to_the_samples(run):
    sampler = Sampler(run.experiment, Pmap(), 3)
    states = sampler.trajectory(run.variables, 3, 0)
    assert_same_pictures(run.medium.inverse(states[-1]), draw(run, 3))
    assert len(states) == run.config.sampling.steps + 1
    np.testing.assert_allclose(states[0].std(), 1, rtol=0.2)


def test_evaluations_draw_by_the_recommended_sampler(run):
    """As a notebook draws it, counted by its number of evaluations; a method set by hand disables it."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), np.arange(6))
    times = sde_lib.recommended_times(run.denoiser.sde, 5)
    x = sde_lib.sample(keys, run.denoiser, sde_lib.recommended_sampler(5), times, run.event_shape)
    assert_same_pictures(run.medium.inverse(x), draw(run, 6, evaluations=5))

    chosen = config.apply(run.config.copy_and_resolve_references(), [("sampling.evaluations", "5")])
    assert Sampler(Experiment(chosen), Pmap(jax.devices()[:1])).nfe == 5
    assert factory.sampler_and_steps(chosen) == ("recommended", 5)
    by_hand = config.apply(chosen, [("sampling.steps", "4")])
    assert by_hand.sampling.evaluations == 0 and Sampler(Experiment(by_hand), Pmap(jax.devices()[:1])).nfe == 7


@pytest.mark.parametrize("bad, count", [({2: np.nan}, 1), ({0: np.inf}, 1), ({1: -np.inf, 3: np.nan}, 2)])
def test_the_first_sample_that_is_not_finite_is_told_by_its_number(bad, count):
    """Of those that were drawn at once, one pixel is enough; the method and its steps are those of the config."""
    sampler = Sampler(Experiment(tiny_config(sampling__sampler="ddim", sampling__steps=6)), Pmap(jax.devices()[:1]))
    drawn = np.zeros((4, 2, 2, 1), np.float32)
    sampler._require_finite(drawn, np.arange(10, 14))
    for place, value in bad.items():
        drawn[place, 1, 0, 0] = value
    with pytest.raises(RunError) as error:
        sampler._require_finite(drawn, np.arange(10, 14))
    assert str(error.value) == (
        f"sample {10 + min(bad)} is not finite (of 4 from number 10 on, {count} are not): the sampling method ddim with 6 "
        "steps is unstable here; try more steps or another method"
    )


def test_a_trajectory_is_of_the_seed_the_classes_and_the_guide(monkeypatch):
    """Its keys, method, times and shape are those of the samples of the same numbers."""
    seen = {}
    prior = sde_lib.exact.Gaussian(sde_lib.VPSDE(t_min=1e-3))

    def guided(experiment, variables, labels, guide):
        seen.update(guided=(variables, np.asarray(labels).tolist(), guide))
        return prior

    def draw(keys, *of, **options):
        seen.update(keys=jax.random.key_data(keys), of=of, options=options)
        return np.ones((len(of[2]), len(keys), *of[3]), np.float32)

    monkeypatch.setattr("experiments.generation.sampler.guided", guided)
    monkeypatch.setattr("experiments.generation.sampler.sde_lib.sample", draw)
    experiment = Experiment(tiny_config(model__num_classes=3, sampling__sampler="ddim", sampling__steps=5))
    guide = SimpleNamespace(experiment=SimpleNamespace(draws_samples=True), variables="others")
    frames = Sampler(experiment, Pmap(jax.devices()[:1]), guide=guide).trajectory("weights", 4, 11)
    assert seen["guided"] == (("weights", "others"), [0, 1, 2, 0], guide)
    expected = [jax.random.key_data(jax.random.fold_in(jax.random.key(11), i)) for i in range(4)]
    np.testing.assert_array_equal(seen["keys"], expected)
    denoiser, method, times, shape = seen["of"]
    assert denoiser is prior and method == experiment.sampler and shape == (8, 8, 1)
    assert seen["options"] == {"return_trajectory": True}
    np.testing.assert_array_equal(times, experiment.times(prior.sde))
    assert frames.shape == (len(times), 4, 8, 8, 1)
    np.testing.assert_allclose(frames[-1], 1)  # the clean data, not divided
