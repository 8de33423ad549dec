"""Checkpoints with Orbax: the training state, the EMA weights beside it, and the position in the data.

The three are separate items of one step, so that sampling reads the EMA alone. Saving is asynchronous; an interrupted
save leaves a temporary folder that is never taken for a checkpoint and is removed at the next start.

Arrays are saved whole, by whichever processes have their parts, and restored to any number of devices and processes. The
position in the data is one for all processes: the number of batches taken, not which rows of them a process has read.
"""

from pathlib import Path
from typing import Any, Self

import grain
import jax
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
            state=ocp.args.StandardSave(state.replace(ema=None)),
            ema=ocp.args.StandardSave(state.ema),
            data=ocp.args.JsonSave(data_iterator.get_state()),
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
        return not (self.folder / str(self.latest_step()) / "state").exists()

    def restore(self, abstract: TrainState, data_iterator: grain.DatasetIterator) -> TrainState:
        """The newest checkpoint's state; `data_iterator` is moved to its position.

        Args:
            abstract: the shapes and dtypes expected (`jax.eval_shape`), and where to lay them (`Strategy.layout`), whatever
                devices and processes saved them; on one device by default.
            data_iterator: as made for this config, at its start.

        Raises:
            UserError: the checkpoint is of another network or optimizer.
        """
        target = _somewhere(abstract)
        restored = self._restore(
            state=ocp.args.StandardRestore(target.replace(ema=None)),
            ema=ocp.args.StandardRestore(target.ema),
            data=ocp.args.JsonRestore(),
        )
        data_iterator.set_state(restored.data)
        return restored.state.replace(ema=restored.ema)

    def restore_ema(self, abstract: Any) -> Any:
        """The newest checkpoint's EMA weights, of the shapes and dtypes of `abstract`.

        Raises:
            UserError: the checkpoint is of another network.
        """
        return self._restore(ema=ocp.args.StandardRestore(_somewhere(abstract))).ema

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


def _somewhere(abstract: Any) -> Any:
    """Where to restore to: one device of this process, for what has no sharding."""
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or first), abstract)
