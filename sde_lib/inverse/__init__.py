"""Inverse problems: what is measured of an image, and the Denoisers and methods that draw the images behind it."""

from sde_lib.inverse.gaussian import MMPS, TMPD, PiGDM
from sde_lib.inverse.gradient import DPS
from sde_lib.inverse.measurement import LinearMeasurement, Measurement, Noise, SpectralMeasurement
from sde_lib.inverse.particles import Particles, twisted_sample
from sde_lib.inverse.posterior import Posterior
from sde_lib.inverse.projection import DDNM, DiffPIR, Renoise, Replacement
from sde_lib.inverse.resampling import DAPS, RePaint
from sde_lib.inverse.spectral import DDRM, DDNMPlus

__all__ = [
    "DAPS",
    "DDNM",
    "DDRM",
    "DPS",
    "MMPS",
    "TMPD",
    "DDNMPlus",
    "DiffPIR",
    "LinearMeasurement",
    "Measurement",
    "Noise",
    "Particles",
    "PiGDM",
    "Posterior",
    "RePaint",
    "Renoise",
    "Replacement",
    "SpectralMeasurement",
    "twisted_sample",
]
