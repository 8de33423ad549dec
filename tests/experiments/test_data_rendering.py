"""Files of every mode give the grey levels that their specification says: over the background, upright, at full depth."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from experiments.data import load
from experiments.data.prepare import prepare
from experiments.data.sources import Wanted, read
from experiments.data.sources.decoding import center_crop, opened
from experiments.data.sources.orientation import upright, upright_size
from experiments.errors import UserError
from tests.experiments.pictures_of_files import file_of, png, tiff, with_orientation

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (4, 4, 4), dtype=np.uint16)  # levels and, where there is one, alpha
DEEP[0] = 0, 4095, 65535, 65535  # opaque, transparent and in between
DEEP[1, :, 3] = 0
DEEP[3, 3, 0] = DEEP[2, 2, 0]  # shares one channel with the colour that is transparent below
LUMA = (0.299, 0.587, 0.114)


def decoded(content, channels=3, **options):
    return Wanted(4, channels, **options).decode(content, "a.png").astype(float)


def over(levels, alpha, background):
    """Porter and Duff's over."""
    return alpha * levels + (1 - alpha) * np.asarray(background, float)


def transparent_pictures():
    """name: (file, levels (4, 4, 3), alpha (4, 4, 1)); what is hidden differs from what is around it."""
    rgba = RNG.integers(0, 256, (4, 4, 4), dtype=np.uint8)
    rgba[:2, :, 3], rgba[2, :, 3] = 0, 255
    colours, alpha = rgba[..., :3].astype(float), rgba[..., 3:] / 255
    yield "RGBA", file_of(Image.fromarray(rgba)), colours, alpha
    yield "RGBA of WebP", file_of(Image.fromarray(rgba), "WEBP", lossless=True, exact=True), colours, alpha
    yield "RGBA of TIFF", file_of(Image.fromarray(rgba), "TIFF"), colours, alpha
    grey = np.repeat(colours[..., :1], 3, -1)
    yield "LA", file_of(Image.fromarray(rgba[..., ::3].copy())), grey, alpha
    places = np.arange(16, dtype=np.uint8).reshape(4, 4)
    palette = RNG.integers(0, 256, (16, 3), dtype=np.uint8)
    indexed = Image.fromarray(places)
    indexed.putpalette(palette.tobytes())
    hidden, opacities = (places != 5)[..., None].astype(float), np.arange(16) * 17
    yield "palette, one transparent", file_of(indexed, transparency=5), palette[places].astype(float), hidden
    of_palette = (opacities / 255)[places][..., None]
    yield (
        "palette with opacities",
        file_of(indexed, transparency=bytes(opacities.tolist())),
        palette[places] * 1.0,
        of_palette,
    )
    frame = Image.fromarray(places)
    frame.putpalette(palette.tobytes())
    yield "GIF", file_of(frame, "GIF", transparency=5), palette[places].astype(float), hidden
    level = int(grey[2, 2, 0])
    of_level = (grey[..., :1] != level).astype(float)
    yield "grey, one transparent", png(rgba[..., :1], 8, transparent=[level]), grey, of_level
    chosen = rgba[1, 1, :3]
    of_colour = (rgba[..., :3] != chosen).any(-1, keepdims=True).astype(float)
    yield "RGB, one transparent", png(rgba[..., :3], 8, transparent=chosen), colours, of_colour
    bits = Image.fromarray(places % 3 > 0)
    white = 255.0 * np.repeat(np.asarray(bits)[..., None], 3, -1)
    yield "1 bit, white transparent", file_of(bits, transparency=1), white, (white[..., :1] == 0).astype(float)


TRANSPARENT = {name: rest for name, *rest in transparent_pictures()}


@pytest.mark.parametrize("name", TRANSPARENT)
@pytest.mark.parametrize("background", ["white", "black", "#10c080"])
def test_transparent_pixels_show_the_background(name, background):
    content, levels, alpha = TRANSPARENT[name]
    colour = {"white": 255, "black": 0, "#10c080": (0x10, 0xC0, 0x80)}[background]
    expected = over(levels, alpha, colour)
    assert np.abs(decoded(content, background=background) - expected).max() <= 1
    assert np.abs(decoded(content, 1, background=background)[..., 0] - expected @ LUMA).max() <= 1.01


