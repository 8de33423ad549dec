"""Sizes of images in the config, on the command line and in stored runs: one grammar, one line of error."""

import re

import pytest

from configs import base
from experiments import factory
from experiments.__main__ import main
from experiments.config import files as config
from experiments.config import ranges, sizes
from experiments.data.sources import Wanted
from experiments.errors import UserError
from experiments.factory import check
from tests.experiments.tiny import ROOT, tiny_config

SIZES = [
    (64, (64, 64), 64), ("64", (64, 64), 64), ("48x64", (48, 64), "48x64"), ("64X48", (64, 48), "64x48"),
    (" 7x7 ", (7, 7), 7), ((3, 5), (3, 5), "3x5"), ([3, 5], (3, 5), "3x5"), ((9,), (9, 9), 9), (1, (1, 1), 1),
    ("16384x1", (16384, 1), "16384x1"),
]  # fmt: skip
WRONG = [
    0, -8, 16385, 8.0, True, None, "", "x", "0", "48x", "x64", "48x0", "48*64", "48x64x3", "4.5x6", "-4x6", "16385x1",
    "1x99999999999999999999", (), (1, 2, 3), (True, 8), ("4", "6"), "1e1", "²",
]  # fmt: skip


@pytest.mark.parametrize("value, size, written", SIZES)
def test_a_size_is_height_and_width(value, size, written):
    assert sizes.parse(value) == size and sizes.written(size) == written
    assert type(sizes.written(size)) is type(written)
    assert sizes.parse(sizes.written(size)) == size and ranges.KEYS["data.image_size"].allows(value)


@pytest.mark.parametrize("value", WRONG)
def test_anything_else_is_one_line(value):
    line = f"--image_size={value}: must be a number of pixels from 1 to 16384, or HEIGHTxWIDTH of two such numbers, as 48x64"
    with pytest.raises(UserError, match=f"^{re.escape(line)}$"):
        sizes.parse(value, "--image_size")
    assert not ranges.KEYS["data.image_size"].allows(value)


@pytest.mark.parametrize("text, written", [("48x64", "48x64"), ("16", 16), ("16x16", 16)])
def test_a_size_is_set_stored_and_read_again(text, written):
    """Over a number and over a text, in a config as it is made and as it is read."""
    for start in (tiny_config(), config.from_json(config.to_json(tiny_config()))):
        changed = config.apply(start, [("data.image_size", "3x5"), ("data.image_size", text)])
        assert changed.data.image_size == written and type(changed.data.image_size) is type(written)
        again = config.from_json(config.to_json(changed))
        assert config.differences(changed, again) == []
        assert config.apply(again, [("data.image_size", "2")]).data.image_size == 2


def test_config_files_take_numbers_and_texts(tmp_path):
    for size, shape in ((28, (28, 28, 3)), ('"20x28"', (20, 28, 3))):
        path = tmp_path / "own.py"
        path.write_text(
            "from configs import base\n\n\ndef get_config():\n    config = base.get_config()\n"
            f"    config.data.image_size = {size}\n    return config\n"
        )
        assert factory.medium(config.load(str(path))).event_shape == shape
    assert base.get_config().data.image_size == 32


def test_a_stored_size_that_is_none_is_refused_by_its_key(tmp_path):
    settings = tiny_config()
    with settings.data.ignore_type():
        settings.data.image_size = "wide"
    with pytest.raises(UserError, match=r"^data\.image_size=wide: must be a number of pixels"):
        check.check(settings, "model")


def test_every_axis_that_a_network_cannot_halve_is_named():
    fits = {"data__image_size": "12x8", "model__channel_multipliers": "1,1,1", "model__channels": "8"}
    check.check(tiny_config(**fits), "model")
    for size, axis in (("10x8", "height 10"), ("8x10", "width 10")):
        with pytest.raises(UserError, match=f"^model: UNet: {axis} is not divisible by 4, as 3 levels need$"):
            check.check(tiny_config(**fits | {"data__image_size": size}), "model")


def test_the_command_line_refuses_a_wrong_size(fails, tmp_path):
    line = "must be a number of pixels from 1 to 16384, or HEIGHTxWIDTH of two such numbers, as 48x64"
    assert (
        fails("prepare", "--source=digits", f"--out={tmp_path}/out", "--image_size=8by8")
        == f"--image_size=8by8: {line}"
    )
    arguments = ("train", f"--config={ROOT}/configs/digits.py", f"--workdir={tmp_path}/run")
    assert fails(*arguments, "--config.data.image_size=8x") == f"--config.data.image_size=8x: {line}"
    found = fails(*arguments, "--config.data.image_size=8x16")
    assert found.startswith("data.source='digits' holds 8x8x1 images but data.image_size=8x16 and data.num_channels=1")
    assert "pass --config.data.image_size=8;" in found
    assert main(["prepare", "--source=digits", f"--out={tmp_path}/out", "--image_size=8x8"]) == 0


@pytest.mark.parametrize("flags, key", [("--config.data.", "data."), ("--", "--")])
def test_a_source_names_the_flag_of_a_size_and_what_would_fit(flags, key):
    with pytest.raises(UserError, match=rf"^{key}image_size=0x4: must be a number of pixels from 1 to 16384"):
        Wanted("0x4", 1, flags=flags)
    wanted = Wanted("3x5", 1, flags=flags)
    assert wanted.image_size == (3, 5) and Wanted(None, None).check("a", 3, 5, 2) is None
    for given, overrides in (
        ((5, 3, 1), ["image_size=5x3"]), ((4, 4, 1), ["image_size=4"]), ((3, 5, 3), ["num_channels=3"]),
        ((6, 6, 3), ["image_size=6", "num_channels=3"]),
    ):  # fmt: skip
        with pytest.raises(UserError) as error:
            wanted.check("a.png", *given)
        crop = f"; or, to crop and resize them, {flags}resize=center_crop" if given[:2] != (3, 5) else ""
        assert str(error.value) == (
            f"a.png holds {'x'.join(map(str, given))} images but data.image_size=3x5 and data.num_channels=1: to train on "
            f"them as they are, pass {' '.join(flags + text for text in overrides)}{crop}"
        )
    cropping = Wanted("3x5", 1, "center_crop", flags=flags)
    assert cropping.check("a", 9, 9, 1) is None and wanted.check("a", 3, 5, 1) is None
