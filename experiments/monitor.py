"""Watching a run while it trains: its metrics become progress, history, and an error when a loss is not finite."""

import sys
import time
from typing import Any, Self

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from experiments import build, distributed
from experiments.checkpoint import Checkpoints
from experiments.errors import RunError
from experiments.history import History


class Monitor:
    """Reads the metrics one call late, so that the device computes while the host looks: progress, history, finiteness.

    Args:
        config: of the experiment.
        step: where training starts.
        history: gets a row each `training.log_every` steps: the means over the steps of that call.
        checkpoints: to name the last good one when the loss is not finite.
    """

    def __init__(self, config: ConfigDict, step: int, history: History, checkpoints: Checkpoints):
        self._config = config
        self._history = history
        self._checkpoints = checkpoints
        self._pending: tuple[int, int, Any] | None = None
        self._learning_rate = build.learning_rate(config)
        interval = 0.1 if sys.stderr.isatty() else 10.0  # seconds; a log file wants few lines
        self._bar = tqdm(
            total=config.training.num_steps, initial=step, unit="step", desc="compiling", mininterval=interval,
            disable=not distributed.is_first(),
        )  # fmt: skip
        self._since = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def watch(self, step: int, n: int, metrics: dict[str, jax.Array]) -> None:
        """Looks at the call before, and keeps this one (n steps up to `step`) for the next time.

        Raises:
            RunError: a loss of the call before is not finite.
        """
        self.catch_up()
        self._pending = (step, n, metrics)

    def catch_up(self) -> None:
        """Looks at the call that is pending; waits for it.

        Raises:
            RunError: a loss is not finite.
        """
        if self._pending is None:
            return
        step, n, metrics = self._pending
        self._pending = None
        values = {name: np.asarray(value)[:n] for name, value in metrics.items()}
        bad = np.flatnonzero(~np.isfinite(values["loss"]))
        if bad.size:
            self._stop(step - n + 1 + int(bad[0]))
        now = time.perf_counter()
        speed, self._since = n * self._config.data.batch_size / (now - self._since), now
        means = {name: float(value.mean()) for name, value in values.items()}
        self._bar.set_description_str("training", refresh=False)
        self._bar.set_postfix_str(f"loss {means['loss']:.4f}, {speed:,.0f} img/s", refresh=False)
        self._bar.update(n)
        if step % self._config.training.log_every == 0 or step == self._config.training.num_steps:
            rate = float(self._learning_rate(step))
            self._history.append(step, means | {"learning_rate": rate, "images_per_second": speed})

    def _stop(self, step: int) -> None:
        batch = self._config.data.batch_size
        last = self._checkpoints.latest_step()
        kept = f"the last good checkpoint is step {last}" if last is not None else "there is no checkpoint yet"
        raise RunError(
            f"the loss is not finite at step {step} (its batch: examples {(step - 1) * batch} to {step * batch - 1} of "
            f"the stream); {kept} in {self._checkpoints.folder}. Try a smaller optim.lr or optim.grad_clip"
        )
