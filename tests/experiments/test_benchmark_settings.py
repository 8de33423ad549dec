"""What the benchmarks measure is what their names and the documented tables say; nothing is measured here."""

import ast
import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
import sde_lib
from experiments.benchmarks import inverse, inverse_peers, methods, peers, recommended, torch_networks
from experiments.benchmarks.cases import CASES
from experiments.benchmarks.inverse_methods import SETTINGS
from experiments.config import files as config
from sde_lib import inverse as inverse_lib
from sde_lib.sampling.recommended import TABLE
from tests.experiments.tiny import ROOT

# Case by case: the experiment of its paper, and the options in which the case says that it differs.
PUBLISHED = [
    ("digits.py", {"resampling": "strided_symmetric", "norm_groups": 8}),
    ("cifar10.py:vp,ddpm", {"up_attention": "block"}),
    ("imagenet64.py", {"channels": 192 // 2, "head_channels": 32}),
    ("cifar10.py:ve,ncsnpp", {}),
    ("celebahq.py", {"channel_multipliers": (1, 1, 2, 2, 2)}),
    ("cifar10.py:vp,ddpmpp", {}),
    ("imagenet512.py:edm2,xxs", {}),
    (
        "imagenet256.py:dit,s,2",
        {"block_embeddings": True, "frequencies": "ddpm", "position_span": 32 // 2, "learned_variance": False,
         "mlp_norm_epsilon": 1e-5},
    ),
    ("cifar10.py:ve,ncsn", {}),
    ("cifar10.py:ve,ncsnv2", {}),
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(PUBLISHED)), ids=lambda place: PUBLISHED[place][0])
def test_a_network_of_a_case_is_that_of_its_papers_experiment(place):
    spec, changes = PUBLISHED[place]
    case, loaded = CASES[place], config.load(f"{ROOT}/configs/{spec}")
    expected = loaded.model.to_dict() | changes | {"dropout": 0.0}
    found = {option: getattr(case.network(), option) for option in models.options(case.family)}
    assert found == {option: expected[option] for option in found}
    assert case.family == loaded.model.name
    data = loaded.data
    shape = (data.image_size, data.image_size, data.num_channels)
    assert case.shape == (shape if spec != "celebahq.py" else (64, 64, 3))


def test_cases_without_an_experiment_have_the_papers_defaults():
    rest = {case.family: case for case in CASES[len(PUBLISHED) :]}
    assert list(rest) == ["unet_classifier", "wideresnet_classifier", "mlp"]
    assert [case.shape for case in rest.values()] == [(64, 64, 3), (32, 32, 3), (2,)]
    encoder, published = rest["unet_classifier"].network(), models.options("unet_classifier")
    assert encoder.channels == published["channels"] // 2 and encoder.dropout == 0
    assert rest["wideresnet_classifier"].options == rest["mlp"].options == {}
    assert {case.peer for case in CASES} == {"", *torch_networks.MAKERS}


def tables(name):
    """The rows of a documented table as lists of cells, all tables one after the other."""
    lines = (ROOT / "docs" / name).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def test_settings_of_inverse_methods_are_the_documented_ones():
    documented = (ROOT / "docs" / "inverse_table.md").read_text().splitlines()
    start = documented.index("### The methods") + 2
    settings = inverse._settings()
    assert documented[start : start + len(settings)] == settings
    products = {name: setting.products for name, setting in SETTINGS.items()}
    products |= {name: made[0] for name, made in inverse_peers.PEERS.items()}
    products |= {inverse.ORACLE: 0, inverse.FLOOR: 0, "twisted, 2,000": 1, "twisted, 20,000": 1}
    told = {row[0]: int(row[1]) for row in tables("inverse_table.md") if len(row) == 9 and row[1].isdigit()}
    assert told == products


def call(text, **known):
    """(name, positional values, values by name) of a call in text, or of a name alone."""
    node = ast.parse(text, mode="eval").body
    if isinstance(node, ast.Name):
        return node.id, [], {}

    def value(node):
        return known[node.id] if isinstance(node, ast.Name) else ast.literal_eval(node)

    return node.func.id, [value(arg) for arg in node.args], {word.arg: value(word.value) for word in node.keywords}


TOLD = ("denoiser", "measurement", "y", "measurement_noise", "noise")


def assert_is(made, text, **known):
    """An object is what a text says, and has the defaults of its class in all that the text leaves out."""
    name, given, named = call(text, **known)
    fields = [field for field in dataclasses.fields(made) if field.name not in TOLD and field.name[0] != "_"]
    assert type(made).__name__ == name
    named |= dict(zip((field.name for field in fields), given, strict=False))
    assert set(named) <= {field.name for field in fields}, text
    for field in fields:
        if field.name in named:
            assert getattr(made, field.name) == named[field.name], (text, field.name)
        elif field.default is not dataclasses.MISSING:
            assert getattr(made, field.name) is field.default or getattr(made, field.name) == field.default, (
                text,
                field.name,
            )


WITHOUT_NOISE = ("DPS", "ManifoldConstraint")  # whose steps are along a norm of y - A D


def noise_of(made):
    return getattr(made, "measurement_noise", getattr(made, "noise", None))


@pytest.mark.parametrize("evaluations", [20, 100])
@pytest.mark.parametrize("name", SETTINGS)
def test_an_inverse_method_is_made_as_its_setting_says(name, evaluations):
    setting, prior, y = SETTINGS[name], sde_lib.exact.Gaussian(inverse.SDE, mean=0.0, std=0.5), jnp.ones((1, 4, 4, 1))
    measurement = inverse.measurements()["half"]
    posterior, method = setting.make(prior, measurement, y, 0.25, evaluations)
    told = re.findall("`([^`]+)`", setting.what)
    if name == "replacement":
        assert posterior is prior and type(method) is inverse_lib.Replacement and method.y is y
        assert method.measurement is measurement
        assert [f for f in vars(method).values() if isinstance(f, sde_lib.Sampler)] == [sde_lib.PredictorCorrector()]
    elif name == "repaint":
        assert posterior is prior and type(method) is inverse_lib.RePaint and method.resamplings == 10
        inner = inverse_lib.Replacement(measurement, y)
        (found,) = [f for f in vars(method).values() if isinstance(f, inverse_lib.Replacement)]
        assert {k: repr(v) for k, v in vars(found).items()} == {k: repr(v) for k, v in vars(inner).items()}
    elif posterior is prior:
        assert len(told) == 1
        assert_is(method, told[0])
        assert method.measurement is measurement and method.y is y and noise_of(method) == 0.25
    else:
        assert_is(posterior, told[0], evaluations=evaluations)
        if "as in mmps" in setting.what:
            assert method == inverse.FAST == sde_lib.DEIS(3, "angle", corrected=True)
        else:
            assert_is(method, told[1])
        assert posterior.denoiser is prior and posterior.measurement is measurement and posterior.y is y
        assert noise_of(posterior) == (0 if type(posterior).__name__ in WITHOUT_NOISE else 0.25)
    products = {"MMPS": lambda made: made.max_steps, "TMPD": lambda made: 3}
    counted = products.get(
        type(posterior).__name__, lambda made: int(type(made).__name__ in ("DPS", "PiGDM", "ManifoldConstraint"))
    )
    assert setting.products == counted(posterior)
    assert setting.grid in methods.GRIDS


PEER_SAMPLERS = {
    "azula: mmps 1": ("DDPMSampler", "MMPSDenoiser"),
    "azula: mmps 5": ("DDIMSampler", "MMPSDenoiser"),
    "azula: tmpd": ("DDPMSampler", "TMPDenoiser"),
    "azula: diffpir 10": ("DDIMSampler", "DiffPIRDenoiser"),
    "azula: diffpir 1": ("DDPMSampler", "DiffPIRDenoiser"),
    "azula: dps": ("DPSSampler", "Mixture"),
    "azula: pigdm": ("PGDMSampler", "Mixture"),
}


def test_peers_have_the_settings_of_their_names(monkeypatch):
    """The number in a name, the documented settings of the others, and the sampler that was nearer."""
    pytest.importorskip("azula", reason="azula is not installed: pip install -e '.[interop]'")
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[interop]'")
    import azula.guidance
    import azula.sample

    made = {}

    def spied(module, name):
        class Spy:
            def __init__(self, *given, **named):
                made[name] = given, named
                self.denoiser = given[0]

        monkeypatch.setattr(module, name, Spy)

    for name in ("DDPMSampler", "DDIMSampler"):
        spied(azula.sample, name)
    for name in ("MMPSDenoiser", "TMPDenoiser", "DiffPIRDenoiser", "DPSSampler", "PGDMSampler"):
        spied(azula.guidance, name)
    assert list(PEER_SAMPLERS) == list(inverse_peers.PEERS)
    prior, y, forward, backward = "prior", torch.zeros(9, 4), "forward", "backward"
    for name, (sampler, posterior) in PEER_SAMPLERS.items():
        made.clear()
        inverse_peers.PEERS[name][1](prior, y, forward, backward, 0.5, steps=20)
        assert made[sampler][1].pop("steps") == 20
        number = name.rpartition(" ")[2]
        if posterior == "MMPSDenoiser":
            (*given, covariance), options = made[posterior]
            assert given == [prior, y, forward] and options == {"iterations": int(number)}
            assert float(covariance(torch.ones(1))[0]) == 0.25
        elif posterior == "TMPDenoiser":
            assert made[posterior] == ((prior, y, forward, 0.25), {})
        elif posterior == "DiffPIRDenoiser":
            assert made[posterior] == ((prior, y, forward, 0.25), {"lmbda": float(number)})
        elif sampler == "DPSSampler":
            assert made[sampler] == ((prior, y, forward), {"zeta": 3.0})
        else:
            assert made[sampler] == ((prior, y, forward, backward), {"eta": 1.0})
        assert len(made) == (1 if posterior == "Mixture" else 2)


KINDS = {
    "probability_flow": "ProbabilityFlow", "ddim": "DDIM", "heun": "Heun", "dpm_solver": "DPMSolver",
    "dpm_solver_singlestep": "SinglestepDPMSolver", "unipc": "UniPC", "deis": "DEIS", "euler_maruyama": "EulerMaruyama",
    "reverse_diffusion": "ReverseDiffusion", "ancestral": "Ancestral", "predictor_corrector": "PredictorCorrector",
}  # fmt: skip
WORDS = {"churn": float, "eta": float, "tau": float}


@pytest.mark.parametrize(
    "table", [methods.DETERMINISTIC, methods.STOCHASTIC, methods.FITTED], ids=["deterministic", "stochastic", "fitted"]
)
def test_a_method_is_what_its_name_says(table):
    """Class, order, variable, and settings by name, in this order: all else is the default."""
    for name, method in table.items():
        kind, *words = name.split()
        given, named = [], {}
        words = iter(words)
        for word in words:
            if word in WORDS:
                named[word] = WORDS[word](next(words))
            elif word == "corrected":
                named[word] = True
            else:
                given.append(int(word) if word.isdigit() else word)
        assert method == getattr(sde_lib, KINDS[kind])(*given, **named), name
    assert not table.keys() & (
        methods.STOCHASTIC.keys() if table is not methods.STOCHASTIC else methods.DETERMINISTIC.keys()
    )


def test_grids_are_the_librarys_by_name():
    assert {name: getattr(sde_lib, f"{name}_times") for name in methods.GRIDS} == methods.GRIDS
    vp, edm = methods.PROCESSES.values()
    assert (vp.t_min, vp.t_max, vp.beta_min, vp.beta_max) == (1e-3, 1, 0.1, 20) and (edm.t_min, edm.t_max) == (
        0.002,
        80,
    )
    assert (inverse.SDE.t_min, inverse.SDE.beta_min, inverse.SDE.beta_max) == (1e-4, 0.1, 20)
    known = {row[1]: row[2:] for row in tables("methods_table.md") if row[0] == "method"}
    assert list(known.values()) == [list(map(str, methods.EVALUATIONS))]


def test_rows_of_methods_are_the_documented_ones():
    """All methods on all grids and the floor, of every problem; the recommended sampler has a table of its own."""
    (head, *rows), count = tables("methods_table.md"), 4
    found = [(row[0], row[1]) for row in rows if row[0] != "method" and not row[0].startswith("diffusers")]
    expected = [(name, grid) for name in methods.DETERMINISTIC for grid in methods.GRIDS]
    expected += [(name, "fitted") for name in methods.FITTED]
    expected += [(name, grid) for name in methods.STOCHASTIC for grid in methods.GRIDS] + [("fresh data", "")]
    assert found == count * expected and head[0] == "method"
    beside = {(row[0], row[1]) for row in rows if row[0].startswith("diffusers")}
    assert beside == {(f"diffusers: {solver}", grid) for solver in peers.SOLVERS for grid in peers.GRIDS}


def test_the_floor_of_the_documented_table_is_that_of_the_problems():
    """The distance of two sets of fresh data, in the digits of the table; modes and spreads of the text."""
    documented = [row[2] for row in tables("methods_table.md") if row[0] == "fresh data"]
    with jax.enable_x64(True):
        problems = list(methods.problems())
        assert [f"{methods.floor(problem).errors[0]:.1e}" for problem in problems] == documented
        (circle, _, narrow, _) = problems
        np.testing.assert_allclose(np.linalg.norm(circle.means, axis=1), 4)
        gaps = np.diff(np.unwrap(np.arctan2(*circle.means.T[::-1])))
        np.testing.assert_allclose(gaps, 2 * np.pi / 8)
        assert circle.std == 0.3 and narrow.std == 0.1 and narrow.means.shape == (10, 64)
        assert np.abs(narrow.means).max() <= 1 and narrow.means.std() == pytest.approx(1 / np.sqrt(3), rel=0.05)
    assert [problem.name for problem in problems] == ["circle, vp", "circle, edm", "narrow, vp", "narrow, edm"]


def test_priors_of_inverse_problems_are_those_of_the_text():
    """Pixels of 0.2 to 0.8; neighbours that covary; two upper halves with two lower halves each, of unequal weights."""
    with jax.enable_x64(True):
        independent, correlated, mixture = inverse.priors().values()
    rows, columns = np.divmod(np.arange(16), 4)
    apart = np.sqrt((rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2)
    assert not np.any(independent.means) and not np.any(correlated.means)
    (covariance,) = np.asarray(independent.covariances)
    np.testing.assert_allclose(np.sort(np.sqrt(np.diag(covariance))), np.linspace(0.2, 0.8, 16))
    assert np.count_nonzero(covariance) == 16 and (np.diff(np.diag(covariance)) < 0).any()
    np.testing.assert_allclose(np.asarray(correlated.covariances), 0.25 * np.exp(-apart[None] / 3), rtol=1e-6)
    lengths = np.array([0.5, 1, 2, 4])[:, None, None]
    np.testing.assert_allclose(np.asarray(mixture.covariances), 0.04 * np.exp(-apart / lengths), rtol=1e-6)
    np.testing.assert_allclose(mixture.weights, [0.3, 0.2, 0.1, 0.4])
    means = np.asarray(mixture.means).reshape(4, 2, 8)
    np.testing.assert_allclose(np.abs(means), 0.6)
    assert [len(np.unique(means[:, half], axis=0)) for half in (0, 1)] == [2, 2] and len(
        np.unique(means.reshape(4, 16), axis=0)
    ) == 4


def test_measurements_of_inverse_problems_are_those_of_the_text():
    """The upper half, and a periodic blur of 3 x 3 whose singular values go from 1 to 0.03."""
    half, blur = inverse.measurements().values()
    x = np.arange(1.0, 17).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(
        np.asarray(half.forward(jnp.asarray(x)))[0, :, :, 0] != 0, [[True] * 4] * 2 + [[False] * 4] * 2
    )
    profile = np.exp(-0.5 * (np.arange(-1, 2) / 0.7) ** 2)
    profile /= profile.sum()
    moved = sum(profile[i] * profile[j] * np.roll(x, (i - 1, j - 1), (1, 2)) for i in range(3) for j in range(3))
    np.testing.assert_allclose(blur.forward(jnp.asarray(x)), moved, rtol=1e-4)
    values = np.abs(np.fft.fft2(np.pad(np.outer(profile, profile), (0, 1))))
    assert values.max() == pytest.approx(1) and values.min() == pytest.approx(0.03, abs=0.006)


def test_the_noise_of_a_case_is_on_what_is_measured_alone():
    with jax.enable_x64(True):
        half = inverse.measurements()["half"]
        case = inverse.Case("p", "m", 0.1, inverse.priors()["independent"], half, num_measurements=500)
        noise = np.asarray(case.y - half.forward(case.prior.sample(jax.random.key(0), 500))).reshape(500, 16)
    assert noise[:, case.measured].std() == pytest.approx(0.1, rel=0.05) and not noise[:, ~case.measured].any()
    assert case.measured.sum() == 8 and case.all_y.shape == (500 * 250, 4, 4, 1)


def test_cases_of_inverse_problems_are_all_but_the_blur_of_independent_pixels():
    """In the documented order, each at three noise levels."""
    text = (ROOT / "docs" / "inverse_table.md").read_text()
    documented = re.findall(r"^### (\w+, \w+, noise .*)$", text, re.MULTILINE)
    assert [case.name for case in inverse.cases()] == documented and len(documented) == 15


def test_a_method_is_at_the_floor_up_to_three_standard_deviations(monkeypatch):
    """Of 20 sets of fresh draws, the misfit of all of them together."""
    seeds = []

    def draw(self, seed):
        seeds.append(seed)
        return np.full((1, 2, 16), float(seed))

    monkeypatch.setattr(inverse.Case, "draw", draw)
    monkeypatch.setattr(inverse.Case, "distance", lambda self, x: float(x.mean()) ** 2)
    monkeypatch.setattr(inverse.Case, "misfit", lambda self, x: x.shape[1] + x.mean())
    case = inverse.Case("p", "m", 0.5, None, None)
    mean, ceiling, misfit = case.floor
    assert seeds == list(range(3, 23)) and case.name == "p, m, noise 0.5"
    distances = np.arange(3.0, 23) ** 2
    assert (mean, ceiling) == pytest.approx((distances.mean(), distances.mean() + 3 * distances.std(ddof=1)))
    assert misfit == 40 + 12.5
    row = inverse.Row("c", "m", (ceiling, ceiling + 1e-9), 1.0, 0, mean, ceiling)
    assert row.at_floor == (True, False)


def test_noise_levels_of_peers_are_of_a_table_of_1000():
    """VP's even in time, EDM's even in the logarithm, from t_min to t_max."""
    vp, edm = methods.PROCESSES.values()
    t = np.linspace(1e-3, 1, 1000)
    log_alpha = -0.25 * t**2 * 19.9 - 0.05 * t
    np.testing.assert_allclose(peers.noise_levels(vp), np.sqrt(np.expm1(-2 * log_alpha)), rtol=1e-3)
    np.testing.assert_allclose(np.log(peers.noise_levels(edm)), np.linspace(np.log(0.002), np.log(80), 1000), atol=1e-5)


ENTRIES = json.loads(TABLE.read_text())["entries"]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: str(entry["evaluations"]))
def test_an_entry_is_of_the_form_that_the_fit_gives(entry):
    """Log-lengths from the first one, and, up to 20 evaluations, weights whose rows sum to 0."""
    n, order = entry["evaluations"], entry["order"]
    assert order == recommended.order_of(n)
    assert entry["log_lengths"][0] == 0 and len(entry["log_lengths"]) == min(n, recommended.KNOTS)
    weights = {"predictor": order, "corrector": order + 1} if n <= recommended.WEIGHTS else {}
    assert entry.keys() == {"evaluations", "order", "data_std", "log_lengths", "validation_error", *weights}
    for name, columns in weights.items():
        found = np.asarray(entry[name])
        assert found.shape == (n, columns)
        np.testing.assert_allclose(found.sum(1), 0, atol=1e-5)
        free = found[:, 1:]
        np.testing.assert_allclose(recommended.completed(jnp.asarray(free)), found, atol=1e-5)


def test_weights_of_values_that_are_not_known_yet_are_zero():
    """Step i knows i values before the newest; each row sums to 0."""
    found = recommended.completed(jnp.arange(1.0, 13).reshape(4, 3))
    expected = [[0, 0, 0, 0], [-4, 4, 0, 0], [-15, 7, 8, 0], [-33, 10, 11, 12]]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("n, order", [(4, 2), (5, 2), (6, 3), (10, 3), (11, 4), (35, 4)])
def test_free_numbers_are_the_grid_the_scale_and_the_weights_in_this_order(n, order):
    knots = min(n, 12)
    assert recommended.order_of(n) == order
    grid = np.append(3.0 + np.arange(knots), np.log(0.5))
    found = recommended._unpacked(jnp.asarray(grid), n)
    assert found.keys() == {"log_lengths", "data_std"}
    np.testing.assert_allclose(found["log_lengths"], np.arange(knots))
    assert float(found["data_std"]) == pytest.approx(0.5)
    predictor, corrector = 1.0 + np.arange(n * (order - 1)), -1.0 - np.arange(n * order)
    longer = recommended._unpacked(jnp.asarray(np.concatenate([grid, predictor, corrector])), n)
    for name, free, columns in (("predictor", predictor, order - 1), ("corrector", corrector, order)):
        np.testing.assert_allclose(longer[name][-1, 1:], np.where(np.arange(1, columns + 1) < n, free[-columns:], 0))
        np.testing.assert_allclose(longer[name], recommended.completed(jnp.asarray(free.reshape(n, columns))))


def test_the_file_of_recommended_samplers_is_the_text_of_its_entries():
    assert recommended.text(ENTRIES[::-1]) == TABLE.read_text()
    assert [entry["evaluations"] for entry in ENTRIES] == list(recommended.EVALUATIONS)


def test_a_reduced_mixture_is_where_its_means_are():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(5, 3)) @ rng.normal(size=(3, 40))
    plane, share = recommended.reduced(means)
    offsets = means - means.mean(0)
    np.testing.assert_allclose(plane[:5] @ plane[:5].T, offsets @ offsets.T, atol=1e-9)
    assert plane.shape == (10, 10) and not plane[5:].any() and not plane[:, 3:].any()
    np.testing.assert_allclose(share, [1 / 40] * 3 + [37 / 40] + [0] * 6)


