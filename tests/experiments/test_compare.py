"""The page of several runs: where their configs differ, their last samples, and runs that cannot be read."""

import re

import numpy as np
import pytest
from PIL import Image

from experiments.errors import UserError
from experiments.reports import compare
from tests.experiments.test_report import make_run, rows, text_of
from tests.experiments.test_report_figures import tables


def page_of(runs, tmp_path):
    compare.write([run.path for run in runs], tmp_path / "deep" / "er" / "out.html")
    return (tmp_path / "deep" / "er" / "out.html").read_text()


def test_keys_in_which_any_run_differs_are_listed_with_the_value_of_each(tmp_path):
    """Also where the first and the last agree, or one config has a key not; long values are cut."""
    changes = [{}, {"optim__lr": 0.5}, {"data__source": "npz:" + "x" * 80}]
    runs = [make_run(tmp_path / name, rows(8), **change) for name, change in zip("abc", changes, strict=True)]
    runs[1].config.write_text(runs[1].config.read_text().replace('"optim": {', '"optim": {"later": [1, 2],'))
    found = next(table for table in tables(page_of(runs, tmp_path)) if table[0][0] == "key")
    assert found == [
        ["key", "a", "b", "c"],
        ["data.source", "digits", "digits", "npz:" + "x" * 55 + "…"],
        ["optim.later", "absent", "1, 2", "absent"],
        ["optim.lr", "0.002", "0.5", "0.002"],
    ]
    assert "Nowhere: all keys are the same." in text_of(page_of([runs[0], make_run(tmp_path / "d", [])], tmp_path))


def test_the_last_grid_of_each_run_is_shown_with_its_step(tmp_path):
    runs = [make_run(tmp_path / name, rows(8)) for name in "abc"]
    for run, steps in zip(runs, ((4, 12), (), (100_000, 8)), strict=True):
        for step in steps:
            Image.fromarray(np.full((2, 2), step % 251, np.uint8)).save(run.samples / f"step_{step:08d}.png")
    page = page_of(runs, tmp_path)
    assert re.findall("<figcaption>(.*?)</figcaption>", page) == ["a, step 12", "c, step 100,000"]
    assert "None has been evaluated yet." in page and page.index("Last samples") > page.index("How good they are")
    assert "The loss is the mean over the last twentieth of the logged rows." in page
    headings = ["Loss", "Where the configs differ", "How good they are", "Last samples"]
    assert re.findall("<h2>(.*?)</h2>", page) == headings


def test_runs_that_cannot_be_read_are_named_and_nothing_is_written(tmp_path):
    run = make_run(tmp_path / "one", rows(8))
    (tmp_path / "two").mkdir()
    with pytest.raises(
        UserError, match=rf"^{tmp_path}/on holds no run \(no config\.json\); did you mean '{run.path}'\?$"
    ):
        compare.write([run.path, tmp_path / "on"], tmp_path / "out.html")
    run.metrics.write_text("{")
    with pytest.raises(UserError, match=rf"^{run.metrics} is not valid JSON: "):
        compare.write([run.path], tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()


def test_names_are_what_the_folders_do_not_have_in_common(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for paths, names in (
        (["a/x"], ["x"]), (["a/x", "a/y"], ["x", "y"]), (["a/x", "b/x"], ["a/x", "b/x"]), (["."], [tmp_path.name]),
        (["a/x", "a/y/z", "a"], ["x", "y/z", "a"]),
    ):  # fmt: skip
        assert compare.names([tmp_path / path for path in paths]) == names


def test_numbers_in_words():
    assert [compare._number(value) for value in (1234, 0.0625, None, "x")] == ["1,234", "0.062", "", "x"]


@pytest.mark.parametrize(
    "logged, state", [(0, "step 0 of 40"), (36, "step 36 of 40"), (40, "40 steps"), (1040, "1,040 steps")]
)
def test_how_far_a_run_is(tmp_path, logged, state):
    run = compare.Compared(make_run(tmp_path / "run", rows(logged)).path)
    assert (run.step, run.state, run.measured) == (logged, state, None)
    assert np.isnan(compare._final_loss(run)) == (logged == 0)