def test_hidden_colours_are_no_data(tmp_path):
    """Two files that look alike in every viewer are one image, from every source, and another colour behind is another."""
    shown, hidden = np.zeros((4, 4, 4), np.uint8), np.full((4, 4, 4), 200, np.uint8)
    hidden[..., 3] = 0
    for name, rgba in (("train/a", shown), ("train/b", hidden), ("test/c", hidden)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.png").write_bytes(file_of(Image.fromarray(rgba)))
    images = load(f"folder:{tmp_path}", image_size=4, num_channels=3, test_fraction=0.5).train.images
    assert (images == 255).all()
    black = load(f"folder:{tmp_path}", image_size=4, num_channels=3, test_fraction=0.5, background="black")
    assert (black.train.images == 0).all()
    prepare(f"folder:{tmp_path}", tmp_path / "grey", background="grey")
    records = read(f"arrayrecord:{tmp_path}/grey", Wanted(4, 3)).sources["train"]
    assert (records.gather(np.arange(2))["image"] == 128).all()
    read(f"arrayrecord:{tmp_path}/grey", Wanted(4, 3, background="#808080"))
    with pytest.raises(UserError, match=r"prepared with background=grey and white=0; data\.background=black"):
        read(f"arrayrecord:{tmp_path}/grey", Wanted(4, 3, background="black"))


def test_what_identifies_prepared_data_has_the_background_where_it_is_not_white(tmp_path, monkeypatch):
    """Opaque pictures at the default have the fingerprint that they always had."""
    for i in range(2):
        (tmp_path / f"{i}.ppm").write_bytes(b"P6 4 4 255\n" + bytes([i]) * 48)

    def fingerprint(**options):
        return read(f"folder:{tmp_path}", Wanted(4, 3, **options)).sources["all"].fingerprint()

    opaque = fingerprint()
    assert opaque == "names-and-sample:ec2a77196e55c428d3d14337b1d8d94f129e44178b67711a6c60f0d3a5e81cdc"
    assert fingerprint(background="#ffffff") == opaque
    assert len({opaque, fingerprint(background="black"), fingerprint(background="blue"), fingerprint(white=255)}) == 4
    rgba = np.full((4, 4, 4), 7, np.uint8)
    (tmp_path / "2.png").write_bytes(file_of(Image.fromarray(rgba)))
    rendered = fingerprint()
    monkeypatch.setattr(Wanted, "is_rendered", lambda *_: False)  # as before transparency was resolved
    assert fingerprint() != rendered


@pytest.mark.parametrize(
    "background, message",
    [
        (
            "withe",
            "data.background='withe': must be the name of a colour, such as white, or #rrggbb; did you mean 'white'?",
        ),
        ("#ffffff80", "data.background='#ffffff80': must be opaque"),
    ],
)
def test_a_background_must_be_a_colour(background, message):
    with pytest.raises(UserError) as error:
        Wanted(4, 3, background=background)
    assert message in str(error.value)


UPRIGHT = {
    1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1), 7: lambda x: np.rot90(x, 2).swapaxes(0, 1), 8: np.rot90,
}  # fmt: skip  # what makes the stored pixels upright, by EXIF 2.32, section 4.6.4, table 4


@pytest.mark.parametrize("value", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_are_upright_before_they_are_cropped(value, kind):
    """Of 4 x 6 pixels the middle 4 x 4 are kept: another place for each way to turn. JPEG's are smooth, and nearly kept."""
    y, x = np.mgrid[:4, :6]
    pixels = np.repeat((20 * y + 13 * x + (x > y) * 40)[..., None], 3, -1).astype(np.uint8)
    turned = UPRIGHT[value](pixels)
    expected = center_crop(Image.fromarray(np.ascontiguousarray(turned)), (4, 4))
    found = decoded(with_orientation(pixels, value, kind), resize="center_crop")
    assert np.abs(found - expected).max() <= (4 if kind == "JPEG" else 0)


def test_sizes_are_those_of_the_upright_picture(tmp_path):
    pixels = np.zeros((4, 6), np.uint8)
    for kind in ("PNG", "TIFF"):
        with pytest.raises(UserError, match="holds 6x4x1 images"):
            decoded(with_orientation(pixels, 6, kind), 1)
        wanted = Wanted(None, None, "center_crop").of_first(with_orientation(pixels, 6, kind), "a")
        assert (wanted.image_size, wanted.num_channels) == ((4, 4), 1)


@pytest.mark.parametrize("value", [*UPRIGHT, 0, 9])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_upright_size_is_known_before_the_pixels_are_decoded(value, kind):
    """Values 5 to 8 exchange height and width; values that EXIF does not define turn nothing."""
    expected = UPRIGHT.get(value, UPRIGHT[1])(np.zeros((4, 6))).shape
    content = with_orientation(np.zeros((4, 6, 3), np.uint8), value, kind)
    image = Image.open(io.BytesIO(content))
    assert upright_size(image) == expected
    assert upright(image).size == expected[::-1]
    with pytest.raises(UserError, match=f"holds {expected[0]}x{expected[1]}x3 images"):
        decoded(content)
    assert upright_size(Image.open(io.BytesIO(with_orientation(np.zeros((5, 5, 3), np.uint8), value, kind)))) == (5, 5)


def test_damaged_exif_data_turn_nothing():
    pixels = RNG.integers(0, 256, (4, 4), dtype=np.uint8)
    for exif in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"no EXIF at all"):
        content = file_of(Image.fromarray(pixels), exif=exif)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(decoded(content, 1)[..., 0], pixels)


