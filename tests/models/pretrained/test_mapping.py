"""Mappings of weights: known layouts, exact round trips, and faults named weight by weight."""

import numpy as np
import pytest

from models.pretrained.mapping import (
    CONV,
    DENSE,
    POINTWISE,
    POINTWISE_1D,
    POINTWISE_TRANSPOSED,
    Weight,
    WeightsError,
    to_tensors,
    to_variables,
)

MAPPING = {
    ("params", "conv", "kernel"): Weight("c.weight", CONV),
    ("params", "dense", "kernel"): Weight("d.weight", DENSE),
    ("params", "qkv", "kernel"): Weight(("q.W", "k.W", "v.W"), POINTWISE_TRANSPOSED),
    ("params", "qkv", "bias"): Weight(("q.b", "k.b", "v.b")),
    ("params", "out", "kernel"): Weight("o.weight", POINTWISE),
    ("params", "skip", "kernel"): Weight("s.weight", POINTWISE_1D),
}
THEIR_SHAPES = {
    "c.weight": (5, 4, 3, 2),
    "d.weight": (7, 6),
    **{f"{part}.W": (4, 2) for part in "qkv"},
    **{f"{part}.b": (2,) for part in "qkv"},
    "o.weight": (5, 4),
    "s.weight": (5, 4, 1),
}
SHAPES = {
    "params": {
        "conv": {"kernel": np.zeros((3, 2, 4, 5))},
        "dense": {"kernel": np.zeros((6, 7))},
        "qkv": {"kernel": np.zeros((1, 1, 4, 6)), "bias": np.zeros(6)},
        "out": {"kernel": np.zeros((1, 1, 4, 5))},
        "skip": {"kernel": np.zeros((1, 1, 4, 5))},
    }
}


def their_tensors():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in THEIR_SHAPES.items()}


def test_each_layout_puts_every_number_where_it_belongs():
    theirs = their_tensors()
    ours = to_variables(theirs, MAPPING, SHAPES)["params"]
    for out, into, row, column in np.ndindex(5, 4, 3, 2):
        assert ours["conv"]["kernel"][row, column, into, out] == theirs["c.weight"][out, into, row, column]
    for out, into in np.ndindex(5, 4):
        assert ours["out"]["kernel"][0, 0, into, out] == theirs["o.weight"][out, into]
        assert ours["skip"]["kernel"][0, 0, into, out] == theirs["s.weight"][out, into, 0]
    assert ours["dense"]["kernel"][2, 5] == theirs["d.weight"][5, 2]
    for number, part in enumerate("qkv"):
        np.testing.assert_array_equal(ours["qkv"]["kernel"][0, 0, :, 2 * number : 2 * number + 2], theirs[f"{part}.W"])
        np.testing.assert_array_equal(ours["qkv"]["bias"][2 * number : 2 * number + 2], theirs[f"{part}.b"])


def test_there_and_back_is_the_identity():
    theirs = their_tensors()
    back = to_tensors(to_variables(theirs, MAPPING, SHAPES), MAPPING)
    assert back.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_missing_extra_and_misshapen_tensors_are_named():
    theirs = their_tensors()
    del theirs["d.weight"]
    theirs["surplus"] = np.zeros(3)
    theirs["k.W"] = np.zeros((2, 4))
    with pytest.raises(WeightsError) as error:
        to_variables(theirs, MAPPING, SHAPES)
    assert str(error.value) == (
        "missing: d.weight; not of this network: surplus; of another shape: k.W (2, 4), not (4, 2)"
    )


def test_long_lists_end_with_how_many_more():
    with pytest.raises(WeightsError, match=r"not of this network: t00, .*t07 and 4 more$"):
        to_variables(their_tensors() | {f"t{i:02d}": np.zeros(1) for i in range(12)}, MAPPING, SHAPES)
