"""Monitor of a training run: progress bar, history, and an error if a loss is not finite.

A row of the history has these values of the steps of its last call:

- `loss` and `grad_norm` (before clipping): means over the steps,
- `param_norm`: after the last step,
- `loss_bin_I` and `loss_bin_I_count`: mean loss and number of examples by bin of the noise level; bin 0 has the most
  noise (see `factory.loss_bin_edges`), and a bin without examples is left out,
- `learning_rate`: of the next step.

In addition, a row has the values of `MEASURED` over all steps since the previous row. They depend on the machine; all
other values are equal in two runs of the same config.
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

# Values of a row that depend on the machine.
MEASURED = (
    "images_per_second",  # during training, without checkpoints and pictures
    "mfu",  # model FLOP utilization: the network's operations per second, relative to a large matrix product
    "seconds",  # total training time over all starts, without checkpoints, pictures and the first call of each start
    "data_fraction",  # fraction of the training time in which batches are prepared; free while well below 1
    "seconds_in_checkpoints",  # time in which training waits for checkpoints
    "seconds_in_samples",  # time in which training waits for sample grids and the report
    "memory_mib",  # memory in use, of the fullest device; on CPU, of the process
    "memory_peak_mib",  # peak of the memory in use so far
)


class Monitor:
    """Progress bar, history and check for non-finite losses.

    Metrics are read one call late, so that the devices compute while the host processes them.

    Args:
        experiment: objects of the experiment.
        step: step at which training starts.
        history: receives a row every `training.log_every` steps.
        checkpoints: for the last good checkpoint in the message about a non-finite loss.
        step_flops: returns the operations of one step of all devices; called in a thread during the first calls. None
            disables the MFU.
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
        interval = 0.1 if sys.stderr.isatty() else 10.0  # seconds; fewer lines in a log file
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
        """Processes the metrics of the previous call, and stores those of this call for the next time.

        Args:
            step: step after this call.
            n: number of steps of this call.
            metrics: metrics of this call, as returned by the training program.

        Raises:
            RunError: a loss or gradient of the previous call is not finite, and may not be skipped.
        """
        done, data_seconds = self._completions.time_of(metrics), self._speed.data_seconds()
        if self._step_flops and self._flops_thread is None:
            self._flops_thread = threading.Thread(target=self._count_flops, name="flops", daemon=True)
            self._flops_thread.start()
        self.catch_up()
        self._pending = (step, n, metrics, done, data_seconds)

    def _count_flops(self) -> None:
        with contextlib.suppress(ValueError):  # no MFU for a loop of unknown length
            self._flops = self._step_flops()

    def waiting_for_data(self) -> contextlib.AbstractContextManager[None]:
        """Returns a context manager that times batch preparation."""
        return self._speed.waiting_for_data()

    def saving(self) -> contextlib.AbstractContextManager[None]:
        """Processes the pending call and returns a context manager that times saving a checkpoint.

        Raises:
            RunError: a loss is not finite.
        """
        self.catch_up()
        return self._speed.away(CHECKPOINTS)

    def sampling(self) -> contextlib.AbstractContextManager[None]:
        """Processes the pending call and returns a context manager that times drawing a grid of samples.

        Raises:
            RunError: a loss is not finite.
        """
        self.catch_up()
        return self._speed.away(SAMPLES)

    def catch_up(self) -> None:
        """Waits for the pending call and processes its metrics.

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
        # Skipped steps are excluded from the means; if all steps are skipped, there are no means.
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
        """Returns the training speed since the last row; empty if the first call was the only one."""
        if not self._speed.seconds:
            return {}
        steps_per_second = self._speed.steps / self._speed.seconds
        speeds = {"images_per_second": steps_per_second * self._experiment.data.batch_size}
        if self._flops and self._peak:
            speeds["mfu"] = steps_per_second * self._flops / self._peak
        return speeds

    def _loss_bins(self, loss: np.ndarray | None, share: np.ndarray | None) -> dict[str, float]:
        """Returns the mean loss and the number of examples in each bin, from (steps, bins) of `factory.binned_loss`."""
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
        with contextlib.suppress(RunError):  # the error of a concurrent save is not the cause
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
