"""Noise-conditional classification: a network that predicts the class of noisy data, for classifier guidance.

    python -m experiments train --config=configs/digits.py:classifier --workdir=runs/classifier
    python -m experiments sample --workdir=runs/digits --guide=runs/classifier --guidance=1 --label=7

Sources: Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix I.1; Dhariwal and Nichol (2021),
https://arxiv.org/abs/2105.05233, section 4.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import sde_lib
from experiments.learning.state import Draws
from experiments.objectives.objective import Objective, abstract

SHOWN = 10  # examples in a picture
RIGHT, WRONG = (40, 150, 60), (200, 40, 40)  # RGB colours of frames
BATCH = 256  # images per batch in an evaluation


class Classification(Objective):
    """Cross-entropy of the class of noisy data, at times from the distribution `loss.times`."""

    samples: ClassVar[bool] = False

    def loss(
        self, draws: Draws, params: Any, example: Mapping[str, Any], frozen: Any
    ) -> tuple[Array, dict[str, Array]]:
        """Returns the cross-entropies (B,) in nats, the accuracy, and the cross-entropies by bin of the noise level."""
        experiment = self.experiment
        losses, logits, t = sde_lib.noisy_classification(
            draws.keys,
            experiment.classifier(params),
            experiment.sde(experiment.training.t_min),
            example["data"],
            example["label"],
            times=experiment.training_times(draws),
            train=True,
        )
        correct = (logits.argmax(-1) == example["label"]).astype(losses.dtype)
        return losses, {"accuracy": correct} | experiment.binned(losses, t)

    def check(self) -> None:
        """Checks that the network outputs one logit per class.

        Raises:
            ValueError: the output has another shape, or model.num_classes is 0.
        """
        experiment = self.experiment
        classes = experiment.num_classes
        if not classes:
            raise ValueError("model.num_classes=0: objective.name='classification' needs the number of classes")
        chosen = f"objective.name='classification' with model.name={experiment.model_name!r}"
        advice = "choose a classifier, such as unet_classifier"
        try:
            logits = jax.eval_shape(
                lambda variables, x, t: experiment.classifier(variables).logits(x, t),
                abstract(self),
                jnp.zeros((1, *experiment.event_shape)),
                jnp.ones(1),
            )
        except ValueError as error:
            raise ValueError(f"{chosen}: {error}") from error
        if logits.shape != (1, classes):
            shape = "x".join(map(str, logits.shape[1:]))
            raise ValueError(f"{chosen}: the output is {shape}, not a logit for each of {classes} classes; {advice}")

    def picture(self, variables: Any, images: np.ndarray, labels: np.ndarray | None) -> np.ndarray | None:
        """Returns noisy images with a frame that is green for a correct and red for a wrong predicted class.

        The noise level increases from row to row.
        """
        if labels is None or not self.experiment.medium.has_pixels:
            return None
        images, labels = images[:SHOWN], labels[:SHOWN]
        x0, rows = self.experiment.medium.forward(images), []
        for _, t in self._levels(SHOWN):
            keys = jax.random.split(jax.random.key(0), len(images))
            y, predictions = _noisy_and_predicted(self._model(variables), jnp.asarray(x0), t, keys)
            shown = self.experiment.medium.shown(self.experiment.medium.inverse(np.asarray(y)))
            frames = np.where((np.asarray(predictions) == labels)[:, None], RIGHT, WRONG).astype(np.uint8)
            rows.append([_framed(image, frame) for image, frame in zip(shown, frames, strict=True)])
        return np.concatenate([np.concatenate(row, axis=1) for row in rows])

    def evaluate(self, variables: Any, images: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
        """Returns the accuracy and the cross-entropy in nats at evenly spaced log-SNRs, and their means over log-SNRs.

        Raises:
            ValueError: the examples have no classes.
        """
        if labels is None:
            raise ValueError("objective.name='classification' needs held-out examples with classes")
        evaluation, rows = self.experiment.evaluation, []
        x0, model = np.asarray(self.experiment.medium.forward(images)), self._model(variables)
        key = jax.random.key(evaluation.seed)
        for log_snr, t in self._levels(evaluation.noise_levels):
            batches = []
            for start in range(0, len(x0), BATCH):
                indices = np.arange(start, start + BATCH) % len(x0)  # pads the last batch, whose padding is cut off
                keys = jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
                scores = _scores(model, jnp.asarray(x0[indices]), jnp.asarray(labels[indices]), t, keys)
                batches.append(np.asarray(scores)[:, : len(x0) - start])
            entropy, correct = np.concatenate(batches, axis=1).astype(np.float64)
            rows.append({"log_snr": log_snr, "accuracy": correct.mean(), "cross_entropy": entropy.mean()})
        figures = {name: float(np.mean([row[name] for row in rows])) for name in ("accuracy", "cross_entropy")}
        return {"figures": figures, "levels": rows, "examples": len(images)}

    def _model(self, variables: Any) -> tuple[sde_lib.Process, sde_lib.NetworkClassifier]:
        return self.experiment.sde(self.experiment.evaluation.t_min), self.experiment.classifier(variables)

    def _levels(self, count: int) -> list[tuple[float, Array]]:
        """Returns `count` evenly spaced log-SNRs of the process, from clean to noisy, and their times."""
        sde = self.experiment.sde(self.experiment.evaluation.t_min)
        ends = (float(sde.log_snr(sde.t_min)), float(sde.log_snr(sde.t_max)))
        return [(float(level), sde.time_at_log_snr(jnp.float32(level))) for level in np.linspace(*ends, count)]


def _perturbed(sde, x0, t, keys):
    noise = jax.vmap(lambda key: jax.random.normal(key, sde.state_shape(x0.shape[1:])))(keys)
    return sde.perturb(x0, noise, t)


@jax.jit
def _scores(model, x0, labels, t, keys):
    """Returns the cross-entropy and the correctness (0 or 1) of each example, (2, B)."""
    sde, classifier = model
    logits = classifier.logits(_perturbed(sde, x0, t, keys), t)
    entropy = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]
    return jnp.stack([entropy, (logits.argmax(-1) == labels).astype(entropy.dtype)])


@jax.jit
def _noisy_and_predicted(model, x0, t, keys):
    """Returns noisy data, scaled to unit variance for data of unit variance, and the predicted classes."""
    sde, classifier = model
    x = _perturbed(sde, x0, t, keys)
    return sde.to_data_scale(x, t) / jnp.sqrt(1 + sde.noise_to_signal(t) ** 2), classifier.logits(x, t).argmax(-1)


def _framed(image, colour):
    """Returns an image (h, w, C) as RGB with a coloured frame of one pixel and a white border of one pixel."""
    rgb = np.broadcast_to(image, (*image.shape[:2], 3)) if image.shape[-1] == 1 else image[..., :3]
    framed = np.full((rgb.shape[0] + 4, rgb.shape[1] + 4, 3), 255, np.uint8)
    framed[1:-1, 1:-1] = colour
    framed[2:-2, 2:-2] = rgb
    return framed


# Values of objective.name.
OBJECTIVES = {"classification": Classification}
