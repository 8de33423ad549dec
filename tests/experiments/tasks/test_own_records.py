"""Records of tasks and methods of a user: their flags in words, their parts at each bound, and what they are given."""

import dataclasses
import math
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.errors import UserError
from experiments.inverse import build, problems
from experiments.inverse.problems import FILE, Method, Task
from sde_lib.inverse import Denoising

SHAPE = (4, 4, 1)
PAINT = Task(
    "paints over",
    {"paint": "dots", "size": None, "share": 0.25, "seed": 3, "side": None},
    {"paint": {"dots": ("size", "share"), "lines": ("size",), FILE: ()}, "side": {"left": (), "right": ("seed",)}},
    make=lambda shape, options: Denoising(event_shape=shape),
    help={
        "paint": "{choices}",
        "size": "in pixels",
        "share": "of all",
        "side": "left (default) or right",
        "seed": "of dots",
        "other": "none",
    },
    kinds={"size": "count", "seed": "seed"},
)
OTHER = Task(
    "as well", {"size": 2, "share": 0.5, "seed": 0}, help={"size": "in pixels", "share": "of lines", "seed": "which"}
)
TASKS = {"paint": PAINT, "other": OTHER}


def test_flags_have_the_kind_that_is_stated_or_that_of_their_default():
    """A default that depends on the images is a text, unless the first task that has the flag says more."""
    kinds = {flag: problems.kind(flag, TASKS) for flag in PAINT.flags}
    assert kinds == {"paint": str, "size": "count", "share": float, "seed": "seed", "side": str}
    assert problems.kind("size", {"other": OTHER}) is int
    assert problems.choices("paint", TASKS) == ["dots", "lines", FILE] and problems.choices("size", TASKS) == []


def test_the_help_groups_tasks_by_meaning_and_names_the_one_choice_that_uses_a_flag():
    """The default follows where the meaning does not state it; one that depends on the images is not shown."""
    assert {flag: problems.meaning(flag, TASKS) for flag in PAINT.flags} == {
        "paint": "paint: dots, lines, FILE (default dots)",
        "size": "paint, other: in pixels (default 2)",
        "share": "paint --paint=dots: of all (default 0.25); other: of lines (default 0.5)",
        "seed": "paint --side=right: of dots (default 3); other: which (default 0)",
        "side": "paint: left (default) or right",
    }
    assert problems.meanings(PAINT) == {
        "paint": "dots, lines, FILE", "size": "in pixels", "share": "of all", "side": "left (default) or right",
        "seed": "of dots",
    }  # fmt: skip


@pytest.mark.parametrize(
    "given, options",
    [
        ({}, {"paint": "dots", "size": None, "share": 0.25, "side": None}),
        ({"paint": "lines", "size": 3}, {"paint": "lines", "size": 3}),
        ({"paint": "a.png"}, {"paint": "a.png"}),
        ({"paint": "dts"}, "--paint='dts' is unknown: choose from FILE, dots, lines; did you mean 'dots'?"),
        (
            {"paint": "lines", "share": 0.5},
            "--share=0.5 does nothing for --task=paint --paint=lines, which uses --paint, --size",
        ),
        ({"paint": "a.png", "size": 3}, "--size=3 does nothing for --task=paint --paint=a.png, which uses --paint"),
        ({"other": 1}, "--other=1 does nothing for --task=paint --paint=dots, which uses --paint, --size, --share"),
    ],
)
def test_a_choice_is_a_name_or_a_file_and_decides_which_flags_are_used(monkeypatch, given, options):
    """What looks like no file is a name; a flag that another choice has, or no flag of the task, is refused."""
    choices = {"paint": PAINT.choices["paint"]}
    flags = {flag: PAINT.flags[flag] for flag in ("paint", "size", "share", "side")}
    monkeypatch.setitem(problems.TASKS, "paint", dataclasses.replace(PAINT, flags=flags, choices=choices))
    if isinstance(options, str):
        with pytest.raises(UserError) as error:
            problems.task("paint", given)
        assert str(error.value).startswith(options)
        return
    found = problems.task("paint", given)
    assert found == {"side": None} | options


def method(**changes):
    return dataclasses.replace(Method("draws", {}, posterior=lambda *of: None), **changes)


@pytest.fixture
def named(monkeypatch):
    """Gives a record the import path own:RECORD."""

    def name(record):
        monkeypatch.setattr(problems, "component", lambda flag, name, known: known.get(name, record))
        return "own:RECORD"

    return name


@pytest.mark.parametrize("std, fits", [(0, True), (0.5, True), (1000.0, True), (1000.1, False), (-1e-9, False),
                                       (math.nan, False), ("0.5", False), (None, False)])  # fmt: skip
def test_the_noise_of_a_task_is_a_standard_deviation(named, std, fits):
    task = dataclasses.replace(PAINT, noise=std)
    if fits:
        assert problems.task_of(named(task)) is task
        return
    with pytest.raises(
        UserError, match=r"^--task=own:RECORD: its noise is .*; a standard deviation of at least 0 is nee"
    ):
        problems.task_of(named(task))


@pytest.mark.parametrize("part", [field.name for field in dataclasses.fields(Task)])
def test_a_task_lacks_no_part(named, part):
    fields = {field.name: getattr(PAINT, field.name) for field in dataclasses.fields(Task)}
    assert problems.task_of(named(SimpleNamespace(**fields))).flags is PAINT.flags
    del fields[part]
    with pytest.raises(UserError, match=rf"^--task=own:RECORD: SimpleNamespace has no {part}; a task is an "):
        problems.task_of(named(SimpleNamespace(**fields)))


