"""Files of facebookresearch/DiT: they say their architecture; what they sample are latents, which stay numbers."""

import argparse
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
import sde_lib
from experiments import factory, load_pretrained, load_run
from experiments.__main__ import main
from experiments.config import files as config
from experiments.errors import UserError
from models.pretrained import dit
from models.pretrained.mapping import to_tensors
from tests.experiments.test_formats import equal
from tests.experiments.tiny import ROOT
from tests.models.families import randomized
from tests.models.pretrained.opcodes import call, name, value, whole

pytestmark = pytest.mark.filterwarnings("ignore:Some donated buffers")
DIT = {"width": 384, "num_heads": 6, "depth": 1, "patch_size": 4, "num_classes": 3, "learned_variance": True}


def dit_tensors(**options):
    """The file of a DiT for latents of 8 x 8 x 4; and its variables."""
    network = models.create("dit", **DIT | options)
    condition = {"label": jnp.zeros(1, int)}
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 4)), jnp.zeros(1), condition)
    variables = jax.tree.map(np.asarray, randomized(shapes))
    tensors = to_tensors(variables, dit.facebook_mapping(network, 4))
    return tensors | dit.facebook_positions(network, 8 // network.patch_size), variables


@pytest.fixture(scope="module")
def dit_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("dit") / "DiT.pt"
    path.write_bytes(pickle.dumps(dit_tensors()[0]))
    return path


def test_a_file_of_dit_says_its_architecture(dit_file):
    """D(x; i) = (x - sigma noise) / alpha with DDPM's table; the second half of the output, the variance, is dropped."""
    run = load_pretrained(dit_file, "dit")
    _, variables = dit_tensors()
    equal(run, variables)
    assert run.event_shape == (8, 8, 4)
    assert {option: getattr(factory.network(run.config), option) for option in DIT} == DIT
    index, labels = np.array([0, 400, 999]), jnp.array([0, 2, 3])
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 4)).astype(np.float32)
    network = models.create("dit", **DIT)
    noise = network.apply(variables, x, jnp.asarray(index, jnp.float32), {"label": labels}, method="mean_and_variance")[
        ..., :4
    ]
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[index][:, None, None, None]
    expected = (x - np.sqrt(1 - alpha_bar) * noise) / np.sqrt(alpha_bar)
    got = run.denoiser.replace(condition={"label": labels})(x, jnp.asarray((index + 1) / 1000, jnp.float32))
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * float(jnp.abs(theirs).max()))


def test_a_checkpoint_of_dits_training_gives_its_averages(tmp_path):
    """Its `args` are an argparse.Namespace, which is read as data."""
    tensors, variables = dit_tensors()
    arguments = argparse.Namespace(model="DiT-S/4", image_size=64)
    tree = {"model": {name: 0 * tensor for name, tensor in tensors.items()}, "ema": tensors, "args": arguments}
    (tmp_path / "x.pt").write_bytes(pickle.dumps(tree))
    equal(load_pretrained(tmp_path / "x.pt", "dit"), variables)


def test_a_dit_of_a_width_that_is_not_published_takes_a_config(tmp_path):
    tensors, variables = dit_tensors(width=32, num_heads=4)
    (tmp_path / "x.pt").write_bytes(pickle.dumps(tensors))
    with pytest.raises(UserError, match=r"width 32, whose number of heads .* only 384 \(S\), 768 \(B\)"):
        load_pretrained(tmp_path / "x.pt", "dit")
    changes = {"model.name": "dit", "data.num_channels": "4"}
    changes |= {f"model.{key}": str(value) for key, value in (DIT | {"width": 32, "num_heads": 4}).items()}
    loaded = config.load(f"{ROOT}/configs/digits.py:ddpm", changes.items())
    equal(load_pretrained(tmp_path / "x.pt", "dit", loaded), variables)


FAULTS = {
    "truncated": (lambda tensors: pickle.dumps(tensors)[:-9], "it is truncated or not a file of PyTorch"),
    "empty": (lambda tensors: pickle.dumps({}), "missing: x_embedder.proj.weight"),
    "list": (lambda tensors: pickle.dumps([1, 2]), "missing: x_embedder.proj.weight"),
    "hostile": (lambda tensors: whole(call(name("os", "system"), value("true"))), "it asks for os.system"),
    "missing": (
        lambda tensors: pickle.dumps({k: v for k, v in tensors.items() if k != "blocks.0.attn.proj.bias"}),
        "missing: blocks.0.attn.proj.bias",
    ),
    "extra": (lambda tensors: pickle.dumps(tensors | {"odd": np.ones(1)}), "not of this network: odd"),
    "misshapen": (
        lambda tensors: pickle.dumps(tensors | {"final_layer.linear.bias": np.ones(3)}),
        "of another shape: final_layer.linear.bias (3,), not (128,)",
    ),
    "outputs": (
        lambda tensors: pickle.dumps(tensors | {"final_layer.linear.weight": np.ones((9, 384))}),
        "final_layer.linear.weight has 9 outputs: only 64 for the input's 4 channels, or 128 with a variance",
    ),
    "positions": (
        lambda tensors: pickle.dumps({k: v for k, v in tensors.items() if k != "pos_embed"}),
        "missing: pos_embed",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_file_is_one_line_and_nothing_is_written(fails, tmp_path, fault):
    broken, message = FAULTS[fault]
    path, workdir = tmp_path / "file", tmp_path / "run"
    path.write_bytes(broken(dit_tensors()[0]))
    assert message in fails("import", f"--from={path}", "--format=dit", f"--workdir={workdir}")
    assert not workdir.exists()


def test_latents_are_sampled_as_they_are_and_not_evaluated(fails, dit_file, tmp_path):
    workdir, out = tmp_path / "run", tmp_path / "out" / "latents.npz"
    assert main(["import", f"--from={dit_file}", "--format=dit", f"--workdir={workdir}"]) == 0
    assert main(["sample", f"--workdir={workdir}", "--num_samples=2", "--steps=2", f"--out={out}"]) == 0
    assert [path.name for path in out.parent.iterdir()] == ["latents.npz"]
    run = load_run(workdir)
    denoiser = run.denoiser.replace(condition={"label": jnp.arange(2)})
    keys, times = (
        jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(2)),
        sde_lib.uniform_times(denoiser.sde, 2),
    )
    expected = sde_lib.sample(keys, denoiser, sde_lib.DDIM(), times, run.event_shape)
    latents = np.load(out)["samples"]
    assert latents.dtype == np.float32
    np.testing.assert_allclose(latents, run.medium.inverse(expected), atol=1e-3 * float(expected.std()))
    message = fails("evaluate", f"--workdir={workdir}")
    assert "data.source='latents': the model is of an autoencoder's latents, and no encoder is here" in message
