"""The loop of training on a state that counts its steps: what it makes at which step, in which order, and from where."""

import contextlib
import signal
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments.errors import RunError, UserError
from experiments.factory.experiment import Experiment
from experiments.runs.workdir import Workdir
from experiments.training import train
from tests.experiments.tiny import tiny_config

pytestmark = pytest.mark.devices

BATCH = np.zeros((16, 8, 8, 1), np.uint8)


class State:
    """Stands for the training state: its averages are named after its step."""

    def __init__(self, step=0):
        self.step, self.updates = np.int32(step), np.int32(max(step - 1, 0))
        self.emas = [f"average {i} of {step}" for i in range(3)]
        self.frozen = None

    def replace(self, frozen):
        self.frozen = frozen
        return self


class Interrupted:
    """Asked after each call; true from a number of questions on."""

    def __init__(self, after=10**9, number=signal.SIGTERM):
        self.left, self.number, self.idle = after, number, []

    @property
    def signal(self):
        return self.number if self.left <= 0 else None

    def __bool__(self):
        self.left -= 1
        return self.left < 0

    @contextlib.contextmanager
    def nothing_to_save(self, why):
        self.idle.append(("begins", why))
        yield
        self.idle.append(("ends", why))


class Checkpoints:
    """Keeps nothing, says what it is asked."""

    def __init__(self, events, latest=None, alone=False):
        self.events, self.latest, self.alone, self.folder = events, latest, alone, "folder"

    def latest_step(self):
        return self.latest

    def holds_weights_alone(self):
        return self.alone

    def restore_ema(self, layout):
        assert layout == ("layout", "weights")
        return self.latest, "imported"

    def restore(self, layout, iterator):
        assert layout == ("layout", "state")
        iterator.moved = True
        return State(self.latest)

    def save(self, state, iterator):
        self.events.append(("save", int(state.step), iterator.taken))


class Stream(contextlib.AbstractContextManager):
    """Counts the batches that are taken."""

    def __init__(self):
        self.taken, self.moved, self.closed = 0, False, False

    def __next__(self):
        self.taken += 1
        return {"image": BATCH}

    def __exit__(self, *exception):
        self.closed = True


@pytest.fixture
def loop(monkeypatch, tmp_path):
    """Runs the loop; gives the step that it returns, its events, the stream, and the interruption."""
    events, stream = [], Stream()

    class Monitor(contextlib.AbstractContextManager):
        def __init__(self, config, step, history, checkpoints, count):
            events.append(("watching from", step, count is not None))

        def __exit__(self, *exception):
            pass

        @contextlib.contextmanager
        def away(self, what):
            events.append((what,))
            yield

        def saving(self):
            return self.away("saving")

        def sampling(self):
            return self.away("sampling")

        def waiting_for_data(self):
            return contextlib.nullcontext()

        def watch(self, step, n, metrics):
            events.append(("watch", step, n))

        def catch_up(self):
            events.append(("catch up",))

    class History(contextlib.nullcontext):
        def __init__(self, workdir, config, step, *, write):
            super().__init__(self)
            assert write

        def picture(self, step, name, grid):
            events.append(("picture", step, name))

    def sampler(experiment, strategy, size, guide):
        assert size == 64 and guide is None
        return lambda weights, number, seed: events.append(("draw", weights, number, seed)) or "drawn"

    def map_training(function):
        def steps(state, batches, n):
            assert batches["image"].shape == (4, *BATCH.shape) and n.dtype == np.int32
            events.append(("frozen", state.frozen))
            return State(int(state.step) + int(n)).replace(state.frozen), {"loss": None}

        return steps

    strategy = SimpleNamespace(
        map_training=map_training, whole=lambda state: state, layout=lambda tree: ("layout", tree),
        shard=lambda batches, axis: batches if axis == 1 else None, to_host=lambda tree: f"{tree} on the host",
        place=lambda tree: f"{tree} in place",
    )  # fmt: skip

    def keep(self, step, std, average, *, updates, dtype):
        events.append(("keep", step, std, average, updates))

    def initial(config, weights, strategy):
        events.append(("begins with", weights))
        return State()

    for name, value in {
        "Monitor": Monitor, "History": History, "Sampler": sampler, "initial_state": initial,
        "training_stream": lambda config, images: stream, "abstract_state": lambda config: "state",
        "make_step": lambda config, strategy: None,
        "report": SimpleNamespace(write=lambda workdir: events.append(("report",))),
    }.items():  # fmt: skip
        monkeypatch.setattr(train, name, value)
    monkeypatch.setattr("experiments.media.ImageMedium.picture", lambda self, drawn: "grid")
    monkeypatch.setattr("experiments.media.base.pictures.save", lambda path, *more: events.append((path.name, *more)))
    monkeypatch.setattr(train.state, "make_train_steps", lambda step, size: None)
    monkeypatch.setattr(train.posthoc.Snapshots, "save", keep)
    monkeypatch.setattr("experiments.factory.experiment.abstract", lambda objective: "weights")

    def run(latest=None, alone=False, interruption=None, grids=(), **changes):
        workdir = Workdir(tmp_path)
        interruption = Interrupted() if interruption is None else interruption
        workdir.samples.mkdir(exist_ok=True)
        for step in grids:
            workdir.grid(step).touch()
        config = tiny_config(**PERIODS | changes)
        end = train._run_to_end(
            Experiment(config), workdir, None, strategy, Checkpoints(events, latest, alone), interruption
        )
        return SimpleNamespace(end=end, events=events, stream=stream, idle=interruption.idle)

    return run


