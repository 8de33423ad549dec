"""Checkpoints with Orbax: the training state, the moving averages of the weights, and the position in the data.

Each is a separate item of a step, so that sampling reads only one average. The averages are `ema`, `ema_1`, and so on;
a run that skips steps stores their number in `counters`. Saving is asynchronous. An interrupted save leaves a temporary
folder, which is not read as a checkpoint and is removed at the next start. After a checkpoint is complete, a background
thread adds checksums of its files (`integrity.py`). A checkpoint whose checksums do not match is quarantined, and the
previous checkpoint is restored.

Arrays are saved with their global shapes by all processes, and restored to any number of devices and processes. The
position in the data, a number of batches, is global too: it does not depend on the number of processes.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments.devices import distributed
from experiments.errors import RunError, UserError
from experiments.learning.state import TrainState
from experiments.runs import integrity

# Exceptions of Orbax and tensorstore on write failures.
WRITE_ERRORS = (OSError, ValueError)


def _is_relevant(record: logging.LogRecord) -> bool:
    """Returns False for log records of Orbax without information for the user.

    These are the traceback of a failed save (the error is raised too), the note that a manager is read-only, and the
    warning that an item lacks the metadata of a complete checkpoint.
    """
    of_orbax, message = "orbax" in record.pathname, record.getMessage()
    failed_save = record.exc_info and (of_orbax or "orbax" in str(record.exc_info[1]))
    read_only = of_orbax and "read" in message and "only" in message
    return not (failed_save or read_only or (of_orbax and message.startswith("Metadata file does not exist")))


class _WithoutClosedLoops:
    """Hook for unraisable errors that drops errors of reads that end after Orbax has closed their event loop.

    After the first failed read of a call, threads of tensorstore report the failures of the call's other reads at any
    later time. The first failure is raised; when metadata are read, it means that there are none.

    Args:
        before: the previous hook, which receives all other errors.
    """

    def __init__(self, before: Callable[[Any], Any]):
        self._before = before

    def __call__(self, unraisable: Any) -> None:
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            self._before(unraisable)


def _filter_logs() -> None:
    """Installs the log filter and the error hook; a second call has no effect."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_relevant)
    if not isinstance(sys.unraisablehook, _WithoutClosedLoops):
        sys.unraisablehook = _WithoutClosedLoops(sys.unraisablehook)


MOST_SHOWN = 10  # maximum number of steps listed in a message


def complete_steps(folder: Path) -> list[int]:
    """Returns the steps of the complete checkpoints in a folder, increasing.

    Orbax renames a checkpoint's folder to the number of its step when the checkpoint is complete.
    """
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def last_good(folder: Path) -> str:
    """Returns a description of the last checkpoint of a run, a sentence without its full stop."""
    steps = complete_steps(folder)
    return f"The last good checkpoint is step {steps[-1]}" if steps else "There is no checkpoint yet"


