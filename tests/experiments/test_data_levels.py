"""Levels of pictures: every product with alpha, straight colours and backgrounds, and what cannot be decoded."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.data.sources import Wanted, deep
from experiments.data.sources.orientation import turn, upright_size
from experiments.data.sources.paths import existing
from experiments.data.sources.rendering import opened, premultiplied, unreadable
from experiments.errors import UserError
from experiments.plotting import pictures
from tests.experiments.pictures_of_files import file_of, png

COLOUR, ALPHA = (axis.astype(np.uint8) for axis in np.mgrid[:256, :256])
EVERY = np.stack([COLOUR, COLOUR[::-1], ALPHA, ALPHA], -1)  # all pairs of a level and an opacity


def test_colours_are_multiplied_by_alpha_and_rounded_to_the_nearest_level():
    found = premultiplied(EVERY)
    assert found.dtype == np.uint8
    for channel in range(3):
        exact = EVERY[..., channel].astype(int) * ALPHA
        np.testing.assert_array_equal(found[..., channel], (2 * exact + 255) // 510)
    np.testing.assert_array_equal(found[..., 3], ALPHA)


def test_straight_colours_are_the_nearest_and_come_back_by_alpha():
    """Of every level that is at most alpha; brighter ones are white, transparent ones black."""
    straight = pictures.straight(EVERY)
    exact = np.divide(255.0 * COLOUR, ALPHA, out=np.zeros((256, 256)), where=ALPHA > 0)
    np.testing.assert_array_equal(straight[..., 0], np.rint(exact.clip(0, 255)))
    np.testing.assert_array_equal(straight[..., 3], ALPHA)
    possible = COLOUR <= ALPHA
    np.testing.assert_array_equal(premultiplied(straight)[possible][:, 0], COLOUR[possible])


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (255, 128, 7)])
def test_colours_over_a_background(background):
    found = pictures.over(EVERY, background)
    for channel, level in enumerate(background):
        exact = EVERY[..., channel] + (255.0 - ALPHA) * level / 255
        np.testing.assert_allclose(found[..., channel], exact.clip(0, 255), atol=0.5 + 1e-9)
    assert found.dtype == np.uint8 and found.shape == (256, 256, 3)


def test_what_pillow_cannot_open_is_named_with_its_reason(tmp_path):
    for content in (b"", b"no picture", b"\x89PNG\r\n"):
        with pytest.raises(UserError, match=r"^--mask: a\.png cannot be read as an image \(not of a known format\)$"):
            opened(content, Path("a.png"), "--mask")
    for error, reason in ((ValueError(), "ValueError"), (OSError("cut"), "cut"), (SyntaxError("broken"), "broken")):
        assert str(unreadable("a", "key", error)) == f"key: a cannot be read as an image ({reason})"


def test_paths_that_are_not_there_are_named_with_their_nearest_sibling(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "folder").mkdir()
    assert existing("~/folder") == existing(str(tmp_path / "folder")) == tmp_path / "folder"
    for text, message in (
        ("~/foldr", f"{tmp_path}/foldr does not exist; did you mean 'folder'?"), ("~/q", f"{tmp_path}/q does not exist"),
        ("~/gone/folder", f"{tmp_path}/gone/folder does not exist"),
    ):  # fmt: skip
        for key in ({}, {"key": "--input"}):
            with pytest.raises(UserError) as error:
                existing(text, **key)
            assert str(error.value) == f"{key.get('key', 'data.source')}: {message}"


def test_pictures_that_take_too_much_memory_are_named(monkeypatch):
    """At each step; other faults of the orientation turn nothing."""
    content = file_of(Image.fromarray(np.zeros((6, 4), np.uint8)))

    def full(*arguments):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("experiments.data.sources.decoding.center_crop", full)
        with pytest.raises(UserError, match=r"^data\.source: a\.png cannot be read as an image \(MemoryError\)$"):
            Wanted(4, 1, "center_crop").decode(content, "a.png")
    image = Image.open(io.BytesIO(content))
    for error, turned in ((ValueError("damaged"), None), (MemoryError(), MemoryError)):

        def broken(error=error):
            raise error

        monkeypatch.setattr(image, "getexif", broken)
        if turned is None:
            assert turn(image) is None and upright_size(image) == (6, 4)
        else:
            with pytest.raises(turned):
                turn(image)


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_of_16_bits_is_exact_and_opaque_pixels_are_opaque(channels):
    levels = np.random.default_rng(0).integers(0, 65536, (4, 4, channels), dtype=np.uint16)
    levels[0, :, -1] = 0, 1, 65534, 65535
    content = png(levels)
    with opened(content, "a") as image:
        found = deep.read(image, content)
    np.testing.assert_array_equal(found.alpha, np.float32(levels[..., -1:]) / np.float32(65535))
    np.testing.assert_array_equal(found.values, levels[..., :-1])
    assert (found.alpha[0, 0], found.alpha[0, 3]) == (0, 1) and (found.bits, found.inverted) == (16, False)
