"""Defaults of the public constructors and functions: numbers of the papers, and conventions of the modules' texts."""

import inspect
import math
import operator

import pytest

import sde_lib
import sde_lib.editing
from sde_lib import Langevin, ReverseDiffusion, UniformTime, losses

SOLVE = {"rtol": 1e-5, "atol": 1e-5, "max_steps": 4096}
MULTISTEP = {"order": 2, "variable": "log_snr", "lower_order_final": False}
TABLE_OF_1000_STEPS = {"num_steps": 1000, "beta_first": None, "beta_last": None, "t_min": None, "t_max": 1.0}

DEFAULTS = {
    # Song et al. (2021), appendix C: beta from 0.1 to 20, sigma from 0.01 to 50, times from 1e-5 to 1.
    "SDE": {"t_min": 1e-5, "t_max": 1.0},
    "Process": {"t_min": 1e-5, "t_max": 1.0},
    "LinearSDE": {"t_min": 1e-5, "t_max": 1.0},
    "VPSDE": {"beta_min": 0.1, "beta_max": 20.0, "t_min": 1e-5, "t_max": 1.0},
    "SubVPSDE": {"beta_min": 0.1, "beta_max": 20.0, "t_min": 1e-5, "t_max": 1.0},
    "VESDE": {"sigma_min": 0.01, "sigma_max": 50.0, "t_min": 1e-5, "t_max": 1.0},
    # Nichol and Dhariwal (2021), eq. 17, up to alpha = 0.0078; rectified flow up to alpha = 0.005.
    "CosineVPSDE": {"offset": 0.008, "t_min": 1e-5, "t_max": 0.995},
    "RectifiedFlow": {"t_min": 1e-5, "t_max": 0.995},
    # Karras et al. (2022), table 1: sigma from 0.002 to 80, rho 7, P_mean -1.2, P_std 1.2, sigma_data 0.5.
    "EDMSDE": {"t_min": 0.002, "t_max": 80.0},
    "karras_times": {"rho": 7.0, "denoise": True},
    "LogNormalSigma": {"mean": -1.2, "std": 1.2},
    "EDMPreconditioning": {"sigma_data": 0.5},
    "EDMWeighting": {"sigma_data": 0.5},
    "Heun": {"churn": 0.0, "churn_min": 0.0, "churn_max": math.inf, "churn_noise": 1.0},
    # Dockhorn et al. (2022): beta 4, M^-1 4, gamma 0.04.
    "CriticallyDampedLangevin": {"beta": 4.0, "mass": 0.25, "gamma": 0.04, "t_min": 1e-3, "t_max": 1.0},
    "SSCS": {"order": 1},
    "DiscreteVP": {"t_min": 1e-5, "t_max": 1.0},
    "DiscreteVP.from_betas": {"t_min": None, "t_max": 1.0},
    "DiscreteVP.linear": TABLE_OF_1000_STEPS,
    "DiscreteVP.scaled_linear": TABLE_OF_1000_STEPS,
    "DiscreteVP.cosine": {"num_steps": 1000, "offset": 0.008, "beta_limit": 0.999, "t_min": None, "t_max": 1.0},
    # Ho et al. (2020): 1,000 steps; Song and Ermon (2019): 10 levels; Esser et al. (2024): the standard normal.
    "DiscreteTime": {"steps": 1000},
    "GeometricSigma": {"levels": 10},
    "LogitNormalTime": {"mean": 0.0, "std": 1.0},
    "LowDiscrepancyTimes": {"times": UniformTime()},
    # Hang et al. (2023): 5; Crowson et al. (2024): 1 / sigma_data^2 of 0.5; Kingma and Gao (2023): 2.
    "MinSNRWeighting": {"gamma": 5.0},
    "SoftMinSNRWeighting": {"gamma": 4.0},
    "SigmoidWeighting": {"bias": 2.0},
    "LearnedLogVariance.init": {"channels": 128},
    # The units of time of score_sde's networks and of SD3's.
    "NoisePrediction": {"time_scale": 999.0, "time_offset": 0.0},
    "DataPrediction": {"time_scale": 999.0, "time_offset": 0.0},
    "VPrediction": {"time_scale": 999.0, "time_offset": 0.0},
    "VelocityPrediction": {"time_scale": 1000.0, "data_last": False},
    "ScorePrediction": {"sigma_data": None, "sigma_scale": 1.0, "levels": 0},
    "NetworkDenoiser": {"variables": None, "condition": None, "dropout_keys": None},
    # score_sde's signal-to-noise ratio 0.16 with one correction; NCSNv2's 0.176 with 5 (Song and Ermon, 2020).
    "Langevin": {"snr": 0.16, "steps": 1, "norm": "process"},
    "AnnealedLangevin": {"snr": 0.176, "steps": 5, "norm": "process"},
    "PredictorCorrector": {"predictor": ReverseDiffusion(), "corrector": Langevin(0.16, 1, "process")},
    "DDIM": {"eta": 0.0},
    "DPMSolver": {**MULTISTEP, "tau": 0.0},
    "UniPC": {**MULTISTEP, "tau": 0.0},
    "DEIS": {**MULTISTEP, "variable": "time", "corrected": False},
    "SinglestepDPMSolver": {"order": 2, "tau": 0.0},
    "Adams": {"order": 4, "corrected": True, "data_std": 0.5, "predictor": None, "corrector": None},
    "Adaptive": {"rtol": 1e-3, "atol": 1e-3, "max_steps": 4096, "adjoint": None},
    "ReverseSDE": {"stochasticity": 1.0},
    "reverse": {"stochasticity": 1.0},
    # Grids end in clean data; the quadratic one is DDIM's.
    "uniform_times": {"denoise": True},
    "log_snr_times": {"denoise": True},
    "quadratic_times": {"power": 2.0, "denoise": True},
    "recommended_times": {"denoise": True},
    "optimal_times": {
        "sampler": None, "x_init": None, "reference_steps": 200, "knots": 8, "iterations": 60, "denoise": True,
    },
    "check_ends": {"t_min": None, "t_max": None},
    "check_times": {"denoise": True},
    "sample": {"x_init": None, "denoise": True, "return_trajectory": False},
    "encode": {**SOLVE, "adjoint": None},
    "decode": {**SOLVE, "adjoint": None},
    "interpolate": SOLVE,
    "log_likelihood": {"divergence": None, **SOLVE, "adjoint": None},
    "Hutchinson": {"num_probes": 4, "distribution": "rademacher"},
    "ExactDivergence": {"chunk": 64},
    "elbo": {"quantization": None, "num_times": 8, "num_estimates": 4, "data_std": 0.5},
    # 8 bits; (0, 1.6) is close to uniform.
    "Quantization": {"num_levels": 256},
    "Quantization.filling": {"num_levels": 256},
    "Quantization.between": {"num_levels": 256},
    "TruncatedNormalDequantizer": {"std": 0.25},
    "LogitNormalDequantizer": {"loc": 0.0, "scale": 1.6},
    "bits_per_dim": {"quantization": None, "log_ratio": None},
    "denoising_score_matching": {
        "weighting": None, "times": None, "importance": False, "log_variance": None, "train": False,
        "return_times": False,
    },
    "noisy_classification": {"times": None, "train": False},
    "sliced_score_matching": {"probes": 1, "probe": losses.rademacher, "variance_reduced": True},
    "editing.sdedit": {"mask": None, "posterior": None},
    "editing.shared_levels": {"strength": 1.0, "rho": 7.0},
    "editing.Style": {"std": 0.1},
    "editing.Style.of": {"std": 0.1},
    "exact.Gaussian": {"mean": 0.0, "std": 1.0},
    "exact.GaussianMixture": {"stds": 0.1, "weights": None},
    "exact.CorrelatedMixture": {"weights": None},
}  # fmt: skip


def defaults(function):
    parameters = inspect.signature(function).parameters.items()
    return {name: p.default for name, p in parameters if p.default is not p.empty and name != "_class"}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_the_published_and_documented_ones(name):
    function = operator.attrgetter(name)(sde_lib)
    assert defaults(function) == DEFAULTS[name]


def test_the_table_has_every_public_default():
    """But for guidance, whose numbers are the user's, and for results."""
    public = {name: getattr(sde_lib, name) for name in sde_lib.__all__}
    found = {
        name
        for name, value in public.items()
        if callable(value) and "guidance" not in value.__module__ and name != "Status" and defaults(value)
    }
    assert found - DEFAULTS.keys() == set()