def deep_pictures():
    """name: (file, stored levels (4, 4, 1 or 3), alpha (4, 4, 1) or 1)."""
    rgb, alpha = DEEP[..., :3], DEEP[..., 3:] / 65535
    yield "PNG grey", png(rgb[..., :1]), rgb[..., :1], 1
    yield "PNG RGB", png(rgb), rgb, 1
    yield "PNG grey with alpha", png(DEEP[..., ::3]), rgb[..., :1], alpha
    yield "PNG RGB with alpha", png(DEEP), rgb, alpha
    chosen = DEEP[2, 2, :3]
    yield "PNG RGB, one transparent", png(rgb, transparent=chosen), rgb, (rgb != chosen).any(-1, keepdims=True)
    yield (
        "PNG grey, one transparent",
        png(rgb[..., :1], transparent=chosen[:1]),
        rgb[..., :1],
        rgb[..., :1] != chosen[0],
    )
    for name, big in (("little", False), ("big", True)):
        yield f"TIFF grey, {name} endian", tiff(rgb[..., :1], big_endian=big), rgb[..., :1], 1
        yield f"TIFF RGB, {name} endian", tiff(rgb, big_endian=big), rgb, 1
        yield f"TIFF RGB, compressed, {name} endian", tiff(rgb, big_endian=big, deflate=True), rgb, 1
        yield f"TIFF RGB with alpha, {name} endian", tiff(DEEP, big_endian=big, extra=[2]), rgb, alpha
    multiplied = np.rint(rgb * alpha).astype(np.uint16)
    yield "TIFF premultiplied", tiff(np.concatenate([multiplied, DEEP[..., 3:]], -1), extra=[1]), rgb, alpha
    yield "TIFF, white is 0", tiff(65535 - rgb[..., :1], photometric=0), rgb[..., :1], 1
    yield "TIFF float", tiff(rgb[..., :1].astype(np.float32), sample_format=3), rgb[..., :1], 1
    yield "TIFF int32", file_of(Image.fromarray(rgb[..., 0].astype(np.int32)), "TIFF"), rgb[..., :1], 1
    yield "PPM", b"P6\n# a comment\n4 4 65535\n" + rgb.astype(">u2").tobytes(), rgb, 1
    yield "PGM", b"P5 4 4 65535\n" + rgb[..., :1].astype(">u2").tobytes(), rgb[..., :1], 1
    text = " ".join(map(str, rgb.ravel()))
    yield "PPM in text", f"P3\n4 4\n65535\n{text}\n".encode(), rgb, 1
    first, rest = text.split(" ", 7)[:7], text.split(" ", 7)[7]
    commented = f"P3\n4 4\n65535\n# 1 2\n{' '.join(first)} # 3 4\r{rest}\n# 5"
    yield "PPM in text with comments", commented.encode(), rgb, 1


PICTURES = {name: rest for name, *rest in deep_pictures()}


