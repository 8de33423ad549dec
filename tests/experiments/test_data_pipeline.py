"""The stream of batches: every image once per epoch, and the same stream after a restart."""

import itertools
import time

import jax
import numpy as np
import pytest

from experiments import data
from experiments.data import Images, training_batches
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.training import train
from tests.experiments.decoding import numbered
from tests.experiments.tiny import tiny_config


def take(batches, n):
    return list(itertools.islice(batches, n))


def labels(batches, n):
    return np.concatenate([batch["label"] for batch in take(batches, n)])


def assert_equal(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key])


@pytest.mark.parametrize("num_images, batch_size", [(12, 4), (10, 4), (3, 8), (1, 5), (300, 7)])
def test_every_image_once_per_epoch(num_images, batch_size):
    """Also where the batch does not divide the data set, and where it holds several epochs."""
    batches = training_batches(numbered(num_images), batch_size=batch_size, seed=0, flip=False)
    stream = labels(batches, -(-4 * num_images // batch_size))
    epochs = stream[: 4 * num_images].reshape(4, num_images)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(num_images), (4, 1)))
    if num_images >= 10:
        assert len(np.unique(epochs, axis=0)) == 4, "each epoch has an order of its own"


def test_batches_hold_the_images_of_their_labels():
    for batch in take(training_batches(numbered(300), batch_size=64, seed=0, flip=False), 10):
        assert batch["image"].shape == (64, 2, 2, 1) and batch["image"].dtype == np.uint8
        assert batch["label"].shape == (64,) and batch["label"].dtype == np.int32
        number = batch["image"][:, 0, 0, 0].astype(int) * 256 + batch["image"][:, 0, 1, 0]
        np.testing.assert_array_equal(number, batch["label"])


def test_no_labels_no_label():
    batches = training_batches(Images(numbered(5).images), batch_size=2, seed=0, flip=True)
    assert next(batches).keys() == {"image"}


def test_the_seed_decides():
    def stream(seed):
        return take(training_batches(numbered(50), batch_size=8, seed=seed, flip=True), 15)

    assert_equal(stream(3), stream(3))
    orders = [np.concatenate([batch["label"] for batch in stream(seed)]) for seed in (0, 1)]
    # Neither equal nor one epoch behind the other.
    assert (orders[0][:50] != orders[1][:50]).any() and (orders[0][50:100] != orders[1][:50]).any()


@pytest.mark.parametrize("position", [0, 1, 5, 23])
def test_a_restored_stream_goes_on_where_it_was(position):
    """In a new iterator, as after a preemption, and in one that has run ahead."""

    def start():
        return training_batches(numbered(50), batch_size=8, seed=0, flip=True)

    batches = start()
    take(batches, position)
    state = batches.get_state()
    expected = take(batches, 20)
    resumed = start()
    resumed.set_state(state)
    assert_equal(take(resumed, 20), expected)
    batches.set_state(state)
    assert_equal(take(batches, 20), expected)


def test_flips_mirror_left_and_right_half_of_the_time_and_leave_the_data_alone():
    images = numbered(200)
    original = images.images.copy()
    is_flipped = np.zeros((10, 200), bool)  # by epoch and image
    batches = take(training_batches(images, batch_size=50, seed=0, flip=True), 40)
    for i, batch in enumerate(batches):
        plain = original[batch["label"]]
        mirrored = (batch["image"] == plain[:, :, ::-1]).all(axis=(1, 2, 3))
        assert (mirrored | (batch["image"] == plain).all(axis=(1, 2, 3))).all()
        is_flipped[i // 4, batch["label"]] = mirrored
    np.testing.assert_array_equal(images.images, original)
    is_flipped = is_flipped[:, 1:]  # image 0 is its own mirror image
    assert abs(is_flipped.mean() - 0.5) < 5 * 0.5 / np.sqrt(is_flipped.size)
    # The flips of an image are drawn anew in each epoch: always the same way has a chance of 1 in 512.
    assert np.mean(is_flipped.all(axis=0) | ~is_flipped.any(axis=0)) < 0.05


@pytest.mark.parametrize("hosts", [2, 3])
def test_hosts_read_the_rows_of_one_batch_with_their_flips(hosts):
    """Host h of n has the h-th of n equal parts of every batch, each image mirrored as with one host."""
    settings = {"batch_size": 12, "seed": 3, "flip": True}
    whole = take(training_batches(numbered(50), **settings), 9)
    parts = [take(training_batches(numbered(50), **settings, host=host, hosts=hosts), 9) for host in range(hosts)]
    joined = [{key: np.concatenate([part[i][key] for part in parts]) for key in whole[i]} for i in range(9)]
    assert_equal(joined, whole)


def test_reading_ahead_stays_cheap():
    """1,500 images of 8x8 pixels a second, a fast training run on a CPU, cost below 3 % of one core.

    Grain's own per-example pipeline (source, shuffle, batch) costs three times that much.
    """
    batches = training_batches(numbered(899, size=8), batch_size=64, seed=0, flip=True)
    take(batches, 10)
    costs = []
    for _ in range(3):  # the least of three: another process may hold the caches once
        start = time.process_time()
        take(batches, 100)
        costs.append((time.process_time() - start) / 6400)
    assert 1500 * min(costs) < 0.03


@pytest.mark.parametrize(
    "change, phrase",
    [
        ({"batch_size": 0}, "data.batch_size=0"),
        ({"batch_size": 4, "hosts": 3}, "data.batch_size=4 cannot be shared by 3 hosts: .* such as 6"),
        ({"seed": -1}, "training.seed=-1"),
        ({"seed": 2**32}, "training.seed=4294967296"),
    ],
)
def test_bad_settings(change, phrase):
    with pytest.raises(UserError, match=phrase):
        training_batches(numbered(5), **{"batch_size": 2, "seed": 0, "flip": False} | change)


def test_the_stream_of_a_host_has_all_settings_of_the_data(monkeypatch):
    monkeypatch.setattr(data, "training_batches", lambda images, **settings: (images, settings))
    monkeypatch.setattr(jax, "process_index", lambda: 2)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    config = tiny_config(data__batch_size=48, data__workers=5, data__worker_timeout=12.5, training__seed=7)
    for flip in (False, True):
        config.data.random_flip = flip
        assert train.training_stream(Experiment(config), "images") == ("images", {
            "batch_size": 48, "seed": 7, "flip": flip, "host": 2, "hosts": 3, "workers": 5, "worker_timeout": 12.5,
        })  # fmt: skip
