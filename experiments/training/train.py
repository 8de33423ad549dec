"""The training loop, from config to report.

    data -> train_steps (mapped over devices) -> state -> metrics, checkpoints, grids of samples -> evaluation, report

Read `train` first. On resume, the checkpoint restores the state and the position in the data, and all PRNG keys are
functions of the seed and the step, so a resumed run is identical to an uninterrupted one.
"""

import contextlib
import errno
import functools
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import data
from experiments.config import files as configs
from experiments.devices import distributed
from experiments.devices.parallel import Strategy
from experiments.errors import RunError, UserError
from experiments.evaluation.evaluate import evaluate_run
from experiments.evaluation.reference import shared_statistics
from experiments.factory.experiment import Experiment
from experiments.generation.sampler import Sampler
from experiments.learning import players, posthoc, state
from experiments.loading.dataset import announce, check_names, check_training, load_data, store
from experiments.loading.runs import load_guide, load_run
from experiments.logs.history import History
from experiments.reports import report
from experiments.runs.checkpoint import Checkpoints, complete_steps, last_good
from experiments.runs.interruption import Interruption
from experiments.runs.lock import Lock
from experiments.runs.workdir import Workdir
from experiments.training.flops import flops
from experiments.training.monitor import Monitor

GRID_SIZE = 64  # samples in a grid
GRID_SEED = 0  # all grids have the same noise, so that they differ only by the model
# Write errors of a disk: disk or quota is full, no permission, read-only, file too large, input/output error.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG, errno.EIO)


def make_step(experiment: Experiment, strategy: Strategy | None) -> Any:
    """Returns the pure training step of an experiment, (state, batch) -> (state, metrics).

    Args:
        experiment: objects of the experiment.
        strategy: strategy that will map the step over devices; None for a single device.
    """
    objective, prepare = experiment.objective, experiment.preparation
    trained = objective.players

    def example_losses(draws, params, batch, frozen):
        return objective.loss(draws, params, prepare(draws.keys, batch), frozen)

    return state.make_train_step(
        example_losses,
        players.optimizer(trained),
        emas=players.averages(trained),
        seed=experiment.training.seed,
        num_steps=experiment.training.num_steps,
        project=players.project(trained),
        accumulate=experiment.training.accumulate,
        has_aux=True,
        axis_name=strategy and strategy.axis_name,
        mean_gradient=strategy and strategy.mean_gradient,
    )


def step_flops(experiment: Experiment, batches: dict[str, np.ndarray]) -> int:
    """Returns the operations of one training step of the global batch; traces the step only. See `flops`.

    Recomputation that saves memory (`model.remat`) is not counted.

    Args:
        experiment: objects of the experiment.
        batches: result of `take_batches`.
    """
    once = experiment.without_remat()
    shapes = {
        name: jax.ShapeDtypeStruct((experiment.data.batch_size, *x.shape[2:]), x.dtype) for name, x in batches.items()
    }
    return flops(make_step(once, None), abstract_state(experiment), shapes)


def initial_state(experiment: Experiment, weights: Any = None, strategy: Strategy | None = None) -> state.TrainState:
    """Returns the state before the first step.

    Args:
        experiment: objects of the experiment.
        weights: initial weights; random weights by default.
        strategy: distributes the state over devices, if given.
    """
    project, frozen = players.project(experiment.objective.players), experiment.objective.frozen()
    if strategy is None:
        weights = experiment.init_params() if weights is None else weights
        return _create(experiment, jax.jit(project)(weights), frozen)
    weights = experiment.init_params(strategy) if weights is None else strategy.place(weights)
    create = strategy.create(lambda weights: _create(experiment, project(weights)), weights)
    return create if frozen is None else create.replace(frozen=strategy.place(frozen))


def _create(experiment: Experiment, params: Any, frozen: Any = None) -> state.TrainState:
    trained = experiment.objective.players
    return state.create(
        params,
        players.optimizer(trained),
        emas=players.averaged(trained),
        skip_nonfinite=experiment.skips_nonfinite,
        frozen=frozen,
    )


def abstract_state(experiment: Experiment) -> state.TrainState:
    """Returns the shapes and dtypes of the state; compiles nothing."""
    return jax.eval_shape(functools.partial(_create, experiment), experiment.abstract_params)


