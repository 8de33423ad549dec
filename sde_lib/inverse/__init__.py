"""Inverse problems: what is measured of an image, and the Denoisers and methods that draw the images behind it."""

from sde_lib.inverse.blur import Blur, PeriodicBlur, SeparableBlur, gaussian_kernel, motion_kernel, shake_kernel
from sde_lib.inverse.compose import Compose, LinearCompose
from sde_lib.inverse.measurement import LinearMeasurement, Measurement, Noise, SpectralMeasurement
from sde_lib.inverse.noise import GaussianNoise, PoissonNoise
from sde_lib.inverse.pixels import Colorization, Denoising, Inpainting
from sde_lib.inverse.resizing import SuperResolution
from sde_lib.inverse.sensing import CompressedSensing
from sde_lib.inverse.separable import SeparableMeasurement

__all__ = [
    "Blur",
    "Colorization",
    "Compose",
    "CompressedSensing",
    "Denoising",
    "GaussianNoise",
    "Inpainting",
    "LinearCompose",
    "LinearMeasurement",
    "Measurement",
    "Noise",
    "PeriodicBlur",
    "PoissonNoise",
    "SeparableBlur",
    "SeparableMeasurement",
    "SpectralMeasurement",
    "SuperResolution",
    "gaussian_kernel",
    "motion_kernel",
    "shake_kernel",
]
