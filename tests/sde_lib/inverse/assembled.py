"""A linear measurement as the matrix that it stands for, one column for each value of an image."""

import jax
import numpy as np


def matrix(measurement):
    """(measured values, image values)."""
    size = int(np.prod(measurement.event_shape))
    columns = jax.jit(measurement.forward)(np.eye(size).reshape(size, *measurement.event_shape))
    return np.asarray(columns).reshape(size, -1).T


def inner(a, b):
    return float(np.vdot(a, b))
