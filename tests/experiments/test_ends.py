"""Processes and grids that nothing can be sampled from are refused before training; a prior out of reach is a warning."""

import re

import numpy as np
import pytest

import sde_lib
from configs.parts.sde import PROCESSES
from experiments import factory
from experiments.config import files as config
from experiments.errors import UserError
from experiments.factory import check
from tests.experiments.tiny import ROOT

DIGITS = f"{ROOT}/configs/digits.py"


def load(text="", process="vp"):
    return config.load(f"{DIGITS}:{process}", [tuple(part.split("=")) for part in text.split()])


def check_all(loaded):
    warnings = [
        line
        for section in ("training", "sampling", "evaluation")
        for line in factory.check_ends(loaded, f"{section}.t_min")
    ]
    factory.check_times(loaded)
    return warnings


@pytest.mark.parametrize("process", PROCESSES)
def test_every_process_of_the_configs_is_usable_without_a_warning(process):
    assert check_all(load(process=process)) == []


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "sde.name=rectified_flow sde.t_max=1.0",
            "^sde.name='rectified_flow', sde.t_max=1, .*alpha is inf at t=1.*152 near t=0.993",
        ),
        ("sde.name=rectified_flow sde.t_max=0.9999999", "sde.t_max=0.9999999, .*alpha is .* at t=0.9999999, its largest"),
        (
            "sde.t_max=1.0 sde.name=cosine",
            "^sde.name='cosine', sde.offset=0.008, sde.t_max=1, .*sigma / alpha is inf at t=1.*152 near t=0.995",
        ),
        ("sde.name=ve sde.sigma_max=1e8", r"sde.sigma_max=1e\+08, .*sigma / alpha is 1e\+08 at t=1.* at most 1.05e\+06"),
        ("sde.beta_max=200", r"sde.beta_max=200, .*sigma / alpha is 5.32e\+21 at t=1.*152 near t=0.316"),
        (
            "sde.name=ddpm sde.num_steps=4000 sde.beta_first=1e-4 sde.beta_last=0.02",
            r"sde.beta_last=0.02, sde.num_steps=4000, .*sigma / alpha is 6.14e\+08 at t=1",
        ),
        ("sde.name=ddpm sde.num_steps=20", "num_steps=20 must be at least 21"),
        ("sde.name=ve sde.sigma_min=50 sde.sigma_max=0.01", "sigma / alpha must rise with t"),
        ("training.t_min=1e-14", r"training.t_min=1e-14: VPSDE: sigma / alpha is 3.\d+e-08 at t=1e-14.*at least 1.2e-07"),
        ("sampling.t_min=1e-14", "sampling.t_min=1e-14: VPSDE: sigma / alpha is"),
        ("evaluation.t_min=1e-14", "evaluation.t_min=1e-14: VPSDE: sigma / alpha is"),
        ("sampling.steps=5000000", "sampling.steps=5000000, .*the same number in float32: take fewer steps"),
        ("sampling.rho=1e-9", "sampling.rho=1e-09, .*the same number in float32"),
        ("sampling.steps=100000000", "sampling.steps=100000000, .*at most 16777216 steps"),
    ],
)  # fmt: skip
def test_what_cannot_be_sampled_is_refused_with_the_keys(text, message):
    with pytest.raises(UserError, match=message) as error:
        check_all(load(text))
    assert "\n" not in str(error.value)


def test_training_sampling_and_evaluation_all_check():
    """The whole validation, which `train` and every command on a run call, reaches these checks."""
    for text, key in (
        ("sampling.t_min=1e-14", "sampling.t_min"),
        ("evaluation.t_min=1e-14", "evaluation.t_min"),
        ("training.t_min=1e-14", "training.t_min"),
        ("sampling.steps=5000000", "sampling.steps"),
        ("evaluation.likelihood_images=2 evaluation.likelihood_t_min=1e-14", "evaluation.likelihood_t_min"),
    ):
        with pytest.raises(UserError, match=f"{key}="):
            check.check(load(text))


def test_the_likelihoods_smallest_time_counts_only_where_likelihoods_are_measured():
    check_all(load("evaluation.likelihood_t_min=1e-14"))


@pytest.mark.parametrize(
    "text, message",
    [
        ("sde.beta_max=0.2", "sde.beta_max=0.2, .*: sigma / alpha is only 0.402 at t_max: .*at least 10 is advised"),
        ("sde.name=ddpm sde.num_steps=100 sde.beta_first=1e-4 sde.beta_last=0.02", "is only 1.3"),
        (
            "training.t_min=1e-2 sampling.t_min=1e-3",
            "^sampling.t_min=0.001: sigma / alpha is 0.010.* there, but training.t_min=0.01 ends at 0.04.* below the noise",
        ),
        ("sampling.t_min=0.2", "sampling.t_min=0.2: sigma / alpha is still 0.7.* there.*at most 0.1 is advised"),
    ],
)
def test_too_little_or_too_much_noise_is_a_warning_with_the_figure(text, message):
    (warning,) = check_all(load(text))
    assert re.search(message, warning)


def test_warnings_are_printed_once(capsys):
    check.check(load("sde.beta_max=0.2"))
    assert [line[:9] for line in capsys.readouterr().err.splitlines()] == ["warning: "]


@pytest.mark.parametrize("steps", [100, 1000, 4000])
@pytest.mark.parametrize("name, first, last", [("ddpm", 1e-4, 0.02), ("scaled_linear", 0.0015, 0.0195)])
def test_a_chain_of_another_length_is_the_published_one_rescaled(name, first, last, steps):
    """improved-diffusion's get_named_beta_schedule: scale = 1000 / num_diffusion_timesteps; beta_start = scale * 0.0001."""
    loaded = load(f"sde.name={name} sde.num_steps={steps}")
    scale = 1000 / steps
    betas = np.linspace(scale * first, scale * last, steps)
    if name == "scaled_linear":
        betas = np.linspace((scale * first) ** 0.5, (scale * last) ** 0.5, steps) ** 2
    log_alpha_bar = np.log1p(-betas).cumsum()
    expected = sde_lib.DiscreteVP.from_betas(betas)
    sde = factory.sde(loaded, 1e-3)
    np.testing.assert_allclose(sde.log_snr_knots, log_alpha_bar - np.log(-np.expm1(log_alpha_bar)), rtol=1e-12)
    np.testing.assert_array_equal(sde.log_snr_knots, expected.log_snr_knots)
    levels = sde.noise_to_signal(np.float32([1 / steps, 1.0]))
    assert 75 < levels[1] < 225  # 157 and 84 with 1,000 steps
    assert factory.check_ends(loaded, "sampling.t_min") == []


def test_betas_that_are_given_are_not_rescaled():
    """As of a run that was trained before, and of diffusers' beta_start and beta_end."""
    loaded = load("sde.name=ddpm sde.num_steps=50 sde.beta_first=1e-3 sde.beta_last=0.1")
    expected = sde_lib.DiscreteVP.from_betas(np.linspace(1e-3, 0.1, 50))
    np.testing.assert_array_equal(factory.sde(loaded, 0.02).log_snr_knots, expected.log_snr_knots)


def test_the_cosine_needs_no_rescaling():
    """Its table of any length is the same function of t (iDDPM, eq. 17)."""
    of = {steps: factory.sde(load(f"sde.name=iddpm sde.num_steps={steps}"), 0.01) for steps in (100, 1000, 4000)}
    np.testing.assert_allclose(
        [sde.log_snr(0.5) for sde in of.values()], float(sde_lib.CosineVPSDE().log_snr(0.5)), rtol=1e-3
    )
