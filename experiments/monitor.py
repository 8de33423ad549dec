"""Watching a run while it trains: its metrics become progress, history, and an error when a loss is not finite."""

import sys
import time
from typing import Any, Self

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from experiments import build
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
            total=config.training.num_steps, initial=step, unit="step", desc="compiling", mininterval=interval
        )
        self._since = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def watch(self, step: int, n: int, metrics: dict[str, jax.Array]) -> None:
        """Looks at the call before, and keeps this one (n steps up to `step`) for the next time.

        Raises:
            RunError: a loss or gradient of the call before is not finite, and may not be skipped.
        """
        self.catch_up()
        self._pending = (step, n, metrics)

    def catch_up(self) -> None:
        """Looks at the call that is pending; waits for it.

        Raises:
            RunError: a loss or gradient is not finite, and may not be skipped.
        """
        if self._pending is None:
            return
        step, n, metrics = self._pending
        self._pending = None
        values = {name: np.asarray(value)[:n] for name, value in metrics.items()}
        finite = np.isfinite(values["loss"]) & np.isfinite(values["grad_norm"])
        skipped = values.pop("skipped", None)
        bad = np.flatnonzero(~finite if skipped is None else skipped > self._config.training.max_skips)
        if bad.size:
            what = "gradient" if np.isfinite(values["loss"][bad[0]]) else "loss"
            self._stop(step - n + 1 + int(bad[0]), what, skipped is not None)
        now = time.perf_counter()
        speed, self._since = n * self._config.data.batch_size / (now - self._since), now
        # A step that was skipped has no part in the means; there are none where all were.
        means = {name: float(value[finite].mean()) for name, value in values.items() if finite.any()}
        means |= {} if skipped is None else {"skipped": int(skipped[-1])}
        self._bar.set_description_str("training", refresh=False)
        loss = f"loss {means['loss']:.4f}" if "loss" in means else "all steps skipped"
        self._bar.set_postfix_str(f"{loss}, {speed:,.0f} img/s", refresh=False)
        self._bar.update(n)
        if step % self._config.training.log_every == 0 or step == self._config.training.num_steps:
            rate = float(self._learning_rate(step - means.get("skipped", 0)))
            self._history.append(step, means | {"learning_rate": rate, "images_per_second": speed})

    def _stop(self, step: int, what: str, skipping: bool) -> None:
        batch, limit = self._config.data.batch_size, self._config.training.max_skips
        last = self._checkpoints.latest_step()
        kept = f"the last good checkpoint is step {last}" if last is not None else "there is no checkpoint yet"
        count = f", which would be skip {limit + 1} of the run (training.max_skips={limit})" if skipping else ""
        raise RunError(
            f"the {what} is not finite at step {step} (its batch: examples {(step - 1) * batch} to {step * batch - 1} of "
            f"the stream){count}; {kept} in {self._checkpoints.folder}. Try a smaller optim.lr or optim.grad_clip"
        )
