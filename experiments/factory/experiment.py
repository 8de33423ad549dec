"""An experiment: the objects that a config describes, each built once.

    experiment = Experiment.from_config(config)                        # all that `train` reads is checked
    experiment = Experiment.from_config(config, "model", "sampling")   # what `sample` reads

Commands carry the Experiment, so that the config is read in `factory` alone.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

import sde_lib
from experiments.conditions import Condition
from experiments.data import Source
from experiments.data.sources.rendering import Rendering
from experiments.devices.parallel import Strategy
from experiments.errors import UserError
from experiments.factory import (
    averages,
    check,
    classes,
    conditions,
    devices,
    evaluation,
    guidance,
    images,
    losses,
    media,
    model,
    objective,
    optimization,
    sampling,
)
from experiments.factory.settings import DataSettings, EvaluationSettings, SamplingSettings, TrainingSettings, read
from experiments.learning import averaging, players
from experiments.learning.state import Draws
from experiments.media import Medium
from experiments.metrics.records import Metric
from experiments.objectives import Objective
from experiments.objectives.objective import abstract


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """The objects of an experiment, each built at its first use and once.

    Attributes:
        config: the config, for storing and comparing; its keys are read in `factory` alone.
    """

    config: ConfigDict

    @classmethod
    def from_config(cls, config: ConfigDict, *subjects: str, overrides: Iterable[tuple[str, str]] = ()) -> Self:
        """Returns the experiment of a config whose subjects can work; compiles nothing.

        Args:
            config: the config.
            subjects: names of `check.SUBJECTS` that the command reads; those of training by default.
            overrides: (key, text) pairs that were applied to the config.

        Raises:
            UserError: a setting that a subject reads cannot work; the message names its key.
        """
        config = media.complete(config)
        check.check(config, *subjects, overrides=overrides)
        experiment = cls(config)
        if not subjects or "model" in subjects:
            experiment._check_objective()
        return experiment

    def _check_objective(self) -> None:
        try:
            self.objective.check()
        except ValueError as error:
            raise UserError(" ".join(str(error).split())) from error
        objective.check_loss(self.config, self.objective, self.event_shape)

    def record(self, *sections: str) -> dict[str, dict[str, Any]]:
        """Returns sections of the config as plain values, for files that state how they were made."""
        return {name: self.config[name].to_dict() for name in sections}

    def to_json(self) -> str:
        """Returns the whole config as a text, equal for equal configs."""
        return self.config.to_json_best_effort(sort_keys=True)

    def without_remat(self) -> Self:
        """Returns the experiment whose network recomputes nothing in the backward pass."""
        config = self.config.copy_and_resolve_references()
        if "remat" in config.model:
            config.model.remat = False
        return type(self)(config)

    def __post_init__(self):
        # Later changes of the caller's config must not reach objects that are built lazily.
        object.__setattr__(self, "config", self.config.copy_and_resolve_references())

    # Data

    @cached_property
    def medium(self) -> Medium:
        """The type of one datum."""
        return media.medium(self.config)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one datum, (H, W, C) of an image."""
        return self.medium.event_shape

    @cached_property
    def data(self) -> DataSettings:
        """Settings of the source and the batches."""
        return read(DataSettings, self.config.data)

    @cached_property
    def rendering(self) -> Rendering:
        """The conversion of image files to grey levels."""
        return images.rendering(self.config)

    @cached_property
    def preparation(self) -> Callable[[jax.Array, Mapping[str, Any]], dict[str, Any]]:
        """(keys, batch) -> examples of the model in training; see `images.preparation`."""
        return images.preparation(self.config)

    # Model

    @property
    def title(self) -> str:
        """The source, the process and the network in a few words."""
        return f"{self.config.data.source}, {self.config.sde.name}, {self.config.model.name}"

    @property
    def sde_name(self) -> str:
        """The name of the process."""
        return self.config.sde.name

    @property
    def model_name(self) -> str:
        """The name of the network."""
        return self.config.model.name

    @property
    def num_classes(self) -> int:
        """The number of classes of a class-conditional model; 0 for an unconditional one."""
        return model.num_classes(self.config)

    @cached_property
    def network(self) -> Any:
        """The Flax module."""
        return model.network(self.config)

    @property
    def compute_dtype(self) -> str:
        """The dtype of the network's computation."""
        return model.compute_dtype(self.config)

    def sde(self, t_min: float) -> sde_lib.Process:
        """Returns the process from a smallest time on."""
        return model.sde(self.config, t_min)

    def denoiser(self, variables: Any, t_min: float | None = None) -> sde_lib.NetworkDenoiser:
        """Returns the unconditioned Denoiser with these weights, from a smallest time on; by default that of sampling."""
        return model.denoiser(self.config, variables, self.sampling.t_min if t_min is None else t_min)

    @cached_property
    def conditions(self) -> dict[str, Condition]:
        """The conditions that the network takes, by name."""
        return conditions.conditions(self.config)

    def condition(self, labels: jax.Array | None) -> dict[str, Any] | None:
        """Returns the condition of labels (B,) for a class-conditional model; None for a model without classes."""
        return conditions.condition(self.config, labels)

    def condition_of_batch(self, keys: jax.Array, batch: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns the condition of prepared examples with these keys (B,); None for a model without conditions."""
        return conditions.condition_of_batch(self.config, keys, batch)

    def init_network(self, key: jax.Array) -> Any:
        """Returns the weights of the network before training, by a key."""
        return model.initialization(self.config)(key)

    def init_variables(self, strategy: Strategy | None = None) -> Any:
        """Returns the weights of the network before training, laid out by a strategy if there is one."""
        return model.init_variables(self.config, strategy)

    @cached_property
    def abstract_variables(self) -> Any:
        """The shapes and dtypes of the weights of the network; compiles nothing."""
        return model.abstract_variables(self.config)

    @property
    def projection(self) -> Callable[[Any], Any]:
        """variables -> variables: where the network wants its weights after every update."""
        return model.projection(self.config)

    def classifier(self, variables: Any) -> sde_lib.NetworkClassifier:
        """Returns log p(class | x_t, t) of a classifier with these weights."""
        return model.classifier(self.config, variables, self._classifier_inputs)

    @cached_property
    def _classifier_inputs(self) -> Callable:
        with jax.ensure_compile_time_eval():
            return model.classifier_inputs(self.config)

    # Training

    @cached_property
    def objective(self) -> Objective:
        """What is trained."""
        return objective.objective(self.config, self)

    def init_params(self, strategy: Strategy | None = None) -> Any:
        """Returns the weights of all players before training, laid out by a strategy if there is one."""
        return model.initialized(self.config, self.objective.init, strategy)

    @cached_property
    def abstract_params(self) -> Any:
        """The shapes and dtypes of the weights of all players; compiles nothing."""
        with model.errors_of_network(self.config):
            return abstract(self.objective)

    def abstract_average(self, place: int) -> Any:
        """Returns the shapes and dtypes of a moving average of the weights."""
        shapes = self.abstract_params
        if not self.objective.has_own_players:
            return shapes
        names = players.averaged(self.objective.players)
        return shapes if isinstance(names, int) else {name: shapes[name] for name in names[place]}

    @property
    def objective_name(self) -> str:
        """The name of the objective."""
        return self.config.objective.name

    @property
    def draws_samples(self) -> bool:
        """Whether samples are drawn from what is trained."""
        return objective.draws_samples(self.config)

    def training_times(self, draws: Draws) -> sde_lib.TimeDistribution:
        """Returns the distribution of the times of a training step."""
        return self._training_times(draws)

    @cached_property
    def _training_times(self) -> Callable[[Draws], sde_lib.TimeDistribution]:
        with jax.ensure_compile_time_eval():  # its first use may be within a program
            return losses.training_times(self.config)

    def binned(self, values: jax.Array, times: jax.Array) -> dict[str, jax.Array]:
        """Returns losses (B,) by the bin of their noise level; see `losses.binned_loss`."""
        return self._binned(values, times)

    @cached_property
    def _binned(self) -> Callable[[jax.Array, jax.Array], dict[str, jax.Array]]:
        with jax.ensure_compile_time_eval():
            return losses.binned(self.config)

    @cached_property
    def training(self) -> TrainingSettings:
        """Settings of the training loop."""
        return read(TrainingSettings, self.config.training, self.config.optim, self.config.data)

    @cached_property
    def loss(self) -> Callable:
        """The loss with its noise levels; see `losses.binned_loss`."""
        with jax.ensure_compile_time_eval():  # its first use may be within a program
            return losses.binned_loss(self.config)

    @cached_property
    def loss_bin_edges(self) -> np.ndarray:
        """The log-SNRs between the bins in which the loss is logged; see `losses.loss_bin_edges`."""
        return losses.loss_bin_edges(self.config)

    @cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """Gradient clipping, then the optimizer."""
        return optimization.optimizer(self.config)

    @cached_property
    def learning_rate(self) -> optax.Schedule:
        """Updates made before -> learning rate."""
        return optimization.learning_rate(self.config)

    @property
    def skips_nonfinite(self) -> bool:
        """Whether steps whose loss or gradient is not finite are left out, instead of ending the run."""
        return optimization.skips_nonfinite(self.config)

    @cached_property
    def emas(self) -> dict[str, averaging.Rule]:
        """The moving averages of the weights by name."""
        return averages.emas(self.config)

    @property
    def ema_names(self) -> list[str]:
        """The names of the moving averages, in their order."""
        return averages.ema_names(self.config)

    @property
    def power_emas(self) -> dict[int, float]:
        """The places of the averages that are power functions, and their widths."""
        return averages.power_emas(self.config)

    @property
    def sampling_ema(self) -> int:
        """The place of the average that is sampled from."""
        return averages.sampling_ema(self.config)

    # Devices

    @cached_property
    def strategy(self) -> Strategy:
        """The mapping of programs over all devices of all processes."""
        return devices.parallel(self.config)

    # Sampling

    @cached_property
    def sampling(self) -> SamplingSettings:
        """Settings of sampling."""
        return read(SamplingSettings, self.config.sampling)

    @cached_property
    def sampler(self) -> sde_lib.Sampler:
        """The discretization of the reverse process."""
        return sampling.sampler(self.config)

    def times(self, sde: sde_lib.Process) -> jax.Array:
        """Returns the time grid of the sampler on a process."""
        return sampling.times(self.config, sde)

    @property
    def sampler_and_steps(self) -> tuple[str, int]:
        """The name of the sampler and its number of steps, the last to clean data included."""
        return sampling.sampler_and_steps(self.config)

    @property
    def evaluations(self) -> int | None:
        """Evaluations of the Denoiser per sample; None where the sampler chooses them."""
        return sampling.evaluations(self.config)

    def sampled_classes(self, names: Sequence[str] | None = None, guide: "Experiment | None" = None) -> str:
        """Returns the classes that samples are drawn of, in words; an empty text for a model without classes.

        Args:
            names: of the classes, by number.
            guide: the experiment of the classifier whose classes they are, where the model has none.
        """
        return classes.sampled_classes(self.config, names, guide and guide.config)

    @property
    def guide(self) -> str:
        """The run of the weaker model or the classifier that guides, RUN or RUN@STEP; empty for the model itself."""
        return self.config.sampling.guidance.guide if self.is_guided else ""

    @property
    def is_guided(self) -> bool:
        """Whether samples are guided."""
        return guidance.is_guided(self.config)

    def guided(
        self,
        denoiser: sde_lib.Denoiser,
        labels: jax.Array,
        weak: sde_lib.Denoiser | None = None,
        classifier: sde_lib.NetworkClassifier | None = None,
    ) -> sde_lib.Denoiser:
        """Returns the Denoiser that is sampled from, of classes (B,); see `guidance.guided`."""
        return guidance.guided(self.config, denoiser, labels, weak, classifier)

    @property
    def network_evaluations(self) -> int | None:
        """Evaluations of networks per sample, guidance included; None where the sampler chooses them."""
        return None if self.evaluations is None else self.evaluations * self.guidance_cost

    @property
    def guidance_cost(self) -> int:
        """Evaluations of networks for one of the guided Denoiser."""
        return guidance.cost(self.config)

    @property
    def guidance_scale(self) -> float:
        """The scale of guidance; 1 draws from the distribution of the class."""
        return self.config.sampling.guidance.scale

    @property
    def guidance_name(self) -> str:
        """The name or the import path of the guidance away from a weaker Denoiser."""
        return self.config.sampling.guidance.name

    @property
    def guidance_rescale(self) -> float:
        """The share by which the contrast of guided samples is brought back."""
        return self.config.sampling.guidance.rescale

    @property
    def guidance_record(self) -> dict[str, Any]:
        """The settings of guidance for files that state how samples were drawn; empty without guidance."""
        return guidance.record(self.config)

    def with_guidance(self, scale: float) -> Self:
        """Returns the experiment with another scale of guidance.

        Raises:
            UserError: the model cannot be guided so.
        """
        config = self.config.copy_and_resolve_references()
        config.sampling.guidance.scale = float(scale)
        if guidance.is_guided(config):  # else the other settings have no effect, and serve the other scales
            guidance.check_guidance(config)
        return type(self)(config)

    def check_class(self, flag: str, label: int | str | None, names: Sequence[str] | None = None) -> int:
        """Returns the label of a request; see `classes.check_class`."""
        return classes.check_class(self.config, flag, label, names)

    def of_class(self, denoiser: sde_lib.Denoiser, batch: int, label: int) -> sde_lib.Denoiser:
        """Returns the Denoiser for a batch of one class, without guidance; see `classes.of_class`."""
        return classes.of_class(self.config, denoiser, batch, label)

    # Evaluation

    @cached_property
    def evaluation(self) -> EvaluationSettings:
        """Settings of the evaluation."""
        return read(EvaluationSettings, self.config.evaluation)

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of the user."""
        return evaluation.user_metrics(self.config)

    @property
    def compares_with_training(self) -> bool:
        """Whether samples are compared with the training images rather than the held-out ones."""
        return evaluation.reference(self.config)

    def feature_network(self, train: Source) -> Any:
        """Returns the network in whose features samples are compared; the perceptron is fitted to training images."""
        return evaluation.feature_network(self.config, train)
