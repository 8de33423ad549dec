"""Checkpoints of several averages and of skipped steps, and those that were written before there were such."""

import logging
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import struct

from experiments.errors import RunError, UserError
from experiments.learning import state
from experiments.runs import checkpoint
from experiments.runs.checkpoint import Checkpoints

pytestmark = pytest.mark.devices

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))


def variables(value):
    return {"params": {"a": jnp.full((3,), value), "b": jnp.full((2, 2), -value)}}


def filled(emas, skip=False):
    """A state of which all leaves differ."""
    empty = state.create(variables(1.0), OPTIMIZER, emas=emas, skip_nonfinite=skip)
    leaves, tree = jax.tree.flatten(empty)
    return tree.unflatten([leaf + i for i, leaf in enumerate(leaves)]).replace(step=jnp.int32(7))


def abstract(emas, skip=False):
    return jax.eval_shape(lambda: state.create(variables(1.0), OPTIMIZER, emas=emas, skip_nonfinite=skip))


def position():
    return iter(grain.MapDataset.range(8).to_iter_dataset())


def saved(folder, current):
    with Checkpoints(folder, 1) as checkpoints:
        checkpoints.save(current, position())


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("emas, skip", [(1, False), (3, True)])
def test_all_averages_and_the_count_come_back(tmp_path, emas, skip):
    current = filled(emas, skip)
    saved(tmp_path, current)
    with Checkpoints(tmp_path, 1) as checkpoints:
        equal(checkpoints.restore(abstract(emas, skip), position()), current)
        for place in range(emas):
            equal(checkpoints.restore_ema(abstract(1).params, place=place), (7, current.emas[place]))


def test_a_run_may_begin_to_skip_and_track_fewer_averages(tmp_path):
    current = filled(2)
    saved(tmp_path, current)
    with Checkpoints(tmp_path, 1) as checkpoints:
        restored = checkpoints.restore(abstract(1, skip=True), position())
    equal(restored, current.replace(emas=current.emas[:1], skipped=jnp.int32(0)))


def test_an_average_that_a_checkpoint_has_not_is_named(tmp_path):
    saved(tmp_path, filled(2))
    with Checkpoints(tmp_path, 1) as checkpoints:
        for restore in (
            lambda: checkpoints.restore(abstract(3), position()),
            lambda: checkpoints.restore_ema(abstract(1).params, place=2),
        ):
            with pytest.raises(UserError, match="has 2 of the 3 averages that training"):
                restore()


@struct.dataclass
class FormerState:
    """The state as it was when there was one average."""

    step: Any
    params: Any
    opt_state: Any
    ema: Any


def test_a_checkpoint_of_one_average_alone_is_still_read(tmp_path):
    """Written as before there were several: the items `state`, whose `ema` is empty, `ema` and `data`."""
    current = filled(1)
    former = FormerState(current.step, current.params, current.opt_state, None)
    with ocp.CheckpointManager(tmp_path) as manager:
        items = {
            "state": ocp.args.StandardSave(former),
            "ema": ocp.args.StandardSave(current.ema),
            "data": grain.checkpoint.CheckpointSave(position()),
        }
        manager.save(7, args=ocp.args.Composite(**items))
    with Checkpoints(tmp_path, 1) as checkpoints:
        equal(checkpoints.restore(abstract(1), position()), current)
        equal(checkpoints.restore_ema(abstract(1).params)[1], current.ema)


def test_every_average_of_a_model_from_elsewhere_is_its_weights(tmp_path):
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save_weights(0, variables(2.0))
    with Checkpoints(tmp_path, 1) as checkpoints:
        for place in (0, 1):
            equal(checkpoints.restore_ema(abstract(1).params, place=place)[1], variables(2.0))


# ---- what is known of a folder without reading an array ----


def folder_of(path, **steps):
    """Checkpoints with these items, which are empty."""
    for step, items in steps.items():
        for item in items.split():
            (path / step.removeprefix("_") / item).mkdir(parents=True)
    return Checkpoints(path, 2, read_only=True)


@pytest.mark.parametrize(
    "items, missing",
    [
        ("ema state data", None), ("ema", None), ("ema ema_1 state data counters", None), ("state data", "ema"),
        ("data", "ema"), ("ema state", "data"), ("ema data", "state"), ("ema_1 state data", "ema"),
    ],
)  # fmt: skip
def test_a_checkpoint_has_an_average_and_its_state_with_its_position_or_neither(tmp_path, capsys, items, missing):
    with folder_of(tmp_path, _8=items) as checkpoints:
        assert checkpoints._is_broken(8) == (missing is not None)
        assert checkpoints.holds_weights_alone() == ("state" not in items.split())
    said = f"is broken ({missing}/ is missing): skipped, there is none before it\n" if missing else ""
    assert capsys.readouterr().err == (f"warning: the checkpoint of step 8 in {tmp_path} {said}" if missing else "")


def test_a_reader_goes_back_to_the_newest_of_the_older_ones_and_changes_nothing(tmp_path, capsys):
    with folder_of(tmp_path, _8="ema", _16="ema", _24="data", _100="data") as checkpoints:
        assert (checkpoints.latest_step(), checkpoints.all_steps()) == (100, [8, 16, 24, 100])
        assert [checkpoints._is_broken(step) for step in (100, 24, 16)] == [True, True, False]
        steps = iter(checkpoints._newest_first())
        assert [next(steps) for _ in range(4)] == [100, 24, 16, 8]
        with pytest.raises(RunError, match=r"no checkpoint in .* is good: remove the broken ones to start again"):
            next(steps)
    told = [line.rpartition(": skipped, ")[2] for line in capsys.readouterr().err.splitlines()]
    assert told == ["going back to step 24", "going back to step 16"] and len(list(tmp_path.iterdir())) == 4