@pytest.mark.parametrize("white", [65535, 4095])
@pytest.mark.parametrize("name", PICTURES)
def test_deep_levels_are_scaled_by_the_white_level(name, white):
    """To the nearest of 255 levels, where 8 bits of 12-bit data are 16 levels; beyond white is white."""
    content, levels, alpha = PICTURES[name]
    if name == "TIFF, white is 0" and white != 65535:
        levels = np.maximum(levels.astype(int) - 65535 + white, 0)
    expected = over(np.minimum(levels / white, 1) * 255, alpha, (0, 128, 255))
    expected = np.broadcast_to(expected, (4, 4, 3))
    found = decoded(content, white=float(white), background="#0080ff")
    tolerance = np.where(np.asarray(alpha) > 1e-3, 0.51, 1) if name != "TIFF premultiplied" else 0.6
    assert (np.abs(found - expected) <= tolerance).all(), np.abs(found - expected).max()
    grey = decoded(content, 1, white=float(white), background="#0080ff")[..., 0]
    assert np.abs(grey - expected @ LUMA).max() <= 0.6


@pytest.mark.parametrize("name", PICTURES)
def test_deep_pictures_without_a_white_level_are_refused_with_the_key(name):
    with pytest.raises(UserError) as error:
        decoded(PICTURES[name][0])
    message = str(error.value)
    assert "a.png has more than 8 bits per channel" in message and "--config.data.white=65535" in message
    assert "\n" not in message


def test_the_message_suggests_12_bits_where_levels_end_there():
    with pytest.raises(UserError, match=r"levels up to 4000: .*--config\.data\.white=4095 \(65535 for the whole range"):
        decoded(png(np.full((4, 4, 3), 4000)))


def test_the_largest_level_of_a_pgm_file_is_counted_in_its_own_numbers():
    levels = RNG.integers(0, 4096, (4, 4, 1))
    content = b"P5 4 4 4095\n" + levels.astype(">u2").tobytes()
    assert np.abs(decoded(content, 1, white=4095.0) - levels / 4095 * 255).max() <= 0.5


@pytest.mark.parametrize(
    "content, phrase",
    [
        (tiff(DEEP[..., :3], planes=2), "TIFF of mode RGB with signed numbers, separate planes or more than 8 bits"),
        (tiff(DEEP[..., :3], planes=2, deflate=True), "TIFF of mode RGB with signed numbers, separate planes"),
        (tiff(DEEP, photometric=5), "TIFF of mode CMYK"),
        (tiff((DEEP[..., :1] >> 9).astype(np.int8), sample_format=2), "TIFF of mode L with signed numbers"),
        (tiff(DEEP[..., :1].astype(np.int16) - 9000, sample_format=2), "has levels from -"),
        (tiff(np.full((4, 4, 1), np.nan, np.float32), sample_format=3), "has levels from nan to nan"),
    ],
)
def test_what_cannot_be_read_at_full_depth_is_refused(content, phrase):
    with pytest.raises(UserError) as error:
        decoded(content, white=65535.0)
    assert "a.png" in str(error.value) and phrase in str(error.value) and "\n" not in str(error.value)


