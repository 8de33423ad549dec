"""The training loop, from config to report.

    data -> train_steps (mapped over devices) -> state -> metrics, checkpoints, grids of samples -> evaluation, report

It reads from top to bottom in `train`. On resume the checkpoint gives the state and the position in the data; every key
comes from the seed and the step; so a run that was stopped goes on as if it had not been.
"""

import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import build, check, data, distributed, pictures, state
from experiments.checkpoint import Checkpoints
from experiments.errors import UserError
from experiments.evaluate import evaluate_run
from experiments.history import History
from experiments.interruption import Interruption
from experiments.monitor import Monitor
from experiments.parallel import Strategy
from experiments.runs import load_run
from experiments.sampler import Sampler
from experiments.workdir import Workdir

GRID_SIZE = 64  # samples in a grid
GRID_SEED = 0  # the same noise in every grid, so that they show the model change


def load_data(config: ConfigDict) -> data.Dataset:
    """The experiment's images, checked against the model.

    Raises:
        UserError: something is wrong with the source, or the model has another number of classes.
    """
    dataset = data.load(
        config.data.source,
        image_size=config.data.image_size,
        num_channels=config.data.num_channels,
        test_fraction=config.data.test_fraction,
    )
    if config.model.num_classes and config.model.num_classes != dataset.num_classes:
        raise UserError(
            f"model.num_classes={config.model.num_classes}: data.source={config.data.source!r} has "
            f"{dataset.num_classes or 'no'} classes; 0 trains an unconditional model"
        )
    return dataset


def make_step(config: ConfigDict, strategy: Strategy | None) -> Any:
    """The pure training step of an experiment, (state, batch) -> (state, metrics), for a strategy to map; None is alone."""
    loss = build.loss(config)

    def example_losses(draws, params, batch):
        x0 = data.DataTransform().forward(batch["image"])
        return loss(draws, params, x0, build.condition(config, batch.get("label")))

    return state.make_train_step(
        example_losses,
        build.optimizer(config),
        ema=build.ema(config),
        seed=config.training.seed,
        project=build.projection(config),
        axis_name=strategy and strategy.axis_name,
        mean_gradient=strategy and strategy.mean_gradient,
    )


def initial_state(config: ConfigDict, weights: Any = None, strategy: Strategy | None = None) -> state.TrainState:
    """The state before the first step, with random weights unless some are given; laid out by a strategy if there is one."""
    project, optimizer = build.projection(config), build.optimizer(config)
    if strategy is None:
        weights = build.init_variables(config) if weights is None else weights
        return state.create(jax.jit(project)(weights), optimizer)
    weights = build.init_variables(config, strategy) if weights is None else strategy.place(weights)
    return strategy.create(lambda weights: state.create(project(weights), optimizer), weights)


def abstract_state(config: ConfigDict) -> state.TrainState:
    """The shapes and dtypes of the state; compiles nothing."""
    optimizer = build.optimizer(config)
    return jax.eval_shape(lambda params: state.create(params, optimizer), build.abstract_variables(config))


def take_batches(iterator: Any, n: int, size: int, rows: slice = slice(None)) -> dict[str, np.ndarray]:
    """The `rows` of the next n batches stacked along a new first axis, filled up to `size` with zeros that are not used."""
    batches = [{name: value[rows] for name, value in next(iterator).items()} for _ in range(n)]
    stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    return {k: np.concatenate([v, np.zeros((size - n, *v.shape[1:]), v.dtype)]) for k, v in stacked.items()}


def train(config: ConfigDict, path: Path, *, resume_with_changes: bool = False) -> signal.Signals | None:
    """Trains an experiment to its end, or goes on with it, then evaluates it and writes the report.

    Returns:
        None when the run is complete, or the signal that interrupted it (it is saved, and the same call goes on).

    Raises:
        UserError: the config, the data or the folder cannot work; nothing is changed.
        RunError: the loss is not finite, or a checkpoint cannot be written; the last checkpoint is intact.
    """
    check.check(config)
    strategy = build.parallel(config)
    dataset = distributed.together(lambda: load_data(config))
    workdir = Workdir(path)
    distributed.first_process_does(lambda: workdir.claim(config, resume_with_changes=resume_with_changes))
    distributed.together(lambda: workdir.require_same(config))
    num_steps = config.training.num_steps
    with Interruption() as interruption:
        with Checkpoints(workdir.checkpoints, config.training.keep_checkpoints) as checkpoints:
            before = checkpoints.latest_step() or 0
            if before >= num_steps and workdir.report.exists():
                print(f"Training is complete (step {before}); nothing to do. Report: {workdir.report}")
                return None
            step = before
            if before < num_steps:
                step = _run_to_end(config, workdir, dataset.train, strategy, checkpoints, interruption)
        if step < num_steps:
            number = interruption.signal or signal.SIGTERM  # another process's
            print(f"Interrupted by {number.name} at step {step}: saved. Run the same command to go on.")
            return number
    print(f"Training is complete (step {step}). Evaluating the EMA model:")
    evaluate_run(load_run(path), dataset, strategy)
    return None


def _steps_to_boundary(config: ConfigDict, step: int) -> int:
    """How many steps the next call makes: a function of the step alone, so that a resumed run makes the same calls."""
    training = config.training
    periods = (training.steps_per_call, training.log_every, training.checkpoint_every, training.sample_every)
    return min(training.num_steps - step, *(every - step % every for every in periods))


def _run_to_end(
    config: ConfigDict,
    workdir: Workdir,
    images: data.Images,
    strategy: Strategy,
    checkpoints: Checkpoints,
    interruption: Interruption,
) -> int:
    """The loop. Returns the step at which it ended, which is saved."""
    training = config.training
    iterator = data.training_batches(
        images, batch_size=config.data.batch_size, seed=training.seed, flip=config.data.random_flip
    )
    step = checkpoints.latest_step() or 0
    if checkpoints.latest_step() is None:
        current = initial_state(config, None, strategy)
    elif checkpoints.holds_weights_alone():
        weights = checkpoints.restore_ema(strategy.layout(build.abstract_variables(config)))
        current = initial_state(config, weights, strategy)
    else:
        current = checkpoints.restore(strategy.layout(abstract_state(config)), iterator)
    train_steps = strategy.map_training(state.make_train_steps(make_step(config, strategy), training.steps_per_call))
    rows = strategy.rows(config.data.batch_size)
    sampler = Sampler(config, strategy, GRID_SIZE)
    with (
        History(workdir, step, write=distributed.is_first()) as history,
        Monitor(config, step, history, checkpoints) as monitor,
    ):
        while step < training.num_steps and not distributed.any_process(bool(interruption)):
            n = _steps_to_boundary(config, step)
            batches = strategy.shard(take_batches(iterator, n, training.steps_per_call, rows), axis=1)
            current, metrics = train_steps(current, batches, np.int32(n))
            step += n
            monitor.watch(step, n, metrics)
            if step % training.checkpoint_every == 0 or step == training.num_steps:
                monitor.catch_up()
                checkpoints.save(strategy.whole(current), iterator)
            if step % training.sample_every == 0 or step == training.num_steps:
                monitor.catch_up()
                images = sampler(current.ema, GRID_SIZE, GRID_SEED)
                if distributed.is_first():
                    path = workdir.samples / f"step_{step:08d}.png"
                    pictures.save(path, pictures.grid(images), config.data.image_size)
        monitor.catch_up()
        if step < training.num_steps:
            checkpoints.save(strategy.whole(current), iterator)
    return step
