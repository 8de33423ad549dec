"""Five training steps of EDM2, its weights forced to unit magnitude, against those of its published code.

Source: https://github.com/NVlabs/edm2/tree/4bf8162f601bcc09472ce8a32dd0cbe8889dc8fc/training, run in float32 on CPU with the
weights and data of `named.py`: `Precond(4, 3, 4, use_fp16=False, model_channels=8, channel_mult=[1], num_blocks=1,
attn_resolutions=[], channels_per_head=8)` in training mode, `learning_rate_schedule(nimg, 4, ref_lr=0.01, ref_batches=2,
rampup_Mimg=12e-6)`, `torch.optim.Adam` with betas 0.9 and 0.99, and for the averages
`PowerFunctionEMA(net, [0.05, 0.1])`. The weights are those that one more forward pass leaves, which normalizes them; the
averages are of those that Adam returns, before they are normalized.
"""

import functools

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sde_lib
from experiments import factory
from experiments.config import files as configs
from experiments.devices.parallel import STRATEGIES
from experiments.factory.experiment import Experiment
from experiments.learning import state
from experiments.runs.checkpoint import Checkpoints
from experiments.training.train import abstract_state, initial_state
from models.pretrained import edm2
from models.pretrained.mapping import flatten, to_tensors, to_variables
from tests.experiments.tiny import tiny_config
from tests.models.pretrained.named import named_normal, named_weights

pytestmark = pytest.mark.devices

BATCH, STEPS = 4, 5
LOSSES = [1.250056505203247, 1.3631443977355957, 1.3506865501403809, 1.2660363912582397, 1.3321330547332764]
# name: (weights, average of width 0.05, that of 0.1), each as sum(tensor * named_normal("probe " + name)) / sqrt(size).
PUBLISHED = {
    "enc.4x4_conv.weight": (-0.6318805435455861, -0.6319551748018246, -0.6326283383588519),
    "dec.4x4_in0.attn_qkv.weight": (-2.0378537819833116, -2.0378513557978852, -2.0382569598743245),
    "dec.4x4_block1.conv_res1.weight": (-0.3326864080598888, -0.33249490167596774, -0.33341582343724574),
    "emb_label.weight": (-0.8749027066425384, -0.8738504379986113, -0.8734737865201613),
    "out_gain": (-0.6113735892986583, -0.6114529449096295, -0.6122034435984247),
    "dec.4x4_block0.emb_gain": (0.2879487983378688, 0.2879683925699297, 0.288154931026984),
}


@functools.cache
def experiment():
    """(config, mapping to the peer's names, the state to begin with)."""
    changes = {
        "model.channels": "8", "model.channel_multipliers": "1", "model.blocks_per_level": "1",
        "model.attention_resolutions": "()", "model.head_channels": "8", "model.num_classes": "4", "data.batch_size": "4",
        "data.num_channels": "3", "data.image_size": "4", "optim.schedule": "inverse_sqrt", "optim.lr": "0.01",
        "optim.decay_steps": "2", "optim.warmup_steps": "3", "optim.beta2": "0.99", "optim.grad_clip": "0",
        "training.ema": "power:0.05,power:0.1",
    }  # fmt: skip
    config = configs.apply(tiny_config(model__name="edm2"), changes.items())
    mapping, shapes = edm2.mapping(factory.network(config), 4), factory.abstract_variables(config)
    names = to_tensors(jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes), mapping)
    weights = to_variables(named_weights({n: t.shape for n, t in names.items()}), mapping, shapes)
    return config, mapping, initial_state(Experiment(config), weights)


def loss(draws, variables, batch, frozen):
    """EDM's, without learned uncertainty, at given noise."""
    denoiser = factory.denoiser(experiment()[0], variables, 1e-3).replace(
        sde=sde_lib.EDMSDE(), parameterization=sde_lib.EDMPreconditioning(0.5), condition={"label": batch["label"]}
    )
    sigma = batch["sigma"]
    error = denoiser(batch["image"] + sigma[:, None, None, None] * batch["noise"], sigma) - batch["image"]
    return (sigma**2 + 0.25) / (0.5 * sigma) ** 2 * jnp.square(error).mean((1, 2, 3))


