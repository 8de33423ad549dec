"""Training from the config to the loop: what is checked, held, claimed and stored, in which order. Nothing is trained."""

import contextlib
from types import SimpleNamespace

import jax
import pytest

from experiments.factory.experiment import Experiment
from experiments.runs.workdir import Workdir
from experiments.training import train
from tests.experiments.tiny import tiny_config


@pytest.fixture
def order(monkeypatch, tmp_path):
    """Calls `train` and gives what it returns, after noting in `events` what it does."""
    events, workdir = [], Workdir(tmp_path / "run")

    class Context(contextlib.AbstractContextManager):
        def __init__(self, *name):
            self.name = name
            events.append(name)

        def __exit__(self, *exception):
            events.append(("leaves", self.name[0]))

        @contextlib.contextmanager
        def nothing_to_save(self, why):
            events.append(("idle", why))
            yield
            events.append(("busy",))

    def note(name, value=None):
        return lambda *given, **named: events.append((name, *named.items())) or value

    def interruption(deadline, code, saved):
        return Context("interruption", deadline, code, saved())

    class Made:
        config = "config"
        strategy = property(note("devices", "strategy"))
        guide = property(note("guide", ""))

    def from_config(config):
        events.append(("checked", config))
        return Made()

    for name, value in {
        "Interruption": interruption, "Lock": lambda path, what: Context("lock", path.name, what),
        "_load_data": note("data", "images"), "shared_statistics": note("statistics"),
        "_check_names": note("names"), "store": note("stored"), "_continue_run": note("goes on", "end"),
        "_require_fit": note("fits"), "Experiment": SimpleNamespace(from_config=from_config),
    }.items():  # fmt: skip
        monkeypatch.setattr(train, name, value)
    monkeypatch.setattr(Workdir, "claim", lambda self, config, **named: events.append(("claimed", *named.items())))
    monkeypatch.setattr(Workdir, "require_same", lambda self, config: events.append(("same",)))

    def call(changed=(), **options):
        events.clear()
        monkeypatch.setattr(train, "_changes_a_checkpoint", lambda config, workdir: list(changed))
        return train.train("config", workdir.path, **options), list(events)

    return call


def test_a_folder_is_claimed_within_its_lock_once_config_and_data_are_known_to_work(order, tmp_path):
    """What may fail without a trace comes first; the lock is held to the end."""
    end, events = order()
    assert end == "end"
    what = f"--workdir={tmp_path / 'run'}"
    assert events == [
        ("interruption", 0.0, 0, "There is no checkpoint yet"),
        ("idle", "at step 0: nothing to save yet (it was starting)"), ("checked", "config"), ("devices",), ("guide",),
        ("data",),
        ("statistics",), ("busy",), ("lock", "train.lock", what), ("claimed", ("resume_with_changes", False)), ("same",),
        ("names", ("warn", False)), ("stored",), ("goes on",), ("leaves", "lock"), ("leaves", "interruption"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "resume, changed, fits", [(True, ["optim.lr"], True), (True, [], False), (False, ["optim.lr"], False)]
)
def test_a_changed_config_fits_the_checkpoint_before_it_is_stored(order, resume, changed, fits):
    _, events = order(changed, resume_with_changes=resume, deadline=9.0, interrupted_code=75)
    names = [event[0] for event in events]
    assert events[0][:3] == ("interruption", 9.0, 75)
    assert ("claimed", ("resume_with_changes", resume)) in events and ("names", ("warn", resume)) in events
    assert ("fits" in names) == fits
    assert not fits or names.index("lock") < names.index("fits") < names.index("claimed")


def test_a_checkpoint_is_changed_by_another_config_of_a_run_that_has_one(tmp_path):
    workdir, config, other = Workdir(tmp_path), tiny_config(), tiny_config(optim__lr=0.5)
    assert train._changes_a_checkpoint(Experiment(other), workdir) == []
    workdir.claim(config)
    assert train._changes_a_checkpoint(Experiment(other), workdir) == []
    (workdir.checkpoints / "8").mkdir(parents=True)
    assert train._changes_a_checkpoint(Experiment(other), workdir) == ["optim.lr: 0.002 -> 0.5"]
    assert train._changes_a_checkpoint(Experiment(config), workdir) == []
    workdir.config.unlink()
    assert train._changes_a_checkpoint(Experiment(other), workdir) == []


def test_batches_are_those_of_this_host(monkeypatch):
    """Its number, how many there are, and every setting of the stream."""
    asked = {}
    monkeypatch.setattr(train.data, "training_batches", lambda images, **named: asked.update(named, images=images))
    monkeypatch.setattr(jax, "process_index", lambda: 2)
    monkeypatch.setattr(jax, "process_count", lambda: 5)
    config = tiny_config(
        data__batch_size=40, training__seed=9, data__random_flip=True, data__workers=3, data__worker_timeout=7.5
    )
    train.training_stream(Experiment(config), "images")
    assert asked == {
        "images": "images", "batch_size": 40, "seed": 9, "flip": True, "host": 2, "hosts": 5, "workers": 3,
        "worker_timeout": 7.5,
    }  # fmt: skip
