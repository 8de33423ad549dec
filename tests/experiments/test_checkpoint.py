"""Checkpoints: what is broken is named, passed over and kept; a reader changes nothing; a full disk loses nothing."""

import errno
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import grain
import jax
import numpy as np
import pytest

from experiments.errors import RunError, UserError
from experiments.learning.state import TrainState
from experiments.runs import integrity
from experiments.runs.checkpoint import Checkpoints, complete_steps, last_good

STEPS = (8, 16)


def state(step: int, shape=(5, 3)) -> TrainState:
    """A state that says which step it is of, in each of its parts."""
    value = np.float32(step) + np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return TrainState(
        step=np.int32(step),
        params={"a": {"w": value}},
        opt_state=({"mu": value + 1},),
        emas=({"a": {"w": value + 2}},),
    )


def iterator(position: int = 0):
    iterator = iter(grain.MapDataset.range(1000).to_iter_dataset())
    for _ in range(position):
        next(iterator)
    return iterator


def abstract(shape=(5, 3)):
    return jax.eval_shape(lambda: jax.tree.map(jax.numpy.asarray, state(0, shape)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the checkpoints of two steps."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpoints(folder, keep=2) as checkpoints:
        for step in STEPS:
            checkpoints.save(state(step), iterator(step))
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))


def assert_restores(checkpoints, step):
    """All of the state and the position are those of a step."""
    data = iterator()
    for a, b in zip(jax.tree.leaves(checkpoints.restore(abstract(), data)), jax.tree.leaves(state(step)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert next(data) == step


def arrays(step_folder: Path, item: str = "state") -> Path:
    """The largest file of the database of an item's arrays, which Orbax reads."""
    return max((step_folder / item / "d").iterdir(), key=os.path.getsize)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def garble(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x5A
    path.write_bytes(content)


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGE = {
    "arrays cut short": lambda f: cut(arrays(f)),
    "arrays garbled": lambda f: garble(arrays(f)),
    "manifest missing": lambda f: (f / "state" / "manifest.ocdbt").unlink(),
    "metadata missing": lambda f: (f / "state" / "_METADATA").unlink(),
    "metadata garbled": lambda f: garble(f / "state" / "_METADATA"),
    "position missing": lambda f: (f / "data" / "metadata").unlink(),
    "position garbled": lambda f: garble(f / "data" / "metadata"),
    "empty folder": empty,
    "no state": lambda f: shutil.rmtree(f / "state"),
    "no ema": lambda f: shutil.rmtree(f / "ema"),
}


@pytest.mark.parametrize("summed", [True, False], ids=["summed", "killed before the sums"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_newest_checkpoint_is_set_aside_and_the_one_before_restored(folder, damage, summed, capsys):
    """Where a kill left no sums, Orbax's own errors are told from those of another network by the shapes stored."""
    if not summed:
        (folder / "16" / integrity.SUMS).unlink()
    DAMAGE[damage](folder / "16")
    left = sorted(p.relative_to(folder / "16") for p in (folder / "16").rglob("*"))
    with Checkpoints(folder, keep=2) as checkpoints:
        assert_restores(checkpoints, 8)
        assert complete_steps(folder) == [8]
        checkpoints.save(state(16), iterator(16))  # its step is free again
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"warning: the checkpoint of step 16 in {folder} is broken ("), lines
    assert lines[0].endswith("): set aside as broken-16, going back to step 8")
    assert left == sorted(p.relative_to(folder / "broken-16") for p in (folder / "broken-16").rglob("*"))
    with Checkpoints(folder, keep=2) as checkpoints:
        assert_restores(checkpoints, 16)


def test_a_step_without_a_checkpoint_is_named_with_those_that_there_are(folder):
    with Checkpoints(folder, keep=2) as checkpoints, pytest.raises(UserError) as error:
        checkpoints.restore_ema(abstract().emas[0], 999)
    assert str(error.value) == f"{folder} has no checkpoint of step 999: there are 8, 16"


def test_a_position_that_grains_handler_has_written_is_restored(folder):
    """So did runs before the position was one for all processes."""
    shutil.rmtree(folder / "16" / "data")
    (folder / "16" / "data").mkdir()
    grain.checkpoint.CheckpointHandler().save(folder / "16" / "data", iterator(16))
    integrity.write(folder / "16")
    with Checkpoints(folder, keep=2) as checkpoints:
        assert_restores(checkpoints, 16)


def test_values_that_parse_but_are_others_are_seen(folder, capsys):
    """Nothing but the sums can see these: the arrays of a step under the name of another."""
    shutil.rmtree(folder / "16" / "state")
    shutil.copytree(folder / "8" / "state", folder / "16" / "state")
    with Checkpoints(folder, keep=2) as checkpoints:
        assert checkpoints.set_aside_broken() == 8
    assert "broken (state/" in capsys.readouterr().err


def test_without_a_good_checkpoint_it_says_so_until_the_broken_ones_are_removed(folder, capsys):
    for step in STEPS:
        garble(arrays(folder / str(step)))
    for _ in range(2):
        with Checkpoints(folder, keep=2) as checkpoints, pytest.raises(RunError, match=r"no checkpoint in .* is good"):
            checkpoints.set_aside_broken()
    assert "there is none before it" in capsys.readouterr().err
    assert sorted(p.name for p in folder.iterdir()) == ["broken-16", "broken-8"]
    for path in folder.iterdir():
        shutil.rmtree(path)
    with Checkpoints(folder, keep=2) as checkpoints:
        assert checkpoints.set_aside_broken() is None


@pytest.mark.parametrize("summed", [True, False])
def test_another_network_is_no_damage(folder, summed):
    if not summed:
        (folder / "16" / integrity.SUMS).unlink()
    with Checkpoints(folder, keep=2) as checkpoints:
        with pytest.raises(UserError, match=r"the checkpoint of step 16 in .* does not fit the config"):
            checkpoints.restore(abstract((4, 3)), iterator())
        assert_restores(checkpoints, 16)


def test_arrays_of_other_widths_are_one_line_that_names_the_first(folder, monkeypatch, capfd):
    """No array is read: the threads of Orbax would print a traceback for each that does not fit."""
    with Checkpoints(folder, keep=2, read_only=True) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "restore", lambda *a, **k: pytest.fail("read"))
        with pytest.raises(UserError) as error:
            checkpoints.restore_ema({"a": {"w": jax.ShapeDtypeStruct((5, 6), np.float32)}})
        with pytest.raises(UserError, match=r"opt_state/0/mu has the shape \(5, 3\), in the config \(5, 6\)"):
            checkpoints.restore(abstract((5, 6)), iterator())
    assert str(error.value).endswith(
        "another network or optimizer made it (a/w has the shape (5, 3), in the config (5, 6))"
    )
    assert capfd.readouterr().err == ""


def test_reads_that_end_after_one_has_failed_are_not_reported(folder, monkeypatch, capsys):
    """Threads of tensorstore would print a traceback for each; the failure is the warning's one line."""
    reports = []
    (folder / "16" / integrity.SUMS).unlink()
    cut(arrays(folder / "16"))
    monkeypatch.setattr(sys, "unraisablehook", reports.append)
    with Checkpoints(folder, keep=2) as checkpoints:
        assert_restores(checkpoints, 8)
    for message in ("Event loop is closed", "another error"):
        sys.unraisablehook(SimpleNamespace(exc_value=RuntimeError(message)))
    assert [str(report.exc_value) for report in reports] == ["another error"]
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_reader_passes_over_what_is_broken_and_changes_nothing(folder, capsys):
    """A save under way is left alone too: training goes on beside the reader."""
    garble(arrays(folder / "16", "ema"))
    (folder / "24.orbax-checkpoint-tmp").mkdir()
    before = sorted(folder.rglob("*"))
    with Checkpoints(folder, keep=2, read_only=True) as checkpoints:
        step, ema = checkpoints.restore_ema(abstract().ema)
    assert step == 8
    np.testing.assert_array_equal(ema["a"]["w"], state(8).ema["a"]["w"])
    assert capsys.readouterr().err.strip().endswith("): skipped, going back to step 8")
    assert sorted(folder.rglob("*")) == before
    garble(arrays(folder / "8"))  # the optimizer's: sampling does not read it
    with Checkpoints(folder, keep=2, read_only=True) as checkpoints:
        assert checkpoints.restore_ema(abstract().ema)[0] == 8
    shutil.rmtree(folder / "8" / "ema")
    with Checkpoints(folder, keep=2, read_only=True) as checkpoints, pytest.raises(RunError, match="is good"):
        checkpoints.restore_ema(abstract().ema)


def test_what_a_killed_deletion_leaves_is_removed(folder):
    """The newest is whole whatever was being removed; nothing is removed on account of a broken one."""
    shutil.copytree(folder / "8", folder / "4")
    shutil.rmtree(folder / "4" / "state" / "d")
    garble(arrays(folder / "16"))
    with Checkpoints(folder, keep=1) as checkpoints:
        assert checkpoints.set_aside_broken() == 8
        assert complete_steps(folder) == [8]
        assert_restores(checkpoints, 8)
        checkpoints.save(state(12), iterator(12))
        checkpoints.wait()
        assert complete_steps(folder) == [12]
        assert_restores(checkpoints, 12)


@pytest.mark.parametrize("where", ["save", "wait_until_finished"])
def test_a_full_disk_is_one_line_and_loses_nothing(folder, where, monkeypatch, capsys):
    """In the beginning of a save and in the background; tensorstore's message has the number of the error."""
    import orbax.checkpoint as ocp

    def full(*arguments, **options):
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write 5 bytes to file 8 [os_error_code='28']")

    with Checkpoints(folder, keep=2) as checkpoints:
        monkeypatch.setattr(ocp.CheckpointManager, where, full)
        (folder / "24.orbax-checkpoint-tmp").mkdir()
        with pytest.raises(RunError) as told:
            checkpoints.save(state(24), iterator(24))
            checkpoints.wait()
        monkeypatch.undo()
    assert str(told.value) == (
        f"a checkpoint cannot be written to {folder}: No space left on device. The last good checkpoint is step 16; "
        "make room and run the same command again"
    )
    assert sorted(p.name for p in folder.iterdir()) == ["16", "8"]  # what was half-written makes room
    with Checkpoints(folder, keep=2) as checkpoints:
        assert_restores(checkpoints, 16)


def test_a_disk_that_fills_up_under_the_sums_is_told_by_the_next_save(folder, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with Checkpoints(folder, keep=2) as checkpoints:
        monkeypatch.setattr(integrity, "write", full)
        checkpoints.save(state(24), iterator(24))
        with pytest.raises(RunError, match=r"No space left on device. The last good checkpoint is step 24"):
            checkpoints.save(state(32), iterator(32))
        monkeypatch.undo()
        assert_restores(checkpoints, 24)  # complete, if without sums


def test_last_good_says_what_there_is(folder, tmp_path):
    assert last_good(folder) == "The last good checkpoint is step 16"
    assert last_good(tmp_path / "none") == "There is no checkpoint yet"


def test_a_config_that_does_not_fit_is_refused_by_the_description_alone(folder):
    """As `train` does before it stores a changed config; what fits passes."""
    with Checkpoints(folder, keep=2, read_only=True) as checkpoints:
        checkpoints.require_fit(abstract())
        with pytest.raises(UserError, match=r"does not fit the config.* shape \(5, 3\), in the config \(5, 4\)"):
            checkpoints.require_fit(abstract((5, 4)))
        with pytest.raises(UserError, match="the config alone has opt_state/1/nu"):
            other = (*abstract().opt_state, {"nu": jax.ShapeDtypeStruct((), np.float32)})
            checkpoints.require_fit(abstract().replace(opt_state=other))
        with pytest.raises(UserError, match="the checkpoint alone has a/w"):
            checkpoints.require_fit(abstract().replace(emas=({},)))
        with pytest.raises(UserError, match="has 1 of the 2 averages"):
            checkpoints.require_fit(abstract().replace(emas=abstract().emas * 2))
