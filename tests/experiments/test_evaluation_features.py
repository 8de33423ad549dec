"""Statistics of real images, which are kept, and features on all devices, in calls of few sizes."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments import data
from experiments.devices.parallel import BATCH, STATE
from experiments.errors import UserError
from experiments.evaluation import reference
from experiments.evaluation.features import OnAllDevices, weights_hash
from experiments.evaluation.reference import real_images
from experiments.runs.workdir import Workdir
from tests.experiments.tiny import fake_run, tiny_config


def test_statistics_are_kept_for_their_images_their_features_and_the_number_kept(tmp_path):
    """Others are computed: of other weights, another preprocessing, other images, or with more features kept."""
    rng = np.random.default_rng(1)
    train, test = (data.Images(rng.integers(0, 256, (count, 2, 2, 1), np.uint8)) for count in (30, 20))
    images = data.Dataset("d", train, train.take(np.arange(0)), test, 0)
    seen = []

    class Network:
        name, preprocessing, sha256 = "pixels", "x / 255", "0"

        def __init__(self, **changes):
            vars(self).update(changes)

        def __call__(self, block):
            seen.append(len(block))
            return {"pool": block.reshape(len(block), -1) / 255}

    def computed(network=None, dataset=images, **changes):
        config = tiny_config(**{f"evaluation__{key}": value for key, value in changes.items()})
        seen.clear()
        found = real_images(fake_run(config=config, workdir=Workdir(tmp_path)), dataset, network or Network())
        return sorted(seen), found

    sizes = {"num_samples": 12, "training_images": 25}
    assert computed(**sizes)[0] == [12, 25] and computed(**sizes)[0] == []
    for network in (Network(sha256="1"), Network(preprocessing="x"), Network(name="other")):
        assert computed(network, **sizes)[0] == [12, 25] and computed(network, **sizes)[0] == []
    changed = data.Images(test.images.copy())
    changed.images[:] ^= 1
    assert computed(dataset=data.Dataset("d", train, images.validation, changed, 0), **sizes)[0] == [12]
    assert computed(**sizes | {"training_images": 26})[0] == [26]
    assert computed(**sizes | {"num_samples": 13})[0] == [13]
    drawn, found = computed(**sizes | {"num_samples": 26, "training_images": 0})
    assert drawn == [20] and (len(found.real), len(found.train)) == (26, 0)  # those of training are there
    against = {"reference": "training"}
    drawn, found = computed(**sizes, **against)
    assert drawn == [30] and (found.reference.count, len(found.reference.features), len(found.train)) == (30, 25, 25)
    assert computed(**sizes | {"training_images": 7}, **against)[0] == [30]  # twelve are kept


def test_all_images_of_a_block_of_a_thousand_are_read_once():
    read = []

    class Counted(data.Images):
        def pixels(self, indices):
            read.append((len(indices), int(indices[0]), int(indices[-1])))
            return super().pixels(indices)

    for count, expected in (
        (1, [(1, 0, 0)]),
        (1000, [(1000, 0, 999)]),
        (2001, [(1000, 0, 999), (1000, 1000, 1999), (1, 2000, 2000)]),
    ):
        read.clear()
        blocks = list(reference._blocks(Counted(np.zeros((count, 1, 1, 1), np.uint8))))
        assert read == expected and sum(map(len, blocks)) == count


class Devices:
    """A strategy of so many devices, in numpy: notes how many images each call has."""

    def __init__(self, count):
        self.num_devices, self.sizes = count, []

    def place(self, variables):
        return {"placed": variables}

    def map(self, function, inputs, outputs):
        assert (inputs, outputs) == ((STATE, BATCH), BATCH)

        def called(variables, images):
            self.sizes.append(len(images))
            return function(variables, images)

        return called

    def rows(self, size):
        return slice(None)

    def shard(self, images):
        return images

    def gather(self, found):
        return found


@pytest.mark.parametrize(
    "devices, batch, count, sizes",
    [(2, 16, 1, [2]), (2, 16, 2, [2]), (2, 16, 3, [4]), (2, 16, 5, [8]), (2, 16, 9, [16]), (2, 16, 16, [16]),
     (2, 16, 17, [32]), (2, 16, 32, [32]), (2, 16, 33, [32, 32]), (1, 6, 5, [6]), (1, 6, 13, [6, 6, 6]), (3, 2, 7, [6, 6])],
)  # fmt: skip
def test_calls_of_a_feature_network_are_powers_of_two_up_to_its_batch(devices, batch, count, sizes):
    """On each device; the last call is filled up with repeats, which are cut off."""
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    network = SimpleNamespace(
        name="n", preprocessing="p", sha256="0123456789abcdef", batch_size=batch, variables="w",
        apply=lambda given, pixels: {"pool": pixels[:, 0, 0], "given": np.full(len(pixels), given == {"placed": "w"})},
    )  # fmt: skip
    strategy = Devices(devices)
    made = OnAllDevices(network, strategy)
    found = made(images)
    np.testing.assert_array_equal(found["pool"], images[:, 0, 0])
    assert found["given"].all() and len(found["given"]) == count and strategy.sizes == sizes
    assert made.description == "n (p; SHA-256 of the weights 0123456789ab...)"
    assert (made.name, made.preprocessing, made.sha256) == ("n", "p", "0123456789abcdef")
    with pytest.raises(UserError, match="features need images uint8"):
        made(images.astype(float))
    network.description = "own words"
    assert made.description == "own words"


def test_a_network_that_is_not_for_devices_is_called_as_it_is():
    plain = SimpleNamespace(name="n", preprocessing="p", sha256="0")
    called = OnAllDevices(
        type("Plain", (), {**vars(plain), "__call__": lambda self, images: ("called", images)})(), None
    )
    assert called("images") == ("called", "images")


def test_weights_of_another_dtype_are_other_weights():
    trees = [{"a": np.zeros(2, kind)} for kind in (np.float32, np.int32, np.float64)] + [
        {"a": {"b": np.zeros(2, np.float32)}}
    ]
    assert len({weights_hash(tree) for tree in trees}) == 4