@pytest.mark.parametrize(
    "changes, fault",
    [
        ({}, ""),
        ({"posterior": None, "steps": lambda *of: None}, ""),
        ({"steps": lambda *of: None}, ""),
        ({"posterior": None}, "its posterior and its steps are no functions"),
        ({"posterior": 3, "steps": "x"}, "its posterior and its steps are no functions"),
        *(({"noise": noise}, "") for noise in ("known", "not asked", "none")),
        ({"noise": ""}, "its noise is '', none of known, not asked, none"),
        *(({"asks": asks}, "") for asks in ("products", "many products", "pseudo_inverse", "normal_solve",
                                            "singular_values")),
        ({"asks": "none"}, "its asks is 'none', none of products, many products, pseudo_inverse, normal_solve, "),
        ({"settings": {"a": 1, "b": 0.5, "c": math.inf}}, ""),
        ({"settings": {"a": 1, "b": True}}, "its setting b is True, no number"),
        ({"settings": {"a": None}}, "its setting a is None, no number"),
        ({"sampling": {"steps": 3, "eta": 1.0, "times": "karras"}}, ""),
        ({"sampling": {"steps": 3, "etta": 1.0}}, "its sampling has 'etta', which is no key of config.sampling; did you"),
    ],
)  # fmt: skip
def test_parts_of_a_method_of_a_user(named, changes, fault):
    own = method(**changes)
    if not fault:
        assert problems.method_of(named(own)) is own
        return
    with pytest.raises(UserError) as error:
        problems.method_of(named(own))
    assert str(error.value).startswith(f"--method=own:RECORD: {fault}")


def test_a_known_name_is_no_import_path(named):
    """The names of our own have no part to lack."""
    assert problems.method_of("dps") is problems.METHODS["dps"] and problems.task_of("hdr") is problems.TASKS["hdr"]


@pytest.mark.parametrize("noise, std", [((0.3,), 0.3), ((0.3, 50.0), math.sqrt(2 / 50)), ((0.0,), 0.0)])
@pytest.mark.parametrize("own", [True, False])
def test_plain_answers_know_the_noise_at_middle_grey(named, monkeypatch, noise, std, own):
    """Of Poisson noise of `peak` counts at white the variance of x is 2 (x + 1) / peak."""
    given = []

    def plain(measurement, y, std):
        given.append((measurement, std))
        return np.asarray(y, np.float64)

    task = dataclasses.replace(PAINT, baselines={"as it is": plain})
    monkeypatch.setitem(problems.TASKS, "paint", task)
    of = build.problem(named(task) if own else "paint", SHAPE, {}, build.noise(*noise))
    y = np.random.default_rng(0).normal(size=(2, *SHAPE))
    found = of.baseline(y)
    ((measurement, told),) = given
    assert measurement is of.measurement and told == pytest.approx(std) and list(found) == ["as it is"]
    np.testing.assert_allclose(found["as it is"], y, rtol=1e-6)
    assert found["as it is"].dtype == (np.float32 if own else np.float64)


@pytest.mark.parametrize(
    "answer, fits",
    [
        (lambda y: y, True),
        (lambda y: np.tile(y, (1, 1, 2, 3)), True),
        (lambda y: y[:1], False),
        (lambda y: np.concatenate([y, y]), False),
        (lambda y: y[..., 0], False),
        (lambda y: y[..., None], False),
        (lambda y: np.where(np.arange(2)[:, None, None, None] == 1, np.inf, y), False),
        (lambda y: np.where(np.arange(4)[None, :, None, None] == 3, np.nan, y), False),
    ],
)
def test_plain_answers_of_a_user_are_one_finite_image_for_each_input(named, answer, fits):
    task = dataclasses.replace(PAINT, baselines={"own": lambda measurement, y, std: answer(y)})
    of = build.problem(named(task), SHAPE, {}, build.noise(0.1))
    y = np.ones((2, *SHAPE))
    if fits:
        np.testing.assert_array_equal(of.baseline(y)["own"], answer(y))
        return
    with pytest.raises(
        UserError, match=r"^--task=own:RECORD: the baseline 'own' gives \(.*\), or values that are not fin"
    ):
        of.baseline(y)


@pytest.mark.parametrize(
    "forward, fits",
    [(lambda x: x, True), (lambda x: jnp.fft.fft2(x), True), (lambda x: x.sum((1, 2, 3)), True),
     (lambda x: x[0], False), (lambda x: x > 0, False), (lambda x: x.astype(jnp.uint8), False), (lambda x: [x], False)],
)  # fmt: skip
def test_a_measurement_of_a_user_has_numbers_for_each_image(named, forward, fits):
    """Of any shape behind the axis of images, real or complex."""
    task = dataclasses.replace(PAINT, image=False, make=lambda shape, options: SimpleNamespace(forward=forward))
    if fits:
        assert build.problem(named(task), SHAPE, {}, build.noise(0.1)).measurement.forward is forward
        return
    with pytest.raises(
        UserError, match=r"^--task=own:RECORD: forward gives .* for images \(2, 4, 4, 1\); make\(shape, opt"
    ):
        build.problem(named(task), SHAPE, {}, build.noise(0.1))
