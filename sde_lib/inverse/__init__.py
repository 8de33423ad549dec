"""Inverse problems y = A(x_0) + noise: forward operators, noise models, posterior Denoisers and posterior samplers."""

from sde_lib.inverse.blur import Blur, PeriodicBlur, SeparableBlur, gaussian_kernel, motion_kernel, shake_kernel
from sde_lib.inverse.compose import Compose, LinearCompose, Scaled
from sde_lib.inverse.consistency import ReSample
from sde_lib.inverse.decomposed import Decomposed
from sde_lib.inverse.fourier import (
    FourierSampling,
    MultiCoilFourierSampling,
    birdcage_maps,
    equispaced_mask,
    radial_mask,
    random_lines_mask,
    spiral_mask,
)
from sde_lib.inverse.gaussian import MMPS, TMPD, PiGDM
from sde_lib.inverse.gradient import DPS, ManifoldConstraint
from sde_lib.inverse.measurement import LinearMeasurement, Measurement, Noise, SpectralMeasurement, operator_norm
from sde_lib.inverse.noise import GaussianNoise, PoissonNoise
from sde_lib.inverse.nonlinear import (
    JPEG,
    HighDynamicRange,
    NonlinearBlur,
    PhaseRetrieval,
    soft_round,
    straight_through_round,
)
from sde_lib.inverse.particles import Particles, twisted_sample
from sde_lib.inverse.pixels import Colorization, Denoising, Inpainting
from sde_lib.inverse.posterior import Posterior
from sde_lib.inverse.projection import DDNM, DiffPIR, Projection, Renoise, Replacement
from sde_lib.inverse.radon import (
    CompletedRadon,
    Radon,
    filtered_back_projection,
    interpolated,
    metal_mask,
    parallel_angles,
)
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
    "JPEG",
    "MMPS",
    "TMPD",
    "Blur",
    "Colorization",
    "CompletedRadon",
    "Compose",
    "CompressedSensing",
    "DDNMPlus",
    "Decomposed",
    "Denoising",
    "DiffPIR",
    "FourierSampling",
    "GaussianNoise",
    "HighDynamicRange",
    "Inpainting",
    "LinearCompose",
    "LinearMeasurement",
    "ManifoldConstraint",
    "Measurement",
    "MultiCoilFourierSampling",
    "Noise",
    "NonlinearBlur",
    "Particles",
    "PeriodicBlur",
    "PhaseRetrieval",
    "PiGDM",
    "PoissonNoise",
    "Posterior",
    "Projection",
    "Radon",
    "RePaint",
    "ReSample",
    "Renoise",
    "Replacement",
    "Scaled",
    "SeparableBlur",
    "SeparableMeasurement",
    "SpectralMeasurement",
    "SuperResolution",
    "birdcage_maps",
    "equispaced_mask",
    "filtered_back_projection",
    "gaussian_kernel",
    "interpolated",
    "metal_mask",
    "motion_kernel",
    "operator_norm",
    "parallel_angles",
    "radial_mask",
    "random_lines_mask",
    "shake_kernel",
    "soft_round",
    "spiral_mask",
    "straight_through_round",
    "twisted_sample",
]
