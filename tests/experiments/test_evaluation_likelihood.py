"""Bits per dimension of a run against a closed form, and where there are none."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments import data, factory
from experiments.devices.parallel import Pmap
from experiments.errors import RunError, UserError
from experiments.evaluation import likelihood
from experiments.factory.experiment import Experiment
from experiments.loading.runs import Run
from experiments.media import LATENTS
from experiments.runs.workdir import Workdir
from tests.experiments.tiny import tiny_config

pytestmark = pytest.mark.devices


class Zero:
    """A network whose output is 0."""

    def apply(self, variables, x, noise_level, condition, **mode):
        return variables["scale"] * x


@pytest.fixture(autouse=True)
def network(monkeypatch):
    zero = Zero()
    monkeypatch.setattr("experiments.factory.model.network", lambda config: zero)


def config_of(**changes):
    return tiny_config(evaluation__likelihood_images=24, **changes)


@pytest.fixture(scope="module")
def images():
    return data.load("digits", image_size=8, num_channels=1, test_fraction=0.5).test.take(np.arange(24))


def run_of(config, folder):
    return Run(Workdir(folder), Experiment(config), 40, {"scale": np.float32(0)})


def test_a_network_of_zeros_is_a_gaussian(images, tmp_path):
    """EDM's preconditioning then has the Denoiser of N(0, 0.4^2), whose flow's density is known; the divergence is exact,
    for the probes are signs and the derivative is diagonal. Stopped and gone on with, on other devices, it is the same."""
    changes = {"evaluation__likelihood_t_min": 1e-3, "evaluation__likelihood_tolerance": 1e-4}
    config = config_of(parameterization__sigma_data=0.4, **changes)
    run = run_of(config, tmp_path)
    journal = likelihood.journal_of_bits(run, images)
    whole = likelihood.bits_per_dim(run, images, Pmap(), journal)

    sde = factory.sde(config, 1e-3)
    alpha, sigma = float(sde.alpha(1e-3)), float(sde.sigma(1e-3))
    x = (images.images.astype(float) - 127.5) / 127.5
    second_moment = np.square(x) + (1 / 127.5) ** 2 / 12  # of the dequantized image, on average
    variance = alpha**2 * 0.4**2 + sigma**2
    nats = 0.5 * np.log(2 * np.pi * variance) + 0.5 * second_moment / variance
    expected = (nats / np.log(2) + np.log2(127.5)).mean((1, 2, 3))
    assert whole.value == pytest.approx(expected.mean(), abs=3e-3)
    assert whole.standard_error == pytest.approx(expected.std() / np.sqrt(24), rel=0.02)
    np.testing.assert_allclose(journal.column("bits", 24), expected, atol=0.02)

    for path in sorted(journal.folder.glob("*.npz")):
        path.unlink()
    journal.write(np.arange(5, 9), {"bits": expected[5:9]})
    again = likelihood.bits_per_dim(run, images, Pmap(jax.devices()[:1]), journal)
    assert again.value == pytest.approx(whole.value, abs=2e-3)
    assert sorted(len(numbers) for numbers, _ in journal.blocks()) == [4, 4, 16]


def test_the_error_of_one_image_is_unknown(images, tmp_path):
    run, one = run_of(config_of(), tmp_path), images.take(np.arange(1))
    journal = likelihood.journal_of_bits(run, one)
    journal.write(np.arange(1), {"bits": np.array([3.25])})
    figure = likelihood.bits_per_dim(run, one, Pmap(), journal)
    assert (figure.value, figure.standard_error, figure.interval, figure.count) == (3.25, None, None, 1)


def test_what_decides_the_figure_decides_the_journal(images, tmp_path):
    def folder(pictures=images, **changes):
        return likelihood.journal_of_bits(run_of(config_of(**changes), tmp_path), pictures).folder

    same = folder()
    assert folder(sampling__steps=7, evaluation__num_samples=3) == same
    others = (
        folder(images.take(np.arange(20))),
        folder(evaluation__likelihood_probes=2),
        folder(evaluation__likelihood_t_min=1e-4),
        folder(evaluation__likelihood_tolerance=1e-4),
        folder(evaluation__seed=1),
    )
    assert len({same, *others}) == 6


def test_an_image_that_is_not_solved_is_named():
    config = ConfigDict({"evaluation": {"likelihood_tolerance": 1e-5, "likelihood_t_min": 1e-5}})
    likelihood._require_solved(np.ones(3), np.arange(3), config)
    with pytest.raises(
        RunError, match=r"image 7 cannot be solved \(of 3, 2 cannot\): try a larger .*tolerance than 1e-05"
    ):
        likelihood._require_solved(np.array([1, np.nan, np.inf]), np.array([5, 7, 8]), config)


def test_data_without_levels_has_no_bits():
    config = config_of()
    config.data.source = LATENTS
    with pytest.raises(UserError, match="likelihood_images=24: bits per dimension are of images of 8 bits"):
        factory.check_likelihood(config)


def test_a_process_without_a_likelihood_is_refused():
    config = tiny_config("critically_damped", evaluation__likelihood_images=24)
    with pytest.raises(UserError, match=r"likelihood_images=24: the states of sde\.name='critically_damped' are more"):
        factory.check_likelihood(config)
    factory.check_likelihood(config_of())


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("devices, batch, sizes", [(2, 3, [6, 6, 1]), (2, 100, [13]), (1, 5, [5, 5, 3])])
def test_each_image_has_its_number_its_class_and_the_seed(monkeypatch, tmp_path, labelled, devices, batch, sizes):
    """Whatever its batch, the last of which is filled up; what the journal has is not computed again."""
    numbers = np.arange(13)
    pictures = np.broadcast_to(numbers[:, None, None, None] * 2, (13, 8, 8, 1)).astype(np.uint8)
    images = data.Images(pictures, (numbers % 5).astype(np.int32) if labelled else None)
    config = config_of(evaluation__seed=7, sampling__batch_size=batch, training__seed=9)

    def program(config):
        def bits(places, images, labels, key_data, variables):
            seed = jax.random.key_data(jax.random.key(7))
            return places + 100 * images[:, 0, 0, 0] + 10_000 * labels + (key_data != seed).sum() + variables["scale"]

        return bits

    monkeypatch.setattr(likelihood, "_bits", program)
    run = run_of(config, tmp_path)
    journal = likelihood.journal_of_bits(run, images)
    figure = likelihood.bits_per_dim(run, images, Pmap(jax.devices()[:devices]), journal)
    expected = numbers + 200 * numbers + 10_000 * (numbers % 5 if labelled else 0)
    np.testing.assert_array_equal(journal.column("bits", 13), expected)
    assert [len(block) for block, _ in journal.blocks()] == sizes and figure.count == 13
    assert figure.value == pytest.approx(expected.mean())
    monkeypatch.setattr(likelihood, "_require_solved", lambda *given: pytest.fail("computed again"))
    assert likelihood.bits_per_dim(run, images, Pmap(jax.devices()[:devices]), journal) == figure


def test_the_density_is_that_of_the_class_at_the_smallest_time_of_the_likelihood(monkeypatch):
    """Each image has its own noise of dequantization and its own probes, which differ from each other and by the seed."""
    seen = {}

    class Model:
        def replace(self, condition):
            seen["condition"] = condition
            return "conditioned"

    def denoiser(config, variables, t_min):
        seen["denoiser"] = variables, t_min
        return Model()

    def log_likelihood(keys, model, x, *, divergence, rtol, atol):
        seen.update(probes=keys, model=model, divergence=divergence, tolerances=(rtol, atol))
        return SimpleNamespace(log_prob=np.zeros(3))

    class Dequantizer:
        def __call__(self, keys, images, quantization):
            seen.update(noise=keys, levels=quantization)
            return images, "ratio"

    monkeypatch.setattr("experiments.factory.model.denoiser", denoiser)
    for name, value in {
        "log_likelihood": log_likelihood, "UniformDequantizer": Dequantizer,
        "bits_per_dim": lambda log_prob, x, log_ratio: (log_prob.shape, log_ratio),
    }.items():  # fmt: skip
        monkeypatch.setattr(likelihood.sde_lib, name, value)
    changes = {"likelihood_probes": 3, "likelihood_t_min": 2e-4, "likelihood_tolerance": 1e-3, "t_min": 0.5}
    config = config_of(**{f"evaluation__{key}": value for key, value in changes.items()}, model__num_classes=4)
    keys = {}
    for seed, places in ((7, [0, 5, 9]), (8, [0, 5, 9]), (7, [9, 0, 1])):
        data_of_key = jax.random.key_data(jax.random.key(seed))
        found = likelihood._bits(Experiment(config))(
            np.array(places), np.zeros((3, 8, 8, 1)), np.array([3, 1, 2]), data_of_key, "w"
        )
        for name in ("noise", "probes"):
            keys[seed, tuple(places), name] = np.asarray(jax.random.key_data(seen[name])).tolist()
    assert found == ((3,), "ratio") and seen["denoiser"] == ("w", 2e-4) and seen["model"] == "conditioned"
    np.testing.assert_array_equal(seen["condition"]["label"], [3, 1, 2])
    assert seen["divergence"] == likelihood.sde_lib.Hutchinson(num_probes=3) and seen["tolerances"] == (1e-3, 1e-3)
    assert seen["levels"] == likelihood.sde_lib.Quantization.between(-1.0, 1.0)
    first = [tuple(key) for name in ("noise", "probes") for key in keys[7, (0, 5, 9), name]]
    other = [tuple(key) for name in ("noise", "probes") for key in keys[8, (0, 5, 9), name]]
    assert len({*first, *other}) == 12
    for name in ("noise", "probes"):
        again = keys[7, (9, 0, 1), name]
        assert again[:2] == [keys[7, (0, 5, 9), name][2], keys[7, (0, 5, 9), name][0]]
