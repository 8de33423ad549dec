"""A random share of the coefficients of a randomized cosine transform is measured (compressed sensing).

Source: Do et al. (2012), https://arxiv.org/abs/1106.5037.
"""

import numpy as np

from experiments.inverse.records import Task


def _make(shape, options):
    import jax

    from sde_lib import inverse

    return inverse.CompressedSensing.random(jax.random.key(options["operator_seed"]), shape, options["share"])


def _total_variation(measurement, y, std):
    from experiments.inverse import baselines

    return baselines.total_variation(measurement, y, std)


def _view(measurement, y):
    """The image of least norm."""
    import jax.numpy as jnp

    return np.asarray(measurement.pseudo_inverse(jnp.asarray(y)))


TASK = Task(
    "few coefficients of a randomized cosine transform",
    {"share": 0.25, "operator_seed": 0},
    image=False,
    make=_make,
    baselines={"total variation": _total_variation},
    help={"share": "of all values", "operator_seed": "which one"},
    kinds={"operator_seed": "seed"},
    view=_view,
    cases={"sensing": (0.05, {"share": 0.25})},
    document=__doc__,
)
