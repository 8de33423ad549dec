"""Inverse problems: what is measured of an image, and the Denoisers and methods that draw the images behind it."""

from sde_lib.inverse.blur import Blur, PeriodicBlur, SeparableBlur, gaussian_kernel, motion_kernel, shake_kernel
from sde_lib.inverse.compose import Compose, LinearCompose
from sde_lib.inverse.gaussian import MMPS, TMPD, PiGDM
from sde_lib.inverse.gradient import DPS
from sde_lib.inverse.measurement import LinearMeasurement, Measurement, Noise, SpectralMeasurement
from sde_lib.inverse.noise import GaussianNoise, PoissonNoise
from sde_lib.inverse.particles import Particles, twisted_sample
from sde_lib.inverse.pixels import Colorization, Denoising, Inpainting
from sde_lib.inverse.posterior import Posterior
from sde_lib.inverse.projection import DDNM, DiffPIR, Renoise, Replacement
from sde_lib.inverse.resampling import DAPS, RePaint
from sde_lib.inverse.resizing import SuperResolution
from sde_lib.inverse.sensing import CompressedSensing
from sde_lib.inverse.separable import SeparableMeasurement
from sde_lib.inverse.spectral import DDRM, DDNMPlus

__all__ = [
    "DAPS",
    "DDNM",
    "DDRM",
    "DPS",
    "MMPS",
    "TMPD",
    "Blur",
    "Colorization",
    "Compose",
    "CompressedSensing",
    "DDNMPlus",
    "Denoising",
    "DiffPIR",
    "GaussianNoise",
    "Inpainting",
    "LinearCompose",
    "LinearMeasurement",
    "Measurement",
    "Noise",
    "Particles",
    "PeriodicBlur",
    "PiGDM",
    "PoissonNoise",
    "Posterior",
    "RePaint",
    "Renoise",
    "Replacement",
    "SeparableBlur",
    "SeparableMeasurement",
    "SpectralMeasurement",
    "SuperResolution",
    "gaussian_kernel",
    "motion_kernel",
    "shake_kernel",
    "twisted_sample",
]