def training_stream(experiment: Experiment, images: data.Source) -> Any:
    """Returns this host's iterator over its rows of the training batches, from the first batch, for `Strategy.shard`.

    The iterator is a context manager, which ends its worker processes on exit.

    Raises:
        UserError: the number of hosts does not divide the batch.
    """
    return data.training_batches(
        images,
        batch_size=experiment.data.batch_size,
        seed=experiment.training.seed,
        flip=experiment.data.random_flip and experiment.medium.has_pixels,
        host=jax.process_index(),
        hosts=jax.process_count(),
        workers=experiment.data.workers,
        worker_timeout=experiment.data.worker_timeout,
    )


def take_batches(iterator: Any, n: int, size: int) -> dict[str, np.ndarray]:
    """Stacks the next n batches along a new first axis, padded with zeros to the length `size`."""
    batches = [next(iterator) for _ in range(n)]
    stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    return {k: np.concatenate([v, np.zeros((size - n, *v.shape[1:]), v.dtype)]) for k, v in stacked.items()}


@contextlib.contextmanager
def _data_errors(step: int, checkpoints: Checkpoints) -> Iterator[None]:
    """Context manager that converts exceptions of the data pipeline to a one-line `RunError`.

    The message states the step, the line of code and the last checkpoint.
    """
    try:
        yield
    except (UserError, RunError):
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        what = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise RunError(
            f"the data after step {step} cannot be read: {what} ({Path(place.filename).name}:{place.lineno}). "
            f"{last_good(checkpoints.folder)} in {checkpoints.folder}; the same command goes on from there"
        ) from error


def train(
    config: ConfigDict,
    path: Path,
    *,
    resume_with_changes: bool = False,
    deadline: float = 0.0,
    interrupted_code: int = 0,
) -> signal.Signals | None:
    """Trains an experiment to its end, or resumes it, then evaluates it and writes the report.

    Args:
        config: config of the experiment.
        path: folder of the run.
        resume_with_changes: whether to resume a run that was started with another config.
        deadline: seconds from SIGTERM to the end of the process, even if the run is not saved; 0 disables the deadline.
            See `Interruption`.
        interrupted_code: exit code if SIGTERM ends the process at once because there is no unsaved progress.

    Returns:
        None if the run is complete, or the signal that interrupted it; then the run is saved, and the same call resumes
        it.

    Raises:
        UserError: the config, the data or the folder is invalid, or another process trains in the folder; nothing is
            changed.
        RunError: the loss is not finite, the data cannot be read, or a file cannot be written; the last checkpoint is
            intact.
    """
    workdir = Workdir(path)
    with Interruption(deadline, interrupted_code, lambda: last_good(workdir.checkpoints)) as interruption:
        with interruption.nothing_to_save(_at(workdir, "it was starting")):
            experiment = Experiment.from_config(config)
            strategy = experiment.strategy
            load_guide(experiment)  # checks the guide before slow operations
            dataset = distributed.together(lambda: _load_data(experiment, workdir))
            distributed.first_process_does(lambda: shared_statistics(experiment, dataset))
        with contextlib.ExitStack() as held, _disk_errors(workdir):
            distributed.first_process_does(lambda: held.enter_context(Lock(workdir.lock, f"--workdir={path}")))
            if resume_with_changes and distributed.first_tells(lambda: _changes_a_checkpoint(experiment, workdir)):
                distributed.together(lambda: _require_fit(experiment, workdir))
            distributed.first_process_does(
                lambda: workdir.claim(experiment.config, resume_with_changes=resume_with_changes)
            )
            distributed.together(lambda: workdir.require_same(experiment.config))
            distributed.together(lambda: _check_names(experiment, dataset, workdir, warn=resume_with_changes))
            distributed.first_process_does(lambda: store(experiment, dataset, workdir))
            return _continue_run(experiment, workdir, dataset, strategy, interruption)


def _load_data(experiment: Experiment, workdir: Workdir) -> data.Dataset:
    """Loads and announces the data set.

    Data that cannot be used for training or evaluation raise a UserError; if the run has a checkpoint, only a warning
    is printed.
    """
    dataset = load_data(experiment, workdir)
    announce(experiment, dataset)
    try:
        check_training(experiment, dataset)
    except UserError as error:
        if not workdir.has_checkpoint():
            raise
        print(f"warning: {error}", flush=True)
    return dataset


def _check_names(experiment: Experiment, dataset: data.Dataset, workdir: Workdir, *, warn: bool) -> None:
    """Checks that the class names are those stored with the run; with `warn`, prints a warning instead of raising.

    Raises:
        UserError: as `check_names`, without `warn`.
    """
    try:
        check_names(experiment, dataset, workdir)
    except UserError as error:
        if not warn:
            raise
        print(f"warning: {error}; the new names replace the stored ones", flush=True)


