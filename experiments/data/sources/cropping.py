"""The centre crop of ADM's data sets, to any height and width, for pictures and for arrays of any number of channels."""

import numpy as np
from PIL import Image

LONG = 4  # sides of the crop: a picture that enlarging would make longer is cropped first
PRECISION = 2.0**22  # Pillow's weights of 8-bit pixels are whole multiples of 1 / 2^22


def center_crop(image: Image.Image | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the largest centred region of an image with the aspect ratio of `size`, at `size`: (height, width[, C]).

    The image is scaled by one factor, the least by which it covers `size`, so that one side fits exactly (of a square, the
    shorter side): both sides are halved by box averages while both are at least twice those of `size`, then resized with
    the bicubic filter, which Pillow widens when it shrinks an image (so there is no aliasing); then the middle is cut out.
    An image that has the size is left as it is. A thin image (2 x 8000 pixels) that would be enlarged is cropped first,
    with the filter's margin: the pixels are the same, bit for bit, and memory is in proportion to the result.

    Source: Dhariwal and Nichol (2021), https://arxiv.org/abs/2105.05233; `center_crop_arr` of
    https://github.com/openai/guided-diffusion/blob/22e0df8183507e13a7813f8d38d51b072ca1e67c/guided_diffusion/image_datasets.py,
    whose result for squares is the same, bit for bit. (EDM's dataset_tool crops first and resizes by Lanczos.)

    Args:
        image: a picture in a mode of independent channels (L, RGB, F); or an array (h, w, C), uint8 or float32, whose
            channels are resized one by one. Floats may leave their range at edges, where the filter overshoots.
        size: (height, width) of the result, in pixels.
    """
    if isinstance(image, np.ndarray):
        bands = (Image.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(image, -1, 0))
        return np.stack([center_crop(band, size) for band in bands], -1)
    rows, columns = size
    while image.height >= 2 * rows and image.width >= 2 * columns:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = max(rows / image.height, columns / image.width)
    width, height = round(image.width * scale), round(image.height * scale)
    left, top = (width - columns) // 2, (height - rows) // 2
    if scale > 1 and (width > LONG * columns or height > LONG * rows):
        return _enlarged_middle(image, (width, height), (left, top), (columns, rows))
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)[top : top + rows, left : left + columns]


def _enlarged_middle(
    image: Image.Image, full: tuple[int, int], corner: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """Returns the pixels of `size` at `corner` of the image enlarged to `full`, as by Pillow's filter; all (width, height).

    Only the pixels that the filter needs are read. Columns are resized first and 8-bit pixels are rounded in between, as in
    Pillow.
    """
    (first, end, across), (top, bottom, down) = (
        _cubic_weights(*axis) for axis in zip(image.size, full, corner, size, strict=True)
    )
    pixels = np.asarray(image.crop((first, top, end, bottom)))
    is_float = image.mode == "F"
    x = pixels.astype(np.float64)
    for axis, weights in ((1, across), (0, down)):
        weights = weights if is_float else np.trunc(weights * PRECISION + np.copysign(0.5, weights))
        x = np.moveaxis(np.tensordot(weights, x, (1, axis)), 0, axis)
        # Whole numbers below 2^53: float64 sums them exactly, in any order.
        x = x.astype(np.float32).astype(np.float64) if is_float else np.clip(np.floor(x / PRECISION + 0.5), 0, 255)
    return x.astype(pixels.dtype)


def _cubic_weights(length: int, full: int, start: int, count: int) -> tuple[int, int, np.ndarray]:
    """Returns the pixels [first, end) that pixels [start, start + count) depend on, and weights (count, end - first).

    An axis of `length` pixels is enlarged to `full`. The formulas and the order of operations are those of
    https://github.com/python-pillow/Pillow/blob/main/src/libImaging/Resample.c.
    """
    centers = (np.arange(start, start + count) + 0.5) * (length / full)
    first, end = max(int(centers[0] - 1.5), 0), min(int(centers[-1] + 2.5), length)
    distances = np.abs(np.arange(first, end) - centers[:, None] + 0.5)
    near = (1.5 * distances - 2.5) * distances * distances + 1
    far = (((distances - 5) * distances + 8) * distances - 4) * -0.5
    weights = np.where(distances < 1, near, np.where(distances < 2, far, 0.0))
    return first, end, weights / np.cumsum(weights, 1)[:, -1:]
