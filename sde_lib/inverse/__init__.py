"""Inverse problems: what is measured of an image, and the Denoisers and methods that draw the images behind it."""

from sde_lib.inverse.fourier import (
    FourierSampling,
    MultiCoilFourierSampling,
    birdcage_maps,
    equispaced_mask,
    radial_mask,
    random_lines_mask,
    spiral_mask,
)
from sde_lib.inverse.measurement import LinearMeasurement, Measurement, Noise, SpectralMeasurement
from sde_lib.inverse.nonlinear import (
    JPEG,
    HighDynamicRange,
    NonlinearBlur,
    PhaseRetrieval,
    soft_round,
    straight_through_round,
)
from sde_lib.inverse.radon import Radon, filtered_back_projection, metal_mask, parallel_angles

__all__ = [
    "JPEG",
    "FourierSampling",
    "HighDynamicRange",
    "LinearMeasurement",
    "Measurement",
    "MultiCoilFourierSampling",
    "Noise",
    "NonlinearBlur",
    "PhaseRetrieval",
    "Radon",
    "SpectralMeasurement",
    "birdcage_maps",
    "equispaced_mask",
    "filtered_back_projection",
    "metal_mask",
    "parallel_angles",
    "radial_mask",
    "random_lines_mask",
    "soft_round",
    "spiral_mask",
    "straight_through_round",
]
