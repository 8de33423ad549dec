"""The training loop, from config to report.

    data -> train_steps (mapped over devices) -> state -> metrics, checkpoints, grids of samples -> evaluation, report

It reads from top to bottom in `train`. On resume the checkpoint gives the state and the position in the data; every key
comes from the seed and the step; so a run that was stopped goes on as if it had not been.
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
GRID_SEED = 0  # the same noise in every grid, so that they show the model change
# What a disk says that cannot be written: it is full, its owner's share is, or it may not be; it or the file is too large.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG, errno.EIO)


def make_step(experiment: Experiment, strategy: Strategy | None) -> Any:
    """The pure training step of an experiment, (state, batch) -> (state, metrics), for a strategy to map; None is alone."""
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
    """The operations of one training step of the global batch, counted as written; nothing is compiled or run.

    What is computed a second time to save memory (`model.remat`) does not count: these are the model's operations.

    Args:
        experiment: its objects.
        batches: of `take_batches`.
    """
    once = experiment.without_remat()
    shapes = {
        name: jax.ShapeDtypeStruct((experiment.data.batch_size, *x.shape[2:]), x.dtype) for name, x in batches.items()
    }
    return flops(make_step(once, None), abstract_state(experiment), shapes)


def initial_state(experiment: Experiment, weights: Any = None, strategy: Strategy | None = None) -> state.TrainState:
    """The state before the first step, with random weights unless some are given; laid out by a strategy if there is one."""
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
    """The shapes and dtypes of the state; compiles nothing."""
    return jax.eval_shape(functools.partial(_create, experiment), experiment.abstract_params)


def training_stream(experiment: Experiment, images: data.Source) -> Any:
    """This host's iterator over its rows of the experiment's batches, from the first on; they are those that
    `Strategy.shard` takes. Leaving `with` ends its worker processes.

    Raises:
        UserError: the hosts cannot share the batch.
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
    """The next n batches stacked along a new first axis, filled up to `size` with zeros that are not used."""
    batches = [next(iterator) for _ in range(n)]
    stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    return {k: np.concatenate([v, np.zeros((size - n, *v.shape[1:]), v.dtype)]) for k, v in stacked.items()}


@contextlib.contextmanager
def _told_of_the_data(step: int, checkpoints: Checkpoints) -> Iterator[None]:
    """Whatever the data raise becomes one line: where it was raised, for which step, and what is saved."""
    try:
        yield
    except (UserError, RunError):
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        what = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise RunError(
            f"the data after step {step} cannot be had: {what} ({Path(place.filename).name}:{place.lineno}). "
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
    """Trains an experiment to its end, or goes on with it, then evaluates it and writes the report.

    Args:
        config: of the experiment.
        path: of the run's folder.
        resume_with_changes: whether to go on with a run of another config.
        deadline: seconds from SIGTERM to the end of the process, saved or not; 0 is no deadline. See `Interruption`.
        interrupted_code: exit code of the process where SIGTERM ends it at once, as nothing would be lost.

    Returns:
        None when the run is complete, or the signal that interrupted it (it is saved, and the same call goes on).

    Raises:
        UserError: the config, the data or the folder cannot work, or another process trains in it; nothing is changed.
        RunError: the loss is not finite, the data stopped, or a file cannot be written; the last checkpoint is intact.
    """
    workdir = Workdir(path)
    with Interruption(deadline, interrupted_code, lambda: last_good(workdir.checkpoints)) as interruption:
        with interruption.nothing_to_save(_at(workdir, "it was starting")):
            experiment = Experiment.from_config(config)
            strategy = experiment.strategy
            load_guide(experiment)  # refused before anything slow
            dataset = distributed.together(lambda: _load_data(experiment, workdir))
            distributed.first_process_does(lambda: shared_statistics(experiment, dataset))
        with contextlib.ExitStack() as held, _told_of_the_disk(workdir):
            distributed.first_process_does(lambda: held.enter_context(Lock(workdir.lock, f"--workdir={path}")))
            if resume_with_changes and distributed.first_tells(lambda: _changes_a_checkpoint(experiment, workdir)):
                distributed.together(lambda: _require_fit(experiment, workdir))
            distributed.first_process_does(
                lambda: workdir.claim(experiment.config, resume_with_changes=resume_with_changes)
            )
            distributed.together(lambda: workdir.require_same(experiment.config))
            distributed.together(lambda: _check_names(experiment, dataset, workdir, warn=resume_with_changes))
            distributed.first_process_does(lambda: store(experiment, dataset, workdir))
            return _go_on(experiment, workdir, dataset, strategy, interruption)


def _load_data(experiment: Experiment, workdir: Workdir) -> data.Dataset:
    """The images, announced; what cannot be trained on or evaluated with is refused, unless the run has begun already."""
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
    """Makes sure that the classes have the names that are stored with the run; with `warn`, prints a warning if not.

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
    """Makes sure that a changed config fits the run's newest checkpoint, before the config is stored.

    Raises:
        UserError: network, optimizer or averages differ; the message names the keys that differ.
    """
    try:
        with Checkpoints(workdir.checkpoints, experiment.training.keep_checkpoints, read_only=True) as checkpoints:
            checkpoints.require_fit(abstract_state(experiment))
    except UserError as error:
        changed = "; ".join(_changes_a_checkpoint(experiment, workdir))
        raise UserError(f"--resume_with_changes: {error}; these keys differ: {changed}") from error


def _go_on(
    experiment: Experiment, workdir: Workdir, dataset: data.Dataset, strategy: Strategy, interruption: Interruption
) -> signal.Signals | None:
    """What is left to do in a folder that is ours: training, evaluation, or nothing. Returns what `train` does."""
    num_steps = experiment.training.num_steps
    with Checkpoints(workdir.checkpoints, experiment.training.keep_checkpoints) as checkpoints:
        step = checkpoints.set_aside_broken() or 0
        if step >= num_steps and distributed.first_tells(lambda: workdir.is_evaluated(step)):
            print(f"Training is complete (step {step}); nothing to do. Report: {workdir.report}")
            return None
        if step < num_steps or _lacks_grid(experiment, workdir, step):
            step = _run_to_end(experiment, workdir, dataset.train, strategy, checkpoints, interruption)
    if distributed.any_process(bool(interruption)):
        number = interruption.signal or signal.SIGTERM  # another process's
        print(f"Interrupted by {number.name} at step {step}: saved. Run the same command to go on.")
        return number
    print(f"Training is complete (step {step}). Evaluating the EMA model:")
    with interruption.nothing_to_save(_at(workdir, "it was being evaluated")):
        evaluate_run(load_run(workdir.path), dataset, strategy, report.publish)
    return None


def _at(workdir: Workdir, doing: str) -> str:
    """Where a run is that has nothing to save."""
    steps = complete_steps(workdir.checkpoints)
    return f"at step {steps[-1]}: saved ({doing})" if steps else f"at step 0: nothing to save yet ({doing})"


@contextlib.contextmanager
def _told_of_the_disk(workdir: Workdir) -> Iterator[None]:
    """What a full or failing disk raises becomes one line: which file, and what is saved."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise RunError(
            f"{error.filename or 'a file'} cannot be written: {error.strerror}. {last_good(workdir.checkpoints)}; "
            "make room, or give the right to write, and run the same command again"
        ) from error


