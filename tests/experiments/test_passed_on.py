"""What parts of the experiments pass on to each other: seeds, weights, numbers, flags. The others only take notes."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments import data
from experiments.__main__ import main
from experiments.benchmarks import guidance, inverse_peers
from experiments.cli import arguments, rank
from experiments.devices import drawing, parallel
from experiments.errors import UserError
from experiments.evaluation import features, losses, reference
from experiments.evaluation.journal import Journal
from experiments.factory.experiment import Experiment
from experiments.runs.workdir import Workdir
from tests.experiments.tiny import ROOT, fake_run, tiny_config

pytestmark = pytest.mark.devices


def test_samples_are_drawn_by_the_weights_and_the_seed_of_the_evaluation(tmp_path, capsys):
    """Those that are missing; what was drawn before is told where there is some, and not where it is all or none."""
    asked = []

    class Sampler:
        def blocks(self, variables, indices, seed, *, progress):
            asked.append((variables, list(indices), seed, progress))
            for start in range(0, len(indices), 500):
                numbers = indices[start : start + 500]
                yield numbers, (numbers[:, None, None, None] * np.ones((1, 2, 2, 1))).astype(np.uint8)

    def network(images):
        return {"pool": images.reshape(len(images), -1).astype(float)}

    config = tiny_config(evaluation__seed=7, training__seed=8)
    run = fake_run(config, variables="weights")
    journal = Journal(tmp_path, "samples", {})
    for count in (1500, 1500, 1502):
        found = features.draw_features(run, Sampler(), network, count, journal)
        assert len(found) == count and found.logits is None and found.spatial is None
        np.testing.assert_array_equal(found.pool[:, 0], np.arange(count) % 256)
    every, none, two = (("weights", list(numbers), 7, True) for numbers in (range(1500), [], (1500, 1501)))
    assert asked == [every, none, two]
    assert capsys.readouterr().out == "1,500 of 1,502 samples were drawn before: going on with the other 2\n"


def test_features_of_images_of_another_shape_are_another_journal(tmp_path):
    network = SimpleNamespace(name="n", preprocessing="p", sha256="0")

    def folder(shape=(8, 8, 1), **changes):
        run = fake_run(tiny_config(), workdir=Workdir(tmp_path), step=1, variables={}, event_shape=shape)
        return features.journal_of_samples(run, SimpleNamespace(**vars(network) | changes)).folder

    found = {
        folder(),
        folder((8, 9, 1)),
        folder((8, 8, 3)),
        folder(name="m"),
        folder(preprocessing="q"),
        folder(sha256="1"),
    }
    assert len(found) == 6 and {path.parent for path in found} == {tmp_path / "evaluation"}
    assert all(path.name.startswith("samples_") for path in found)


def statistics_of(monkeypatch):
    computed = []

    def compute(blocks, network, keep, fingerprint):
        computed.append((np.concatenate(list(blocks))[:, 0, 0, 0].tolist(), keep, fingerprint))
        return SimpleNamespace(save=lambda path: path.touch(), features=np.zeros((keep, 1)), count=len(computed[-1][0]))

    monkeypatch.setattr(reference, "compute_statistics", compute)
    monkeypatch.setattr(reference, "_is_good", Path.is_file)
    monkeypatch.setattr(reference.Statistics, "load", lambda path: path)
    return computed


def levels(count, first=0):
    values = (first + np.arange(count)).astype(np.uint8)
    return data.Images(values[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8))


def test_statistics_are_kept_by_all_that_they_are_of(monkeypatch, tmp_path):
    """Kind, features, preprocessing, weights, images and how many features are kept: a name for each."""
    computed = statistics_of(monkeypatch)
    run = SimpleNamespace(workdir=Workdir(tmp_path))
    (tmp_path / "evaluation").mkdir()
    base = {"name": "n", "preprocessing": "p", "sha256": "0"}

    def cached(kind="training", images=levels(5), keep=4, **changes):  # noqa: B008
        return reference._cached(run, SimpleNamespace(**base | changes), kind, images, keep)

    cached()
    assert computed == [([0, 1, 2, 3, 4], 4, levels(5).fingerprint())]
    assert isinstance(cached(), Path) and len(computed) == 1
    for changes in (
        {"kind": "held_out"}, {"images": levels(6)}, {"keep": 3}, {"name": "m"}, {"preprocessing": "q"}, {"sha256": "1"},
    ):  # fmt: skip
        cached(**changes)
    assert len(computed) == 7 == len(list((tmp_path / "evaluation").iterdir()))


@pytest.mark.parametrize(
    "against, samples, searched, train, test, kept",
    [
        ("held_out", 4, 10, 10, 4, 10),  # as many training images as are searched, or compared with
        ("held_out", 12, 3, 12, 12, 12),
        ("held_out", 900, 0, 40, 30, 900),
        ("training", 4, 10, 40, 4, 10),  # all training images are the reference
    ],
)
def test_so_many_images_are_compared_and_searched(monkeypatch, tmp_path, against, samples, searched, train, test, kept):
    computed = statistics_of(monkeypatch)
    changes = {"evaluation__num_samples": samples, "evaluation__training_images": searched}
    config = tiny_config(**changes, evaluation__reference=against)
    dataset = data.Dataset("d", levels(40), levels(0), levels(30, 100), 0)
    monkeypatch.setattr(reference, "some", lambda features, limit: np.zeros((min(len(features), limit), 1)))
    (tmp_path / "evaluation").mkdir()
    network = SimpleNamespace(name="n", preprocessing="p", sha256="0")
    found = reference.real_images(fake_run(config, workdir=Workdir(tmp_path)), dataset, network)
    assert [(len(images), keep) for images, keep, _ in computed] == [(train, kept), (test, samples)]
    assert max(computed[0][0]) < 40 and min(computed[1][0]) >= 100
    assert len(found.train) == min(searched, kept) and len(found.real) == min(
        samples, kept if against == "held_out" else samples
    )


@pytest.mark.parametrize("devices, used", [(1, 1), (3, 1), (6, 2), (8, 8)])
def test_images_of_a_loss_are_divided_among_as_many_devices_as_divide_256(monkeypatch, devices, used):
    chosen = jax.devices()[:devices]
    monkeypatch.setattr(losses.jax, "local_devices", lambda: chosen)
    everywhere, divided = losses._shardings()
    assert losses.BATCH == 256 and divided.device_set == everywhere.device_set == set(chosen[:used])
    assert everywhere.is_fully_replicated and divided.shard_shape((256, 3)) == (256 // used, 3)


@pytest.mark.parametrize("progress, first, shown", [(True, True, True), (True, False, False), (False, True, False)])
def test_drawing_counts_its_images_where_it_is_watched(monkeypatch, progress, first, shown):
    bars = []

    class Bar(contextlib.nullcontext):
        def __init__(self, **options):
            super().__init__(self)
            bars.append(options)
            self.update = lambda n: bars.append(n)

    monkeypatch.setattr(drawing, "tqdm", Bar)
    monkeypatch.setattr(drawing.distributed, "is_first", lambda: first)
    strategy = parallel.Pmap(jax.devices()[:1])
    strategy.map = lambda program, inputs, outputs: lambda examples, same, variables: examples
    drawn = drawing.Drawing(None, strategy, 4)(np.arange(6), lambda n: n, None, {}, progress=progress, unit="scan")
    assert [list(numbers) for numbers, _ in drawn] == [[0, 1, 2, 3], [4, 5]]
    assert bars == [{"total": 6, "unit": "scan", "desc": "sampling", "disable": not shown}, 4, 2]


# ---- commands ----


def test_a_run_is_opened_with_the_overrides_that_are_allowed_and_checked(monkeypatch):
    """Classes by their numbers first; the subjects that the command reads, then the run with the changed config."""
    events = []
    monkeypatch.setattr("experiments.loading.runs.read_config", lambda path: events.append(("read", path)) or "stored")
    monkeypatch.setattr(
        "experiments.loading.runs.by_number",
        lambda path, stored, overrides: events.append(("numbers", path, stored, overrides)) or "by number",
    )
    monkeypatch.setattr(
        "experiments.config.files.apply",
        lambda stored, overrides, *, allowed, command: (
            events.append((stored, overrides, allowed, command)) or "changed"
        ),
    )
    monkeypatch.setattr(
        "experiments.factory.check.check", lambda config, *uses, overrides: events.append((config, uses, overrides))
    )
    monkeypatch.setattr("experiments.loading.runs.load_run", lambda path, config: ("run", path, config))
    options = SimpleNamespace(workdir="w", overrides="texts", command="sample")
    assert arguments.open_run(options, "sampling.", "evaluation.", uses=("model", "label")) == ("run", "w", "changed")
    assert events == [
        ("read", "w"), ("numbers", "w", "stored", "texts"), ("stored", "by number", ("sampling.", "evaluation."), "sample"),
        ("changed", ("model", "label"), "by number"),
    ]  # fmt: skip


def test_a_ranking_is_of_all_that_is_known_or_of_what_is_named():
    known = {"b": 1, "a": 2, "c": 3}
    assert rank._chosen("--cases", None, known) == ["b", "a", "c"]
    assert rank._chosen("--cases", "c,b", known) == ["c", "b"]
    for text in ("c,d", "", "a,"):
        with pytest.raises(UserError, match=r"^--cases='\w?' is unknown: choose from a, b, c"):
            rank._chosen("--cases", text, known)


def test_networks_are_measured_and_written_row_by_row(monkeypatch, tmp_path, capsys):
    """Of the families that are named; what is interrupted keeps its rows."""
    made = []

    class Suite:
        def __init__(self, names):
            made.append(names)

        def heading(self):
            return "heading"

        def rows(self):
            for row in "ab":
                yield row
                written.append(out.read_text())

    written, out = [], tmp_path / "new" / "table.md"
    monkeypatch.setattr("experiments.benchmarks.networks.Suite", Suite)
    monkeypatch.setattr("experiments.benchmarks.networks.line", lambda row: f"line of {row}")
    assert main(["benchmark", "--suite=networks", "--families=dit,mlp", f"--out={out}"]) == 0
    assert written == ["heading\nline of a\n", "heading\nline of a\nline of b\n"] and made == [["dit", "mlp"]]
    assert capsys.readouterr().out == "heading\nline of a\nline of b\n"


# ---- benchmarks ----


def test_azula_draws_the_same_each_time_and_leaves_torch_as_it_was(monkeypatch):
    """On one thread, in float64; y is told by the matrix and back by its pseudo-inverse."""
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[interop]'")
    seen = []

    class Sampler:
        def init(self, shape, dtype):
            return torch.randn(shape, dtype=dtype)

        def __call__(self, x):
            seen.append(torch.get_num_threads())
            return x

    def make(prior, y, forward, backward, noise, *, steps, silent, dtype):
        x = torch.arange(6.0, dtype=torch.float64).reshape(2, 3)
        seen.append((prior, forward(x).tolist(), backward(forward(x)).tolist(), noise, steps, silent, dtype))
        assert y.dtype == torch.float64 and y.shape == (2, 2)
        return Sampler()

    monkeypatch.setitem(inverse_peers.PEERS, "azula: dps", (1, make))
    monkeypatch.setattr(inverse_peers, "denoiser", lambda prior: f"denoiser of {prior}")
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    matrix = np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 4.0]])
    first, second = (inverse_peers.draw("azula: dps", "p", matrix, np.ones((2, 2)), 0.5, 20) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (2, 3) and first.dtype == np.float64
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)
    told = ("denoiser of p", [[0, 8], [6, 20]], [[0, 0, 2], [3, 0, 5]], 0.5, 20, True, torch.float64)
    assert seen == [told, 1, told, 1]


def test_guidance_is_measured_at_the_batch_of_sampling_in_eight_steps(monkeypatch):
    """By DDIM on times even in log-SNR, all Denoisers from the same keys."""
    calls = []
    plain = SimpleNamespace(sde="sde")
    monkeypatch.setattr(
        guidance, "_denoisers", lambda config, size, shape: [("plain", plain), (f"{size} {shape}", "b")]
    )
    monkeypatch.setattr(guidance.sde_lib, "log_snr_times", lambda sde, steps: (sde, steps))

    def sample(keys, denoiser, method, times, shape):
        calls.append((len(keys), denoiser, type(method).__name__, method.eta, times, shape))

    monkeypatch.setattr(guidance.sde_lib, "sample", sample)
    monkeypatch.setattr(
        guidance, "minima", lambda **functions: ({}, {name: f() or 0.08 for name, f in functions.items()})
    )
    text = guidance.benchmark(Experiment(tiny_config(sampling__batch_size=24, data__num_channels=3)))
    assert calls == [(24, d, "DDIM", 0.0, ("sde", 8), (8, 8, 3)) for d in (plain, "b")]
    head, _, *rows = text.splitlines()
    assert head.startswith("unet, batch 24, 8 evaluations in a compiled loop, 8 x cpu")
    assert rows[2:] == ["| plain | 10.0 | 1.00 |", "| 24 (8, 8, 3) | 10.0 | 1.00 |"]


def test_features_are_described_by_their_network_or_by_what_is_published():
    strategy = parallel.Pmap(jax.devices()[:1])
    published = SimpleNamespace(name="n", preprocessing="p", sha256="0123456789abcdef" * 4)
    made = features.OnAllDevices(published, strategy)
    assert made.description == "n (p; SHA-256 of the weights 0123456789ab...)"
    assert (made.name, made.preprocessing, made.sha256) == ("n", "p", published.sha256)
    own = SimpleNamespace(**vars(published), description="of its own")
    assert features.OnAllDevices(own, strategy).description == "of its own"


def test_the_runs_of_a_sweep_have_the_accelerators(monkeypatch, tmp_path):
    """The sweep itself runs on the CPU; each run is checked with its own values after those of all."""
    checked, updated = [], {}
    monkeypatch.setattr(jax.config, "update", updated.__setitem__)
    monkeypatch.setattr(
        "experiments.factory.check.check", lambda config: checked.append((config.optim.lr, config.optim.beta1))
    )
    sweep = ["--sweep=optim.lr=1,2", "--sweep_print", "--config.optim.lr=7", "--config.optim.beta1=0.5"]
    assert main(["train", f"--config={ROOT}/configs/digits.py", f"--workdir={tmp_path}", *sweep]) == 0
    assert updated.get("jax_platforms") == "cpu" and checked == [(1.0, 0.5), (2.0, 0.5)]


def test_a_run_goes_on_with_its_own_config_and_its_overrides(monkeypatch, tmp_path, fails):
    trained = []
    monkeypatch.setattr(
        "experiments.training.train.train", lambda config, path, **options: trained.append((config, path))
    )
    assert "holds no run yet: say which with --config" in fails("train", f"--workdir={tmp_path}")
    Workdir(tmp_path).claim(tiny_config(optim__lr=0.25))
    assert main(["train", f"--workdir={tmp_path}", "--config.optim.beta1=0.5"]) == 0
    ((config, path),) = trained
    assert (config.optim.lr, config.optim.beta1, config.training.num_steps, path) == (0.25, 0.5, 40, tmp_path)


@pytest.mark.parametrize(
    "against, trained, tested, reference_of", [("training", 10, 4, "99 training"), ("held_out", 10, 4, "99 held-out")]
)
def test_a_reference_in_a_file_saves_all_images_but_those_that_are_searched(
    monkeypatch, tmp_path, against, trained, tested, reference_of
):
    """It is checked for its features before anything is computed."""
    computed, checked = statistics_of(monkeypatch), []

    def check(name, network):
        assert computed == []
        checked.append((name, network.name))

    shared = SimpleNamespace(count=99, check=check)
    monkeypatch.setattr(reference, "shared_statistics", lambda experiment, dataset: shared)
    monkeypatch.setattr(reference, "some", lambda features, limit: np.zeros((min(len(features), limit), 1)))
    changes = {"num_samples": 4, "training_images": 10, "statistics": "s.npz", "reference": against}
    config = tiny_config(**{f"evaluation__{key}": value for key, value in changes.items()})
    dataset = data.Dataset("d", levels(40), levels(0), levels(30, 100), 0)
    (tmp_path / "evaluation").mkdir()
    network = SimpleNamespace(name="n", preprocessing="p", sha256="0")
    found = reference.real_images(fake_run(config, workdir=Workdir(tmp_path)), dataset, network)
    assert [len(images) for images, _, _ in computed] == [trained, tested]
    assert found.reference is shared and found.reference_name == f"{reference_of} images"
    assert checked == [("evaluation.statistics=s.npz", "n")]


@pytest.mark.parametrize("count, sizes", [(0, []), (1, [1]), (1000, [1000]), (2500, [1000, 1000, 500])])
def test_images_are_turned_into_features_by_the_thousand(count, sizes):
    class Source:
        def pixels(self, numbers):
            return numbers

        def __len__(self):
            return count

    blocks = list(reference._blocks(Source()))
    assert [len(block) for block in blocks] == sizes
    np.testing.assert_array_equal(np.concatenate([np.zeros(0, int), *blocks]), np.arange(count))
