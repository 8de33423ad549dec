"""Training, validation and test images never mix, and no image ever moves from one to another."""

import hashlib

import numpy as np
import pytest

from experiments.data.digests import digest, identities_of
from experiments.data.sources.base import Dataset, Images, Parts, Source
from experiments.data.sources.splits import check_fractions, split
from experiments.errors import UserError

TEST, VALIDATION = 0.2, 0.1


def pictures(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 3, 1), dtype=np.uint8)


def contents(source):
    return [image.tobytes() for image in source.images]


def split_all(images, test=TEST, validation=VALIDATION, labels=None):
    return split("npz:x", Parts({"all": Images(images, labels)}), test_fraction=test, validation_fraction=validation)


def places(images, **fractions):
    """The split of each image, by its content."""
    data = split_all(images, **fractions)
    return {c: name for name in ("train", "validation", "test") for c in contents(getattr(data, name))}


def test_the_splits_are_disjoint_and_complete_and_of_the_fractions_asked_for():
    n = 20_000
    data = split_all(pictures(n), labels=np.arange(n, dtype=np.int32))
    taken = np.concatenate([data.train.labels, data.validation.labels, data.test.labels])
    np.testing.assert_array_equal(np.sort(taken), np.arange(n))
    for part, fraction in ((data.test, TEST), (data.validation, VALIDATION)):
        assert abs(len(part) - n * fraction) < 5 * np.sqrt(n * fraction * (1 - fraction))
    np.testing.assert_array_equal(data.test.images, pictures(n)[data.test.labels])


def test_no_image_moves_when_others_are_added_or_shuffled():
    old, new = pictures(300), pictures(500, seed=1)
    before = places(old)
    grown = np.concatenate([new[:200], old[::-1], new[200:]])
    after = places(grown)
    assert {c: after[c] for c in before} == before
    assert set(before.values()) == {"train", "validation", "test"} and len(after) == 800


def test_equal_images_are_in_one_split():
    images = pictures(100)
    data = split_all(np.concatenate([images, images[50:]]))
    assert not set(contents(data.train)) & set(contents(data.test))


def test_larger_fractions_take_from_training_alone():
    before, after = places(pictures(500), test=0.1, validation=0.1), places(pictures(500), test=0.3, validation=0.2)
    for content, name in before.items():
        assert after[content] == name or name == "train"
    assert len(before) == len(after) == 500


def test_the_hash_is_the_same_in_every_release_and_on_every_machine():
    """The digest by coreutils: `printf cat/1.png | b2sum -l 128` prints this, the identity is its first 8 bytes."""
    assert digest(b"cat/1.png").hex() == "83652b0a6ec929501b2174b9d410aa5b"
    assert int(identities_of(np.frombuffer(digest(b"cat/1.png"), np.uint8)[None])[0]) == int.from_bytes(
        bytes.fromhex("83652b0a6ec929501b2174b9d410aa5b")[:8], "little"
    )


class Numbered(Source):
    """Images with chosen identities, whose first pixel is their number."""

    def __init__(self, identities):
        self.labels, self.image_shape, self._identities = None, (1, 1, 1), np.array(identities, np.uint64)

    def __len__(self):
        return len(self._identities)

    def pixels(self, indices):
        raise AssertionError("a split reads no image")

    def take(self, indices):
        return Numbered(self._identities[indices])

    def identities(self):
        return self._identities

    def fingerprint(self):
        return "none"


def test_test_images_are_the_lowest_and_validation_images_the_highest_hashes():
    """At the very borders: u = 0.25 is not a test image, u = 0.75 is a validation image, u = 1 - 2^-64 rounds to no 1."""
    u = [0, 2**62 - 2**11, 2**62, 2**63, 3 * 2**62 - 2**11, 3 * 2**62, 2**64 - 1]
    data = split("x", Parts({"all": Numbered(u)}), test_fraction=0.25, validation_fraction=0.25)
    assert data.test.identities().tolist() == u[:2]
    assert data.train.identities().tolist() == u[2:5]
    assert data.validation.identities().tolist() == u[5:]
    without = split("x", Parts({"all": Numbered(u)}), test_fraction=0.25, validation_fraction=0)
    assert without.train.identities().tolist() == u[2:] and len(without.validation) == 0


