"""Every key of the config reaches the object that it is for: numbers away from every default, nothing compiled."""

import numpy as np
import pytest

import sde_lib
from experiments import factory
from experiments.factory.losses import TIME_DISTRIBUTIONS, WEIGHTINGS
from experiments.factory.model import PARAMETERIZATIONS
from experiments.factory.sampling import predictors
from tests.experiments.tiny import tiny_config

SAMPLING = {
    "sampling__eta": 0.3, "sampling__churn": 7.0, "sampling__churn_min": 0.06, "sampling__churn_max": 40.0,
    "sampling__churn_noise": 1.004, "sampling__order": 1, "sampling__variable": "angle", "sampling__stochastic": 0.4,
    "sampling__corrected": True, "sampling__snr": 0.11, "sampling__corrector_steps": 3, "sampling__steps": 2,
    "sampling__langevin_norm": "sample", "sampling__tolerance": 3e-4, "sampling__predictor": "ancestral",
    "sampling__lower_order_final": True, "sampling__max_steps": 77,
}  # fmt: skip
LANGEVIN = sde_lib.Langevin(snr=0.11, steps=3, norm="sample")
METHODS = {
    "euler_maruyama": sde_lib.EulerMaruyama(),
    "reverse_diffusion": sde_lib.ReverseDiffusion(),
    "ancestral": sde_lib.Ancestral(),
    "ddim": sde_lib.DDIM(eta=0.3),
    "heun": sde_lib.Heun(churn=7.0, churn_min=0.06, churn_max=40.0, churn_noise=1.004),
    "probability_flow": sde_lib.ProbabilityFlow(),
    "dpm_solver_singlestep": sde_lib.SinglestepDPMSolver(order=1, tau=0.4),
    "sscs": sde_lib.SSCS(order=1),
    "dpm_solver": sde_lib.DPMSolver(order=1, variable="angle", lower_order_final=True, tau=0.4),
    "unipc": sde_lib.UniPC(order=1, variable="angle", lower_order_final=True, tau=0.4),
    "deis": sde_lib.DEIS(order=1, variable="angle", lower_order_final=True, corrected=True),
    "adaptive": sde_lib.Adaptive(rtol=3e-4, atol=3e-4, max_steps=77),
    "langevin": LANGEVIN,
    "predictor_corrector": sde_lib.PredictorCorrector(predictor=sde_lib.Ancestral(), corrector=LANGEVIN),
}


@pytest.mark.parametrize("name", sorted(factory.SAMPLERS))
def test_a_sampling_method_has_its_settings(name):
    assert factory.sampler(tiny_config(sampling__sampler=name, **SAMPLING)) == METHODS[name]


@pytest.mark.parametrize("name", sorted(predictors()))
def test_a_predictor_has_its_settings(name):
    config = tiny_config(sampling__sampler="predictor_corrector", **SAMPLING | {"sampling__predictor": name})
    assert factory.sampler(config) == sde_lib.PredictorCorrector(METHODS[name], LANGEVIN)


@pytest.mark.parametrize(
    "name, grid",
    [
        ("uniform", sde_lib.uniform_times),
        ("karras", lambda sde, n: sde_lib.karras_times(sde, n, 3.0)),
        ("log_snr", sde_lib.log_snr_times),
        ("quadratic", sde_lib.quadratic_times),
    ],
)
def test_a_grid_has_its_settings(name, grid):
    sde = sde_lib.VPSDE(t_min=1e-2)
    found = factory.times(tiny_config(sampling__times=name, sampling__steps=7, sampling__rho=3.0), sde)
    np.testing.assert_array_equal(found, grid(sde, 7))


