"""What `factory` allows: the last value on each side of every bound, and classes by name and number. Nothing is compiled."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.stats import norm

import sde_lib
from experiments import factory
from experiments.errors import UserError
from experiments.factory import evaluation, model
from experiments.metrics import feature_networks
from tests.experiments.tiny import tiny_config

TEN = {"model__num_classes": 10}


@pytest.mark.parametrize(
    "label, classes, fits", [(-2, 10, False), (-1, 10, True), (0, 10, True), (9, 10, True), (10, 10, False), (0, 1, True),
                             (1, 1, False), (-1, 0, True), (0, 0, False)],
)  # fmt: skip
def test_a_sampled_class_is_one_of_the_model_or_each_in_turn(label, classes, fits):
    config = tiny_config(model__num_classes=classes, sampling__label=label)
    if fits:
        factory.check_sampling_label(config)
        return
    message = f"the classes are 0 to {classes - 1}; -1 takes each in turn" if classes else "this model has no classes"
    with pytest.raises(UserError, match=rf"^sampling\.label={label}: {message}"):
        factory.check_sampling_label(config)


def test_sampled_classes_in_words():
    names = tuple(f"n{i:02}" for i in range(25))
    for label, said in ((0, "class 0 'n00'"), (24, "class 24 'n24'")):
        assert factory.sampled_classes(tiny_config(model__num_classes=25, sampling__label=label), names) == said
    assert factory.sampled_classes(tiny_config(**TEN, sampling__label=0)) == "class 0"
    assert factory.sampled_classes(tiny_config(**TEN)) == "each class in turn: 0 to 9"
    first = ", ".join(f"{i} 'n{i:02}'" for i in range(20))
    said = factory.sampled_classes(tiny_config(model__num_classes=25), names)
    assert said == f"each class in turn: {first} and 5 more"


@pytest.mark.parametrize(
    "classes, dropout, label, expected",
    [
        (10, 0.1, None, 10),
        (10, 0.1, "3", 3),
        (10, 0.1, 0, 0),
        (10, 0.0, "9", 9),
        (0, 0.0, None, 0),
        (10, 0.0, None, r"--label is needed: .* \(condition.label.dropout=0\); the classes are 0 to 9"),
        (10, 0.1, "10", r"--label=10: the classes are 0 to 9"),
        (10, 0.1, "nine", r"--label=nine: the classes are 0 to 9; their names are not stored with this run"),
        (0, 0.0, "3", r"--label=3: this run has no classes \(model.num_classes=0\)"),
    ],
)  # fmt: skip
def test_the_class_of_a_request(classes, dropout, label, expected):
    config = tiny_config(model__num_classes=classes, condition__label__dropout=dropout)
    if isinstance(expected, int):
        assert factory.check_class(config, "--label", label) == expected
        return
    with pytest.raises(UserError, match=f"^{expected}"):
        factory.check_class(config, "--label", label)


def test_a_number_that_no_class_has_is_not_called_a_name():
    for label in ("10", "-1"):
        with pytest.raises(UserError, match=r"0 to 9$"):
            factory.class_number(tiny_config(**TEN), "--label", label)


class Told:
    """Stands for a Denoiser."""

    def replace(self, **changes):
        return changes


def test_a_batch_of_one_class_is_conditioned_on_it():
    config = tiny_config(**TEN)
    assert jax.tree.map(np.ndarray.tolist, jax.device_get(factory.of_class(config, Told(), 3, 7)["condition"])) == {
        "label": [7, 7, 7]
    }
    assert factory.of_class(tiny_config(), Told(), 3, 0) == {"condition": None}


def edm(**changes):
    """EDM's process, whose time is its noise level, with its ends where nothing is warned of."""
    return tiny_config("edm", **{"sde__t_max": 80.0, "sampling__t_min": 0.002, "training__t_min": 0.002} | changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"sde__t_max": 10.01}, None),
        ({"sde__t_max": 9.99}, "sde.t_max=9.99: sigma / alpha is only 9.99 at t_max: .* at least 10 is advised"),
        ({"sampling__t_min": 0.0999}, None),
        ({"sampling__t_min": 0.1001}, "sampling.t_min=0.1001: sigma / alpha is still 0.1 there, .* at most 0.1 is advised"),
        ({"training__t_min": 0.00399}, None),
        ({"training__t_min": 0.00401}, "sampling.t_min=0.002: sigma / alpha is 0.002 there, but training.t_min=0.00401 ends "
                                       "at 0.00401: the network is evaluated below the noise it was trained on"),
    ],
)  # fmt: skip
def test_ends_of_a_process_that_are_warned_of(changes, message):
    found = factory.check_ends(edm(**changes), "sampling.t_min")
    assert len(found) == (message is not None)
    assert message is None or re.search(message, found[0])
    for section in ("training", "evaluation"):
        assert factory.check_ends(edm(**changes), f"{section}.t_min") == []


