"""The image that is read back from a JPEG file is measured: cosine coefficients of blocks, rounded by the quality.

Source: ITU-T T.81 (1992), https://www.w3.org/Graphics/JPEG/itu-t81.pdf.
"""

from experiments.errors import UserError, unknown_name
from experiments.inverse.records import Task, between


def _make(shape, options):
    from sde_lib import inverse

    chroma, known = options["chroma"], ("4:2:0", "4:4:4")
    if chroma is not None and shape[2] == 1:
        raise UserError(f"--chroma={chroma} does nothing: the model's images are grey")
    if chroma not in (None, *known):
        raise unknown_name("--chroma", chroma, known)
    return inverse.JPEG(quality=between("--quality", options["quality"], 1, 100), subsampled_chroma=chroma != "4:4:4")


TASK = Task(
    "the image from a JPEG file (--quality)",
    {"quality": 10.0, "chroma": None},
    noise=0.0,
    make=_make,
    baselines={"as measured": lambda measurement, y, std: y},
    help={"quality": "1 to 100", "chroma": "4:2:0 (colours at half the resolution, default) or 4:4:4"},
    kinds={"chroma": "text"},
    cases={"dejpeg": (0.02, {"quality": 10.0})},
    document=__doc__,
)
