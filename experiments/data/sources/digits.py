"""`digits`: 1,797 handwritten digits of 8x8x1 pixels that ship with scikit-learn."""

import numpy as np

from experiments.data.sources.base import Images, Parts
from experiments.data.sources.decoding import Wanted
from experiments.errors import UserError


def load(path: str, wanted: Wanted) -> Parts:
    """The 8x8 digits of https://archive.ics.uci.edu/dataset/80, whose 17 levels 0..16 are spread over 0..255.

    They are the same for all time, so their split is by a permutation, which gives both parts their exact sizes.

    Raises:
        UserError: other images are wanted, or a path was given.
    """
    if path:
        raise UserError(f"data.source='digits:{path}': the digits have no path; write 'digits'")
    from sklearn.datasets import load_digits  # takes a second to import, so only where it is used

    wanted.check("data.source='digits'", 8, 8, 1)
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    everything = Images(images, digits.target.astype(np.int32))
    if wanted.test_fraction is None:
        return Parts({"all": everything})
    num_train = len(images) - round(len(images) * wanted.test_fraction)
    order = np.random.default_rng(0).permutation(len(images))
    return Parts({"train": everything.take(order[:num_train]), "test": everything.take(order[num_train:])})


# By the name that a config gives, with the form of data.source.
SOURCES = {"digits": (load, "digits")}
