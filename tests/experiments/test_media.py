"""Media: scales there and back, pictures, and the keys that choose them."""

import numpy as np
import pytest

from experiments import factory
from experiments.config import files as config
from experiments.errors import RunError, UserError
from experiments.factory import check
from experiments.media import ArrayMedium, ImageMedium, LatentMedium
from experiments.plotting import pictures, sheet
from tests.experiments.tiny import tiny_config

ARRAY = {"data__medium": "array", "data__event_shape": "12", "data__range": "-3,5", "data__source": "npz:a.npz"}
MLP = {"model.name": "mlp", "model.width": "8", "model.depth": "1"}


def array_config(**changes):
    return config.apply(tiny_config(**ARRAY | changes), MLP.items())


def test_every_grey_level_comes_back_from_the_models_range():
    """In order and in place, for a rectangle with alpha."""
    medium = ImageMedium((4, 64, 4))
    raw = np.arange(4 * 64 * 4).reshape(1, 4, 64, 4).astype(np.uint8)
    x = np.asarray(medium.forward(raw))
    assert x.dtype == np.float32 and x.min() == -1 and x.max() == 1 and medium.raw_range == (0, 255)
    np.testing.assert_array_equal(medium.inverse(x), raw)
    assert medium.inverse([-1.5, 1.5]).tolist() == [0, 255]
    with pytest.raises(RunError, match="1 of 2 image elements are NaN"):
        medium.inverse([0, np.nan])


@pytest.mark.parametrize("shape", [(12,), (8, 2), (3, 4, 5, 2)])
@pytest.mark.parametrize("low, high", [(-3.0, 5.0), (0.0, 1e-4), (1e4, 3e4), (-1.0, 1.0)])
def test_arrays_come_back_from_the_models_range_unclipped(shape, low, high):
    medium = ArrayMedium(shape, low, high)
    unit = np.random.default_rng(0).uniform(-0.2, 1.2, (6, *shape))
    raw = (low + (high - low) * unit).astype(np.float32)
    x = np.asarray(medium.forward(raw))
    np.testing.assert_allclose(x, 2 * unit - 1, atol=1e-5)
    back = medium.inverse(x)
    assert x.dtype == back.dtype == np.float32 and np.abs(x).max() > 1.3
    np.testing.assert_allclose(back, raw, rtol=0, atol=2e-6 * max(abs(low), abs(high)))
    assert np.isnan(medium.inverse([np.nan])).all() and medium.dimensions == np.prod(shape)
    np.testing.assert_allclose(medium.forward([low, high]), [-1, 1], atol=1e-6)


def test_alone_images_have_pictures():
    for medium in (ArrayMedium((4,)), LatentMedium((4, 4, 4))):
        raw = np.zeros((2, *medium.event_shape), np.float32)
        assert medium.picture(raw) is None and medium.shown(raw) is None and not medium.has_pixels
        assert medium.without_picture.startswith(f"float32 {medium.noun}")
    assert ImageMedium((48, 64, 3)).tile == 48 and ImageMedium((64, 48, 3)).tile == 48


def premultiplied(rng, *shape):
    alpha = rng.integers(0, 256, (*shape, 1))
    return np.concatenate([rng.integers(0, alpha + 1, (*shape, 3)), alpha], -1).astype(np.uint8)


def test_images_with_alpha_are_shown_over_the_background():
    raw = premultiplied(np.random.default_rng(0), 3, 4, 6)
    medium = ImageMedium((4, 6, 4), background=(255, 128, 0))
    expected = np.rint(raw[..., :3] + (255 - raw[..., 3:].astype(float)) * [1, 128 / 255, 0])
    np.testing.assert_array_equal(medium.shown(raw), expected)
    np.testing.assert_array_equal(medium.picture(raw, columns=3), pictures.grid(expected.astype(np.uint8), 3))
    opaque = np.concatenate([raw[..., :3], np.full_like(raw[..., 3:], 255)], -1)
    np.testing.assert_array_equal(medium.shown(opaque), raw[..., :3])
    np.testing.assert_array_equal(medium.shown(np.zeros_like(raw)), np.broadcast_to([255, 128, 0], (3, 4, 6, 3)))
    too_bright = np.array([[[[200, 0, 0, 0]]]], np.uint8)  # as a model may draw
    assert medium.shown(too_bright).tolist() == [[[[255, 128, 0]]]]
    for channels in (1, 2, 3, 5):
        images = np.repeat(raw[..., :1], channels, -1)
        np.testing.assert_array_equal(medium.shown(images), pictures.visible(images))


