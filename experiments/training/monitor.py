"""Watching a run while it trains: its metrics become progress, history, and an error when a loss is not finite.

A row of the history has, of the steps of its last call, the means of `loss` and `grad_norm` (before clipping), the
`param_norm` after them, and of each bin of noise levels `loss_bin_I` with `loss_bin_I_count`, the examples in it (bin 0
has the most noise; see `factory.loss_bin_edges`; a bin without examples is left out); and the `learning_rate` of the next
step. Of all steps since the row before it has what `MEASURED` names, which says how the run went and not what it does: two
runs of the same config agree in all but these.
"""

import contextlib
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self

import jax
import numpy as np
from tqdm import tqdm

from experiments import factory
from experiments.devices import distributed
from experiments.errors import RunError
from experiments.factory.experiment import Experiment
from experiments.logs.history import History
from experiments.runs.checkpoint import Checkpoints, last_good
from experiments.training import utilization
from experiments.training.timing import CHECKPOINTS, SAMPLES, Completions, Speedometer

# The figures of a row that depend on the machine and its hour.
MEASURED = (
    "images_per_second",  # in training alone, without checkpoints and pictures
    "mfu",  # model FLOP utilization: operations of the network per second, of those of a large matrix product
    "seconds",  # of training so far, in all starts of the run, without checkpoints, pictures and each start's first call
    "data_fraction",  # of that time, in which the host got batches ready; it costs nothing while it is well below 1
    "seconds_in_checkpoints",  # in which training waited for checkpoints
    "seconds_in_samples",  # in which it waited for grids of samples and the report
    "memory_mib",  # in use, of the fullest device; on CPU of the process
    "memory_peak_mib",  # the most of it so far
)