class Checkpoints:
    """The checkpoints in one folder.

    Args:
        folder: created if necessary.
        keep: number of the newest checkpoints to keep.
        read_only: another process may be writing, so nothing is created, removed or renamed.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, folder: Path, keep: int, *, read_only: bool = False):
        _filter_logs()
        self.folder = folder
        self._keep = keep
        self._read_only = read_only
        self._checked: int | None = None  # the step whose checksums were verified
        self._summing: threading.Thread | None = None
        self._sum_error: OSError | None = None
        if read_only:
            options = ocp.CheckpointManagerOptions(read_only=True)
        else:
            options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        try:
            self._manager = ocp.CheckpointManager(folder.resolve(), options=options)
        except OSError as error:
            raise UserError(f"checkpoints cannot be stored in {folder}: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def latest_step(self) -> int | None:
        """Returns the step of the newest complete checkpoint, or None."""
        return max(complete_steps(self.folder), default=None)

    def all_steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints, increasing."""
        return complete_steps(self.folder)

    def save(self, state: TrainState, data_iterator: grain.DatasetIterator) -> None:
        """Starts an asynchronous save of the state and the position in the data; skips a step that is already saved.

        Raises:
            RunError: this save or the previous one could not be written (for example, the disk is full).
        """
        self._save(
            int(state.step),
            **{name: ocp.args.StandardSave(tree) for name, tree in _trees(state).items()},
            **({} if state.skipped is None else {"counters": ocp.args.JsonSave({"skipped": int(state.skipped)})}),
            data=ocp.args.JsonSave(data_iterator.get_state()),
        )

    def save_weights(self, step: int, variables: Any) -> None:
        """Starts an asynchronous save of the weights of an imported model, from which training can start.

        Raises:
            RunError: the weights could not be written.
        """
        self._save(step, ema=ocp.args.StandardSave(variables))

    def _save(self, step: int, **items: Any) -> None:
        try:
            self.wait()
            if distributed.first_tells(lambda: step in complete_steps(self.folder)):
                return
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        except WRITE_ERRORS as error:
            raise self._not_written(error) from error
        self._summing = threading.Thread(target=self._sum, args=(step,), name="checksums", daemon=True)
        self._summing.start()

    def _sum(self, step: int) -> None:
        """Waits for the save of a step, then writes the checksums of its files; `wait` raises the errors."""
        try:
            self._manager.wait_until_finished()
        except Exception:
            return  # `wait` raises this error in the main thread
        try:
            if distributed.is_first():
                integrity.write(self.folder / str(step))
        except OSError as error:
            self._sum_error = error

    def wait(self) -> None:
        """Waits for the current save.

        Raises:
            RunError: the save could not be written.
        """
        try:
            self._manager.wait_until_finished()
            if self._summing is not None:
                self._summing.join()
                self._summing = None
            error, self._sum_error = self._sum_error, None
            if error is not None:
                raise error
        except WRITE_ERRORS as error:
            raise self._not_written(error) from error

    def _not_written(self, error: Exception) -> RunError:
        """Removes incomplete checkpoints to free space and returns the error to raise."""
        for path in self.folder.glob("*.orbax-checkpoint-tmp*") if distributed.is_first() else ():
            shutil.rmtree(path, ignore_errors=True)
        number = error.errno if isinstance(error, OSError) else re.search(r"os_error_code='(\d+)'", str(error))
        if isinstance(number, re.Match):
            number = int(number[1])
        reason = os.strerror(number) if number else " ".join(str(error).split())[:200]
        return RunError(
            f"a checkpoint cannot be written to {self.folder}: {reason}. {last_good(self.folder)}; "
            "make room and run the same command again"
        )

    def holds_weights_alone(self) -> bool:
        """Returns True if the newest checkpoint was written by `save_weights`."""
        return not self._has(self.latest_step(), "state")

    def _has(self, step: int | None, item: str) -> bool:
        return (self.folder / str(step) / item).is_dir()

    def set_aside_broken(self) -> int | None:
        """Quarantines broken checkpoints that are newer than the newest good one, and returns the good one's step.

        Returns None if the folder has no checkpoints. Checkpoints beyond the number to keep, left by a process that was
        killed while it removed them, are removed. With several processes, the first process changes the files.

        Raises:
            RunError: all checkpoints are broken.
        """

        def check() -> None:
            for step in self._newest_first():
                if not self._is_broken(step):
                    break
            for old in complete_steps(self.folder)[: -self._keep]:
                shutil.rmtree(self.folder / str(old), ignore_errors=True)

        distributed.first_process_does(check)
        self._manager.reload()
        self._checked = distributed.first_tells(self.latest_step)
        return self._checked

    def _newest_first(self) -> Iterator[int]:
        """Yields the steps of complete checkpoints, decreasing; the caller stops at the first good checkpoint.

        Raises:
            RunError: there are no more checkpoints, and at least one is broken.
        """
        seen: set[int] = set()
        # The folder is listed each time: a training process may add checkpoints while this process reads.
        while unseen := [step for step in complete_steps(self.folder) if step not in seen]:
            seen.add(unseen[-1])
            yield unseen[-1]
        if seen or any(self.folder.glob("broken-*")):
            raise RunError(
                f"no checkpoint in {self.folder} is good: remove the broken ones to start again from step 0, or choose "
                "another --workdir"
            )

    def _is_broken(self, step: int, *parts: str) -> bool:
        """Returns True if a checkpoint is incomplete or does not match its checksums, and quarantines it in this case.

        Args:
            step: step of the checkpoint.
            parts: items to check; all items by default.

        Raises:
            RunError: the checkpoint cannot be read for a reason other than damage.
        """
        folder = self.folder / str(step)
        missing = [] if self._has(step, "ema") else ["ema"]
        if self._has(step, "state") != self._has(step, "data"):
            missing += ["data" if self._has(step, "state") else "state"]
        try:
            fault = f"{missing[0]}/ is missing" if missing else integrity.fault(folder, parts)
        except OSError as error:
            raise RunError(f"{error.filename or folder} cannot be read: {error.strerror}") from error
        if fault is not None:
            self._set_aside(step, fault)
        return fault is not None

    def _set_aside(self, step: int, fault: str) -> None:
        """Prints a warning about a broken checkpoint and renames it, unless this process is a reader."""
        if not (self.folder / str(step)).exists():
            return  # a training process has removed it in the meantime
        remedy = "skipped"
        if not self._read_only and distributed.is_first():
            remedy = f"set aside as {integrity.set_aside(self.folder / str(step)).name}"
            self._manager.reload()
        older = [other for other in complete_steps(self.folder) if other < step]
        now = f"going back to step {older[-1]}" if older else "there is none before it"
        print(
            f"warning: the checkpoint of step {step} in {self.folder} is broken ({fault}): {remedy}, {now}",
            file=sys.stderr,
        )

    def restore(self, abstract: TrainState, data_iterator: grain.DatasetIterator) -> TrainState:
        """Restores the state of the newest good checkpoint and sets `data_iterator` to its position in the data.

        Broken checkpoints are quarantined.

        Args:
            abstract: expected shapes and dtypes (`jax.eval_shape`) with the shardings to restore to
                (`Strategy.layout`); without a sharding, one local device. The devices and processes that saved the
                state may differ.
            data_iterator: iterator of the run's config, at its start.

        Raises:
            UserError: the checkpoint is of another network or optimizer, or has fewer averages.
            RunError: all checkpoints are broken.
        """
        counters = {} if abstract.skipped is None else {"counters": ocp.args.JsonRestore()}
        _, restored = self._restore(_trees(_with_default_sharding(abstract)), data=data_iterator, **counters)
        skipped = restored["counters"]["skipped"] if "counters" in restored else 0
        return TrainState(
            step=restored["state"]["step"],
            params=restored["state"]["params"],
            opt_state=restored["state"]["opt_state"],
            emas=tuple(restored[_average(i)] for i in range(len(abstract.emas))),
            skipped=None if abstract.skipped is None else _number(skipped, abstract.skipped),
        )

    def restore_ema(self, abstract: Any, step: int | None = None, *, place: int = 0) -> tuple[int, Any]:
        """Restores one average of a checkpoint; returns its step and the weights.

        For an imported model (`save_weights`) every average is the imported weights.

        Args:
            abstract: expected shapes and dtypes, with optional shardings.
            step: step of the checkpoint; the newest good one by default.
            place: index of the average.

        Raises:
            UserError: the checkpoint is of another network, or has no average with this index.
            RunError: all checkpoints are broken, or the checkpoint of the requested step is.
        """
        step, restored = self._restore({_average(place): _with_default_sharding(abstract)}, step)
        return step, restored[_average(place)]

    def _restore(
        self,
        trees: dict[str, Any],
        requested: int | None = None,
        data: grain.DatasetIterator | None = None,
        **others: Any,
    ) -> tuple[int, dict[str, Any]]:
        """Restores items of a checkpoint; returns its step and the items by name.

        Args:
            trees: abstract trees by name of the item.
            requested: step of the checkpoint; the newest good one by default.
            data: iterator that is set to the stored position.
            others: Orbax arguments of optional items by name; items that the checkpoint lacks are skipped.
        """
        if requested is not None:
            self._require_step(requested)
        parts = (*trees, *others, *([] if data is None else ["data"]))
        for step in self._newest_first() if requested is None else [requested]:
            if step != self._checked and self._is_broken(step, *parts):
                continue
            stored = {name: self._stored_name(step, name) for name in trees}
            items = {stored[name]: ocp.args.StandardRestore(tree) for name, tree in trees.items()}
            items |= {name: argument for name, argument in others.items() if self._has(step, name)}
            self._require_shapes(step, {stored[name]: tree for name, tree in trees.items()})
            try:
                restored = self._manager.restore(step, args=ocp.args.Composite(**items))
                if data is not None:
                    data.set_state(_position(self.folder / str(step) / "data"))
            except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
                reason = " ".join(str(error).split())[:200]
                if integrity.is_summed(self.folder / str(step)) or not self._fits(step, trees):
                    raise self._mismatch(step, f"{reason} ...") from error
                self._set_aside(step, reason)
            else:
                return step, {
                    name: restored[stored.get(name, name)]
                    for name in (*trees, *others)
                    if stored.get(name, name) in items
                }
        if requested is not None:
            raise RunError(f"the checkpoint of step {requested} in {self.folder} is broken")
        raise UserError(f"{self.folder} has no checkpoint yet: run `train` on it first")

    def _require_step(self, step: int) -> None:
        """Checks that there is a checkpoint of a step.

        Raises:
            UserError: there is none; the message lists the existing steps.
        """
        steps = complete_steps(self.folder)
        if steps and step not in steps:
            shown = ", ".join(map(str, steps[-MOST_SHOWN:]))
            more = f"{len(steps)} steps, the last of them " if len(steps) > MOST_SHOWN else ""
            raise UserError(f"{self.folder} has no checkpoint of step {step}: there are {more}{shown}")

    def _stored_name(self, step: int, name: str) -> str:
        """Returns the stored item of a tree; in a checkpoint of `save_weights` every average is the item `ema`.

        Raises:
            UserError: the checkpoint has no such average.
        """
        is_average = name.startswith("ema")
        if is_average and not self._has(step, "state"):
            return _average(0)
        if is_average and not self._has(step, name):
            stored, named = len(list((self.folder / str(step)).glob("ema*"))), 1 + int(name.removeprefix("ema_"))
            raise UserError(
                f"the checkpoint of step {step} in {self.folder} has {stored} of the {named} averages that "
                "training.ema names: an average cannot be added to a run after its start"
            )
        return name

    def _mismatch(self, step: int, reason: str) -> UserError:
        """Returns the error for a checkpoint whose arrays do not match the config."""
        return UserError(
            f"the checkpoint of step {step} in {self.folder} does not fit the config: another network or optimizer made it "
            f"({reason})"
        )

    def _stored_shapes(self, step: int, items: Iterable[str]) -> dict[str, dict[tuple[str, ...], tuple[int, ...]]]:
        """Returns the shapes of the arrays of a checkpoint by item, without items whose metadata cannot be read."""
        shapes = {}
        with ocp.StandardCheckpointer() as reader:
            for name in items:
                with contextlib.suppress(Exception):  # metadata of a broken file
                    stored = reader.metadata((self.folder / str(step) / name).resolve()).item_metadata.tree
                    shapes[name] = _shapes(stored)
        return shapes

    def _require_shapes(self, step: int, trees: dict[str, Any]) -> None:
        """Checks the shapes of arrays before Orbax reads them: its threads print a traceback for each mismatch.

        Args:
            step: step of the checkpoint.
            trees: expected trees by stored item.

        Raises:
            UserError: an array has another shape; the message names the first one.
        """
        for name, stored in self._stored_shapes(step, trees).items():
            for path, shape in _shapes(trees[name]).items():
                if stored.get(path, shape) != shape:
                    array = "/".join(path)
                    raise self._mismatch(step, f"{array} has the shape {stored[path]}, in the config {shape}")

    def require_fit(self, abstract: TrainState) -> None:
        """Checks that the newest checkpoint matches `abstract`, by its metadata; reads no arrays.

        A checkpoint whose metadata cannot be read passes; `restore` checks it.

        Args:
            abstract: expected shapes, as in `restore`.

        Raises:
            UserError: the checkpoint is of another network or optimizer, or has fewer averages.
        """
        step = self.latest_step()
        if step is None or not self._has(step, "ema"):
            return
        names = _trees(abstract)
        if self.holds_weights_alone():
            del names["state"]
        trees = {self._stored_name(step, name): tree for name, tree in names.items()}
        self._require_shapes(step, trees)
        for name, stored in self._stored_shapes(step, trees).items():
            if differing := sorted(stored.keys() ^ _shapes(trees[name]).keys()):
                array, holder = "/".join(differing[0]), "checkpoint" if differing[0] in stored else "config"
                raise self._mismatch(step, f"the {holder} alone has {array}")

    def _fits(self, step: int, trees: dict[str, Any]) -> bool:
        """Returns False if the readable metadata of a checkpoint differ from the expected names or shapes."""
        return all(stored == _shapes(trees[name]) for name, stored in self._stored_shapes(step, trees).items())

    def close(self) -> None:
        """Waits for the current save.

        Raises:
            RunError: the save could not be written.
        """
        try:
            self.wait()
        finally:
            self._manager.close()


