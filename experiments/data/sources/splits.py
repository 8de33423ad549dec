"""Training, validation and test images that never mix: a hash of what an example is decides, for good.

The hash of an example's identity (the path of its file within the folder, its record's key, or the bytes of its pixels) is
a number u in [0, 1). Test images are those with u < test_fraction, validation images those with u >= 1 -
validation_fraction. So neither the number of images nor their order matters: images that are added move no other image, and
a larger fraction only takes images away from training. (Sizes are what chance gives: N f, give or take sqrt(N f (1 - f)).)

Each class keeps at least one training image: where the hash leaves a class none, its test image of the largest u, or else
its validation image of the smallest, is a training image (with all that equal it), until another one of the class is. Where
that would leave nothing to hold out (a class for each image), the hash alone decides, and a warning says so.

A split that the source has is kept: what it lacks (validation, or the test images) is taken from its training images.
"""

import numpy as np

from experiments.data.sources.base import Dataset, Parts, Source
from experiments.errors import UserError


def check_fractions(test_fraction: float, validation_fraction: float) -> None:
    """Raises a UserError unless 0 < test_fraction < 1, 0 <= validation_fraction < 1 and training images remain."""
    if not 0 < test_fraction < 1:
        raise UserError(f"data.test_fraction={test_fraction} is not allowed: choose between 0 and 1, both excluded")
    if not 0 <= validation_fraction < 1:
        raise UserError(f"data.validation_fraction={validation_fraction} is not allowed: choose 0 or more, below 1")
    if test_fraction + validation_fraction >= 1:
        raise UserError(
            f"data.test_fraction={test_fraction} and data.validation_fraction={validation_fraction} leave nothing to train "
            "on: together they must be less than 1"
        )


def split(name: str, parts: Parts, *, test_fraction: float, validation_fraction: float) -> Dataset:
    """The three splits of a source: its own where it has them, the others by hash.

    Args:
        name: the source as the config names it.
        parts: what the source gives.
        test_fraction: of images to hold out where the source has no test images, in (0, 1).
        validation_fraction: of images to set apart where the source has no validation images, in [0, 1).

    Raises:
        UserError: a split that is needed turns out empty, or some have labels and others none.
    """
    own = parts.sources
    train = own["all"] if "all" in own else own["train"]
    is_labelled = train.labels is not None
    for part, source in own.items():
        if len(source) == 0:
            raise UserError(f"data.source={name!r} has no {_WORDS[part]} images")
        if (source.labels is not None) != is_labelled:
            raise UserError(f"data.source={name!r}: {_WORDS[part]} and training images must all have labels, or none")
    by_hash = {"test": test_fraction if "test" not in own else 0}
    by_hash["validation"] = validation_fraction if "validation" not in own else 0
    chosen = {"train": np.ones(len(train), bool)}
    warnings = list(parts.warnings)
    if any(by_hash.values()):
        identities = train.identities()
        u = uniform(identities)
        chosen["test"], chosen["validation"] = u < by_hash["test"], u >= 1 - by_hash["validation"]
        chosen["train"] = ~(chosen["test"] | chosen["validation"])
        for part in ("test", "validation"):
            if by_hash[part] and not chosen[part].any():
                raise _too_few(name, identities, f"data.{part}_fraction={by_hash[part]}")
        if not chosen["train"].any():
            raise _too_few(name, identities, f"data.test_fraction={test_fraction}")
        if is_labelled:
            kept = _kept_for_their_class(u, identities, train.labels, chosen["train"], by_hash["test"])
            held = {part: chosen[part] & ~kept for part in ("test", "validation")}
            if all(held[part].any() or not chosen[part].any() for part in held):
                chosen |= held | {"train": chosen["train"] | kept}
            else:
                warnings.append(
                    "classes have too few images for each to keep a training image and some to be held out: the hash of "
                    "each image alone decides its split"
                )

    def part(key: str) -> Source:
        return own[key] if key in own else train.take(chosen.get(key, np.zeros(len(train), bool)))

    remaining = train if chosen["train"].all() else train.take(chosen["train"])
    return Dataset(
        name,
        remaining,
        part("validation"),
        part("test"),
        parts.num_classes,
        parts.class_names,
        tuple(part for part, fraction in by_hash.items() if fraction),
        parts.left_out,
        tuple(warnings),
    )


def uniform(identities: np.ndarray) -> np.ndarray:
    """The numbers u in [0, 1) of identities uint64 (N,), by which the splits are decided."""
    return (identities >> np.uint64(11)) / 2.0**53  # 53 bits: a float64 holds them, and never rounds them up to 1


def _kept_for_their_class(
    u: np.ndarray, identities: np.ndarray, labels: np.ndarray, trained: np.ndarray, test_fraction: float
) -> np.ndarray:
    """bool (N,): images to train on so that each class has one, where the hash leaves it none.

    Args:
        u, identities, labels: (N,), of all images.
        trained: bool (N,), those that the hash gives to training.
        test_fraction: below which u makes a test image.
    """
    bare = ~np.isin(labels, labels[trained])
    places, tested = np.flatnonzero(bare), u[bare] < test_fraction
    last_tested_first = np.where(tested, -u[bare], u[bare])
    places = places[np.lexsort((identities[bare], last_tested_first, ~tested, labels[bare]))]  # class by class
    chosen = places[np.unique(labels[places], return_index=True)[1]]
    return np.isin(identities, identities[chosen])


_WORDS = {"all": "training", "train": "training", "test": "test", "validation": "validation"}


def _too_few(name: str, identities: np.ndarray, setting: str) -> UserError:
    count, different = len(identities), len(np.unique(identities))
    same = f", {different} different (equal images are one: they stay in one split)" if different < count else ""
    return UserError(
        f"data.source={name!r} has {count} images{same}, too few to hold out {setting} of them: at least one must remain "
        "for training and one be held out; choose another fraction, or give more images"
    )
