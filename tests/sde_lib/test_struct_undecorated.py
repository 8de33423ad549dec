"""A user's subclass is a pytree without a decorator: it is sampled, trained and measured like the same class with one."""

import dataclasses
import pickle
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import sde_lib
import sde_lib.inverse
from sde_lib import SDE
from tests.sde_lib.processes import Units


def cosine(x):
    return jnp.cos(x)


def square(x):
    return x**2


class Plain(SDE):
    t_max = 0.9  # without an annotation

    def alpha(self, t):
        return jnp.cos(0.5 * jnp.pi * t)

    def sigma(self, t):
        return jnp.sin(0.5 * jnp.pi * t)


class Annotated(SDE):
    rate: float = 0.5
    t_max: float = 0.9
    kind: str = "cosine"
    reverse: bool = False
    power: Callable = struct.field(default=square, pytree_node=False)

    def alpha(self, t):
        assert self.kind == "cosine" and not self.reverse
        return jnp.cos(self.rate * jnp.pi * t)

    def sigma(self, t):
        return jnp.sqrt(self.power(jnp.sin(self.rate * jnp.pi * t)))


class Built(SDE):
    def __init__(self, degrees, name="cosine"):
        super().__init__(t_max=0.9)
        self.rate, self.name, self.function = jnp.deg2rad(degrees), name, cosine

    def alpha(self, t):
        assert self.name == "cosine"
        return self.function(self.rate * t)

    def sigma(self, t):
        return jnp.sin(self.rate * t)


class Assigned(SDE):
    """Assigns inherited fields without the base's `__init__`."""

    def __init__(self, t_max):
        self.t_max = t_max

    alpha, sigma = Plain.alpha, Plain.sigma


class OfAnnotated(Annotated):
    def sigma(self, t):
        return jnp.sin(self.rate * jnp.pi * t)


class OfBuilt(Built):
    extra = 1.0


@struct.dataclass
class OfPlain(Plain):
    extra: float = 1.0


@dataclasses.dataclass(frozen=True)
class StandardDataclass(SDE):
    rate: float = 0.5
    table: tuple = dataclasses.field(default_factory=lambda: (1.0, 2.0))
    t_max: float = 0.9
    alpha, sigma = Annotated.alpha, OfAnnotated.sigma
    kind, reverse = "cosine", False


@struct.dataclass
class Decorated(SDE):
    t_max: float = struct.field(default=0.9, kw_only=True)
    alpha, sigma = Plain.alpha, Plain.sigma


PROCESSES = [
    Plain(), Annotated(), Built(90.0), Assigned(0.9), OfAnnotated(), OfBuilt(90.0), OfPlain(), StandardDataclass(),
]  # fmt: skip


every_process = pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: type(sde).__name__)


class Scaled(sde_lib.Denoiser):
    scale: float = 1.0

    def __call__(self, x, t):
        return self.scale * sde_lib.exact.Gaussian(self.sde, std=0.7)(x, t)


class Halving(sde_lib.Sampler):
    """Euler steps of the probability flow, of a length that an `__init__` sets."""

    def __init__(self, length):
        self.length = length

    def step(self, carry, keys, x, t, s, denoiser):
        return carry, x + self.length * (s - t) * denoiser.velocity(x, t)


class Faded(sde_lib.inverse.LinearMeasurement):
    factor: float = 0.5

    def forward(self, x):
        return self.factor * x


class Squared(sde_lib.inverse.Measurement):
    factor: float = 0.5

    def forward(self, x):
        return self.factor * x**2


