"""Inverse problems: what is measured of an image, and the Denoisers and methods that draw the images behind it."""

from sde_lib.inverse.measurement import LinearMeasurement, Measurement, Noise, SpectralMeasurement

__all__ = ["LinearMeasurement", "Measurement", "Noise", "SpectralMeasurement"]