def test_files_of_images_with_alpha_hold_straight_colours_and_lose_nothing(tmp_path):
    from experiments.data.sources import Wanted

    raw = premultiplied(np.random.default_rng(1), 40, 30)
    sheet.save_picture(tmp_path / "a.png", raw)
    read = Wanted((40, 30), 4).decode((tmp_path / "a.png").read_bytes(), "a.png")
    np.testing.assert_array_equal(read, raw)
    straight = pictures.straight(raw).astype(float)
    half = raw[..., 3] == 128
    np.testing.assert_array_equal(straight[half][:, :3], np.rint(raw[half][:, :3] * (255 / 128)))


def test_the_config_chooses_the_medium():
    assert factory.medium(tiny_config()) == ImageMedium((8, 8, 1))
    assert factory.medium(tiny_config(data__background="black")).background == (0, 0, 0)
    latents = tiny_config(data__source="latents", data__image_size="4x6", data__num_channels=4)
    assert factory.medium(latents) == LatentMedium((4, 6, 4))  # as stored before data.medium was a key
    latents.data.medium = "latent"
    assert factory.medium(latents) == LatentMedium((4, 6, 4))
    assert factory.medium(array_config()) == ArrayMedium((12,), -3.0, 5.0)
    assert factory.medium(array_config(data__event_shape="3,4,5")) == ArrayMedium((3, 4, 5), -3.0, 5.0)
    assert factory.complete(array_config()).data.event_shape == (12,)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"data__medium": "arrays"}, "data.medium='arrays' is unknown: choose from array, image, latent; did you mean"),
        ({"data__medium": "latent"}, "data.medium='latent': data.source='npz:a.npz' has no latents; 'latents' has"),
        ({"data__event_shape": "()"}, "data.event_shape=(): the shape of one array is needed"),
        ({"data__event_shape": "4,0"}, "data.event_shape=4,0: each entry must be more than 0"),
        ({"data__range": "0,0"}, "data.range=0,0: must be two finite numbers, low,high with low < high"),
        ({"data__range": "3,-1"}, "data.range=3,-1: must be two finite numbers"),
        ({"data__range": "1,2,3"}, "data.range=1,2,3: must be two finite numbers"),
        ({"data__event_shape": "12,3"}, "model: MLP: x has shape (1, 12, 3), but a batch of vectors has shape (B, D)"),
        ({"data__augmentation": "0.1"}, "data.augmentation=0.1: "),
        (
            {"data__dequantization": "uniform"},
            "data.dequantization='uniform': is of grey levels, which arrays have not",
        ),
        ({"evaluation__likelihood_images": "8"}, "bits per dimension are of images of 8 bits"),
        ({"evaluation__features": "inception"}, "evaluation.features='inception' takes images, not arrays"),
    ],
)
def test_settings_that_do_not_fit_the_medium_are_one_line(changes, message):
    with pytest.raises(UserError) as error:
        check.check(array_config(**changes))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("network", ["adm", "ddpm", "dit", "edm2", "ncsn", "ncsnpp", "ncsnv2", "unet"])
@pytest.mark.parametrize("shape", ["12", "16,2", "8,8,8,1"])
def test_networks_of_images_say_what_they_take(network, shape):
    settings = config.apply(tiny_config(**ARRAY | {"data__event_shape": shape}), [("model.name", network)])
    with pytest.raises(UserError, match=r"but a batch of images has shape \(B, H, W, C\)$"):
        check.check(settings, "model")


def test_media_say_their_shape_and_their_range():
    """Grey levels are 0 to twice the levels of a unit; arrays have the range that is stated, latents the model's."""
    for medium, described, dimensions, raw_range in (
        (ImageMedium((48, 64, 3)), "48x64x3", 9216, (0.0, 255.0)),
        (ImageMedium((2, 3, 4), levels_per_unit=511.5), "2x3x4", 24, (0.0, 1023.0)),
        (ArrayMedium((12,), -3.0, 5.0), "12", 12, (-3.0, 5.0)), (ArrayMedium((3, 4, 5, 2)), "3x4x5x2", 120, (-1.0, 1.0)),
        (LatentMedium((4, 6, 8)), "4x6x8", 192, (-1.0, 1.0)),
    ):  # fmt: skip
        assert (medium.described, medium.dimensions, medium.raw_range) == (described, dimensions, raw_range)
        low, high = medium.raw_range
        np.testing.assert_allclose(medium.forward(np.float32([low, high])), [-1, 1], atol=1e-6)
    assert [medium.noun for medium in (ImageMedium, ArrayMedium, LatentMedium)] == ["images", "arrays", "latents"]
    latents = np.array([-9.25, 0, 3.5])
    back = LatentMedium((1, 1, 3)).inverse(latents)
    assert back.dtype == np.float32 and back.tolist() == latents.tolist()
    assert np.asarray(LatentMedium((1, 1, 3)).forward(latents)).tolist() == latents.tolist()
