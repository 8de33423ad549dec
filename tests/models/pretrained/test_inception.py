"""InceptionV3 of the FID: the features, maps and logits of pytorch-fid's network with the same weights, to rounding."""

import functools

import jax
import numpy as np
import pytest

from experiments.metrics import feature_networks
from models.pretrained import frozen, inception
from models.pretrained.mapping import WeightsError, to_tensors, to_variables
from tests.models.pretrained.named import classifier_weights

# pytorch-fid 0.3.0 (src/pytorch_fid/inception.py of mseitzer/pytorch-fid at commit b9c18118d082cbd263c1b8963fc4221dc1cbb659)
# with torchvision 0.29.1, in evaluation mode: InceptionV3([3]) around fid_inception_v3() with `weights()`, for
# `images()` / 255. Of each image the numbers at linspace(0, size - 1, 6), then mean and standard deviation over both. `pool`
# is the output, `spatial` that of Mixed_6d [:, :7] with channels last, `logits` pool @ fc.weight.T.
PEER = {
    "pool": (
        [
            [2.999259, 0.7220141, 0.01281843, 0.4269604, 0.03886786, 0.0],
            [3.638602, 0.9414719, 0.01447994, 0.7156235, 0.01961647, 0.0],
        ],
        (0.7785558700561523, 1.0507044792175293),
    ),
    "spatial": (
        [
            [0.2609972, 0.0, 1.091216, 0.0, 0.648374, 0.0],
            [0.1647467, 0.0, 0.7502617, 0.0, 0.723848, 0.2806507],
        ],
        (0.22222815454006195, 0.335365355014801),
    ),
    "logits": (
        [
            [-1.742161, 1.264763, 0.9838417, -0.3436841, -0.3194883, -0.462273],
            [-2.361019, 1.581474, 1.386815, -0.2655144, -0.1670809, -0.4140928],
        ],
        (-0.06228511780500412, 1.8674159049987793),
    ),
}
KIND = feature_networks.KINDS["inception"]


def images():
    """Noise, and darker noise, uint8 (2, 32, 32, 3)."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    return pixels // np.array([1, 2], np.uint8)[:, None, None, None]


@functools.cache
def shapes():
    x = jax.ShapeDtypeStruct((1, 299, 299, 3), np.float32)
    return jax.eval_shape(KIND.module().init, jax.random.key(0), x)


@functools.cache
def weights():
    """The tensors of a file, by pytorch-fid's names, less the bias and the counters that nothing depends on."""
    zeros = jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), shapes())
    return classifier_weights({name: a.shape for name, a in to_tensors(zeros, inception.mapping()).items()})


@functools.cache
def features():
    variables = to_variables(weights(), inception.mapping(), shapes())
    return jax.tree.map(np.asarray, jax.jit(feature_networks.apply_of(KIND))(variables, images()))


@pytest.mark.parametrize("name", PEER)
def test_features_are_those_of_pytorch_fid(name):
    expected, (mean, std) = PEER[name]
    array = features()[name]
    np.testing.assert_allclose(array[:, np.linspace(0, array.shape[1] - 1, 6).astype(int)], expected, atol=1e-4 * std)
    np.testing.assert_allclose([array.mean(), array.std()], [mean, std], atol=1e-4 * std)
    assert array.shape == (2, {"pool": 2048, "spatial": 2023, "logits": 1008}[name]) and array.dtype == np.float32


def test_all_features_are_those_of_pytorch_fid_beside_it(monkeypatch):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[interop]'")
    pytest.importorskip("torchvision", reason="pytorch-fid needs a torchvision that fits torch", exc_type=Exception)
    peer = pytest.importorskip("pytorch_fid.inception", reason="the peer is not installed: pip install pytorch-fid")
    state = {name: torch.tensor(tensor) for name, tensor in weights().items()} | {"fc.bias": torch.zeros(1008)}
    strict = torch.nn.Module.load_state_dict

    def load(module, tensors):
        counters = {
            name: tensor for name, tensor in module.state_dict().items() if name.endswith("num_batches_tracked")
        }
        return strict(module, tensors | counters)

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", load)
    monkeypatch.setattr(peer, "load_state_dict_from_url", lambda url, progress: state)
    with torch.no_grad():
        pool = peer.InceptionV3([3]).eval()(torch.tensor(images().transpose(0, 3, 1, 2)) / 255)[0][..., 0, 0].numpy()
    np.testing.assert_allclose(features()["pool"], pool, atol=1e-4 * pool.std())


def test_faults_of_a_file_are_named(monkeypatch):
    found = {name: np.zeros(1, np.float32) if name == "fc.weight" else a for name, a in weights().items()}
    found["AuxLogits.fc.bias"] = found.pop("Mixed_7c.branch_pool.bn.running_var")
    monkeypatch.setattr(frozen, "tensors", lambda path: found | {"fc.bias": np.zeros(1008, np.float32)})
    with pytest.raises(WeightsError) as error:
        inception.read("pt_inception.pth")
    assert str(error.value) == (
        "missing: Mixed_7c.branch_pool.bn.running_var; not of this network: AuxLogits.fc.bias; "
        "of another shape: fc.weight (1,), not (1008, 2048)"
    )
