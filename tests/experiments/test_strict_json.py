"""Strict JSON: what is measured comes back as it was, NaN and infinity too; all else stays what is written."""

import json
import math

import numpy as np
import pytest

from experiments.files import strict_json

MEASURED = {
    strict_json.METRICS: (
        "samples", "real", "intervals", "memorisation", "bits_per_dim", "held_out_loss", "training_loss", "checkpoints",
        "guidance",
    ),
    strict_json.RESULTS: ("figures", "inputs"),
}  # fmt: skip
NUMBERS = [math.nan, math.inf, -math.inf, 0.5, 3]


@pytest.mark.parametrize("figures", MEASURED, ids=len)
def test_measured_numbers_come_back_below_every_key_that_has_them(tmp_path, figures):
    value = {key: {"a": [{"b": number} for number in NUMBERS], "c": math.nan} for key in MEASURED[figures]}
    strict_json.write(tmp_path / "a.json", value | {"other": NUMBERS})
    read = strict_json.read(tmp_path / "a.json", figures)
    assert read.pop("other") == [None, "inf", "-inf", 0.5, 3]
    assert read.keys() == value.keys()
    for found in read.values():
        np.testing.assert_equal([entry["b"] for entry in found["a"]], NUMBERS)
        assert math.isnan(found["c"])


def test_texts_and_truths_among_figures_stay_what_they_are(tmp_path):
    value = {"samples": {"images": "898 images", "sure": True, "infinite": "infinity", "none": []}}
    strict_json.write(tmp_path / "a.json", value)
    assert strict_json.read(tmp_path / "a.json", strict_json.METRICS) == value


@pytest.mark.parametrize("value", [[1, None, "inf"], "inf", 2.5, None])
def test_what_is_no_dictionary_is_read_as_it_is_written(tmp_path, value):
    strict_json.write(tmp_path / "a.json", value)
    assert strict_json.read(tmp_path / "a.json", strict_json.METRICS) == value


@pytest.mark.parametrize(
    "value, text",
    [
        (np.float32(0.5), "0.5"),
        (np.int64(3), "3"),
        (np.array([1.0, np.nan, -np.inf]), '[1.0, null, "-inf"]'),
        ((1, (2, math.inf)), '[1, [2, "inf"]]'),
        ({"a": np.bool_(True), "b": None}, '{"a": true, "b": null}'),
        (np.array([[1, 2], [3, 4]]), "[[1, 2], [3, 4]]"),
    ],
)
def test_numbers_of_numpy_are_written_as_numbers(value, text):
    assert strict_json.dumps(value, None) == text
    assert json.loads(strict_json.dumps(value)) == json.loads(text)


def test_text_is_indented_by_two_and_ends_with_its_line(tmp_path):
    strict_json.write(tmp_path / "a.json", {"a": [1]})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    1\n  ]\n}\n'


@pytest.mark.parametrize("value", [{1, 2}, object(), 1j, b"x"])
def test_other_values_are_refused(value):
    with pytest.raises(TypeError):
        strict_json.dumps({"a": value})


def test_no_other_keys_are_of_measured_numbers():
    for keys, names in MEASURED.items():
        assert sorted(keys) == sorted(names)
