"""Blur kernels of the tasks `deblur` and `deblur-light`: flags, and the kernel (h, w) that they describe."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from experiments.errors import UserError
from experiments.inverse.records import FILE

if TYPE_CHECKING:
    import numpy as np

FLAGS = {"kernel": "gaussian", "kernel_width": None, "kernel_angle": 45.0, "operator_seed": 0}
CHOICES = {
    "gaussian": ("kernel_width",),
    "anisotropic": ("kernel_width", "kernel_angle"),
    "motion": ("kernel_width", "kernel_angle"),
    "shake": ("kernel_width", "operator_seed"),
    FILE: (),
}
KINDS = {"kernel_width": "number", "operator_seed": "seed"}
HELP = {
    "kernel": "{choices}",
    "kernel_width": "standard deviation, or length of the motion, in pixels (by image size)",
    "kernel_angle": "of the motion or the wider axis, in degrees",
    "operator_seed": "which one",
}


def _odd(width: float) -> int:
    """The smallest odd number from `width` on."""
    return 2 * math.ceil((width - 1) / 2) + 1


def kernel(shape: tuple[int, ...], o: Mapping[str, Any]) -> "np.ndarray":
    """The kernel (h, w). Widths are those of the papers for 256 pixels, less for smaller images, but a blur still.

    Raises:
        UserError: the width is out of range, or the picture of a kernel is black or too large.
    """
    import jax

    from experiments.data.inputs import images
    from sde_lib import inverse

    relative = min(shape[:2]) / 256
    name, width = o["kernel"], o.get("kernel_width")
    side = max(shape[:2])
    if width is not None:
        # Gaussian kernels are 8 standard deviations wide; wider ones blur no more and need memory.
        most = side / 2 if name in ("gaussian", "anisotropic") else side
        if not 0 < width <= most:
            raise UserError(
                f"--kernel_width={width}: must be more than 0, in pixels, and at most {most:g} for --kernel={name} of "
                f"{shape[0]}x{shape[1]} images"
            )
    if name == "gaussian":
        std = width or max(3 * relative, 1.0)
        return inverse.gaussian_kernel(_odd(8 * std), std)
    if name == "anisotropic":
        std = width or max(20 * relative, 2.0)
        return inverse.gaussian_kernel(_odd(8 * std), (std / 4, std), o["kernel_angle"])
    if name == "motion":
        length = width or max(61 * relative, 3.0)
        return inverse.motion_kernel(_odd(length + 1), length, o["kernel_angle"])
    if name == "shake":
        size = _odd(width or max(61 * relative, 5.0))
        return inverse.shake_kernel(jax.random.key(o["operator_seed"]), size)
    found = images.read_grey("--kernel", name, rendering=o["rendering"])
    if not found.sum() > 0:
        raise UserError(f"--kernel={name} is black: a kernel needs light")
    if max(found.shape) > 2 * side + 1:
        raise UserError(
            f"--kernel={name}: is {found.shape[1]}x{found.shape[0]}, but {shape[0]}x{shape[1]} images need at most "
            f"{2 * side + 1} pixels to a side"
        )
    return found / found.sum()
