"""Checkpoints of several averages and of skipped steps, and those that were written before there were such."""

from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import struct

from experiments.errors import UserError
from experiments.learning import state
from experiments.runs.checkpoint import Checkpoints

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