@pytest.mark.parametrize("has", [("train", "test"), ("train", "validation"), ("train", "test", "validation")])
def test_splits_of_the_sources_own_are_kept_and_what_lacks_comes_from_training(has):
    own = {name: Images(pictures(200, seed)) for seed, name in enumerate(has)}
    data = split("x", Parts(own), test_fraction=TEST, validation_fraction=VALIDATION)
    train = set(contents(own["train"]))
    for name in ("test", "validation"):
        got = set(contents(getattr(data, name)))
        assert (got == set(contents(own[name]))) if name in has else (got < train and got)
        train -= got
    assert set(contents(data.train)) == train


def test_what_cannot_be_split_is_named():
    one = Parts({"all": Images(pictures(1))})
    with pytest.raises(UserError, match=r"has 1 images, too few to hold out data\.test_fraction=0\.2"):
        split("x", one, test_fraction=0.2, validation_fraction=0)
    mixed = Parts({"train": Images(pictures(4), np.zeros(4, np.int32)), "test": Images(pictures(4))})
    with pytest.raises(UserError, match="test and training images must all have labels, or none"):
        split("x", mixed, test_fraction=0.2, validation_fraction=0)


def test_the_fingerprint_tells_images_labels_and_order_apart():
    images, labels = pictures(10), np.arange(10, dtype=np.int32)
    changed = images.copy()
    changed[3, 1, 1] ^= 1
    prints = [
        Images(images, labels).fingerprint(),
        Images(changed, labels).fingerprint(),
        Images(images, labels[::-1]).fingerprint(),
        Images(images[::-1], labels).fingerprint(),
        Images(images).fingerprint(),
        Images(images[:9], labels[:9]).fingerprint(),
        Images(images.reshape(10, 9, 1, 1), labels).fingerprint(),
    ]
    assert len(set(prints)) == len(prints) and all(p.startswith("sha256:") for p in prints)
    assert Images(images.copy(order="F"), labels.astype(np.int64)).fingerprint() == prints[0]
    assert split_all(images, test=0.4).fingerprint() != split_all(images, test=0.5).fingerprint()


@pytest.mark.parametrize(
    "test, validation, message",
    [
        (0.0, 0.1, "data.test_fraction=0.0 is not allowed"),
        (1.0, 0.0, "data.test_fraction=1.0 is not allowed"),
        (0.5, -0.1, "data.validation_fraction=-0.1 is not allowed"),
        (0.5, 1.0, "data.validation_fraction=1.0 is not allowed"),
        (0.5, 0.5, "leave nothing to train on"),
        (0.75, 0.5, "leave nothing to train on"),
    ],
)
def test_fractions_that_cannot_be_are_named(test, validation, message):
    check_fractions(0.25, 0.5)
    with pytest.raises(UserError, match=message):
        check_fractions(test, validation)


@pytest.mark.parametrize(
    "labels, names, expected",
    [
        ([0, 1, 1], None, 2),
        ([0, 4, 1], None, 5),
        ([0, 1, 1], ("a", "b", "c"), 3),
        (None, None, 0),
        ([0, 2, 1], ("a",), 3),
    ],
)
def test_classes_are_as_many_as_names_or_as_the_largest_label_says(labels, names, expected):
    """A class of which no image is there is one."""
    labels = None if labels is None else np.array(labels, np.int32)
    assert Parts({"all": Images(pictures(3), labels)}, names).num_classes == expected


@pytest.mark.parametrize("labels", [None, [3, 0, 2**31 - 1]])
def test_the_print_of_images_is_the_same_in_every_release_and_on_every_machine(labels):
    """SHA-256 of the shape (N, H, W, C) in text, of BLAKE2b of each image, and of the labels in little-endian."""
    images = pictures(3)
    text = b"(3, 3, 3, 1)" + b"".join(hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images)
    if labels is not None:
        text += b"".join(label.to_bytes(4, "little") for label in labels)
    source = Images(images, None if labels is None else np.array(labels, np.int32))
    assert source.fingerprint() == f"sha256:{hashlib.sha256(text).hexdigest()}"
    whole = Dataset("x", source, source.take(np.arange(0)), source, 0)
    parts = " ".join(part.fingerprint() for part in whole.splits.values())
    assert whole.fingerprint() == f"sha256:{hashlib.sha256(parts.encode()).hexdigest()}"
