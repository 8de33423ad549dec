"""Picture files written by their specifications, for tests of what is read: PNG of any depth, TIFF, and EXIF data."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

GREY, RGB, GREY_ALPHA, RGB_ALPHA = 0, 2, 4, 6  # colour types of PNG, by number of channels below
COLOUR_TYPES = {1: GREY, 3: RGB, 2: GREY_ALPHA, 4: RGB_ALPHA}


def png(values, bits=16, *, transparent=None, significant=None):
    """A PNG file of levels (H, W, C), of 8 or 16 bits; `transparent` is the level of tRNS."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    values = np.asarray(values)
    height, width, channels = values.shape
    rows = values.astype(">u2" if bits == 16 else "u1")
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, COLOUR_TYPES[channels], 0, 0, 0)
    extra = b"" if transparent is None else chunk(b"tRNS", np.array(transparent, ">u2").tobytes())
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(body))
        + chunk(b"IEND", b"")
    )


def tiff(values, *, big_endian=False, extra=(), photometric=None, planes=1, sample_format=1, deflate=False):
    """A TIFF file of one strip, or one a plane, by TIFF 6.0; values (H, W, C) of uint8, uint16, int16 or float32."""
    order = ">" if big_endian else "<"
    height, width, channels = values.shape
    stored = np.moveaxis(values, -1, 0) if planes == 2 else values
    stored = stored.astype(stored.dtype.newbyteorder(order))
    parts = [part.tobytes() for part in (stored if planes == 2 else [stored])]
    parts = [zlib.compress(part) for part in parts] if deflate else parts
    pixels = b"".join(part + b"\0" * (len(part) % 2) for part in parts)
    sizes = [len(part) for part in parts]
    strips = [8 + sum(size + size % 2 for size in sizes[:i]) for i in range(len(sizes))]
    if photometric is None:
        photometric = 2 if channels - len(extra) == 3 else 1
    tags = {
        256: ("H", [width]), 257: ("H", [height]), 258: ("H", [8 * values.itemsize] * channels),
        259: ("H", [8 if deflate else 1]), 262: ("H", [photometric]), 273: ("L", strips),
        277: ("H", [channels]), 278: ("H", [height]), 279: ("L", sizes),
        284: ("H", [planes]), 339: ("H", [sample_format] * channels),
    }  # fmt: skip
    if extra:
        tags[338] = ("H", list(extra))
    head = (b"MM\0*" if big_endian else b"II*\0") + struct.pack(order + "L", 8 + len(pixels))
    entries, after = b"", b""
    start = 8 + len(pixels) + 2 + 12 * len(tags) + 4
    for tag, (kind, numbers) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        entries += struct.pack(order + "HHL", tag, {"H": 3, "L": 4}[kind], len(numbers))
        if len(data) <= 4:
            entries += data.ljust(4, b"\0")
        else:
            entries += struct.pack(order + "L", start + len(after))
            after += data
    return head + pixels + struct.pack(order + "H", len(tags)) + entries + struct.pack(order + "L", 0) + after


def with_orientation(pixels, value, kind):
    """A file of that kind of uint8 pixels (H, W[, 3]) whose EXIF data say that they lie turned."""
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = value
    options = {"tiffinfo": {0x0112: value}} if kind == "TIFF" else {"exif": exif}
    options |= {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def file_of(image, kind="PNG", **options):
    """The bytes of a file of a Pillow image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