PERIODS = {
    "training__num_steps": 22, "training__steps_per_call": 4, "training__log_every": 100,
    "training__checkpoint_every": 8, "training__sample_every": 12, "training__ema": "warmup,power:0.05,power:0.1",
    "training__ema_snapshot_every": 10, "sampling__ema": "power:0.05",
}  # fmt: skip


def of(events, kind):
    return [event[1:] for event in events if event[0] == kind]


def test_everything_is_done_at_its_steps_and_at_the_last(loop):
    """Calls end where anything is to be done; snapshots of both power averages, grids of the average that is chosen."""
    ran = loop()
    assert ran.end == 22 and ran.stream.closed and ran.stream.taken == 22
    assert of(ran.events, "begins with") == [(None,)] and of(ran.events, "watching from") == [(0, True)]
    assert of(ran.events, "watch") == [(4, 4), (8, 4), (10, 2), (12, 2), (16, 4), (20, 4), (22, 2)]
    assert of(ran.events, "save") == [(8, 8), (16, 16), (22, 22)]
    assert of(ran.events, "keep") == [
        (step, std, f"average {place} of {step} on the host", step - 1)
        for step in (10, 20, 22)
        for place, std in ((1, 0.05), (2, 0.1))
    ]
    assert of(ran.events, "draw") == [(f"average 1 of {step}", 64, 0) for step in (12, 22)]
    assert of(ran.events, "picture") == [(12, "samples"), (22, "samples")]
    assert of(ran.events, "step_00000012.png") == of(ran.events, "step_00000022.png") == [("grid", 8)]
    assert len(of(ran.events, "report")) == 2
    assert len(of(ran.events, "saving")) == 3 + 3 and len(of(ran.events, "sampling")) == 2


def test_a_step_is_saved_before_its_grid_is_drawn(loop):
    """What is drawn can be drawn again; at the end nothing is saved twice, and the last call is looked at."""
    events = loop().events
    last = events[events.index(("watch", 22, 2)) :]
    assert [event[0] for event in last if event[0] != "keep"] == [
        "watch", "saving", "save", "saving", "sampling", "draw", "step_00000022.png", "picture", "report", "catch up",
    ]  # fmt: skip


def test_without_snapshots_none_are_kept(loop):
    assert of(loop(training__ema_snapshot_every=0).events, "keep") == []


def test_the_operations_are_counted_where_the_peak_is_measured(loop):
    assert of(loop(training__measure_peak=False).events, "watching from") == [(0, False)]


def test_the_first_call_loses_nothing_if_it_ends_at_once(loop):
    """Until it has returned; the run says where it was."""
    why = "at step 0: nothing to save yet (it was starting)"
    assert loop().idle == [("begins", why), ("ends", why)]


@pytest.mark.parametrize("grids, drawn", [([12], [22]), ([], [12, 22])])
def test_a_resumed_run_goes_on_from_its_checkpoint_and_draws_the_grid_that_is_missing(loop, grids, drawn):
    ran = loop(latest=12, grids=grids)
    assert ran.end == 22 and ran.stream.moved and ran.stream.taken == 10
    assert of(ran.events, "begins with") == [] and of(ran.events, "watching from") == [(12, True)]
    assert of(ran.events, "draw") == [(f"average 1 of {step}", 64, 0) for step in drawn]


@pytest.mark.parametrize("weights, placed", [(None, None), ("teacher", "teacher in place")])
def test_a_resumed_run_gets_its_frozen_weights_again(loop, monkeypatch, weights, placed):
    """They are in no checkpoint."""
    monkeypatch.setattr("experiments.objectives.objective.Objective.frozen", lambda self: weights)
    assert set(of(loop(latest=16).events, "frozen")) == {(placed,)}


