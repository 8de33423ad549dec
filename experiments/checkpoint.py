"""Checkpoints with Orbax: the training state, the averages of the weights beside it, and the position in the data.

They are separate items of one step, so that sampling reads one average alone: the first is `ema`, then come `ema_1` and so
on. A run that skips steps has the count of them in `counters`. Saving is asynchronous; an interrupted
save leaves a temporary folder that is never taken for a checkpoint and is removed at the next start.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import grain
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from experiments.errors import RunError, UserError
from experiments.state import TrainState


class Checkpoints:
    """The checkpoints in one folder.

    Args:
        folder: created if need be.
        keep: how many of the newest to keep.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder = folder
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        try:
            self._manager = ocp.CheckpointManager(folder.resolve(), options=options)
        except OSError as error:
            raise UserError(f"checkpoints cannot be kept in {folder}: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data_iterator: grain.DatasetIterator) -> None:
        """Starts saving; returns before it is written. A step already saved is left alone.

        Raises:
            RunError: this save or the one before could not be written (the disk is full).
        """
        self._save(
            int(state.step),
            **_items(state, ocp.args.StandardSave),
            **({} if state.skipped is None else {"counters": ocp.args.JsonSave({"skipped": int(state.skipped)})}),
            data=grain.checkpoint.CheckpointSave(data_iterator),
        )

    def save_weights(self, step: int, variables: Any) -> None:
        """Starts saving the weights of a model that was trained elsewhere: training begins with them.

        Raises:
            RunError: they could not be written.
        """
        self._save(step, ema=ocp.args.StandardSave(variables))

    def _save(self, step: int, **items: Any) -> None:
        try:
            self._manager.wait_until_finished()
            if step not in self._manager.all_steps():
                self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        except (OSError, ValueError) as error:
            raise self._not_written(error) from error

    def _not_written(self, error: Exception) -> RunError:
        return RunError(
            f"a checkpoint cannot be written to {self.folder}: {getattr(error, 'strerror', None) or error}. "
            f"The last good one is step {self.latest_step()}; make room and run the same command again"
        )

    def holds_weights_alone(self) -> bool:
        """Whether the newest checkpoint is one of `save_weights`."""
        return not self._holds("state")

    def restore(self, abstract: TrainState, data_iterator: grain.DatasetIterator) -> TrainState:
        """The newest checkpoint's state; `data_iterator` is moved to its position.

        Args:
            abstract: the shapes and dtypes expected (`jax.eval_shape`).
            data_iterator: as made for this config, at its start.

        Raises:
            UserError: the checkpoint is of another network or optimizer, or has fewer averages.
        """
        self._require_average(len(abstract.emas) - 1)
        items = _items(_on_first_device(abstract), ocp.args.StandardRestore)
        counted = abstract.skipped is not None and self._holds("counters")
        if counted:
            items["counters"] = ocp.args.JsonRestore()
        restored = self._restore(**items, data=grain.checkpoint.CheckpointRestore(data_iterator))
        skipped = jnp.int32(restored["counters"]["skipped"] if counted else 0)
        return TrainState(
            step=restored["state"]["step"],
            params=restored["state"]["params"],
            opt_state=restored["state"]["opt_state"],
            emas=tuple(restored[_average(i)] for i in range(len(abstract.emas))),
            skipped=None if abstract.skipped is None else skipped,
        )

    def restore_ema(self, abstract: Any, place: int = 0) -> Any:
        """One of the averages of the newest checkpoint, of the shapes and dtypes of `abstract`.

        Of a model that was trained elsewhere (`save_weights`) every average is its weights.

        Raises:
            UserError: the checkpoint is of another network, or has no average at this place.
        """
        name = _average(0 if self.holds_weights_alone() else place)
        self._require_average(0 if self.holds_weights_alone() else place)
        return self._restore(**{name: ocp.args.StandardRestore(_on_first_device(abstract))})[name]

    def _holds(self, item: str) -> bool:
        return (self.folder / str(self.latest_step()) / item).exists()

    def _require_average(self, place: int) -> None:
        if not self._holds(_average(place)):
            held = len(list((self.folder / str(self.latest_step())).glob("ema*")))
            raise UserError(
                f"the checkpoint of step {self.latest_step()} in {self.folder} has {held} of the {place + 1} averages that "
                "training.ema names: one that is added to a run has nothing to go on from"
            )

    def _restore(self, **items: Any) -> Any:
        try:
            return self._manager.restore(self.latest_step(), args=ocp.args.Composite(**items))
        except ValueError as error:
            raise UserError(
                f"the checkpoint of step {self.latest_step()} in {self.folder} does not fit the config: another network "
                f"or optimizer made it ({' '.join(str(error).split())[:200]} ...)"
            ) from error

    def close(self) -> None:
        """Waits for a save under way.

        Raises:
            RunError: it could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise self._not_written(error) from error
        finally:
            self._manager.close()


def _average(place: int) -> str:
    """The item of the average at this place."""
    return f"ema_{place}" if place else "ema"


def _items(state: TrainState, argument: Callable[[Any], Any]) -> dict[str, Any]:
    """The items of weights, as arguments of Orbax. The state's own empty `ema` is of the layout."""
    own = {"step": state.step, "params": state.params, "opt_state": state.opt_state, "ema": None}
    return {"state": argument(own)} | {_average(i): argument(ema) for i, ema in enumerate(state.emas)}


def _on_first_device(abstract: Any) -> Any:
    """Where to restore to: one device, whatever devices saved it."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract)