def batch(step):
    images, noise = (np.moveaxis(named_normal(f"{name}{step}", BATCH, 3, 4, 4), 1, -1) for name in ("x", "noise"))
    sigma = np.exp(named_normal(f"sigma{step}", BATCH) - 0.4)
    return {"image": 0.5 * images, "noise": noise, "sigma": sigma, "label": np.arange(BATCH)}


@functools.cache
def train_step():
    config = experiment()[0]
    emas, project = tuple(factory.emas(config).values()), factory.projection(config)
    return jax.jit(state.make_train_step(loss, factory.optimizer(config), emas=emas, seed=0, project=project))


@functools.cache
def trained():
    """(states, losses): the state before the first step, and that after each; the loss of each."""
    states, losses = [experiment()[2]], []
    for step in range(STEPS):
        current, metrics = train_step()(states[-1], batch(step))
        states.append(current)
        losses.append(metrics["loss"])
    return states, losses


def test_weights_averages_and_losses_are_those_of_the_published_code():
    states, losses = trained()
    np.testing.assert_allclose(losses, LOSSES, rtol=2e-5)
    mapping = experiment()[1]
    sets = [to_tensors(variables, mapping) for variables in (states[-1].params, *states[-1].emas)]
    for name, published in PUBLISHED.items():
        probe = named_normal(f"probe {name}", *sets[0][name].shape) / np.sqrt(sets[0][name].size)
        ours = [np.sum(tensors[name] * probe) for tensors in sets]
        np.testing.assert_allclose(ours, published, atol=2e-5, err_msg=name)


def test_kernels_have_unit_magnitude_from_the_first_step_on():
    """m / (m + 1e-4) of a magnitude m, which is near 1 after a step, and what the weights begin with before the first."""
    states, _ = trained()
    for current, tolerance in ((states[0], 2e-3), *((later, 5e-6) for later in states[1:])):
        for path, leaf in flatten(current.params).items():
            if path[-1] == "kernel":
                magnitude = np.sqrt(np.mean(np.square(leaf), tuple(range(leaf.ndim - 1))))
                np.testing.assert_allclose(magnitude, 1 / (1 + 1e-4), atol=tolerance, err_msg=str(path))


@pytest.mark.thorough
@pytest.mark.parametrize("name", STRATEGIES)
def test_four_devices_train_as_one(name):
    """Kernels are normalized as a whole, also where each device has a share of them."""
    config, strategy = experiment()[0], STRATEGIES[name](jax.devices()[:BATCH])
    step = state.make_train_step(
        loss, factory.optimizer(config), emas=tuple(factory.emas(config).values()), seed=0,
        project=factory.projection(config), axis_name=strategy.axis_name, mean_gradient=strategy.mean_gradient,
    )  # fmt: skip
    mapped = strategy.map_training(lambda state, batch, n: step(state, batch))
    current = strategy.place(jax.tree.map(jnp.copy, experiment()[2]))
    for i in range(STEPS):
        current, metrics = mapped(current, strategy.shard(batch(i)), np.int32(1))
    states, losses = trained()
    np.testing.assert_allclose(metrics["loss"], losses[-1], rtol=1e-5)
    for four, one in zip(jax.tree.leaves(strategy.whole(current)), jax.tree.leaves(states[-1]), strict=True):
        np.testing.assert_allclose(four, one, atol=2e-5)


def position():
    """An iterator of data, which a checkpoint holds too."""
    return iter(grain.MapDataset.range(8).to_iter_dataset())


def test_a_checkpoint_in_between_changes_nothing(tmp_path):
    states, _ = trained()
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(states[2], position())
    with Checkpoints(tmp_path, 1) as checkpoints:
        current = checkpoints.restore(abstract_state(Experiment(experiment()[0])), position())
    for step in range(2, STEPS):
        current, _ = train_step()(current, batch(step))
    for a, b in zip(jax.tree.leaves(current), jax.tree.leaves(states[-1]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_other_networks_are_not_projected():
    assert factory.projection(tiny_config()) is state.unchanged
