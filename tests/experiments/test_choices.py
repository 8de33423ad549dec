"""Every choice of the config learns, and the other experiments train."""

import jax
import numpy as np
import pytest
from PIL import Image

import sde_lib
from experiments import data, factory
from experiments.__main__ import main
from experiments.factory.experiment import Experiment
from experiments.learning import state
from experiments.training.train import initial_state, load_data, make_step, take_batches
from tests.experiments.tiny import ROOT, flags, tiny_config

pytestmark = pytest.mark.e2e

CHOICES = [
    {
        "process": "critically_damped",
        "loss__weighting": "hybrid_noise",
        "loss__times": "uniform",
        "loss__low_discrepancy": "true",
    },
    {
        "loss__learned_uncertainty": "true",
        "data__augmentation": 0.12,
        "model__augment_features": 9,
        "data__dequantization": "uniform",
    },
    {
        "parameterization__name": "v",
        "loss__weighting": "min_snr",
        "loss__times": "uniform",
        "model__dtype": "bfloat16",
        "model__remat": "true",
        "optim__schedule": "constant",
        "optim__weight_decay": 0.1,
    },
    {"parameterization__name": "velocity", "loss__weighting": "velocity", "loss__times": "logit_normal"},
    {"parameterization__name": "score", "loss__weighting": "noise", "model__embedding": "fourier"},
    {
        "parameterization__name": "data",
        "loss__weighting": "data",
        "model__num_classes": 10,
        "data__random_flip": "true",
    },
]


@jax.jit
def denoise(denoiser, x, t):
    return denoiser(x, t)


@pytest.mark.parametrize("changes", CHOICES, ids=lambda c: next(iter(c.values())))
def test_every_choice_of_the_config_learns(changes):
    """After 150 steps the Denoiser's error at log-SNR 0 is below that of the best constant, the mean image."""
    options = {"process": "subvp", "optim__lr": 5e-3, "training__num_steps": 150, "training__steps_per_call": 150}
    config = tiny_config(**options | changes)
    dataset = load_data(Experiment(config))
    batches = data.training_batches(dataset.train, batch_size=16, seed=0, flip=config.data.random_flip)
    train_steps = jax.jit(state.make_train_steps(make_step(Experiment(config), None), 150))
    trained, _ = train_steps(initial_state(Experiment(config)), take_batches(batches, 150, 150), 150)
    medium = factory.medium(config)
    x0, labels = medium.forward(dataset.test.images[:256]), dataset.test.labels[:256]
    denoiser = factory.denoiser(config, trained.ema, 1e-2).replace(condition=factory.condition(config, labels))
    t = denoiser.sde.time_at_log_snr(0.0)
    noise = np.random.default_rng(0).normal(size=denoiser.sde.state_shape(x0.shape)).astype(np.float32)
    error = np.square(denoise(denoiser, denoiser.sde.perturb(x0, noise, t), t) - x0).mean()
    assert error < 0.9 * np.square(x0 - x0.mean(0)).mean()


def test_the_loss_is_that_of_the_library_with_shared_times_and_what_the_loss_learns():
    config = tiny_config(loss__low_discrepancy="true", loss__learned_uncertainty="true", model__dropout=0)
    drawn = state.draws(jax.random.key(0), 3, 8 + np.arange(8), 16)
    x0 = factory.medium(config).forward(load_data(Experiment(config)).test.images[:8])
    variables = factory.init_variables(config)
    learned = sde_lib.LearnedLogVariance(np.linspace(-1, 1, 128, dtype=np.float32))
    variables[factory.LOSS]["log_variance"] = learned.weights
    expected = jax.jit(sde_lib.denoising_score_matching)(
        drawn.keys,
        factory.denoiser(config, variables, config.training.t_min),
        x0,
        weighting=sde_lib.EDMWeighting(0.75),
        times=sde_lib.LowDiscrepancyTimes(drawn.shared, drawn.places, 16, sde_lib.LogNormalSigma(-0.5, 1.0)),
        log_variance=learned,
    )
    np.testing.assert_allclose(jax.jit(factory.loss(config))(drawn, variables, x0, None), expected, rtol=1e-4)


def test_what_the_loss_learns_is_trained_beside_the_network():
    config = tiny_config(loss__learned_uncertainty="true", optim__warmup_steps=0)
    batch = next(data.training_batches(load_data(Experiment(config)).train, batch_size=16, seed=0, flip=False))
    after, _ = jax.jit(make_step(Experiment(config), None))(initial_state(Experiment(config)), batch)
    assert (after.params[factory.LOSS]["log_variance"] != 0).mean() > 0.9


@pytest.mark.parametrize("weighting", ["score", "likelihood"])
def test_weightings_of_the_score_do_not_overflow_at_the_smallest_times(weighting):
    """Their weights reach 1e12 at training's t_min; Adam does not mind, an overflow would stop it."""
    config = tiny_config(loss__weighting=weighting, loss__times="uniform")
    batch = next(data.training_batches(load_data(Experiment(config)).train, batch_size=16, seed=0, flip=False))
    before, train_step = initial_state(Experiment(config)), jax.jit(make_step(Experiment(config), None))
    after, metrics = train_step(before, batch)
    assert 0 < metrics["grad_norm"] < 1e12
    after, _ = train_step(after, batch)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), after.params, before.params)
    assert 0 < max(jax.tree.leaves(moved)) < 0.01


def test_mnist_trains_by_one_override(tmp_path):
    source = ROOT.parent / "shared" / "data" / "mnist.npz"
    if not source.exists():
        pytest.skip("needs mnist.npz, which is not part of the project")
    arguments = flags(training__num_steps=4, training__sample_every=4, data__source=f"npz:{source}")
    assert main(["train", f"--config={ROOT}/configs/mnist.py", f"--workdir={tmp_path}/run", *arguments]) == 0
    picture = np.asarray(Image.open(tmp_path / "run" / "samples" / "step_00000004.png"))
    assert picture.shape == (2 * (8 * 29 - 1), 2 * (8 * 29 - 1))
