"""What constructors refuse: the value just outside of what is allowed, and not the one at its edge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sde_lib import (
    DDIM,
    DEIS,
    SDE,
    Adams,
    Adaptive,
    AnnealedLangevin,
    Denoiser,
    Dequantizer,
    DerivedDenoiser,
    DiscreteTime,
    DPMSolver,
    EDMWeighting,
    GeometricSigma,
    Heun,
    Langevin,
    LearnedLogVariance,
    LogitNormalTime,
    LogNormalSigma,
    LowDiscrepancyTimes,
    MinSNRWeighting,
    Parameterization,
    Process,
    Quantization,
    Sampler,
    SinglestepDPMSolver,
    SoftMinSNRWeighting,
    TimeDistribution,
    UniPC,
)
from sde_lib.checks import at_least, one_of, positive
from sde_lib.editing import Style
from sde_lib.numerics import sqrt_or_zero
from sde_lib.randomness import check_keys, fold_in, split, standard_normal
from sde_lib.sampling.multistep import Multistep
from tests.sde_lib.processes import keys

NAN, TINY = float("nan"), 5e-324


def evenly_spread(size):
    return LowDiscrepancyTimes(jax.random.key(0), jnp.arange(1), size)


def style(std):
    return Style(lambda x: x, jnp.zeros(3), jnp.eye(3), std)


POSITIVE = [
    (Langevin, "snr"), (AnnealedLangevin, "snr"), (Adams, "data_std"), (Adaptive, "rtol"), (Adaptive, "atol"),
    (EDMWeighting, "sigma_data"), (MinSNRWeighting, "gamma"), (SoftMinSNRWeighting, "gamma"),
    (LogNormalSigma, "std"), (LogitNormalTime, "std"), (style, "std"),
]  # fmt: skip
AT_LEAST = [
    (DDIM, "eta", 0), (Heun, "churn", 0), (DPMSolver, "tau", 0), (UniPC, "tau", 0),
    (SinglestepDPMSolver, "tau", 0), (Langevin, "steps", 1), (AnnealedLangevin, "steps", 1),
    (GeometricSigma, "levels", 2), (DiscreteTime, "steps", 1), (evenly_spread, "size", 1),
    (LearnedLogVariance.init, "channels", 1), (Adaptive, "max_steps", 1),
    (lambda num_levels: Quantization.filling(0.0, 1.0, num_levels), "num_levels", 2),
    (lambda num_levels: Quantization.between(0.0, 1.0, num_levels), "num_levels", 2),
]  # fmt: skip
ONE_OF = [
    (DPMSolver, "order", (1, 2, 3), (0, 4)),
    (UniPC, "order", (1, 2, 3), (0, 4)),
    (DEIS, "order", (1, 2, 3), (0, 4)),
    (SinglestepDPMSolver, "order", (1, 2, 3), (0, 4)),
    (Adams, "order", (1, 2, 3, 4, 5, 6), (0, 7)),
    (DEIS, "variable", ("log_snr", "angle", "time"), ("log-snr", None)),
    (Langevin, "norm", ("process", "sample", "batch"), ("Batch", None)),
]


def named(make):
    return getattr(make, "__qualname__", str(make))


@pytest.mark.parametrize("make, name", POSITIVE, ids=named)
def test_numbers_that_must_be_positive(make, name):
    assert make(**{name: TINY}) is not None and make(**{name: float("inf")}) is not None
    for wrong in (0, 0.0, -TINY, NAN):
        with pytest.raises(ValueError, match=f"{name}={wrong} must be more than 0"):
            make(**{name: wrong})


@pytest.mark.parametrize("make, name, least", AT_LEAST, ids=named)
def test_numbers_with_a_least_value(make, name, least):
    assert make(**{name: least}) is not None
    with pytest.raises(ValueError, match=f"{name}={least - 1}"):
        make(**{name: least - 1})


@pytest.mark.parametrize("make, name, allowed, others", ONE_OF, ids=named)
def test_choices_are_among_those_that_are_allowed(make, name, allowed, others):
    for choice in allowed:
        assert getattr(make(**{name: choice}), name) == choice
    for choice in others:
        with pytest.raises(ValueError, match=f"{name}={choice!r} must be one of {', '.join(map(str, allowed))}$"):
            make(**{name: choice})


def test_checks_name_the_owner_the_number_and_the_bound():
    for check, message in [
        (lambda: positive("Mine", a=1, b=-2.5), "^Mine: b=-2.5 must be more than 0$"),
        (lambda: at_least("Mine", 3, a=3, b=2), "^Mine: b=2 must be at least 3$"),
        (lambda: at_least("Mine", 0, a=NAN), "^Mine: a=nan must be at least 0$"),
        (lambda: at_least("Mine", 0, a=-TINY), "^Mine: a=-5e-324 must be at least 0$"),
        (lambda: one_of("Mine", ("x", "y"), a="x", b="z"), "^Mine: b='z' must be one of x, y$"),
    ]:
        with pytest.raises(ValueError, match=message):
            check()
    positive("Mine", a=jnp.array(-1.0), b=np.float32(-1.0))  # arrays pass
    at_least("Mine", 3, a=jnp.array(2))


UNDEFINED = [
    (lambda: SDE().alpha(0.5), r"SDE must define alpha\(t\)"),
    (lambda: SDE().sigma(0.5), r"SDE must define sigma\(t\)"),
    (lambda: Denoiser(SDE())(jnp.ones((1, 2)), 0.5), r"Denoiser must define __call__\(x, t\) or x0_and_noise\(x, t\)"),
    (lambda: Denoiser(SDE()).noise(jnp.ones((1, 2)), 0.5), "Denoiser must define __call__"),
    (
        lambda: DerivedDenoiser(Denoiser(SDE())).x0_and_noise(jnp.ones((1, 2)), 0.5),
        "DerivedDenoiser must define __call__",
    ),
    (lambda: Parameterization().x0_and_noise(None, SDE(), 0, 0), "Parameterization must define x0_and_noise"),
    (lambda: Parameterization().output(SDE(), 0, 0, 0), "Parameterization must define output"),
    (lambda: Sampler().step((), keys(1), 0, 0, 0, None), "Sampler must define step"),
    (lambda: TimeDistribution().quantile(SDE(), 0.5), r"TimeDistribution must define quantile\(sde, u\)"),
    (lambda: Dequantizer().place(keys(1), 0), r"Dequantizer must define place\(keys, images\)"),
    (lambda: Multistep()._value(None, 0, 0), None),
    (lambda: Process().noise_to_signal(0.5), r"Process must define log_snr\(t\)"),
    (lambda: Process().drift(0, 0.5), r"Process must define drift\(x, t\)"),
]


@pytest.mark.parametrize("call, message", UNDEFINED)
def test_what_a_new_class_must_define_is_named(call, message):
    with pytest.raises(NotImplementedError, match=message):
        call()


def test_keys_are_a_vector_of_typed_keys():
    check_keys(keys(3))
    check_keys(keys(3), 3)
    for wrong in (jax.random.key(0), keys(4).reshape(2, 2), jnp.zeros((3, 2), jnp.uint32), jnp.zeros(3)):
        with pytest.raises(ValueError, match="keys must be a vector of typed keys"):
            check_keys(wrong)
    for batch in (0, 2, 4):
        with pytest.raises(ValueError, match=f"there are 3 keys: {batch} examples need one each"):
            check_keys(keys(3), batch)


def data(of_keys):
    return np.asarray(jax.random.key_data(of_keys))


def test_keys_are_folded_and_split_one_by_one():
    """Set i of a split is `fold_in` of i, and the noise of example i is that of its key alone, in the shape of x."""
    expected = [data(jax.random.fold_in(key, 7)) for key in keys(3)]
    np.testing.assert_array_equal(data(fold_in(keys(3), 7)), expected)
    first, second = split(keys(3), 2)
    np.testing.assert_array_equal(data(first), data(fold_in(keys(3), 0)))
    np.testing.assert_array_equal(data(second), data(fold_in(keys(3), 1)))
    noise = standard_normal(keys(3), jnp.zeros((3, 2, 2)))
    np.testing.assert_array_equal(noise[1], jax.random.normal(keys(3)[1], (2, 2)))


def test_the_square_root_and_its_derivative_are_0_where_there_is_none():
    for x, value, slope in [(-2.0, 0, 0), (0.0, 0, 0), (4.0, 2, 0.25), (1e-12, 1e-6, 0.5e6)]:
        found = jax.value_and_grad(sqrt_or_zero)(x)
        np.testing.assert_allclose(found, (value, slope), rtol=1e-12)