def test_pictures_of_8_bits_do_not_depend_on_the_white_level():
    """1 bit, grey, palette, CMYK: as Pillow converts them."""
    grey = Image.fromarray(RNG.integers(0, 256, (4, 4), dtype=np.uint8))
    for image, kind in (
        (grey, "PNG"),
        (grey.convert("1"), "PNG"),
        (grey.convert("P"), "PNG"),
        (grey.convert("CMYK"), "TIFF"),
    ):
        content = file_of(image, kind)
        for channels, mode in ((1, "L"), (3, "RGB")):
            expected = np.asarray(Image.open(io.BytesIO(content)).convert(mode)).reshape(4, 4, channels)
            np.testing.assert_array_equal(decoded(content, channels, white=4095.0), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_deep_pictures_that_are_not_square_are_read_at_full_depth(channels):
    """Sideways too: the size is known only when the picture is upright."""
    levels = RNG.integers(0, 4096, (4, 6, channels))
    levels[..., -1] = 4000 if channels % 2 else 65535  # opaque
    colours = np.broadcast_to(levels[:, 1:5, : 3 if channels > 2 else 1], (4, 4, 3))
    found = decoded(png(levels), white=4095.0, resize="center_crop")
    assert np.abs(found - colours / 4095 * 255).max() <= 0.51


def test_deep_pictures_are_turned_upright():
    grey = RNG.integers(0, 65536, (4, 6), dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        found = decoded(with_orientation(grey, 6, kind), 1, white=65535.0, resize="center_crop")[..., 0]
        assert np.abs(found - np.rot90(grey, -1)[1:5] / 257).max() <= 0.51


def test_deep_pictures_are_cropped_at_full_depth():
    """A ramp of 2 x 2 blocks: averages of four 12-bit levels, rounded once."""
    levels = RNG.integers(0, 4096, (8, 8, 3))
    expected = levels.reshape(4, 2, 4, 2, 3).mean((1, 3)) / 4095 * 255
    assert np.abs(decoded(png(levels), white=4095.0, resize="center_crop") - expected).max() <= 0.501


@pytest.mark.parametrize(
    "dtype, white", [(np.uint16, 4095.0), (np.float64, 1.0), (np.float32, 300.0), (np.int64, 4095.0)]
)
def test_arrays_are_scaled_by_the_white_level(tmp_path, dtype, white):
    images = (RNG.random((9, 4, 4, 1)) * 1.1 * white).astype(dtype)
    images[0, 0, 0] = 0
    np.savez(tmp_path / "a.npz", x_train=images, x_test=images[:1])
    found = load(f"npz:{tmp_path}/a.npz", image_size=4, num_channels=1, test_fraction=0.5, white=white).train.images
    assert found.dtype == np.uint8
    assert np.abs(found - np.minimum(images / white, 1) * 255.0).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    "levels, white, phrase",
    [
        (np.arange(0, 4096, 16).astype(np.uint16), 1, "99.6 % of the levels of"),
        (np.arange(0, 4096, 16).astype(np.uint16), 1, "white=1 and become white; the white level of such data is usually "
         "another, such as --config.data.white=4095"),
        (np.arange(0, 4096, 16).astype(np.uint16), 65535, "is 4080, so that data.white=65535 makes dark images"),
        (np.linspace(0, 1, 256), 255, "is 1, so that data.white=255 makes dark images"),
        (np.arange(0, 4096, 16).astype(np.uint16), 4095, ""),
        (np.arange(256, dtype=np.uint16), 254, ""),
        (np.arange(256, dtype=np.uint16), 252, "1.17 % of the levels"),
        (np.arange(256, dtype=np.uint8), 65535, ""),
    ],
)  # fmt: skip
def test_white_levels_that_do_not_fit_an_array_are_warned_of(tmp_path, levels, white, phrase):
    np.savez(
        tmp_path / "a.npz", x_train=levels.reshape(16, 4, 4), x_test=np.arange(64, dtype=np.uint8).reshape(4, 4, 4)
    )
    found = load(f"npz:{tmp_path}/a.npz", image_size=4, num_channels=1, test_fraction=0.5, white=white).warnings
    found = [text for text in found if "white" in text]
    assert [phrase in text and "'x_train'" in text for text in found] == [True] * bool(phrase)


@pytest.mark.parametrize(
    "images, white, message",
    [
        (
            np.full((3, 4, 4), 4000, np.uint16),
            0,
            "is uint16 with values from 4000 to 4000; uint8 in 0..255 is needed, or",
        ),
        (
            np.full((3, 4, 4), 4000, np.uint16),
            0,
            "such as --config.data.white=4095 (65535 for the whole range of 16 bits)",
        ),
        (np.full((3, 4, 4), 0.5), 0, "such as --config.data.white=1"),
        (np.full((3, 4, 4), -0.5), 1, "is float64 with values from -0.5 to -0.5"),
        (np.full((3, 4, 4), np.nan), 1, "is float64 with values from nan to nan"),
        (np.full((3, 4, 4), 1j), 1, "is complex128; uint8 in 0..255 is needed"),
    ],
)
def test_other_arrays_are_refused_with_the_key(tmp_path, images, white, message):
    np.savez(tmp_path / "a.npz", images=images)
    with pytest.raises(UserError) as error:
        load(f"npz:{tmp_path}/a.npz", image_size=4, num_channels=1, test_fraction=0.5, white=white)
    assert message in str(error.value) and "'images'" in str(error.value) and "\n" not in str(error.value)


def test_a_large_picture_is_opened_without_a_warning_and_one_too_large_is_named():
    """Pillow warns of a decompression bomb from 89 million pixels on, and refuses twice as many."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert opened(b"P5 10000 10000 255\n", "a.pgm").size == (10000, 10000)
    with pytest.raises(UserError, match=r"a\.png cannot be read as an image \(Image size \(361000000 pix"):
        decoded(b"P5 19000 19000 255\n", 1, resize="center_crop")


WITH_ALPHA = {"png": (png, {}), "tiff": (tiff, {"extra": (2,)})}


@pytest.mark.parametrize("kind", WITH_ALPHA)
def test_the_fourth_channel_is_alpha_and_colours_are_multiplied_by_it(kind):
    """Of 8 bits: rounded to the nearest level; an opaque picture has an alpha of 255."""
    pixels = RNG.integers(0, 256, (4, 4, 4), dtype=np.uint8)
    pixels[0, :, 3] = 0, 1, 128, 255
    make, options = WITH_ALPHA[kind]
    content = make(pixels, **options) if kind == "tiff" else make(pixels, 8)
    expected = np.rint(pixels[..., :3].astype(float) * pixels[..., 3:] / 255)
    found = decoded(content, 4)
    np.testing.assert_array_equal(found[..., 3], pixels[..., 3])
    np.testing.assert_array_equal(found[..., :3], expected)
    for mode in ("RGB", "L", "CMYK", "1"):
        image = Image.fromarray(pixels[..., :3]).convert(mode)
        opaque = decoded(file_of(image, "TIFF"), 4)
        np.testing.assert_array_equal(opaque[..., :3], np.asarray(image.convert("RGB")))
        assert (opaque[..., 3] == 255).all()


def test_pictures_that_look_alike_are_equal():
    """Colours of transparent pixels do not count, in every way that PNG stores transparency."""
    pixels = RNG.integers(0, 256, (4, 4, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    pixels[:2, :, 3] = 0
    other = pixels.copy()
    other[:2, :, :3] = RNG.integers(0, 256, (2, 4, 3))
    found = decoded(png(pixels, 8), 4)
    assert not found[:2].any() and (found[2:, :, 3] == 255).all()
    np.testing.assert_array_equal(decoded(png(other, 8), 4), found)
    by_colour = np.where(pixels[..., 3:] > 0, pixels[..., :3], [1, 2, 3]).astype(np.uint8)
    np.testing.assert_array_equal(decoded(png(by_colour, 8, transparent=(1, 2, 3)), 4), found)
    palette = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4), "P")
    palette.putpalette(bytes(pixels[..., :3].reshape(-1).tolist()))
    alphas = bytes(pixels[..., 3].reshape(-1).tolist())
    np.testing.assert_array_equal(decoded(file_of(palette, transparency=alphas), 4), found)


def test_alpha_of_16_bits_is_kept_at_full_depth_until_it_is_rounded():
    deep = DEEP.astype(float)
    alpha = deep[..., 3:] / 65535
    expected = np.concatenate([alpha * np.minimum(deep[..., :3] * (255 / 4095), 255), 255 * alpha], -1)
    np.testing.assert_array_equal(decoded(png(DEEP), 4, white=4095.0), np.rint(expected))
    grey = decoded(png(DEEP[..., [0, 3]]), 4, white=65535.0)
    np.testing.assert_array_equal(grey[..., :3], np.rint(alpha * deep[..., :1] / 257).repeat(3, -1))
    np.testing.assert_array_equal(grey[..., 3:], np.rint(255 * alpha))


def test_crops_with_alpha_are_averages_of_what_is_seen():
    """The colour of transparent pixels does not leak: over any background, the crop is the crop of what is seen."""
    pixels = RNG.integers(0, 256, (16, 24, 4), dtype=np.uint8)
    pixels[:, ::3, 3] = 0
    found = Wanted((4, 6), 4, "center_crop").decode(png(pixels, 8), "a.png").astype(float)
    for background in ("black", "white", "#4080c0"):
        colour = Wanted((4, 6), 3, background=background).rendering.colour
        seen = Wanted((4, 6), 3, "center_crop", background=background).decode(png(pixels, 8), "a.png")
        composed = found[..., :3] + (1 - found[..., 3:] / 255) * np.array(colour)
        np.testing.assert_allclose(composed, seen, rtol=0, atol=3)  # each is rounded three times


def test_strokes_and_other_pictures_of_four_channels_are_opaque_paint():
    pixels = RNG.integers(0, 256, (4, 4, 4), dtype=np.uint8)
    content = png(pixels, 8)
    rendering = Wanted(4, 4).rendering
    with opened(content, "a") as image:
        levels, alpha = rendering.layer(image, content, 4, "a", "--strokes")
    np.testing.assert_array_equal(levels, np.concatenate([pixels[..., :3], np.full((4, 4, 1), 255)], -1))
    np.testing.assert_allclose(alpha, pixels[..., 3:] / 255, rtol=1e-6)