def test_each_warning_of_the_ends_is_given_beside_the_others():
    changes = {"sde__t_max": 9.0, "sampling__t_min": 0.2, "training__t_min": 0.5}
    assert len(factory.check_ends(edm(**changes), "sampling.t_min")) == 3
    # A training.t_min beyond the process is refused by training alone.
    changes["training__t_min"] = 9.0
    assert len(factory.check_ends(edm(**changes), "sampling.t_min")) == 2


def times_of(text, **changes):
    sde = edm(**changes)
    sde.loss.times = text
    return sde


@pytest.mark.parametrize("share, fits", [(1.2e-4, True), (0.8e-4, False)])
@pytest.mark.parametrize("side", [-1, 1])
def test_times_need_a_ten_thousandth_of_their_distribution_within_the_process(share, fits, side):
    """Log-normal sigma: a tail of it lies within."""
    end = np.log(0.002) if side < 0 else np.log(80.0)
    mean = end + side * 0.5 * norm.isf(share)
    config = times_of("log_normal", loss__log_sigma_mean=mean, loss__log_sigma_std=0.5)
    if fits:
        factory.check_training_times(config)
        return
    with pytest.raises(UserError, match=r"only 8e-05 of the distribution lies within the process; at least 0\.0001"):
        factory.check_training_times(config)


@pytest.mark.parametrize("share, fits", [(0.45, True), (0.55, False)])
def test_half_of_the_times_may_be_at_the_ends(share, fits):
    """Logit-normal times of a wide distribution: within a thousandth of the range of log-SNR of an end."""
    sde = sde_lib.RectifiedFlow(t_min=0.01, t_max=0.99)
    ends = np.asarray([float(sde.log_snr(jnp.float32(t))) for t in (0.01, 0.99)])
    margin = 1e-3 * (ends[0] - ends[1])
    # t(u) = t_min + (t_max - t_min) sigmoid(std z): in the margin for |z| > z0, with log-SNR = 2 log((1 - t) / t).
    near = 1 / (1 + np.exp((ends[0] - margin) / 2))
    share_of_range = (near - 0.01) / 0.98
    std = -np.log(share_of_range / (1 - share_of_range)) / norm.isf(share / 2)
    config = tiny_config("rectified_flow", sde__t_max=0.99, training__t_min=0.01, loss__times="logit_normal")
    config.loss.logit_std, config.loss.logit_mean = float(abs(std)), 0.0
    if fits:
        factory.check_training_times(config)
        return
    with pytest.raises(UserError, match="% of its times are at the ends of the process"):
        factory.check_training_times(config)


@pytest.mark.parametrize("spread, fits", [(1.1e-3, True), (0.9e-3, False)])
def test_times_that_span_less_than_a_thousandth_of_the_process_are_one_level(spread, fits):
    """The quantiles 0.5 % and 99.5 % of sigma, 5.15 standard deviations of its logarithm apart."""
    std = spread * (np.log(80.0) - np.log(0.002)) / (norm.isf(0.005) * 2)
    config = times_of("log_normal", loss__log_sigma_mean=-1.0, loss__log_sigma_std=std)
    if fits:
        factory.check_training_times(config)
        return
    with pytest.raises(UserError, match=r"all its times are at log\(sigma / alpha\) = -1,"):
        factory.check_training_times(config)