def test_a_folder_of_broken_checkpoints_alone_is_no_new_run(tmp_path):
    with folder_of(tmp_path / "new") as checkpoints:
        assert list(checkpoints._newest_first()) == [] and checkpoints.latest_step() is None
        with pytest.raises(UserError, match="has no checkpoint yet: run `train` on it first"):
            checkpoints.restore_ema({})
    (tmp_path / "old" / "broken-8").mkdir(parents=True)
    with folder_of(tmp_path / "old") as checkpoints, pytest.raises(RunError, match=r"no checkpoint in .* is good"):
        list(checkpoints._newest_first())


def test_averages_are_stored_by_their_places(tmp_path):
    """Of a model from elsewhere all are the first; what a checkpoint has not is counted."""
    with folder_of(tmp_path, _8="ema ema_1 state data", _9="ema") as checkpoints:
        assert [checkpoints._stored_name(8, name) for name in ("ema", "ema_1", "state")] == ["ema", "ema_1", "state"]
        assert [checkpoints._stored_name(9, name) for name in ("ema", "ema_1", "ema_5")] == ["ema"] * 3
        with pytest.raises(UserError, match=r"step 8 in .* has 2 of the 4 averages that training\.ema names"):
            checkpoints._stored_name(8, "ema_3")


def test_items_of_a_state_are_its_arrays_and_each_of_its_averages():
    made = state.create({"a": np.zeros(2)}, optax.sgd(0.1), emas=3).replace(emas=("x", "y", "z"))
    items = checkpoint._trees(made)
    assert list(items) == ["state", "ema", "ema_1", "ema_2"] and list(items.values())[1:] == ["x", "y", "z"]
    assert list(items["state"]) == ["step", "params", "opt_state", "ema"] and items["state"]["ema"] is None
    shapes = checkpoint._shapes({"a": [np.zeros((2, 3)), np.zeros(())], "b": made.replace(emas=())})
    assert shapes == {
        ("a", "0"): (2, 3), ("a", "1"): (), ("b", "step"): (), ("b", "params", "a"): (2,),
    }  # fmt: skip


def test_a_number_is_restored_in_its_dtype_and_place():
    first = jax.local_devices()[0]
    found = checkpoint._number(7, jax.ShapeDtypeStruct((), np.int32))
    assert (found.dtype, int(found), found.devices()) == (np.int32, 7, {first})
    there = jax.sharding.SingleDeviceSharding(jax.devices()[3])
    found = checkpoint._number(7, jax.ShapeDtypeStruct((), np.int32, sharding=there))
    assert found.devices() == {jax.devices()[3]}
    given = {"a": jax.ShapeDtypeStruct((2,), np.int8, sharding=there), "b": jax.ShapeDtypeStruct((3,), np.int16)}
    laid = checkpoint._with_default_sharding(given)
    assert [(x.shape, x.dtype, x.sharding.device_set) for x in laid.values()] == [
        ((2,), np.int8, {jax.devices()[3]}), ((3,), np.int16, {first}),
    ]  # fmt: skip


@pytest.mark.parametrize("names, found", [(["metadata"], "metadata"), (["process_0-of-1.json"], "process_0-of-1.json"),
                                          (["process_0-of-1.json", "metadata"], "metadata")])  # fmt: skip
def test_a_position_is_that_of_orbax_or_else_of_grain(tmp_path, names, found):
    with pytest.raises(FileNotFoundError, match="has no position in the data"):
        checkpoint._position(tmp_path)
    for name in names:
        (tmp_path / name).write_text(f'{{"of": "{name}"}}')
    assert checkpoint._position(tmp_path) == {"of": found}


@pytest.mark.parametrize(
    "place, message, error, wanted",
    [
        ("/orbax/a.py", "anything", ValueError("x"), False),  # of a save that failed, which is raised too
        ("/other/a.py", "anything", ValueError("from orbax"), False),
        ("/other/a.py", "anything", ValueError("x"), True),
        ("/orbax/a.py", "the manager is read only", None, False),
        ("/other/a.py", "the manager is read only", None, True),
        ("/orbax/a.py", "read all", None, True),
        ("/orbax/a.py", "only one", None, True),
        ("/orbax/a.py", "Metadata file does not exist: x", None, False),
        ("/other/a.py", "Metadata file does not exist: x", None, True),
        ("/orbax/a.py", "A metadata file does not exist", None, True),
    ],
)
def test_records_that_say_nothing_of_the_run_are_not_shown(tmp_path, place, message, error, wanted):
    info = None if error is None else (type(error), error, None)
    record = logging.LogRecord("absl", logging.ERROR, place, 1, message, None, info)
    assert bool(checkpoint._is_relevant(record)) == wanted
    with checkpoint.Checkpoints(tmp_path / "checkpoints", 1):
        pass
    for name in ("absl", "asyncio"):
        assert logging.getLogger(name).filters.count(checkpoint._is_relevant) == 1


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=f"^checkpoints cannot be stored in {tmp_path}/file/checkpoints: Not a directory$"
    ):
        Checkpoints(tmp_path / "file" / "checkpoints", 2)
