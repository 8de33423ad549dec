"""The interface of the feature networks, on EfficientNet-lite0: batches, devices, gray images, files and their faults."""

import functools
import hashlib
import pickle

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from experiments.errors import UserError
from experiments.metrics import feature_networks
from models.efficientnet import EfficientNetLite0
from models.pretrained import efficientnet, files, frozen

pytestmark = pytest.mark.devices


@functools.cache
def network():
    return feature_networks.load(batch_size=2)


@functools.cache
def images():
    """Five different crops of a photograph, 40 x 40."""
    photograph = load_sample_image("china.jpg")
    return np.stack([photograph[60 * i : 60 * i + 40, 100 * i : 100 * i + 40] for i in range(5)])


@functools.cache
def features():
    return network()(images())


def test_features_are_the_networks_for_pixels_resized_by_pillow():
    resized = [Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC) for image in images()[:2]]
    x = (np.stack(resized).astype(np.float32) - 127) / 128
    expected = jax.jit(EfficientNetLite0().apply)(network().variables, x)
    assert features().keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(features()[name][:2], array, atol=1e-4 * np.std(array))


def test_a_last_batch_that_is_not_full_counts_each_image_once():
    assert {name: array.shape for name, array in features().items()} == {
        "pool": (5, 1280),
        "spatial": (5, 1372),
        "logits": (5, 1000),
    }
    alone = network()(images()[4:])
    for name, size in network().dimensions().items():
        assert alone[name].shape == (1, size) and alone[name].dtype == np.float32
        np.testing.assert_allclose(alone[name][0], features()[name][4], atol=1e-5 * np.std(alone[name]))


def test_all_devices_give_what_one_gives():
    devices = jax.devices()[:2]
    mapped = jax.pmap(network().apply, devices=devices, in_axes=(None, 0))(
        network().variables, images()[:4].reshape(2, 2, 40, 40, 3)
    )
    for name, array in mapped.items():
        expected = features()[name][:4]
        np.testing.assert_allclose(np.reshape(array, expected.shape), expected, atol=1e-5 * np.std(expected))


def test_a_gray_image_is_one_of_three_equal_channels():
    gray, shown = images()[:2, ..., :1], feature_networks.rgb(images()[:2, ..., :1])
    np.testing.assert_array_equal(shown, np.concatenate([gray] * 3, axis=-1))
    np.testing.assert_array_equal(feature_networks.rgb(images()), images())
    assert jax.eval_shape(network().apply, network().variables, gray)["pool"].shape == (2, 1280)


def test_weights_are_identified_by_their_hash(tmp_path):
    data = efficientnet.packaged_file().read_bytes()
    assert network().sha256 == hashlib.sha256(data).hexdigest() and network().as_published is True
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    files.write_safetensors(tmp_path / "same.safetensors", frozen.tensors(efficientnet.packaged_file()), {})
    other = feature_networks.load("efficientnet-lite0", tmp_path / "same.safetensors")
    assert other.sha256 != network().sha256 and other.as_published is False
    jax.tree.map(np.testing.assert_array_equal, other.variables, network().variables)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 8, 8, 3)),
        np.zeros((2, 8, 8, 2), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_other_images_are_refused(wrong):
    with pytest.raises(UserError, match=r"features need images uint8 \(N, H, W, 1 or 3\), N at least 1; these are "):
        network()(wrong)


def test_faults_of_name_and_file_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"features='efficientnet' is unknown: .*did you mean 'efficientnet-lite0'"):
        feature_networks.load("efficientnet")
    path = tmp_path / "weights.pth"
    with pytest.raises(UserError, match=f"efficientnet-lite0: cannot read weights from {path}: No such file"):
        feature_networks.load("efficientnet-lite0", path)
    path.write_bytes(pickle.dumps({"_fc.bias": print}))
    with pytest.raises(UserError, match=f"{path}: it asks for builtins.print"):
        feature_networks.load("efficientnet-lite0", path)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(UserError, match=f"{path}: it holds no tensors by name"):
        feature_networks.load("efficientnet-lite0", path)
    path.write_bytes(pickle.dumps({"epoch": 3, "_fc.bias": np.zeros(1000)}))
    with pytest.raises(UserError, match=f"{path}: not tensors: epoch"):
        feature_networks.load("efficientnet-lite0", path)


@pytest.mark.parametrize(
    "name, file",
    [(name, "pt_inception-2015-12-05-6726825d.pth") for name in ("inception", "inception-tf1", "inception-clean")]
    + [(f"dinov2-{size}", f"dinov2_{size}_pretrain.pth") for size in ("vits14", "vitb14", "vitl14")],
)
def test_a_file_that_only_its_publisher_has_is_asked_for(name, file):
    with pytest.raises(UserError, match=f"{name}: its weights are in no installed package; name the file {file} "):
        feature_networks.load(name)