def steps_of_next_call(experiment: Experiment, step: int) -> int:
    """How many steps the call after so many makes: a function of `step` alone, so that a resumed run makes the same."""
    training = experiment.training
    periods = (training.steps_per_call, training.log_every, training.checkpoint_every, training.sample_every)
    periods += (training.ema_snapshot_every,) if training.ema_snapshot_every else ()
    return min(training.num_steps - step, *(every - step % every for every in periods))


def _is_drawn(experiment: Experiment, step: int) -> bool:
    """Whether a grid of samples is made after so many steps."""
    return step % experiment.training.sample_every == 0 or step == experiment.training.num_steps


def _lacks_grid(experiment: Experiment, workdir: Workdir, step: int) -> bool:
    """Whether the grid of samples after so many steps is still to be drawn; data without pictures have none."""
    return experiment.medium.has_pixels and not distributed.first_tells(workdir.grid(step).exists)


def _run_to_end(
    experiment: Experiment,
    workdir: Workdir,
    images: data.Source,
    strategy: Strategy,
    checkpoints: Checkpoints,
    interruption: Interruption,
) -> int:
    """The loop. Returns the step at which it ended, which is saved.

    Until the first call has returned (it compiles) nothing is lost if the process ends at once. A run that is complete but
    for its last grid gets that.
    """
    training = experiment.training
    at_once = contextlib.ExitStack()
    at_once.enter_context(interruption.nothing_to_save(_at(workdir, "it was starting")))
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
        with _told_of_the_data(step, checkpoints):
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
            draw()  # killed before it was drawn
        while step < training.num_steps and not distributed.any_process(bool(interruption)):
            n = steps_of_next_call(experiment, step)
            with monitor.waiting_for_data():
                taken = distributed.together(lambda n=n: take(n))
                batches = strategy.shard(taken, axis=1)
            current, metrics = train_steps(current, batches, np.int32(n))
            at_once.close()
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
    """state -> what its averaged weights do, (h, w, 3) uint8 or grey: samples, or the objective's picture; None for none.

    All processes call it; the picture of an objective without samples is of the first process alone.
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

    def own(current):
        variables = strategy.to_host(current.emas[place])
        if not distributed.is_first():
            return None
        return objective.picture(objective.network_variables(variables), shown.images, shown.labels)

    return own


def _keep_averages(
    experiment: Experiment,
    snapshots: posthoc.Snapshots,
    widths: dict[int, float],
    step: int,
    strategy: Strategy,
    current: state.TrainState,
) -> None:
    """Writes the power averages, of these `widths` by place, on the first process; all bring what they have of them."""
    for place, std in widths.items():
        average = strategy.to_host(current.emas[place])
        if distributed.is_first():
            snapshots.save(
                step, std, average, updates=int(current.updates), dtype=experiment.training.ema_snapshot_dtype
            )
