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


def test_lists_of_eight_names_are_whole():
    for count, end in ((8, r"t6, t7$"), (9, r"t7 and 1 more$")):
        with pytest.raises(WeightsError, match=end):
            to_variables(their_tensors() | {f"t{i}": np.zeros(1) for i in range(count)}, MAPPING, SHAPES)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32"])
def test_weights_are_float32_whatever_the_file_holds(dtype):
    theirs = {name: np.round(4 * tensor).astype(dtype) for name, tensor in their_tensors().items()}
    ours = to_variables(theirs, MAPPING, SHAPES)["params"]
    assert {leaf.dtype for layer in ours.values() for leaf in layer.values()} == {np.dtype("float32")}
    np.testing.assert_array_equal(ours["dense"]["kernel"], theirs["d.weight"].T.astype(np.float32))


def test_numbers_without_axes_are_weights_and_exports_lie_in_order():
    mapping = {("params", "gain"): Weight("g"), ("params", "conv", "kernel"): MAPPING["params", "conv", "kernel"]}
    shapes = {"params": {"gain": np.zeros(()), "conv": SHAPES["params"]["conv"]}}
    theirs = {"g": np.float32(3), "c.weight": their_tensors()["c.weight"]}
    ours = to_variables(theirs, mapping, shapes)
    assert ours["params"]["gain"].shape == () and ours["params"]["gain"] == 3
    back = to_tensors(ours, mapping)
    assert back["g"].shape == () and all(tensor.flags.c_contiguous for tensor in back.values())
    with pytest.raises(WeightsError, match=r"of another shape: g \(1,\), not \(\)"):
        to_variables(theirs | {"g": np.ones(1)}, mapping, shapes)


def test_a_mapping_is_for_the_weights_of_its_network_and_no_others():
    more = MAPPING | {("params", "more", "bias"): Weight("m")}
    less = {path: weight for path, weight in MAPPING.items() if path[1] != "out"}
    for mapping, odd in ((more, "params/more/bias"), (less, "params/out/kernel")):
        with pytest.raises(ValueError, match=f"the mapping and the network disagree on {odd}$"):
            to_variables(their_tensors(), mapping, SHAPES)