LOSS = {
    "parameterization__sigma_data": 0.7, "loss__snr_gamma": 3.0, "loss__sigmoid_bias": -1.0, "loss__log_sigma_mean": -0.3,
    "loss__log_sigma_std": 1.7, "loss__logit_mean": 0.2, "loss__logit_std": 0.9, "loss__discrete_levels": 17,
}  # fmt: skip
WEIGHTING = {
    "edm": sde_lib.EDMWeighting(0.7), "noise": sde_lib.NoiseWeighting(), "score": sde_lib.ScoreWeighting(),
    "likelihood": sde_lib.LikelihoodWeighting(), "data": sde_lib.DataWeighting(), "v": sde_lib.VWeighting(),
    "velocity": sde_lib.VelocityWeighting(), "min_snr": sde_lib.MinSNRWeighting(3.0),
    "soft_min_snr": sde_lib.SoftMinSNRWeighting(3.0), "sigmoid": sde_lib.SigmoidWeighting(-1.0),
    "hybrid": sde_lib.HybridWeighting(), "hybrid_noise": sde_lib.HybridNoiseWeighting(),
}  # fmt: skip
TIMES = {
    "log_normal": sde_lib.LogNormalSigma(-0.3, 1.7), "uniform": sde_lib.UniformTime(), "log_snr": sde_lib.UniformLogSNR(),
    "logit_normal": sde_lib.LogitNormalTime(0.2, 0.9), "geometric_sigma": sde_lib.GeometricSigma(17),
    "discrete": sde_lib.DiscreteTime(17),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(WEIGHTINGS))
def test_a_weighting_has_its_settings(name):
    assert WEIGHTINGS[name](tiny_config(**LOSS)) == WEIGHTING[name]


@pytest.mark.parametrize("name", sorted(TIME_DISTRIBUTIONS))
def test_a_distribution_of_times_has_its_settings(name):
    assert TIME_DISTRIBUTIONS[name](tiny_config(**LOSS).loss) == TIMES[name]


@pytest.mark.parametrize(
    "name, changes, expected",
    [
        ("edm", {}, sde_lib.EDMPreconditioning(0.7)),
        ("noise", {}, sde_lib.NoisePrediction(1000.0, -1.0)),
        ("data", {}, sde_lib.DataPrediction(1000.0, -1.0)),
        ("v", {}, sde_lib.VPrediction(1000.0, -1.0)),
        ("velocity", {}, sde_lib.VelocityPrediction(time_scale=1000.0)),
        ("score", {"scale_input": True}, sde_lib.ScorePrediction(0.7, 0.5, 8)),
        ("score", {"scale_input": False}, sde_lib.ScorePrediction(None, 0.5, 8)),
    ],
)
def test_a_parameterization_has_its_settings(name, changes, expected):
    changes = {"sigma_data": 0.7, "sigma_scale": 0.5, "levels": 8, "time_scale": 1000.0, "time_offset": -1.0} | changes
    config = tiny_config(**{f"parameterization__{key}": value for key, value in changes.items()}).parameterization
    assert PARAMETERIZATIONS[name](config) == expected


@pytest.mark.parametrize(
    "name, expected",
    [
        ("vp", sde_lib.VPSDE(0.3, 11.0, t_min=1e-3, t_max=0.9)),
        ("subvp", sde_lib.SubVPSDE(0.3, 11.0, t_min=1e-3, t_max=0.9)),
        ("ve", sde_lib.VESDE(0.02, 30.0, t_min=1e-3, t_max=0.9)),
        ("cosine", sde_lib.CosineVPSDE(t_min=1e-3, t_max=0.9)),
        ("edm", sde_lib.EDMSDE(t_min=1e-3, t_max=0.9)),
        ("rectified_flow", sde_lib.RectifiedFlow(t_min=1e-3, t_max=0.9)),
        ("critically_damped", sde_lib.CriticallyDampedLangevin(t_min=1e-3, t_max=0.9, beta=3.0, mass=0.5, gamma=0.1)),
    ],
)
def test_a_process_has_its_settings(name, expected):
    numbers = {"t_max": 0.9, "beta_min": 0.3, "beta_max": 11.0, "sigma_min": 0.02, "sigma_max": 30.0}
    numbers |= {"beta": 3.0, "mass": 0.5, "gamma": 0.1}
    config = tiny_config(**{f"sde__{key}": value for key, value in numbers.items()})
    config.sde.name = name
    assert factory.sde(config, 1e-3) == expected
