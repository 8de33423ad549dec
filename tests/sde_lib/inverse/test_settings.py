"""Settings of inverse problems: defaults against their sources, and bounds by values just inside and just outside."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import VPSDE, Ancestral, ReverseDiffusion, exact, inverse
from sde_lib.inverse import (
    DAPS,
    DPS,
    MMPS,
    Blur,
    CompressedSensing,
    DiffPIR,
    FourierSampling,
    GaussianNoise,
    Inpainting,
    ManifoldConstraint,
    Measurement,
    MultiCoilFourierSampling,
    Noise,
    NonlinearBlur,
    PeriodicBlur,
    PiGDM,
    PoissonNoise,
    Posterior,
    Projection,
    RePaint,
    Replacement,
    ReSample,
    Scaled,
    SeparableBlur,
    SpectralMeasurement,
    SuperResolution,
    equispaced_mask,
    gaussian_kernel,
    motion_kernel,
    random_lines_mask,
    shake_kernel,
)
from sde_lib.inverse.posterior import require_noise
from tests.sde_lib.inverse.dense import Dense
from tests.sde_lib.processes import keys

# Of conjugate gradients, for every linear measurement; and of what counts as a singular value.
SOLVE = {"rtol": 1e-6, "max_steps": 256}
POSTERIOR = {"measurement_noise": 0.0}
DEFAULTS = {
    "Blur": {**SOLVE, "border": "reflect"},  # Chung et al. (2023): reflected borders
    "Colorization": {**SOLVE, "weights": (1 / 3, 1 / 3, 1 / 3)},
    "CompletedRadon": {**SOLVE, "detectors": None, "mask": None},
    "CompressedSensing": SOLVE,
    "DAPS": {"ode_steps": 5, "langevin_steps": 100, "step_size": 0.1, "data_std": np.inf},  # Zhang et al. (2024): r = n
    "DDNM": POSTERIOR,
    "DDNMPlus": POSTERIOR,
    "DDRM": {**POSTERIOR, "eta": 0.85, "eta_b": 1.0},  # Kawar et al. (2022)
    "DPS": {**POSTERIOR, "zeta": 0.5, "steps": 1000.0},  # Chung et al. (2023): 1000 steps
    "Decomposed": SOLVE,
    "Denoising": SOLVE,
    "DiffPIR": {**POSTERIOR, "strength": 1.0},  # Zhu et al. (2023), their code
    "FourierSampling": SOLVE,
    "HighDynamicRange": {"scale": 2.0},  # Mardani et al. (2023)
    "Inpainting": SOLVE,
    "JPEG": {"quality": 75.0, "subsampled_chroma": False, "rounding": inverse.straight_through_round},  # libjpeg's 75
    "LinearCompose": {**SOLVE, "event_shape": None},
    "LinearMeasurement": SOLVE,
    "MMPS": {**POSTERIOR, "rtol": 1e-3, "max_steps": 8},
    "ManifoldConstraint": {**POSTERIOR, "zeta": 0.5, "steps": 1000.0},
    "MultiCoilFourierSampling": SOLVE,
    "PeriodicBlur": {**SOLVE, "rcond": 1e-5},
    "PhaseRetrieval": {"oversampling": 2.0},  # Chung et al. (2023)
    "PiGDM": {**POSTERIOR, "data_std": 1.0},  # Song et al. (2023): data of spread 1
    "PoissonNoise": {"black": -1.0, "white": 1.0},
    "Posterior": POSTERIOR,
    "Projection": {"predictor": ReverseDiffusion(), "corrector": None, "relaxation": 1.0},  # score_inverse_problems
    "Radon": {**SOLVE, "detectors": None, "mask": None},
    "RePaint": {"resamplings": 10, "substeps": 1},  # Lugmayr et al. (2022)
    "ReSample": {**POSTERIOR, "gamma": 40.0, "fit_steps": 50},  # Song et al. (2024), their code
    "Renoise": {"zeta": 0.3},
    "Replacement": {"predictor": Ancestral(), "relaxation": 1.0},
    "Scaled": {**SOLVE, "event_shape": None},
    "SeparableBlur": {**SOLVE, "rcond": 1e-5},
    "SeparableBlur.gaussian": {"std": 3.0, "size": 61, "border": "reflect"},  # Chung et al. (2023)
    "SeparableBlur.of_kernels": {"border": "reflect"},
    "SeparableMeasurement": {**SOLVE, "rcond": 1e-5},
    "SpectralMeasurement": SOLVE,
    "SuperResolution": {**SOLVE, "rcond": 1e-5},
    "Inpainting.box": {"corner": None},
    "Decomposed.of": {"rcond": None},
    "TMPD": POSTERIOR,
    "birdcage_maps": {"radius": 1.5},
    "filtered_back_projection": {"window": inverse.radon.ramp},
    "gaussian_kernel": {"angle": 0.0},
    "motion_kernel": {"angle": 0.0},
    "operator_norm": {"steps": 30, "dtype": float},
    "parallel_angles": {"span": np.pi},
    "random_lines_mask": {"power": 0.0},
    "shake_kernel": {"intensity": 0.5},
    "spiral_mask": {"interleaves": 1},
    "twisted_sample": {"data_std": 1.0, "threshold": 0.5},  # Wu et al. (2023): half of the particles
}


def defaults(function):
    parameters = inspect.signature(function).parameters.items()
    return {name: p.default for name, p in parameters if p.default is not p.empty and not name.startswith("_")}


def test_defaults_are_those_of_the_sources():
    """Of all that is public, and of its other constructors."""
    public = {name: getattr(inverse, name) for name in inverse.__all__}
    others = {
        f"{name}.{method}": getattr(owner, method)
        for name, owner in public.items()
        for method, value in vars(owner).items()
        if isinstance(value, classmethod)
    }
    found = {name: defaults(function) for name, function in (public | others).items()}
    assert {name: values for name, values in found.items() if values} == DEFAULTS


D, SHAPE = 4, (4, 6, 3)
SDE = VPSDE()
PRIOR = exact.Gaussian(SDE, 0.4, 0.8)
MEASUREMENT = Dense(event_shape=(D,), matrix=np.eye(2, D))
Y = np.array([[0.3, -0.5]])
ODD, EVEN = np.ones((3, 3)) / 9, np.ones((3, 2)) / 6


def lines(acceleration, center):
    random_lines_mask(jax.random.key(0), (4, 8), acceleration, center)
    return equispaced_mask((4, 8), acceleration, center)


def kernels(vertical, horizontal, border="reflect"):
    return SeparableBlur.of_kernels(SHAPE, np.ones(vertical), np.ones(horizontal), border)


def forward(measurement):
    return measurement.forward(jnp.ones((1, *SHAPE)))


def fourier(event_shape, maps=None):
    mask = np.ones(event_shape[:2])
    if maps is None:
        return FourierSampling(event_shape=event_shape, mask=mask).singular_values()
    return MultiCoilFourierSampling(event_shape=event_shape, mask=mask, coil_maps=np.ones(maps)).forward(
        jnp.ones((1, *event_shape))
    )


def posterior(kind, **settings):
    return kind(PRIOR, MEASUREMENT, Y, **settings)


# What is called, arguments that are allowed, and arguments that are not with what the error says of them.
BOUNDS = {
    "Scaled": (
        lambda f: Scaled(measurement=MEASUREMENT, factor=f),
        [1e-9],
        {0.0: "Scaled: factor=0.0", -1.0: "Scaled: factor=-1.0"},
    ),
    "box": (
        lambda size, *corner: Inpainting.box(SHAPE, size, *corner),
        [(1,), ((4, 6),), ((2, 3), (0, 0)), ((2, 3), (2, 3))],
        {
            (0,): "a box of (0, 0)",
            (5,): "a box of (5, 5)",
            ((5, 6), (0, 0)): "a box of (5, 6)",
            ((4, 7), (0, 0)): "a box of (4, 7)",
            ((2, 3), (-1, 0)): "at (-1, 0)",
            ((2, 3), (0, -1)): "at (0, -1)",
            ((2, 3), (3, 3)): "at (3, 3)",
            ((2, 3), (2, 4)): "at (2, 4)",
        },
    ),
    "random pixels": (
        lambda share: Inpainting.random(keys(1)[0], SHAPE, share),
        [0, 1],
        {-0.01: "share=-0.01", 1.01: "share=1.01"},
    ),
    "compressed sensing": (
        lambda share: CompressedSensing.random(keys(1)[0], SHAPE, share),
        [0.6 / 72, 1.0, 1.006],
        {0.4 / 72: "not 0", 1.008: "not 73", -0.1: "not -7"},
    ),
    "average": (
        lambda factor: SuperResolution.average(SHAPE, factor),
        [1, 7.9],
        {0.99: "factor=0.99", 8.1: "which is 4"},
    ),
    "bicubic": (
        lambda factor: SuperResolution.bicubic(SHAPE, factor),
        [1, 7.9],
        {0.99: "factor=0.99", 8.1: "which is 4"},
    ),
    "Blur": (
        lambda *k: forward(Blur(event_shape=SHAPE, kernel=np.ones(k))),
        [(3, 1)],
        {(3, 2): "not (3, 2)", (2, 3): "not (2, 3)"},
    ),
    "PeriodicBlur": (
        lambda *k: forward(PeriodicBlur(event_shape=SHAPE, kernel=np.ones(k))),
        [(3, 1)],
        {(3, 2): "not (3, 2)", (2, 3): "not (2, 3)"},
    ),
    "of_kernels": (
        kernels,
        [(3, 1), (1, 3, "edge")],
        {
            (2, 3): "not (2,)",
            (3, 4): "not (4,)",
            (3, 3, "mirror"): "SeparableBlur: border='mirror' must be one of reflect, symmetric",
        },
    ),
    "gaussian": (
        lambda *settings: SeparableBlur.gaussian(SHAPE, *settings),
        [(0.1, 3)],
        {
            (0, 3): "SeparableBlur.gaussian: std=0 ",
            ((1, -1), 3): "std=-1 ",
            (1, 4): "not (4,)",
            (1, 3, "mirror"): "border='mirror'",
        },
    ),
    "gaussian_kernel": (
        gaussian_kernel,
        [(3, 0.1)],
        {(3, (0.0, 1.0)): "gaussian_kernel: std_down=0.0 ", (3, (1.0, 0.0)): "std_across=0.0 ", (4, 1.0): "not (4,)"},
    ),
    "motion_kernel": (
        motion_kernel,
        [(5, 4.99), (5, 0.01)],
        {(5, 5): "length=5 must be less than size=5", (5, 0): "motion_kernel: length=0 ", (4, 2): "not (4,)"},
    ),
    "shake_kernel": (
        lambda *settings: shake_kernel(keys(1)[0], *settings),
        [(3, 0)],
        {(3, -0.1): "shake_kernel: intensity=-0.1 ", (4,): "not (4,)"},
    ),
    "lines": (
        lines,
        [(4, 0), (4, 2), (1, 8), (8, 1)],
        {(4, 3): "center_lines=3 at most 2", (4, -1): "center_lines=-1", (0.9, 0): "acceleration=0.9 samples 9 of 8"},
    ),
    "k-space": (
        fourier,
        [((4, 6, 1),), ((4, 6, 2),)],
        {((4, 6),): "event_shape=(4, 6)", ((4, 6, 3),): "(4, 6, 3)", ((4, 6, 2, 1),): "(4, 6, 2, 1)"},
    ),
    "coils": (
        fourier,
        [((4, 6, 1), (1, 4, 6, 2))],
        {
            ((4, 6, 1), (4, 6, 2)): "shape (4, 6, 2) must",
            ((4, 6, 1), (1, 4, 6, 1)): "(coils, 4, 6, 2)",
            ((4, 6, 3), (1, 4, 6, 2)): "event_shape=(4, 6, 3)",
        },
    ),
    "NonlinearBlur": (
        lambda *k: forward(NonlinearBlur(kernel=np.ones(k))),
        [(3, 1)],
        {(3,): "kernel of shape (3,)", (3, 3, 1): "(3, 3, 1)", (3, 2): "(3, 2)", (2, 3): "(2, 3)"},
    ),
    "JPEG": (lambda c: inverse.JPEG().forward(jnp.ones((1, 8, 8, c))), [1, 3], {2: "(8, 8, 2)", 4: "(8, 8, 4)"}),
    "GaussianNoise": (GaussianNoise, [0], {-1e-9: "GaussianNoise: std=-1e-09 "}),
    "PoissonNoise": (PoissonNoise, [1e-9], {0: "PoissonNoise: peak=0 "}),
    "MMPS": (
        lambda rtol, max_steps: posterior(MMPS, rtol=rtol, max_steps=max_steps),
        [(1e-9, 1)],
        {(0, 1): "MMPS: rtol=0 ", (1e-3, 0): "MMPS: max_steps=0 must be at least 1"},
    ),
    "PiGDM": (lambda std: posterior(PiGDM, data_std=std), [1e-9], {0: "PiGDM: data_std=0 "}),
    "DPS": (
        lambda *pair: posterior(DPS, zeta=pair[0], steps=pair[1]),
        [(1e-9, 1e-9), (None, 1)],
        {(0, 1): "DPS: zeta=0 ", (1, 0): "DPS: steps=0 "},
    ),
    "ManifoldConstraint": (
        lambda *pair: posterior(ManifoldConstraint, zeta=pair[0], steps=pair[1]),
        [(1e-9, 1e-9)],
        {(0, 1): "ManifoldConstraint: zeta=0 ", (1, 0): "ManifoldConstraint: steps=0 "},
    ),
    "DiffPIR": (lambda strength: posterior(DiffPIR, strength=strength), [1e-9], {0: "DiffPIR: strength=0 "}),
    "Replacement": (
        lambda part: Replacement(MEASUREMENT, Y, relaxation=part),
        [1e-9],
        {0: "Replacement: relaxation=0 "},
    ),
    "Projection": (lambda part: Projection(MEASUREMENT, Y, relaxation=part), [1e-9], {0: "Projection: relaxation=0 "}),
    "ReSample": (
        lambda gamma, steps: ReSample(MEASUREMENT, Y, gamma=gamma, fit_steps=steps),
        [(1e-9, 1)],
        {(0, 1): "ReSample: gamma=0 ", (1, 0): "ReSample: fit_steps=0 must be at least 1"},
    ),
    "RePaint": (
        lambda *counts: RePaint(Ancestral(), *counts),
        [(1, 1)],
        {(0, 1): "RePaint: resamplings=0 must be at least 1", (1, 0): "RePaint: substeps=0 must be at least 1"},
    ),
    "DAPS": (
        lambda *settings: DAPS(MEASUREMENT, Y, 0.1, *settings),
        [(1, 1, 1e-9, 1e-9)],
        {
            (0, 1): "DAPS: ode_steps=0 must be at least 1",
            (1, 0): "DAPS: langevin_steps=0 must be at least 1",
            (1, 1, 0): "DAPS: step_size=0 ",
            (1, 1, 1, 0): "DAPS: data_std=0 ",
        },
    ),
    "likelihood": (
        lambda noise: require_noise("It", noise),
        [1e-9, GaussianNoise(1e-9), PoissonNoise(1.0), PoissonNoise(1.0, black=0.5)],
        {
            0.0: "It needs measurement noise",
            GaussianNoise(0.0): "more than 0",
            PoissonNoise(1.0, black=1.0, white=2.0): "more than 0",
        },
    ),
}


@pytest.mark.parametrize("kind", BOUNDS)
def test_bounds_are_where_they_are_said_to_be(kind):
    call, allowed, refused = BOUNDS[kind]
    for arguments in allowed:
        call(*(arguments if type(arguments) is tuple else (arguments,)))
    for arguments, message in refused.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            call(*(arguments if type(arguments) is tuple else (arguments,)))


ABSTRACT = [
    (Measurement(), {"forward": ["x"]}),
    (
        SpectralMeasurement(event_shape=(2,)),
        {
            "singular_values": [],
            "to_spectrum": ["x"],
            "from_spectrum": ["z"],
            "measured_to_spectrum": ["y"],
            "measured_from_spectrum": ["z"],
        },
    ),
    (Noise(), {"sample": ["keys", "clean"], "log_prob": ["y", "clean"], "variance": ["clean"]}),
    (Posterior(PRIOR, MEASUREMENT, Y), {"correct": ["x", "t"]}),
]


@pytest.mark.parametrize("owner, methods", ABSTRACT, ids=lambda v: type(v).__name__)
def test_what_a_class_of_one_s_own_must_define_is_named(owner, methods):
    for name, arguments in methods.items():
        message = f"{type(owner).__name__} must define {name}({', '.join(arguments)})"
        with pytest.raises(NotImplementedError, match=f"^{re.escape(message)}$"):
            getattr(owner, name)(*arguments)
