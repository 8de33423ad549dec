"""What `build` hands to the library, and its messages: the loss of training, times that are refused, ends of a process."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sde_lib
from experiments import factory
from experiments.errors import UserError
from experiments.factory import averages, ends, losses
from tests.experiments.tiny import tiny_config

DRAWS = SimpleNamespace(keys=jnp.arange(3), shared=jax.random.key(5), places=jnp.arange(4, 7), size=9)


class Model:
    """Stands for a Denoiser."""

    def replace(self, **fields):
        self.fields = fields
        return self


@pytest.fixture
def handed(monkeypatch):
    """What `denoising_score_matching` is given; every example has the loss of its place."""
    given = {}

    def matching(*of, **options):
        given.update(options, of=of)
        return jnp.array([1.0, 2.0, 4.0]), jnp.array([0.1, 0.2, 0.3])

    def denoiser(config, variables, t_min):
        given.update(denoiser=(config, variables, t_min))
        return Model()

    monkeypatch.setattr(losses.sde_lib, "denoising_score_matching", matching)
    monkeypatch.setattr(losses, "denoiser", denoiser)
    return given


VARIABLES = {factory.LOSS: {"log_variance": jnp.array([3.0, 4.0])}, "params": 1}


def test_the_loss_of_training_has_its_denoiser_times_and_weights(handed):
    config = tiny_config(
        training__t_min=0.25, loss__weighting="min_snr", loss__snr_gamma=3.0, loss__times="logit_normal"
    )
    compute = factory.loss(config)
    condition = {"label": jnp.array([1, 0, 1]), "augmentation": jnp.ones((3, 9))}
    found = compute(DRAWS, VARIABLES, "x0", condition)
    np.testing.assert_array_equal(found, [1, 2, 4])
    keys, model, x0 = handed.pop("of")
    assert (keys is DRAWS.keys, x0, handed.pop("denoiser")) == (True, "x0", (config, VARIABLES, 0.25))
    assert model.fields.keys() == {"condition"} and model.fields["condition"].keys() == condition.keys()
    assert all(model.fields["condition"][name] is leaf for name, leaf in condition.items())
    times = sde_lib.LogitNormalTime(config.loss.logit_mean, config.loss.logit_std)
    assert handed == {
        "weighting": sde_lib.MinSNRWeighting(3.0), "times": times, "importance": False, "log_variance": None, "train": True,
        "return_times": True,
    }  # fmt: skip
    compute(DRAWS, VARIABLES, "x0", None)
    assert handed["of"][1].fields == {"condition": None}
    losses_, t = compute(DRAWS, VARIABLES, "x0", None, return_times=True)
    np.testing.assert_allclose(losses_, [1, 2, 4])
    np.testing.assert_allclose(t, [0.1, 0.2, 0.3])


def test_the_loss_has_half_the_sum_shared_times_importance_and_what_it_learns(handed):
    config = tiny_config(
        loss__low_discrepancy=True, loss__learned_uncertainty=True, loss__importance=True, loss__times="uniform",
        loss__reduction="half_sum", data__image_size=4, data__num_channels=3,
    )  # fmt: skip
    found, t = factory.loss(config)(DRAWS, VARIABLES, "x0", None, return_times=True)
    np.testing.assert_allclose(found, [24, 48, 96])  # half of 4 x 4 x 3 times 1, 2, 4
    np.testing.assert_allclose(t, [0.1, 0.2, 0.3])
    times, learned = handed["times"], handed["log_variance"]
    assert type(times) is sde_lib.LowDiscrepancyTimes and times.times == sde_lib.UniformTime()
    assert times.key is DRAWS.shared and times.places is DRAWS.places and times.size == 9
    assert type(learned) is sde_lib.LearnedLogVariance and learned.weights is VARIABLES[factory.LOSS]["log_variance"]
    assert handed["importance"] is True
    np.testing.assert_allclose(factory.loss(config)(DRAWS, VARIABLES, "x0", None), [24, 48, 96])


def test_each_reduction_is_of_the_number_of_values():
    assert {name: of(48) for name, of in losses.REDUCTIONS.items()} == {"mean": 1.0, "half_sum": 24.0}


def test_weights_by_importance_need_a_density_and_weightings_their_numbers():
    for changes in (
        {"loss__times": "discrete", "loss__importance": True},
        {"loss__weighting": "min_snr", "loss__snr_gamma": -1},
        {"loss__times": "log_normal", "loss__log_sigma_std": -1.0},
    ):
        with pytest.raises(UserError, match=r"^loss: "):
            factory.loss(tiny_config(**changes))
    factory.loss(tiny_config(loss__times="discrete"))
    for key, allowed in (("weighting", "edm"), ("times", "log_normal"), ("reduction", "half_sum, mean")):
        with pytest.raises(UserError, match=rf"^loss\.{key}='x' is unknown: choose from .*{allowed}"):
            factory.loss(tiny_config(**{f"loss__{key}": "x"}))


class Times:
    """Stands for a distribution of times: those of a hundred quantiles."""

    def __init__(self, drawn, density=True, coverage=1.0):
        self.drawn, self.density, self.of = np.asarray(drawn, np.float32), density, coverage

    def quantile(self, process, u):
        np.testing.assert_allclose(u, np.arange(0.005, 1, 0.01), rtol=1e-6)
        return jnp.asarray(np.resize(self.drawn, 100))

    def coverage(self, process):
        return self.of

    def log_density(self, process, t):
        if not self.density:
            raise ValueError("a few times")
        return t


@pytest.mark.parametrize(
    "times, fault",
    [
        ([0.02, 0.98], None), ([0.1, np.nan], "its times are not finite"), ([0.1, np.inf], "its times are not finite"),
        ([0.00999, 0.5], None), ([0.00998, 0.5], "its times reach from 0.00998 to 0.5, outside of the process"),
        ([0.1, 0.99098], None), ([0.1, 0.9911], "its times reach from 0.1 to 0.9911, outside of the process"),
        ([0.75], "all its times are at log(sigma / alpha) = 1.1,"), ([0.01, 0.5], None), ([0.99, 0.5], None),
        ([0.01, 0.01, 0.5], "67% of its times are at the ends of the process"),
        ([0.99, 0.99, 0.5], "67% of its times are at the ends of the process"),
        ([0.01, 0.99, 0.5], "67% of its times are at the ends of the process"),
    ],
)  # fmt: skip
def test_times_of_training_that_are_refused(monkeypatch, times, fault):
    """Of the rectified flow from 0.01 to 0.99, where log(sigma / alpha) = log(t / (1 - t))."""
    assert_refused(monkeypatch, Times(times), fault)


@pytest.mark.parametrize("coverage, shown", [(1.01e-4, None), (0.99e-4, "9.9e-05"), (0.0, "0"), (np.nan, "nan")])
def test_times_of_which_too_few_lie_within_the_process_are_refused(monkeypatch, coverage, shown):
    fault = f"only {shown} of the distribution lies within the process; at least 0.0001 is needed"
    assert_refused(monkeypatch, Times([0.1, 0.9], coverage=coverage), shown and fault)


def test_a_few_single_times_may_all_be_at_the_ends(monkeypatch):
    assert_refused(monkeypatch, Times([0.01, 0.99], density=False), None)
    assert_refused(monkeypatch, Times([0.01, 0.99]), "100% of its times are at the ends of the process")


def assert_refused(monkeypatch, times, fault):
    monkeypatch.setitem(losses.TIME_DISTRIBUTIONS, "uniform", lambda c: times)
    config = tiny_config("rectified_flow", sde__t_max=0.99, training__t_min=0.01, loss__times="uniform")
    if fault is None:
        factory.check_training_times(config)
        return
    with pytest.raises(UserError) as error:
        factory.check_training_times(config)
    said = str(error.value)
    assert said.startswith(f"loss.times='uniform': {fault}"), said
    assert said.endswith("where log(sigma / alpha) is -4.6 at training.t_min=0.01 and 4.6 at sde.t_max=0.99")


@pytest.mark.parametrize(
    "name, keys",
    [("uniform", ""), ("log_snr", ""), ("discrete", "loss.discrete_levels=1000"),
     ("geometric_sigma", "loss.discrete_levels=1000"), ("log_normal", "loss.log_sigma_mean=-0.5, loss.log_sigma_std=1.0"),
     ("logit_normal", "loss.logit_mean=0.0, loss.logit_std=1.0")],
)  # fmt: skip
def test_times_that_are_refused_are_named_with_their_numbers(monkeypatch, name, keys):
    monkeypatch.setitem(losses.TIME_DISTRIBUTIONS, name, lambda c: Times([np.nan]))
    config = tiny_config("vp", loss__times=name)
    numbers = {
        "discrete_levels": 1000,
        "log_sigma_mean": -0.5,
        "log_sigma_std": 1.0,
        "logit_mean": 0.0,
        "logit_std": 1.0,
    }
    config.loss.update(numbers)
    with pytest.raises(UserError) as error:
        factory.check_training_times(config)
    assert str(error.value).startswith(
        f"loss.times='{name}'{keys and ', '}{keys}: its times are not finite, where log("
    )


def test_bins_of_noise_levels_are_even_in_log_snr_and_rise():
    config = tiny_config("rectified_flow", sde__t_max=0.9, training__t_min=0.2, training__loss_bins=4)
    edges = factory.loss_bin_edges(config)
    np.testing.assert_allclose(edges, np.linspace(-2 * np.log(9), 2 * np.log(4), 5), rtol=1e-5)
    config.training.loss_bins = 0
    assert len(factory.loss_bin_edges(config)) == 1


@pytest.mark.parametrize(
    "value, text", [(20.0, "20"), (0.1, "0.1"), (1e-5, "1e-05"), (0.1234567, "0.1234567"), (1e6, "1e+06"),
                    (1234567, "1234567"), (7, "7")],
)  # fmt: skip
def test_numbers_of_a_config_keep_the_digits_that_count(value, text):
    assert ends._number(value) == text


def refuse(*_):
    raise ValueError("bad")


def test_ends_and_times_that_cannot_be_are_named_with_their_keys(monkeypatch):
    monkeypatch.setattr(sde_lib, "check_ends", refuse)
    monkeypatch.setattr(sde_lib, "check_times", refuse)
    process = "sde.name='vp', sde.beta_max=20, sde.beta_min=0.1234567, sde.t_max=1"
    config = tiny_config(
        sde__beta_min=0.1234567, sampling__t_min=0.002, training__t_min=0.003, sampling__steps=4, sampling__rho=7.0,
        sampling__times="karras",
    )  # fmt: skip
    for section, t_min in (("sampling", "0.002"), ("training", "0.003")):
        with pytest.raises(UserError) as error:
            factory.check_ends(config, f"{section}.t_min")
        assert str(error.value) == f"{process}, {section}.t_min={t_min}: bad"
    keys = "sampling.times='karras', sampling.steps=4, sampling.rho=7.0, sampling.t_min=0.002"
    for evaluations, named in ((0, keys), (6, "sampling.evaluations=6, sampling.t_min=0.002")):
        config.sampling.evaluations = evaluations
        with pytest.raises(UserError) as error:
            factory.check_times(config)
        assert str(error.value) == f"{named} with {process}: bad"


def test_times_are_checked_for_the_process_of_sampling(monkeypatch):
    given = []
    monkeypatch.setattr(sde_lib, "check_times", lambda *of: given.append(of))
    config = tiny_config(sampling__t_min=0.02, training__t_min=0.01, sampling__steps=6)
    factory.check_times(config)
    ((times, process),) = given
    assert process == factory.sde(config, 0.02)
    np.testing.assert_array_equal(times, factory.times(config, process))


def averaged(text, **changes):
    config = tiny_config()
    config.training.ema = text
    config.training.update({"ema_decay": 0.75, "ema_half_life": 3000, "ema_ramp": 0.5, "ema_std": 0.1} | changes)
    return config


@pytest.mark.parametrize(
    "text, numbers",
    [
        ("constant", {"ema_decay": 0.75}), ("constant:0.5", {"ema_decay": 0.5}), ("warmup:0", {"ema_decay": 0}),
        ("half_life", {"ema_half_life": 3000, "ema_ramp": 0.5}), ("half_life:16", {"ema_half_life": 16, "ema_ramp": 0.5}),
        ("half_life:16:0.25", {"ema_half_life": 16, "ema_ramp": 0.25}), ("power", {"ema_std": 0.1}),
        ("power:0.05", {"ema_std": 0.05}),
    ],
)  # fmt: skip
def test_numbers_of_an_average_in_its_text_come_before_those_of_the_config(text, numbers):
    assert averages._ema_numbers(averaged(text), text) == numbers


@pytest.mark.parametrize(
    "text, said",
    [
        ("constant:0.5:1", "after constant come ema_decay, as numbers with colons between, or nothing"),
        ("half_life:a", "after half_life come ema_half_life and ema_ramp, as numbers"),
        ("power:nan", "after power come ema_std, as numbers"), ("power:inf", "after power come ema_std, as numbers"),
        ("constant:1.5", "ema_decay must"), ("power:0.5", "ema_std must"), ("half_life:-1", "ema_half_life must"),
        ("half_life:1:-1", "ema_ramp must"), ("medium", "training.ema='medium' is unknown: choose from constant, half_life"),
        ("constant,constant", "the same average is there twice"),
    ],
)  # fmt: skip
def test_averages_that_cannot_be(text, said):
    with pytest.raises(UserError) as error:
        factory.emas(averaged(text))
    assert str(error.value).startswith(f"training.ema={text!r}") and said in str(error.value)


def test_averages_in_their_order_and_the_one_that_is_sampled():
    config = averaged("power:0.05,constant,power,half_life:16:0")
    rules = factory.emas(config)
    assert list(rules) == averages.ema_names(config) == ["power:0.05", "constant", "power", "half_life:16:0"]
    assert averages.power_emas(config) == {0: 0.05, 2: 0.1}
    np.testing.assert_allclose(rules["constant"](jnp.arange(3)), 0.25)
    np.testing.assert_allclose(rules["half_life:16:0"](jnp.array([1, 5])), 0.5)  # a batch of 16 images
    for name, place in (("", 0), ("power:0.05", 0), ("constant", 1), ("power", 2)):
        config.sampling.ema = name
        assert factory.sampling_ema(config) == place
    config.sampling.ema = "warmup"
    with pytest.raises(
        UserError, match=r"^sampling\.ema='warmup' is unknown: choose from constant, half_life:16:0, power"
    ):
        factory.sampling_ema(config)