@pytest.mark.parametrize("name", ["none", "perceptron", *feature_networks.names()])
def test_features_of_published_networks_are_of_grey_or_colour_images_and_may_need_a_file(tmp_path, name):
    config, known = tiny_config(evaluation__features=name), name in feature_networks.names()
    if name == "none":
        with pytest.raises(UserError, match=r"evaluation\.features='none' is unknown: choose from"):
            factory.check_features(config)
        return
    packaged = not known or feature_networks.KINDS[name].packaged_file is not None
    (tmp_path / "w").touch()
    for channels in (1, 2, 3, 4):
        for weights in ("", str(tmp_path / "w"), "/gone"):
            config.data.num_channels, config.evaluation.feature_weights = channels, weights
            if known and channels in (2, 4):
                message = f"takes images of 1 or 3 channels, not data.num_channels={channels}; perceptron takes any"
            elif weights and not known:
                message = f"evaluation.feature_weights={weights}: perceptron takes none"
            elif weights == "/gone":
                message = "evaluation.feature_weights=/gone: no such file"
            elif not weights and not packaged:
                message = "needs evaluation.feature_weights: the file"
            else:
                factory.check_features(config)
                continue
            with pytest.raises(UserError) as error:
                factory.check_features(config)
            assert message in str(error.value)


def test_files_of_the_evaluation_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "s.npz").touch()
    factory.check_features(tiny_config(evaluation__statistics="~/s.npz"))
    with pytest.raises(UserError, match=r"evaluation\.statistics=~/t\.npz: no such file"):
        factory.check_features(tiny_config(evaluation__statistics="~/t.npz"))
    assert evaluation._path("") is None and evaluation._path("~/s.npz") == tmp_path / "s.npz"


def test_samples_are_compared_with_the_images_that_the_reference_names():
    assert [factory.reference(tiny_config(evaluation__reference=name)) for name in ("training", "held_out")] == [
        True,
        False,
    ]
    with pytest.raises(UserError, match=r"evaluation\.reference='test' is unknown: choose from held_out, training"):
        factory.reference(tiny_config(evaluation__reference="test"))


@pytest.mark.parametrize(
    "process, changes, message",
    [
        ("vp", {"evaluation__likelihood_t_min": 0.999}, None),
        ("vp", {"evaluation__likelihood_t_min": 1.0}, r"likelihood_t_min=1\.0: must be less than sde\.t_max=1\.0"),
        ("vp", {"data__source": "latents"}, "are of images of 8 bits, which data.source='latents' has not"),
        ("critically_damped", {}, "the states of sde.name='critically_damped' are more than an image"),
        ("critically_damped", {"evaluation__likelihood_images": 0}, None),
        ("vp", {"evaluation__likelihood_images": 0, "evaluation__likelihood_t_min": 1.0}, None),
    ],
)
def test_bits_per_dimension_are_of_images_and_of_states_that_are_images(process, changes, message):
    config = tiny_config(
        process, **{"evaluation__likelihood_images": 2, "evaluation__likelihood_t_min": 1e-3} | changes
    )
    if message is None:
        factory.check_likelihood(config)
        return
    with pytest.raises(UserError, match=message):
        factory.check_likelihood(config)


def test_the_adaptive_method_takes_two_steps_and_no_other_number():
    assert factory.sampler(tiny_config(sampling__sampler="adaptive", sampling__steps=2)) == sde_lib.Adaptive(1e-3, 1e-3)
    for steps in (1, 3):
        with pytest.raises(UserError, match=rf"^sampling\.steps={steps}: adaptive chooses its own steps; set 2"):
            factory.sampler(tiny_config(sampling__sampler="adaptive", sampling__steps=steps))


def test_the_recommended_sampler_has_its_evaluations_and_not_the_steps():
    config = tiny_config()
    config.sampling.evaluations = 7
    process = factory.sde(config, 1e-3)
    assert factory.sampler(config) == sde_lib.recommended_sampler(7) and factory.evaluations(config) == 7
    assert factory.sampler_and_steps(config) == ("recommended", 7)
    np.testing.assert_array_equal(factory.times(config, process), sde_lib.recommended_times(process, 7))
    config.sampling.evaluations = 0
    assert factory.sampler_and_steps(config) == ("heun", 4) and factory.evaluations(config) == 2 * 4 - 1
    assert factory.evaluations(tiny_config(sampling__sampler="adaptive", sampling__steps=2)) is None


