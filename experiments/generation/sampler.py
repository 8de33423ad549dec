"""Drawing many samples: sample i depends on the seed and i alone, its key is fold_in(key(seed), i)."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sde_lib
from experiments.devices.drawing import Drawing
from experiments.devices.parallel import Strategy
from experiments.errors import RunError
from experiments.factory.experiment import Experiment
from experiments.generation import guidance
from experiments.generation.guidance import Guide, guided, with_guide


class Sampler:
    """Draws from networks of one experiment. Compiles at the first call; weights may differ from call to call.

    Args:
        experiment: its objects; the settings of sampling say how to draw.
        strategy: the mapping over devices.
        max_samples: no more will be asked for at once, so that the batch need not be larger.
        labels: the class of each sample by its number, (N,); by default `sampling.label`, or each class in turn.
        guide: the run of a weaker model or a classifier that guides; None for no other model.
    """

    def __init__(
        self,
        experiment: Experiment,
        strategy: Strategy,
        max_samples: int | None = None,
        labels: np.ndarray | None = None,
        guide: Guide | None = None,
    ):
        self._experiment, self._labels, self._guide = experiment, labels, guide
        self._drawing = Drawing(self._draw_on_device, strategy, experiment.sampling.batch_size, max_samples)

    @property
    def nfe(self) -> int | None:
        """Evaluations of networks for each sample, guidance included; None where the sampler chooses them as it goes."""
        return self._experiment.network_evaluations

    def denoiser(self, variables: Any, labels: jax.Array) -> sde_lib.Denoiser:
        """What is sampled from: the network, conditioned on labels (B,) if it is a class-conditional one, and guided.

        Args:
            variables: of the model; with a guide, those of the model and of the guide.
            labels: the classes.
        """
        return guided(self._experiment, variables, labels, self._guide)

    def labels(self, indices: np.ndarray) -> np.ndarray:
        """The classes of the samples with these numbers, int32 (B,)."""
        if self._labels is not None:
            return self._labels[indices].astype(np.int32)
        return np.asarray(guidance.labels(self._experiment, indices, self._guide), np.int32)

    def _draw_on_device(self, numbers_and_labels, key_data, variables):
        indices, labels = numbers_and_labels
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.wrap_key_data(key_data), indices)
        denoiser = self.denoiser(variables, labels)
        grid = self._experiment.times(denoiser.sde)
        return sde_lib.sample(keys, denoiser, self._experiment.sampler, grid, self._experiment.medium.event_shape)

    def __call__(self, variables: Any, num_samples: int, seed: int, *, progress: bool = False) -> np.ndarray:
        """Samples 0 to num_samples - 1 as raw data (N, *event) of the medium, in every process.

        Raises:
            RunError: a sample is not finite.
        """
        drawn = self.blocks(variables, np.arange(num_samples), seed, progress=progress)
        return np.concatenate([images for _, images in drawn])

    def blocks(
        self, variables: Any, indices: np.ndarray, seed: int, *, progress: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Draws the samples with these numbers call by call: (their numbers, the images of one call), in every process.

        The devices draw the next call while the caller works on this one.

        Raises:
            RunError: a sample is not finite.
        """
        key_data = np.asarray(jax.random.key_data(jax.random.key(seed)))

        def take(numbers):
            return numbers.astype(np.int32), self.labels(numbers)

        drawn = self._drawing(indices, take, key_data, with_guide(variables, self._guide), progress=progress)
        for asked, images in drawn:
            self._require_finite(images, asked)
            yield asked, self._experiment.medium.inverse(images)

    def _require_finite(self, drawn: np.ndarray, indices: np.ndarray) -> None:
        bad = np.flatnonzero(~np.isfinite(drawn).reshape(len(drawn), -1).all(1))
        if bad.size:
            method, steps = self._experiment.sampler_and_steps
            raise RunError(
                f"sample {indices[bad[0]]} is not finite (of {len(drawn)} from number {indices[0]} on, {bad.size} are not): "
                f"the sampling method {method} with {steps} steps is unstable here; try more steps or another method"
            )

    def trajectory(self, variables: Any, num_samples: int, seed: int) -> np.ndarray:
        """What the states of samples 0 to n - 1 say of the data at every time, and last the samples: (steps + 1, n, *event).

        Each is the noisy data y = `sde.to_data_scale(x, t)`, divided by its standard deviation for data of unit variance:
        noise is as wide as data.
        """
        indices = np.arange(num_samples)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), indices)
        denoiser = self.denoiser(with_guide(variables, self._guide), jnp.asarray(self.labels(indices)))
        sde, times = denoiser.sde, self._experiment.times(denoiser.sde)
        method = self._experiment.sampler
        states = sde_lib.sample(
            keys, denoiser, method, times, self._experiment.medium.event_shape, return_trajectory=True
        )

        @jax.jit
        def view(x, t):
            return sde.to_data_scale(x, t) / jnp.sqrt(1 + sde.noise_to_signal(t) ** 2)

        return np.concatenate([jax.vmap(view)(states[:-1], times[:-1]), sde.clean_data(states[-1])[None]])