def test_sizes_of_the_benchmarks_are_those_that_their_figures_are_compared_at():
    """Inputs of a network at once on the CPU; measurements and answers of an inverse problem; sets of starts."""
    assert {(case.family, case.what): case.batch for case in CASES} == {
        ("unet", "that of configs/digits.py with strided convolutions and 8 groups"): 64, ("ddpm", "CIFAR-10"): 4,
        ("adm", "ImageNet 64 px at half of the width, with heads of 32"): 1, ("ncsnpp", "NCSN++, CIFAR-10"): 2,
        ("ncsnpp", "NCSN++, CelebA-HQ 256 px: its five finest levels at 64 px"): 1, ("ncsnpp", "DDPM++, CIFAR-10"): 2,
        ("edm2", "EDM2-XXS, latents of ImageNet 512 px"): 1,
        ("dit", "DiT-S/2, latents of ImageNet 256 px, with an embedding in each block as diffusers has it"): 4,
        ("ncsn", "CIFAR-10"): 2, ("ncsnv2", "CIFAR-10"): 2, ("unet_classifier", "ImageNet 64 px at half of the width"): 2,
        ("wideresnet_classifier", "CIFAR-10, WideResNet-28-10"): 4, ("mlp", "the default, for points in the plane"): 1024,
    }  # fmt: skip
    first = next(inverse.cases())
    assert (first.num_measurements, first.num_samples, inverse.NUM_FLOORS) == (4, 250, 20)
    assert inverse.NOISES == (0.01, 0.1, 1.0) and inverse.EVALUATIONS == (20, 50, 100)
    problem = next(methods.problems())
    assert (problem.num_samples, problem.seed, len(methods.STARTS)) == (2000, methods.STARTS[0], 5)
    assert [p.num_fitted for p in methods.problems()] == [256, 256, 64, 64]
    assert min(np.diff(methods.STARTS)) > 1  # the number after a seed is that of its noise