@pytest.mark.parametrize("key", ["sampler", "times", "predictor", "variable", "langevin_norm"])
def test_names_of_sampling_are_checked_whether_they_are_read_or_not(key):
    config = tiny_config(sampling__sampler="ddim")
    config.sampling[key] = "unknown"
    with pytest.raises(UserError, match=rf"^sampling\.{key}='unknown' is unknown: choose from"):
        factory.sampler(config)


def test_nonfinite_steps_end_the_run_or_are_skipped():
    names = {name: factory.skips_nonfinite(tiny_config(training__on_nonfinite=name)) for name in ("stop", "skip")}
    assert names == {"stop": False, "skip": True}


class Drawn:
    """Stands for the network: its weights are drawn by the key that it is given."""

    def init(self, key, image, noise_level, condition):
        self.given = image, noise_level, condition
        return {"w": jax.random.normal(key, (3,))}


@pytest.mark.parametrize("classes", [0, 3])
def test_weights_before_training_are_drawn_by_the_seed_of_training(monkeypatch, classes):
    network = Drawn()
    monkeypatch.setattr(model, "network", lambda config: network)
    for seed in (0, 5):
        config = tiny_config(training__seed=seed, model__num_classes=classes)
        found = factory.init_variables(config)
        np.testing.assert_allclose(found["w"], jax.random.normal(jax.random.key(seed), (3,)), rtol=1e-6)
    shapes = [(x.shape, str(x.dtype)) for x in jax.tree.leaves(network.given)]
    assert shapes == [((1, 8, 8, 1), "float32"), ((1,), "float32"), *[((1,), "int32")] * (classes > 0)]
    learned = factory.abstract_variables(tiny_config(loss__learned_uncertainty=True, loss__uncertainty_channels=6))
    assert learned[factory.LOSS]["log_variance"].shape == (6,) and found.keys() == {"w"}


def test_the_computation_is_of_the_networks_dtype_and_float32_where_it_has_none():
    for name in ("float32", "bfloat16"):
        assert factory.compute_dtype(tiny_config(model__dtype=name)) == name
    config = tiny_config()
    config.model = ConfigDict({"name": "perceptron"})
    assert factory.compute_dtype(config) == "float32"


def test_a_zero_leaves_a_number_to_the_process_where_it_has_a_default_for_that():
    """And only there: beta_min of VP may be 0."""
    config = tiny_config(sde__beta_min=0.0)
    assert factory.process_options(config) == {"t_max": 1.0, "beta_min": 0.0, "beta_max": 20.0}
    config = tiny_config("ddpm")
    assert factory.process_options(config) == {"t_max": 1.0, "num_steps": 1000}
    config.sde.beta_last = 0.03
    assert factory.process_options(config) == {"t_max": 1.0, "num_steps": 1000, "beta_last": 0.03}


def test_each_name_of_a_process_is_that_process():
    expected = {
        "vp": sde_lib.VPSDE, "subvp": sde_lib.SubVPSDE, "ve": sde_lib.VESDE, "cosine": sde_lib.CosineVPSDE,
        "edm": sde_lib.EDMSDE, "rectified_flow": sde_lib.RectifiedFlow, "ddpm": sde_lib.DiscreteVP,
        "iddpm": sde_lib.DiscreteVP, "scaled_linear": sde_lib.DiscreteVP,
        "critically_damped": sde_lib.CriticallyDampedLangevin,
    }  # fmt: skip
    assert {name: type(factory.sde(tiny_config(name), 1e-3)) for name in factory.PROCESSES} == expected
    nichol = factory.sde(tiny_config("iddpm", sde__beta_limit=0.5, sde__offset=0.02), 1e-3)
    expected = sde_lib.DiscreteVP.cosine(offset=0.02, beta_limit=0.5, t_min=1e-3)
    np.testing.assert_array_equal(nichol.log_snr_knots, expected.log_snr_knots)
    assert factory.sde(tiny_config("cosine", sde__offset=0.02), 1e-3).offset == 0.02
    betas = {
        "ddpm": np.linspace(1e-4, 0.02, 1000), "scaled_linear": np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2,
    }  # fmt: skip
    for name, table in betas.items():
        last = factory.sde(tiny_config(name), 1e-3).log_snr_knots[-1]
        kept = np.prod(1 - table)
        np.testing.assert_allclose(last, np.log(kept / (1 - kept)), rtol=1e-4)