@pytest.mark.parametrize(
    "made, name",
    [
        (Annotated(), "rate"), (Units(Plain(), np.ones(2)), "units"), (Scaled(Plain()), "scale"), (Halving(1.0), "length"),
        (Faded(event_shape=(2,)), "factor"), (Squared(), "factor"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_subclass_of_each_base_is_a_pytree_and_one_program_serves_its_numbers(made, name):
    """SDE, Process, Denoiser, Sampler, LinearMeasurement and Measurement, none of them decorated."""
    traced = []

    @jax.jit
    def double(made):
        traced.append(type(made))
        return 2 * getattr(made, name)

    for value in (getattr(made, name), 3.0 * getattr(made, name)):
        np.testing.assert_allclose(double(made.replace(**{name: value})), 2 * value)
    assert traced == [type(made)]
    assert type(jax.tree.map(lambda leaf: leaf, made)) is type(made)


def test_undecorated_classes_of_all_kinds_work_together():
    """A posterior of a user's Denoiser and measurement, sampled by a user's sampler on a user's process; traced alone."""
    posterior = sde_lib.inverse.PiGDM(Scaled(Plain()), Faded(event_shape=(2,)), jnp.ones((1, 2)), 0.1)
    drawn = jax.eval_shape(
        lambda posterior: sde_lib.sample(
            jax.random.split(jax.random.key(0), 3),
            posterior,
            Halving(1.0),
            sde_lib.uniform_times(posterior.sde, 3),
            (2,),
        ),
        posterior,
    )
    assert drawn.shape == (3, 2)


def results(sde):
    """Samples, a loss and its derivative with respect to the Denoiser's scale, and log-likelihoods."""
    x0, denoiser = jnp.linspace(-1, 1, 6).reshape(3, 2), Scaled(sde)
    for_samples, for_loss, for_likelihood = (jax.random.split(jax.random.key(seed), 3) for seed in range(3))
    samples = sde_lib.sample(for_samples, denoiser, Halving(1.0), sde_lib.uniform_times(sde, 3), (2,))

    @jax.jit
    def loss(model):
        return sde_lib.denoising_score_matching(for_loss, model, x0).mean()

    value, gradient = jax.value_and_grad(loss)(denoiser)
    found = sde_lib.log_likelihood(for_likelihood, denoiser, x0, rtol=1e-2, atol=1e-2)
    return samples, value, gradient.scale, found.log_prob


@every_process
def test_every_kind_of_class_passes_through_samples_losses_and_likelihoods(sde):
    """Traced, not compiled: an object that is no pytree fails here."""
    samples, value, slope, log_prob = jax.eval_shape(lambda: results(sde))
    assert (samples.shape, value.shape, slope.shape, log_prob.shape) == ((3, 2), (), (), (3,))


def test_results_are_those_of_the_decorated_class():
    for undecorated, decorated in zip(results(Built(90.0)), results(Decorated()), strict=True):
        np.testing.assert_allclose(undecorated, decorated, rtol=2e-5)


@every_process
def test_fields_are_those_of_the_class(sde):
    assert float(sde.t_max) == pytest.approx(0.9)
    later = sde.replace(t_max=0.8)
    assert (float(later.t_max), type(later)) == (0.8, type(sde))
    np.testing.assert_allclose(jax.jit(lambda sde: sde.alpha(sde.t_max))(later), np.cos(0.4 * np.pi), rtol=1e-6)
    assert "_class" not in repr(sde)


@every_process
def test_flattened_and_built_again(sde):
    """Numbers and arrays are leaves, nothing else is; any values may stand in their places for a while."""
    leaves, structure = jax.tree.flatten(sde)
    assert leaves and all(isinstance(leaf, float | jax.Array) for leaf in leaves)
    other = jax.tree.unflatten(structure, leaves)
    assert jax.tree.structure(other) == structure and type(other) is type(sde)
    placed = jax.tree.unflatten(structure, [object() for _ in leaves])
    assert jax.tree.structure(placed) == structure
    assert jax.tree.structure(jax.tree.map(str, sde)) == structure
    np.testing.assert_allclose(jax.vmap(lambda sde, t: sde.alpha(t), (None, 0))(sde, jnp.ones(2) * 0.3), sde.alpha(0.3))


def test_one_program_serves_all_numbers_and_another_the_next_string():
    traced = []

    class Tracing(Annotated):
        def alpha(self, t):
            traced.append(self.kind)
            return super().alpha(t)

    class TracingBuilt(Built):
        def alpha(self, t):
            traced.append(self.name)
            return super().alpha(t)

    run = jax.jit(lambda sde: sde.alpha(0.5))
    found = [float(run(Tracing(rate=rate))) for rate in (0.5, 0.25)]
    found += [float(run(TracingBuilt(jnp.float32(degrees)))) for degrees in (90.0, 45.0)]
    np.testing.assert_allclose(found, 2 * [np.cos(0.25 * np.pi), np.cos(0.125 * np.pi)], rtol=1e-6)
    assert traced == ["cosine", "cosine"]
    with pytest.raises(AssertionError):
        run(Tracing(kind="other"))


def test_no_program_of_another_class_is_run():
    def make(i):
        return type("Mine", (SDE,), {"sigma": lambda self, t: i * t})

    run = jax.jit(lambda sde: sde.sigma(1.0))
    assert [int(run(make(i)())) for i in range(20)] == list(range(20))


def test_an_overridden_default_stays_keyword_only():
    class Mine(SDE):
        t_max: float = 0.9
        rate: float

    assert (Mine(2.0).rate, Mine(2.0).t_max) == (2.0, 0.9)


def test_a_class_that_the_user_registers_is_left_alone():
    @jax.tree_util.register_pytree_node_class
    class Mine(Plain):
        def __init__(self, rate):
            self.rate = rate

        def tree_flatten(self):
            return (2 * self.rate,), None

        @classmethod
        def tree_unflatten(cls, _, leaves):
            return cls(*leaves)

    assert jax.tree.leaves(Mine(3.0)) == [6.0]


def test_a_decorator_keeps_its_arguments():
    @struct.dataclass(kw_only=True)
    class Mine(SDE):
        rate: float = 1.0

    with pytest.raises(TypeError):
        Mine(2.0)
    assert Mine(rate=2.0).rate == 2.0


def test_objects_are_frozen_unless_the_class_has_an_init():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Annotated().rate = 2.0
    with pytest.raises(TypeError, match="no attribute 'rats'"):
        Built(90.0).replace(rats=1.0)


def test_a_denoiser_made_of_another_has_no_field_for_its_process():
    class Doubled(sde_lib.denoiser.DerivedDenoiser):
        factor: float = 2.0

        def __call__(self, x, t):
            return self.factor * self.denoiser(x, t)

    denoiser = Doubled(Scaled(Plain()), factor=3.0)
    assert sorted(jax.tree.leaves(denoiser)) == sorted([3.0, *jax.tree.leaves(Scaled(Plain()))])
    assert jax.tree.map(lambda leaf: leaf, denoiser).sde == Plain()


def test_objects_can_be_pickled():
    assert float(pickle.loads(pickle.dumps(Built(90.0))).alpha(0.5)) == pytest.approx(np.sqrt(0.5), rel=1e-6)
    assert pickle.loads(pickle.dumps(Annotated(rate=0.25))) == Annotated(rate=0.25)


class Counted(Plain):
    count: int = struct.field(default=3, pytree_node=False)


class Recounted(Counted):
    count = 4  # without an annotation


def test_a_new_value_of_an_inherited_static_field_is_static():
    for counted, count in ((Counted(), 3), (Recounted(), 4), (Recounted(count=5), 5)):
        assert jax.tree.map(lambda leaf: 0 * leaf, counted).count == count
        assert jax.tree.structure(counted) != jax.tree.structure(counted.replace(count=9))