def test_a_step_at_which_no_grid_is_made_lacks_none(loop):
    assert of(loop(latest=16).events, "draw") == [("average 1 of 22", 64, 0)]


def test_a_complete_run_gets_its_last_grid_alone(loop):
    ran = loop(latest=22)
    assert (ran.end, ran.stream.taken) == (22, 0)
    assert of(ran.events, "draw") == [("average 1 of 22", 64, 0)] and of(ran.events, "save") == []


def test_training_of_an_imported_model_begins_with_its_weights(loop):
    ran = loop(latest=0, alone=True)
    assert of(ran.events, "begins with") == [("imported",)] and ran.end == 22 and not ran.stream.moved


@pytest.mark.parametrize("after, step", [(0, 0), (1, 4), (3, 10)])
def test_an_interrupted_run_is_saved_where_it_is(loop, after, step):
    """After the last call was looked at: a loss that is not finite is not saved."""
    ran = loop(interruption=Interrupted(after))
    assert ran.end == step and ran.stream.taken == step
    assert [event for event in ran.events if event[0] in ("catch up", "save")][-2:] == [
        ("catch up",),
        ("save", step, step),
    ]


# ---- around the loop ----


@pytest.fixture
def go_on(monkeypatch, tmp_path, capsys):
    """(step of the newest checkpoint, whether it is evaluated and has its grid) -> what is done."""
    workdir = Workdir(tmp_path)

    def run(step, evaluated, grid, *, end=22, interruption=None):
        interruption = Interrupted() if interruption is None else interruption
        done = []

        class Kept(contextlib.AbstractContextManager):
            def __init__(self, folder, keep):
                assert (folder, keep) == (workdir.checkpoints, 3)

            def set_aside_broken(self):
                return step

            def __exit__(self, *exception):
                pass

        monkeypatch.setattr(train, "Checkpoints", Kept)
        monkeypatch.setattr(Workdir, "is_evaluated", lambda self, asked: asked == step and evaluated)
        monkeypatch.setattr(train, "_run_to_end", lambda config, *given: done.append("trained") or end)
        monkeypatch.setattr(train, "load_run", lambda path: ("run", path))
        monkeypatch.setattr(
            train, "evaluate_run", lambda run, dataset, strategy, publish: done.append(("evaluated", run))
        )
        workdir.samples.mkdir(exist_ok=True)
        workdir.grid(22).unlink(missing_ok=True)
        if grid:
            workdir.grid(22).touch()
        config = tiny_config(training__num_steps=22, training__keep_checkpoints=3)
        found = train._continue_run(Experiment(config), workdir, SimpleNamespace(train=None), None, interruption)
        return found, done, capsys.readouterr().out

    return run


def test_what_is_left_of_a_run_is_done(go_on, tmp_path):
    evaluated = ("evaluated", ("run", tmp_path))
    assert go_on(None, False, False)[:2] == (None, ["trained", evaluated])
    assert go_on(8, False, True)[:2] == (None, ["trained", evaluated])
    assert go_on(22, False, False)[:2] == (None, ["trained", evaluated])
    assert go_on(22, False, True)[:2] == (None, [evaluated])
    _, done, said = go_on(22, True, False)
    assert done == [] and said.startswith("Training is complete (step 22); nothing to do. Report: ")
    assert go_on(30, False, True)[:2] == (None, ["trained", evaluated])  # of a run that was shortened
    assert "Training is complete (step 22). Evaluating the EMA model:" in go_on(22, False, True)[2]


def test_an_evaluation_may_be_ended_at_once(go_on):
    """Nothing is lost by it; training is not ended so."""
    interruption = Interrupted()
    go_on(22, False, True, interruption=interruption)
    why = "at step 0: nothing to save yet (it was being evaluated)"
    assert interruption.idle == [("begins", why), ("ends", why)]


@pytest.mark.parametrize("number, told", [(signal.SIGINT, signal.SIGINT), (None, signal.SIGTERM)])
def test_an_interrupted_run_is_not_evaluated(go_on, monkeypatch, number, told):
    """A signal that reached another process is told as SIGTERM."""
    interruption = Interrupted(0, number)
    monkeypatch.setattr(train.distributed, "any_process", lambda flag: True)
    found, done, said = go_on(8, False, True, end=12, interruption=interruption)
    assert found is told and done == ["trained"]
    assert said == f"Interrupted by {told.name} at step 12: saved. Run the same command to go on.\n"


