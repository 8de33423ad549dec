"""Pixels are measured where a mask is white: all but a box, a random share, half of the image, or a picture of a mask."""

import numpy as np

from experiments.errors import UserError
from experiments.inverse.records import FILE, Task

HALVES = tuple(f"half-{side}" for side in ("left", "right", "top", "bottom"))


def _make(shape, options):
    measurement = _masked(shape, options)
    if not _measured(measurement, shape).any():
        flags = " ".join(
            f"--{flag}={options[flag]}" for flag in ("mask", "box", "share") if options.get(flag) is not None
        )
        raise UserError(f"{flags}: no pixel of the {shape[0]}x{shape[1]} ones is measured: leave some")
    return measurement


def _masked(shape, options):
    import jax

    from experiments.data.inputs import images
    from sde_lib import inverse

    mask = options["mask"]
    if mask == "box":
        return inverse.Inpainting.box(shape, options["box"] or min(shape[:2]) // 2)
    if mask == "random":
        return inverse.Inpainting.random(jax.random.key(options["operator_seed"]), shape, options["share"])
    if mask in HALVES:
        return inverse.Inpainting.half(shape, mask.removeprefix("half-"))
    read = images.read_mask(
        "--mask", mask, shape, options["rendering"],
        white=", so that nothing is missing: --task=denoise is for noise alone", black=", so that nothing is measured",
    )  # fmt: skip
    return inverse.Inpainting.free(shape, read)


def _measured(measurement, shape):
    return np.broadcast_to(measurement.mask, shape)


def _biharmonic(measurement, y, std):
    from experiments.inverse import baselines

    return baselines.biharmonic(measurement, y)


TASK = Task(
    "pixels are missing (--mask)",
    {"mask": "box", "box": None, "share": 0.3, "operator_seed": 0},
    {"mask": {"box": ("box",), "random": ("share", "operator_seed"), **dict.fromkeys(HALVES, ()), FILE: ()}},
    make=_make,
    measured=_measured,
    baselines={"biharmonic": _biharmonic},
    help={
        "mask": "{choices} (white is measured)",
        "box": "side of the box in pixels (default: half the image)",
        "share": "of all values",
        "operator_seed": "which one",
    },
    kinds={"box": "count", "operator_seed": "seed"},
    cases={"inpaint-box": (0.05, {"mask": "box"}), "inpaint-random": (0.05, {"mask": "random", "share": 0.3})},
    document=__doc__,
)