def _changes_a_checkpoint(experiment: Experiment, workdir: Workdir) -> list[str]:
    """Returns the keys that differ from the run's config, with their values, if the run has a checkpoint."""
    if not (workdir.config.is_file() and workdir.has_checkpoint()):
        return []
    return configs.differences(workdir.read_config(), experiment.config)


def _require_fit(experiment: Experiment, workdir: Workdir) -> None:
    """Checks that a changed config fits the run's newest checkpoint, before the config is stored.

    Raises:
        UserError: network, optimizer or averages differ; the message names the keys that differ.
    """
    try:
        with Checkpoints(workdir.checkpoints, experiment.training.keep_checkpoints, read_only=True) as checkpoints:
            checkpoints.require_fit(abstract_state(experiment))
    except UserError as error:
        changed = "; ".join(_changes_a_checkpoint(experiment, workdir))
        raise UserError(f"--resume_with_changes: {error}; these keys differ: {changed}") from error


def _continue_run(
    experiment: Experiment, workdir: Workdir, dataset: data.Dataset, strategy: Strategy, interruption: Interruption
) -> signal.Signals | None:
    """Does the remaining work of a run in a claimed folder: training and evaluation. Returns the result of `train`."""
    num_steps = experiment.training.num_steps
    with Checkpoints(workdir.checkpoints, experiment.training.keep_checkpoints) as checkpoints:
        step = checkpoints.set_aside_broken() or 0
        if step >= num_steps and distributed.first_tells(lambda: workdir.is_evaluated(step)):
            print(f"Training is complete (step {step}); nothing to do. Report: {workdir.report}")
            return None
        if step < num_steps or _lacks_grid(experiment, workdir, step):
            step = _run_to_end(experiment, workdir, dataset.train, strategy, checkpoints, interruption)
    if distributed.any_process(bool(interruption)):
        number = interruption.signal or signal.SIGTERM  # without a signal here, another process was interrupted
        print(f"Interrupted by {number.name} at step {step}: saved. Run the same command to go on.")
        return number
    print(f"Training is complete (step {step}). Evaluating the EMA model:")
    with interruption.nothing_to_save(_at(workdir, "it was being evaluated")):
        evaluate_run(load_run(workdir.path), dataset, strategy, report.publish)
    return None


def _at(workdir: Workdir, doing: str) -> str:
    """Returns the position of a run without unsaved progress, for `Interruption.nothing_to_save`."""
    steps = complete_steps(workdir.checkpoints)
    return f"at step {steps[-1]}: saved ({doing})" if steps else f"at step 0: nothing to save yet ({doing})"


