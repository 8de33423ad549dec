"""Published models: a file in the peer's layout becomes the config that its code base means, with its weights in place.

Here the files hold random weights under the peer's names; that these are the peer's outputs is what the tests of
`models/pretrained` show. What diffusers itself reads and writes is tested where it is installed.
"""

import pickle

import jax
import numpy as np
import pytest
from flax import serialization

import models
from experiments import factory, load_pretrained
from experiments.config import files as config
from experiments.errors import UserError
from models.pretrained import guided_diffusion, ncsn, score_sde
from models.pretrained.mapping import to_tensors
from tests.experiments.tiny import ROOT
from tests.models.families import randomized

pytestmark = pytest.mark.filterwarnings("ignore:Some donated buffers")
TINY_NCSNPP = {"channels": "8", "channel_multipliers": "1,2", "blocks_per_level": "1", "attention_resolutions": "4"}


def tiny(name, process="ve", **options):
    """A config of the network at 8 px, and random weights for it."""
    changes = {"model.name": name} | {f"model.{key}": value for key, value in options.items()}
    loaded = config.load(f"{ROOT}/configs/digits.py:{process}", changes.items())
    return loaded, jax.tree.map(np.asarray, randomized(factory.abstract_variables(loaded)))


def equal(run, variables):
    jax.tree.map(np.testing.assert_array_equal, run.variables, variables)


def test_a_checkpoint_of_score_sde_gives_its_averages(tmp_path):
    """The EMA is a list without names or Fourier frequencies; `model` has names, DataParallel's prefix, and a table."""
    loaded, variables = tiny("ncsnpp", **TINY_NCSNPP)
    tensors = to_tensors(variables, score_sde.torch_mapping(factory.network(loaded), variables))
    # In the order of the numbered modules, as PyTorch keeps it.
    ordered = dict(sorted(tensors.items(), key=lambda item: int(item[0].split(".")[1])))
    averages = [tensor for name, tensor in ordered.items() if not score_sde.FROZEN.fullmatch(name)]
    model = {
        f"module.{name}": tensor * (1 if score_sde.FROZEN.fullmatch(name) else 0) for name, tensor in ordered.items()
    }
    tree = {
        "model": model | {"module.sigmas": np.ones(3)},
        "ema": {"decay": 0.999, "shadow_params": averages},
        "step": 9,
    }
    path = tmp_path / "checkpoint_9.pth"
    path.write_bytes(pickle.dumps(tree))
    equal(load_pretrained(path, "score_sde", loaded), variables)

    wider, _ = tiny("ncsnpp", **TINY_NCSNPP | {"channels": "12"})
    with pytest.raises(UserError, match=r"of another shape: all_modules\.0\.W \(8,\), not \(12,\)"):
        load_pretrained(path, "score_sde", wider)
    with pytest.raises(UserError, match="does not hold `params_ema`"):
        load_pretrained(path, "score_sde_jax", loaded)
    with pytest.raises(UserError, match="pass --config=FILE"):
        load_pretrained(path, "score_sde")


def test_a_checkpoint_of_score_sdes_jax_release_gives_its_averages(tmp_path):
    loaded, variables = tiny("ncsnpp", **TINY_NCSNPP)
    tree = {}
    for name, tensor in to_tensors(variables, score_sde.jax_mapping(factory.network(loaded), variables)).items():
        *parts, leaf = name.split("/")
        node = tree
        for part in parts:
            node = node.setdefault(part, {})
        node[leaf] = tensor
    path = tmp_path / "checkpoint_26"
    path.write_bytes(serialization.msgpack_serialize({"params_ema": tree, "step": 26}))
    equal(load_pretrained(path, "score_sde_jax", loaded), variables)


def test_a_checkpoint_of_ncsnv2_gives_its_averages(tmp_path):
    loaded, variables = tiny("ncsnv2", channels="8")
    tensors = to_tensors(variables, ncsn.mapping(factory.network(loaded)))
    tree = {
        "model": {f"module.{name}": t for name, t in tensors.items()},
        "ema": {"shadow_params": list(tensors.values())},
    }
    (tmp_path / "x.pth").write_bytes(pickle.dumps(tree))
    equal(load_pretrained(tmp_path / "x.pth", "score_sde", loaded), variables)


@pytest.mark.parametrize("format, new", [("guided_diffusion", False), ("guided_diffusion_64", True)])
def test_a_file_of_guided_diffusion_gives_its_weights_by_its_order_of_heads(tmp_path, format, new):
    options = {"channels": "32", "channel_multipliers": "1,2", "blocks_per_level": "1", "head_channels": "16"}
    loaded, variables = tiny("adm", "vp", **options, attention_resolutions="4")
    mapping = guided_diffusion.mapping(factory.network(loaded), variables, new_attention_order=new)
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(to_tensors(variables, mapping)))
    equal(load_pretrained(path, format, loaded), variables)


def test_a_classifier_is_told_from_a_model(tmp_path):
    options = {"channels": "32", "channel_multipliers": "1,2", "blocks_per_level": "1", "head_channels": "16"}
    loaded, _ = tiny("adm", "vp", **options, attention_resolutions="4")
    (tmp_path / "x.pt").write_bytes(pickle.dumps({"out.2.positional_embedding": np.ones((2, 2))}))
    with pytest.raises(UserError, match="it is a classifier of noisy images, not a model to sample from"):
        load_pretrained(tmp_path / "x.pt", "guided_diffusion", loaded)


def test_networks_by_name_take_their_own_options_on_the_command_line():
    loaded, _ = tiny("ncsnpp", **TINY_NCSNPP)
    assert set(loaded.model.keys()) == {"name", *models.options("ncsnpp")}
    assert factory.network(loaded).channel_multipliers == (1, 2)
    with pytest.raises(UserError, match=r"unknown key; did you mean .model\.fir_kernel."):
        config.override(loaded, "model.fir_kernels", "1,2")