def _average(place: int) -> str:
    """Returns the name of the item of the average with index `place`."""
    return f"ema_{place}" if place else "ema"


def _trees(state: TrainState) -> dict[str, Any]:
    """Returns the items of a state that are trees of arrays; the file format needs the empty entry `ema` of `state`."""
    own = {"step": state.step, "params": state.params, "opt_state": state.opt_state, "ema": None}
    return {"state": own} | {_average(i): ema for i, ema in enumerate(state.emas)}


def _shapes(tree: Any) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Returns the shapes of the arrays of a tree by path; fields, keys and indices have equal path entries."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        tuple(str(getattr(k, "name", getattr(k, "key", getattr(k, "idx", k)))) for k in path): tuple(leaf.shape)
        for path, leaf in leaves
    }


def _position(folder: Path) -> dict[str, Any]:
    """Returns the position in the data: the JSON file of the item, written by Orbax or, in old runs, by grain."""
    for name in ("metadata", "process_0-of-1.json"):
        if (folder / name).exists():
            return json.loads((folder / name).read_text())
    raise FileNotFoundError(f"{folder} has no position in the data")


def _number(value: int, abstract: Any) -> jax.Array:
    """Returns a number as an array with the dtype and sharding of `abstract`."""
    sharding = _with_default_sharding(abstract).sharding
    return jax.make_array_from_callback((), sharding, lambda index: np.asarray(value, abstract.dtype))


def _with_default_sharding(abstract: Any) -> Any:
    """Sets the first local device as sharding of leaves without a sharding."""
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or first), abstract)
