"""Several answers for each input, drawn in batches of one size over all devices.

Answer k of input i depends on the seed, i and k alone: its key is fold_in(fold_in(key(seed), i), k). So neither the batch,
nor the number of inputs, answers or devices changes the random numbers of an answer.

The batch size changes floating-point rounding: programs of other batch sizes sum in another order, in the network above
all. Over the steps of a run the rounding error of float32 grows to some 1e-4 of the range [-1, 1]. Methods that invert the
measurement multiply the error by up to 1 / s at each step, for singular values s of A that the noise does not hide: with
noise of 0 and motion blur of 12 x 12 pixels (s down to 1e-3), answers of batches of 1 and 8 by `ddnm`, `diffpir` and
`pigdm` differed by up to 1e-3, 1e-2 and 5e-1 in single pixels, and fitted y equally well. Noise bounds the factor.
"""

import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

import sde_lib
from experiments.devices.drawing import Drawing
from experiments.devices.parallel import Strategy
from experiments.errors import RunError
from experiments.factory.experiment import Experiment
from experiments.generation.guidance import Guide, guided, labels

MEASUREMENT = zlib.crc32(b"measurement")  # far from the numbers of inputs


def measurement_keys(seed: int, count: int) -> Array:
    """The keys (N,) of the noise of the inputs' measurements, that of input i from the seed and i alone."""
    return jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.fold_in(jax.random.key(seed), MEASUREMENT), np.arange(count)
    )


def prior(experiment: Experiment, variables: Any, numbers: Array, guide: Guide | None = None) -> sde_lib.Denoiser:
    """The run's Denoiser for answers of these numbers k (B,), guided as `sampling.guidance` says.

    Of a class-conditional model, `sampling.label` is the class of all; where it is -1, answer k is of class
    k mod num_classes. The classes of an unconditional model are those of the classifier that guides it. The weights are
    those of `guidance.with_guide`.
    """
    return guided(experiment, variables, labels(experiment, numbers, guide), guide)


class Answers:
    """Draws answers. Compiles at the first call.

    Args:
        draw: (keys, numbers, inputs, same, variables) -> (B, *event), for one device: the keys (B,) of the answers, their
            numbers k (B,) among those of their input, the inputs (a pytree of arrays (B, ...)), what is the same for all of
            them (a pytree), and the network's weights.
        strategy: the mapping over devices.
        batch_size: answers drawn at once on each device; changes them by rounding alone, as above.
    """

    def __init__(self, draw: Callable[[Array, Array, Any, Any, Any], Array], strategy: Strategy, batch_size: int):
        self._draw = draw
        self._strategy = strategy
        self._batch_size = batch_size

    def _draw_on_device(self, examples, shared, variables):
        inputs, numbers, values = examples
        key_data, same = shared
        fold_in = jax.vmap(jax.random.fold_in)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.wrap_key_data(key_data), inputs)
        return self._draw(fold_in(keys, numbers), numbers, values, same, variables)

    def __call__(
        self,
        variables: Any,
        inputs: Any,
        names: Sequence[str],
        count: int,
        seed: int,
        *,
        same: Any = (),
        advice: str = "try more steps or another method",
        progress: bool = False,
    ) -> np.ndarray:
        """Answers (N, K, *event), float32, in every process.

        Args:
            variables: the network's weights.
            inputs: a pytree of arrays (N, ...), an entry for each input: what was measured of it.
            names: of the inputs, for messages.
            count: K, how many answers for each.
            seed: of all of them.
            same: what all inputs share, as the measurement's operator.
            advice: what to try where an answer is not finite, for messages.
            progress: whether the first process shows a bar.

        Raises:
            RunError: an answer is not finite.
        """
        total = len(names) * count
        drawing = Drawing(self._draw_on_device, self._strategy, self._batch_size, total)
        key_data = np.asarray(jax.random.key_data(jax.random.key(seed)))
        inputs = jax.tree.map(np.asarray, inputs)

        def take(indices):
            which, numbers = np.divmod(indices.astype(np.int32), np.int32(count))
            return which, numbers, jax.tree.map(lambda array: array[which], inputs)

        drawn = []
        for asked, answers in drawing(
            np.arange(total), take, (key_data, same), variables, progress=progress, unit="answer"
        ):
            bad = np.flatnonzero(~np.isfinite(answers).reshape(len(answers), -1).all(1))
            if bad.size:
                which, number = divmod(int(asked[bad[0]]), count)
                raise RunError(
                    f"answer {number} of {names[which]} is not finite (of {len(answers)} drawn with it, {bad.size} are "
                    f"not): {advice}"
                )
            drawn.append(answers)
        answers = np.concatenate(drawn)
        return answers.reshape(len(names), count, *answers.shape[1:])


class Drawn(NamedTuple):
    """Answers (N, K, *event), in every process, and the seconds that they took with the compilation."""

    answers: np.ndarray
    seconds: float


def draw_answers(
    experiment: Experiment,
    draw: Callable[[Array, Array, Any, Any, Any], Array],
    variables: Any,
    inputs: Any,
    names: Sequence[str],
    count: int,
    seed: int,
    *,
    same: Any,
    advice: str,
) -> Drawn:
    """The answers that a command asks for, over the devices of the experiment and with a bar; arguments as of `Answers`.

    Raises:
        RunError: an answer is not finite.
    """
    started = time.perf_counter()
    answers = Answers(draw, experiment.strategy, experiment.sampling.batch_size)(
        variables, inputs, names, count, seed, same=same, advice=advice, progress=True
    )
    return Drawn(answers, round(time.perf_counter() - started, 2))