def test_names_of_classes_that_changed_are_refused_or_a_warning(monkeypatch, capsys):
    def check_names(config, dataset, workdir):
        raise UserError("other names")

    monkeypatch.setattr(train, "check_names", check_names)
    with pytest.raises(UserError, match="other names"):
        train._check_names(None, None, None, warn=False)
    train._check_names(None, None, None, warn=True)
    assert capsys.readouterr().out == "warning: other names; the new names replace the stored ones\n"


@pytest.mark.parametrize("begun", [True, False])
def test_data_that_cannot_be_trained_on_are_a_warning_to_a_run_that_has_begun(monkeypatch, tmp_path, capsys, begun):
    def refuse(config, dataset):
        raise UserError("too few")

    monkeypatch.setattr(train, "load_data", lambda config, workdir: "images")
    monkeypatch.setattr(train, "announce", lambda config, dataset: None)
    monkeypatch.setattr(train, "check_training", refuse)
    workdir = Workdir(tmp_path)
    (workdir.checkpoints / ("8" if begun else "broken-8")).mkdir(parents=True)
    if begun:
        assert train._load_data(None, workdir) == "images"
        assert capsys.readouterr().out == "warning: too few\n"
    else:
        with pytest.raises(UserError, match="too few"):
            train._load_data(None, workdir)


def test_what_data_raise_is_told_with_its_place_and_step(tmp_path):
    """The innermost line, and 400 characters at most of what it says."""

    def inner():
        raise KeyError("x" * 500)

    (tmp_path / "8").mkdir()
    with pytest.raises(RunError) as told, train._data_errors(12, SimpleNamespace(folder=tmp_path)):
        inner()
    line = inner.__code__.co_firstlineno + 1
    what = f"KeyError: '{'x' * 500}"[:400]
    assert str(told.value) == (
        f"the data after step 12 cannot be read: {what} (test_loop.py:{line}). "
        f"The last good checkpoint is step 8 in {tmp_path}; the same command goes on from there"
    )


def test_the_state_begins_with_projected_weights_in_all_its_averages(monkeypatch):
    """Of weights that are given, and of several averages; it counts skipped steps where these may be skipped."""
    monkeypatch.setattr(
        "experiments.factory.model.projection", lambda config: lambda tree: jax.tree.map(lambda x: x / 2, tree)
    )
    for changes, emas in (
        ({}, 1),
        ({"training__ema": "warmup,power:0.1,half_life", "training__on_nonfinite": "skip"}, 3),
    ):
        made = train.initial_state(Experiment(tiny_config(**changes)), {"params": {"w": np.full(3, 8.0, np.float32)}})
        assert len(made.emas) == emas and made.step == 0 and (made.skipped is None) == (emas == 1)
        for tree in (made.params, *made.emas):
            np.testing.assert_array_equal(tree["params"]["w"], [4, 4, 4])


def test_a_state_on_devices_begins_as_one_alone_and_has_its_shapes(monkeypatch):
    """Weights that are given, or drawn for the strategy; the shapes and dtypes of a state are known without it."""
    monkeypatch.setattr(
        "experiments.factory.model.projection", lambda config: lambda tree: jax.tree.map(lambda x: x / 2, tree)
    )
    weights = {"params": {"w": np.full(3, 8.0, np.float32)}}
    monkeypatch.setattr("experiments.factory.model.initialized", lambda config, init, strategy=None: weights)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), weights)
    monkeypatch.setattr("experiments.factory.experiment.abstract", lambda objective: shapes)
    placed = []
    strategy = SimpleNamespace(
        place=lambda tree: placed.append(tree) or tree, create=lambda function, *given: function(*given)
    )
    config = tiny_config(training__ema="warmup,power:0.1", training__on_nonfinite="skip")
    alone, drawn = (train.initial_state(Experiment(config), None, on) for on in (None, strategy))
    given = train.initial_state(Experiment(config), weights, strategy)
    assert placed == [weights]
    abstract = train.abstract_state(Experiment(config))
    for made in (alone, drawn, given):
        for leaf, expected, shape in zip(*map(jax.tree.leaves, (made, alone, abstract)), strict=True):
            np.testing.assert_array_equal(leaf, expected)
            assert (leaf.shape, leaf.dtype) == (shape.shape, shape.dtype)
        np.testing.assert_array_equal(made.params["params"]["w"], [4, 4, 4])
        assert made.step.dtype == made.skipped.dtype == np.int32 and len(made.emas) == 2
