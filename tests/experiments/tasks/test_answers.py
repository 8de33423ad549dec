"""Answer k of input i depends on the seed, i and k alone, and each answer belongs to its input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.devices.parallel import Fsdp, Pmap
from experiments.errors import RunError
from experiments.factory.experiment import Experiment
from experiments.generation.answers import Answers, measurement_keys, prior
from tests.experiments.tiny import tiny_config

pytestmark = pytest.mark.devices

INPUTS = {"y": np.arange(1.0, 6.0)[:, None].astype(np.float32)}
NAMES = tuple("abcde")


def draw(keys, numbers, inputs, same, variables):
    """What an answer is made of, side by side: its input, its number, its noise, what is shared, the weights."""
    noise = jax.vmap(jax.random.normal)(keys)
    ones = jnp.ones(len(keys))
    parts = (inputs["y"][:, 0], numbers.astype(float), noise, same["scale"] * ones, variables["w"][0] * ones)
    return jnp.stack(parts, -1)


def answers(inputs=5, count=3, seed=0, devices=8, batch_size=16, mapping=Pmap):
    strategy = mapping(jax.devices()[:devices])
    return Answers(draw, strategy, batch_size)(
        {"w": jnp.full(8, 7.0)}, {"y": INPUTS["y"][:inputs]}, NAMES[:inputs], count, seed, same={"scale": 0.5}
    )


def test_each_answer_has_its_input_its_number_and_its_key():
    drawn = answers()
    assert drawn.shape == (5, 3, 5)
    np.testing.assert_array_equal(drawn[..., 0], np.repeat(INPUTS["y"], 3, 1))
    np.testing.assert_array_equal(drawn[..., 1], np.tile([0, 1, 2], (5, 1)))
    assert (drawn[..., 3] == 0.5).all() and (drawn[..., 4] == 7).all()
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 3), 2)
    np.testing.assert_allclose(drawn[3, 2, 2], jax.random.normal(key), rtol=1e-6)
    assert len(np.unique(drawn[..., 2])) == 15


@pytest.mark.parametrize(
    "changed",
    [dict(batch_size=1), dict(devices=1, batch_size=4), dict(inputs=2), dict(count=2), dict(mapping=Fsdp)],
    ids=str,
)
def test_an_answer_is_the_same_whatever_is_drawn_with_it(changed):
    few = answers(**changed)
    np.testing.assert_array_equal(few, answers()[: len(few), : few.shape[1]])


def test_seeds_differ_and_measurements_have_noise_of_their_own():
    assert (answers(seed=1)[..., 2] != answers()[..., 2]).all()
    noise = jax.vmap(jax.random.normal)(measurement_keys(0, 5))
    assert not np.isin(noise, answers()[..., 2]).any()
    np.testing.assert_array_equal(noise[:2], jax.vmap(jax.random.normal)(measurement_keys(0, 2)))


@pytest.mark.parametrize(
    "label, classes, expected", [(-1, 3, [0, 1, 2, 0, 1]), (0, 3, [0] * 5), (2, 3, [2] * 5), (-1, 0, None)]
)
def test_the_class_of_each_answer(label, classes, expected):
    """-1 takes the classes in turn, by the number of the answer; each other label is that of all."""
    config = tiny_config(model__num_classes=classes, sampling__label=label)
    condition = prior(Experiment(config), None, jnp.arange(5)).condition
    assert (condition if condition is None else condition["label"].tolist()) == expected


def test_an_answer_that_is_not_finite_is_named():
    def broken(keys, numbers, inputs, same, variables):
        return jnp.where((inputs["y"] == 3) & (numbers[:, None] == 1), jnp.nan, jnp.zeros((len(keys), 1)))

    with pytest.raises(RunError, match=r"answer 1 of c is not finite \(of 8 drawn with it, 1 are not\): try this"):
        Answers(broken, Pmap(jax.devices()[:2]), 4)({}, INPUTS, NAMES, 3, 0, advice="try this")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_entry_that_is_not_finite_is_enough(value):
    def broken(keys, numbers, inputs, same, variables):
        at = (inputs["y"] == 4) & (numbers[:, None] > 0)
        return jnp.zeros((len(keys), 2, 3)).at[:, 1, 2].set(jnp.where(at, value, 0)[:, 0])

    with pytest.raises(
        RunError, match=r"^answer 1 of d is not finite \(of 4 drawn with it, 2 are not\): try more steps"
    ):
        Answers(broken, Pmap(jax.devices()[:1]), 4)({}, INPUTS, NAMES, 3, 0)