@pytest.mark.parametrize("name", ["inception-clean", "dinov2-vits14"])
def test_a_file_of_another_network_is_refused(name, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"fc.weight": np.zeros((1000, 2048), np.float32)}))
    with pytest.raises(UserError, match=f"{name}: cannot read weights from {path}: missing: .* more"):
        feature_networks.load(name, path)


def test_published_figures_differ_in_name_or_preprocessing_where_pixels_differ():
    """Every name but DINOv2's three sizes feeds its network other pixels, and says so."""
    ways = {name: feature_networks.KINDS[name].preprocessing for name in feature_networks.names()}
    assert len(set(ways.values())) == len(ways) - 2


def test_inputs_are_those_of_the_publishers():
    """By Pillow and NumPy: clean-fid's build_resizer("clean") and InceptionV3W, dgm-eval's DINOv2Encoder.transform."""
    given = images()[:1]
    floats = [Image.fromarray(given[0, ..., i].astype(np.float32), mode="F") for i in range(3)]
    resized = np.stack([np.asarray(f.resize((299, 299), Image.Resampling.BICUBIC)) for f in floats], -1)
    found = feature_networks.KINDS["inception-clean"].preprocess(given)[0]
    np.testing.assert_allclose(found, (resized.clip(0, 255) - 128) / 128, atol=1e-5)

    resized = np.asarray(Image.fromarray(given[0]).resize((224, 224), Image.Resampling.BICUBIC))
    found = feature_networks.KINDS["dinov2-vitl14"].preprocess(given)[0]
    expected = (resized / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(found, expected, atol=1e-5)

    found = feature_networks.KINDS["inception-tf1"].preprocess(given)[0]
    np.testing.assert_allclose(found[0, 0], (given[0, 0, 0].astype(float) - 128) / 128, atol=1e-6)
    expected = (np.interp(np.arange(299) * 40 / 299, np.arange(40), given[0, 0, :, 1]) - 128) / 128
    np.testing.assert_allclose(found[0, :, 1], expected, atol=1e-4)


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(efficientnet, "PACKAGE", "no_such_package")
    with pytest.raises(UserError, match="is not installed: pip install no-such-package"):
        feature_networks.load()


def by_pillow(images, size, mode):
    """Images (N, H, W, 3) resized by Pillow's bicubic filter, as bytes or a channel of floats at a time."""

    def resized(channel):
        picture = Image.fromarray(channel.astype(np.float32) if mode == "F" else channel)
        return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC), np.float64)

    return np.stack([np.stack([resized(image[..., c]) for c in range(3)], -1) for image in images])


MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # of ImageNet's red, green and blue


@pytest.mark.parametrize("digits, published", [("", None), ("{}", True), ("0" * 8, False)])
def test_whether_weights_are_the_publishers_is_known_where_a_hash_is_published(
    monkeypatch, tmp_path, digits, published
):
    (tmp_path / "weights.pt").write_bytes(b"weights")
    digits = digits.format(hashlib.sha256(b"weights").hexdigest()[:8])
    kind = feature_networks.KINDS["inception"]._replace(digits=digits, read=lambda path: {})
    monkeypatch.setitem(feature_networks.KINDS, "other", kind)
    assert feature_networks.load("other", tmp_path / "weights.pt").as_published is published


@pytest.mark.parametrize(
    "name, size, mode, normalized",
    [
        ("efficientnet-lite0", 224, "L", lambda x: (x - 127) / 128),
        ("dinov2-vits14", 224, "L", lambda x: (x / 255 - MEAN) / STD),
        ("inception-clean", 299, "F", lambda x: (np.clip(x, 0, 255) - 128) / 128),
    ],
)
def test_a_network_sees_pixels_by_pillow_in_its_own_units(name, size, mode, normalized):
    """A high image that is enlarged, whose colours differ."""
    images = np.random.default_rng(0).integers(0, 256, (1, 9, 5, 3), np.uint8)
    found = np.asarray(feature_networks.KINDS[name].preprocess(images))
    assert found.shape == (1, size, size, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, normalized(by_pillow(images, size, mode)), atol=2e-5)


@pytest.mark.parametrize(
    "name, normalized", [("inception", lambda x: x / 127.5 - 1), ("inception-tf1", lambda x: (x - 128) / 128)]
)
def test_pixels_of_the_networks_size_are_only_normalized(name, normalized):
    images = np.random.default_rng(0).integers(0, 256, (1, 299, 299, 3), np.uint8)
    found = np.asarray(feature_networks.KINDS[name].preprocess(images))
    np.testing.assert_allclose(found, normalized(images.astype(float)), atol=1e-5)


@pytest.mark.parametrize("size", ["vits14", "vitb14", "vitl14"])
def test_every_size_of_dinov2_has_the_pixels_of_the_others(size):
    kind = feature_networks.KINDS[f"dinov2-{size}"]
    assert kind.preprocess is feature_networks.KINDS["dinov2-vits14"].preprocess
    assert kind.packaged_file is None and kind.digits == "" and f"dinov2_{size}_pretrain.pth" in kind.published_as