@contextlib.contextmanager
def _disk_errors(workdir: Workdir) -> Iterator[None]:
    """Context manager that converts write errors of a full or failing disk to a one-line `RunError`.

    The message states the file and the last checkpoint.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise RunError(
            f"{error.filename or 'a file'} cannot be written: {error.strerror}. {last_good(workdir.checkpoints)}; "
            "make room, or grant write permission, and run the same command again"
        ) from error


def steps_of_next_call(experiment: Experiment, step: int) -> int:
    """Returns the number of steps of the next call after `step` steps.

    It depends only on `step` and the config, so that a resumed run makes the same calls.
    """
    training = experiment.training
    periods = (training.steps_per_call, training.log_every, training.checkpoint_every, training.sample_every)
    periods += (training.ema_snapshot_every,) if training.ema_snapshot_every else ()
    return min(training.num_steps - step, *(every - step % every for every in periods))


def _is_drawn(experiment: Experiment, step: int) -> bool:
    """Returns True if a grid of samples is drawn after `step` steps."""
    return step % experiment.training.sample_every == 0 or step == experiment.training.num_steps


def _lacks_grid(experiment: Experiment, workdir: Workdir, step: int) -> bool:
    """Returns True if the grid of samples after `step` steps is missing; data without pictures have no grids."""
    return experiment.medium.has_pixels and not distributed.first_tells(workdir.grid(step).exists)


def _run_to_end(
    experiment: Experiment,
    workdir: Workdir,
    images: data.Source,
    strategy: Strategy,
    checkpoints: Checkpoints,
    interruption: Interruption,
) -> int:
    """Runs the training loop and returns its last step, which is saved.

    Until the first call has returned (it compiles), there is no unsaved progress, so SIGTERM ends the process at once.
    If only the last grid of samples is missing, it is drawn.
    """
    training = experiment.training
    startup = contextlib.ExitStack()
    startup.enter_context(interruption.nothing_to_save(_at(workdir, "it was starting")))
    iterator = training_stream(experiment, images)
    if checkpoints.latest_step() is None:
        current = initial_state(experiment, None, strategy)
    elif checkpoints.holds_weights_alone():
        weights = checkpoints.restore_ema(strategy.layout(experiment.abstract_params))[1]
        current = initial_state(experiment, weights, strategy)
    else:
        current = checkpoints.restore(strategy.layout(abstract_state(experiment)), iterator)
        if (frozen := experiment.objective.frozen()) is not None:
            current = current.replace(frozen=strategy.place(frozen))
    step = int(current.step)
    train_steps = strategy.map_training(
        state.make_train_steps(make_step(experiment, strategy), training.steps_per_call)
    )
    picture = _picture(experiment, strategy, images)
    snapshots, widths = posthoc.Snapshots(workdir.ema_snapshots), experiment.power_emas
    taken = None
    count = (lambda: step_flops(experiment, taken)) if training.measure_peak else None

    def take(n: int) -> dict[str, np.ndarray]:
        with _data_errors(step, checkpoints):
            return take_batches(iterator, n, training.steps_per_call)

    with (
        iterator,
        History(workdir, experiment.config, step, write=distributed.is_first()) as history,
        Monitor(experiment, step, history, checkpoints, count) as monitor,
    ):

        def draw() -> None:
            with monitor.sampling():
                grid = picture(current)
                if not distributed.is_first():
                    return
                if grid is not None:
                    experiment.medium.save_picture(workdir.grid(step), grid)
                    history.picture(step, "samples", grid)
                report.write(workdir)

        if step and _is_drawn(experiment, step) and _lacks_grid(experiment, workdir, step):
            draw()  # the process was killed before it drew the grid
        while step < training.num_steps and not distributed.any_process(bool(interruption)):
            n = steps_of_next_call(experiment, step)
            with monitor.waiting_for_data():
                taken = distributed.together(lambda n=n: take(n))
                batches = strategy.shard(taken, axis=1)
            current, metrics = train_steps(current, batches, np.int32(n))
            startup.close()
            step += n
            monitor.watch(step, n, metrics)
            if step % training.checkpoint_every == 0 or step == training.num_steps:
                with monitor.saving():
                    checkpoints.save(strategy.whole(current), iterator)
            every = training.ema_snapshot_every
            if every and (step % every == 0 or step == training.num_steps):
                with monitor.saving():
                    _keep_averages(experiment, snapshots, widths, step, strategy, current)
            if _is_drawn(experiment, step):
                draw()
        monitor.catch_up()
        if step < training.num_steps:  # interrupted
            checkpoints.save(strategy.whole(current), iterator)
    return step


def _picture(experiment: Experiment, strategy: Strategy, images: data.Source) -> Callable[[Any], np.ndarray | None]:
    """Returns a function state -> picture uint8 (h, w, 1 or 3) of the averaged weights, or None without a picture.

    The picture shows samples or, for an objective without samples, is the objective's own picture. All processes must
    call the function; the picture of an objective without samples is returned only in the first process.
    """
    objective, place = experiment.objective, experiment.sampling_ema
    if not experiment.medium.has_pixels:
        return lambda current: None
    if objective.samples:
        sampler = Sampler(experiment, strategy, GRID_SIZE, guide=load_guide(experiment))

        def samples(current):
            variables = objective.network_variables(current.emas[place])
            return experiment.medium.picture(sampler(variables, GRID_SIZE, GRID_SEED))

        return samples
    shown = images.take(np.arange(min(len(images), GRID_SIZE)))

    def objective_picture(current):
        variables = strategy.to_host(current.emas[place])
        if not distributed.is_first():
            return None
        return objective.picture(objective.network_variables(variables), shown.images, shown.labels)

    return objective_picture


def _keep_averages(
    experiment: Experiment,
    snapshots: posthoc.Snapshots,
    widths: dict[int, float],
    step: int,
    strategy: Strategy,
    current: state.TrainState,
) -> None:
    """Gathers the power averages, with `widths` by index of the average, and writes snapshots in the first process."""
    for place, std in widths.items():
        average = strategy.to_host(current.emas[place])
        if distributed.is_first():
            snapshots.save(
                step, std, average, updates=int(current.updates), dtype=experiment.training.ema_snapshot_dtype
            )