class Monitor:
    """Reads the metrics one call late, so that the device computes while the host looks: progress, history, finiteness.

    Args:
        experiment: its objects.
        step: where training starts.
        history: gets a row each `training.log_every` steps.
        checkpoints: to name the last good one when the loss is not finite.
        step_flops: gives the operations of one step of all devices, asked in a thread while the first calls run; None has no
            MFU measured.
    """

    def __init__(
        self,
        experiment: Experiment,
        step: int,
        history: History,
        checkpoints: Checkpoints,
        step_flops: Callable[[], int] | None = None,
    ):
        self._experiment = experiment
        self._history = history
        self._checkpoints = checkpoints
        self._pending: tuple[int, int, Any, Future, float] | None = None
        self._learning_rate = experiment.learning_rate
        self._completions = Completions()
        self._speed = Speedometer(history.before.get("seconds", 0.0))
        self._step_flops, self._flops_thread, self._flops = step_flops, None, None
        self._peak = utilization.peak_flops(experiment.compute_dtype) if step_flops else None
        interval = 0.1 if sys.stderr.isatty() else 10.0  # seconds; a log file wants few lines
        self._bar = tqdm(
            total=experiment.training.num_steps, initial=step, unit="step", desc="compiling", mininterval=interval,
            disable=not distributed.is_first(),
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._completions.close()
        if self._flops_thread is not None:
            self._flops_thread.join(timeout=10)  # seconds; Python must not end while JAX traces
        self._bar.close()

    def watch(self, step: int, n: int, metrics: dict[str, jax.Array]) -> None:
        """Looks at the call before, and keeps this one (n steps up to `step`) for the next time.

        Raises:
            RunError: a loss or gradient of the call before is not finite, and may not be skipped.
        """
        done, data_seconds = self._completions.time_of(metrics), self._speed.data_seconds()
        if self._step_flops and self._flops_thread is None:
            self._flops_thread = threading.Thread(target=self._count_flops, name="flops", daemon=True)
            self._flops_thread.start()
        self.catch_up()
        self._pending = (step, n, metrics, done, data_seconds)

    def _count_flops(self) -> None:
        with contextlib.suppress(ValueError):  # a loop of unknown length: no MFU
            self._flops = self._step_flops()

    def waiting_for_data(self) -> contextlib.AbstractContextManager[None]:
        """Around the making of a call's batches."""
        return self._speed.waiting_for_data()

    def saving(self) -> contextlib.AbstractContextManager[None]:
        """Around the saving of a checkpoint, which waits for the call that is pending.

        Raises:
            RunError: a loss is not finite.
        """
        self.catch_up()
        return self._speed.away(CHECKPOINTS)

    def sampling(self) -> contextlib.AbstractContextManager[None]:
        """Around the drawing of a grid of samples, which waits for the call that is pending.

        Raises:
            RunError: a loss is not finite.
        """
        self.catch_up()
        return self._speed.away(SAMPLES)

    def catch_up(self) -> None:
        """Looks at the call that is pending; waits for it.

        Raises:
            RunError: a loss or gradient is not finite, and may not be skipped.
        """
        if self._pending is None:
            return
        step, n, metrics, done, data_seconds = self._pending
        self._pending = None
        values = {name: np.asarray(value)[:n] for name, value in metrics.items()}
        finite = np.isfinite(values["loss"]) & np.isfinite(values["grad_norm"])
        skipped = values.pop("skipped", None)
        bad = np.flatnonzero(~finite if skipped is None else skipped > self._experiment.training.max_skips)
        if bad.size:
            what = "gradient" if np.isfinite(values["loss"][bad[0]]) else "loss"
            self._stop(step - n + 1 + int(bad[0]), what, skipped is not None)
        self._speed.call_done(n, done.result(), data_seconds)
        # A step that was skipped has no part in the means; there are none where all were.
        values = {name: value[finite] for name, value in values.items()}
        bins = self._loss_bins(values.pop(factory.BINNED_LOSS, None), values.pop(factory.BIN_SHARE, None))
        means = {name: float(value.mean()) for name, value in values.items() if finite.any()}
        means |= {} if skipped is None else {"skipped": int(skipped[-1])}
        speed = self._speeds()
        self._bar.set_description_str("training", refresh=False)
        shown = [f"loss {means['loss']:.4f}" if "loss" in means else "all steps skipped"]
        shown += [f"{v:,.0f} img/s" for v in [speed.get("images_per_second")] if v]
        self._bar.set_postfix_str(", ".join(shown), refresh=False)
        self._bar.update(n)
        if step % self._experiment.training.log_every == 0 or step == self._experiment.training.num_steps:
            rate = float(self._learning_rate(step - means.get("skipped", 0)))
            measured = speed | self._speed.read() | utilization.memory()
            self._history.append(step, means | bins | {"learning_rate": rate} | measured)

    def _speeds(self) -> dict[str, float]:
        """Of training since the last row; nothing is said where only the first call was."""
        if not self._speed.seconds:
            return {}
        steps_per_second = self._speed.steps / self._speed.seconds
        speeds = {"images_per_second": steps_per_second * self._experiment.data.batch_size}
        if self._flops and self._peak:
            speeds["mfu"] = steps_per_second * self._flops / self._peak
        return speeds

    def _loss_bins(self, loss: np.ndarray | None, share: np.ndarray | None) -> dict[str, float]:
        """The mean loss of the examples in each bin, and their number, from (steps, bins) of `factory.binned_loss`."""
        if loss is None:
            return {}
        loss, share = loss.sum(0, np.float64), share.sum(0, np.float64)
        row = {}
        for i in np.flatnonzero(share):
            row[f"loss_bin_{i}"] = float(loss[i] / share[i])
            row[f"loss_bin_{i}_count"] = round(float(share[i]) * self._experiment.data.batch_size)
        return row

    def _stop(self, step: int, what: str, skipping: bool) -> None:
        batch, limit = self._experiment.data.batch_size, self._experiment.training.max_skips
        folder = self._checkpoints.folder
        with contextlib.suppress(RunError):  # that of the save under way, which is told at its own place
            self._checkpoints.wait()
        advice = (
            "The network as initialized does not give finite values: evaluate it for each class and for the null, the label "
            "model.num_classes"
            if step == 1 and self._experiment.num_classes
            else "Try a smaller optim.lr or optim.grad_clip"
        )
        count = f", which would be skip {limit + 1} of the run (training.max_skips={limit})" if skipping else ""
        raise RunError(
            f"the {what} is not finite at step {step} (its batch: examples {(step - 1) * batch} to {step * batch - 1} of "
            f"the stream){count}; {last_good(folder).lower()} in {folder}. {advice}"
        )
