"""The table of guidance in the docs is that of the stored figures, in the order of data, kind and scale."""

import json

from experiments.reports import guidance_table
from tests.experiments.tiny import ROOT


def test_the_page_is_made_of_the_stored_figures():
    """Made again by `python -m experiments.reports.guidance_table docs/results/guidance/*.json > docs/guidance.md`."""
    files = (ROOT / "docs" / "results" / "guidance").glob("*.json")
    assert (ROOT / "docs" / "guidance.md").read_text() == guidance_table.markdown(files)


def test_rows_are_sorted_by_data_and_kind_and_count_evaluations(tmp_path):
    def stored(name, *scales):
        rows = [
            {"scale": s, "evaluations": 7, "frechet_distance": 1.234, "precision": 0.5, "recall": 0.25} for s in scales
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps({"guidance": rows}))

    stored("b_classifier", 1.0, 2.0)
    stored("b_classifier_free", 1.5)
    stored("a_autoguidance", 3.0)
    page = guidance_table.markdown(tmp_path.glob("*.json"))
    assert [line for line in page.splitlines() if line.startswith(("| a", "| b"))] == [
        "| a | autoguidance | 3 | 1.23 | 0.500 | 0.250 | 7 |",
        "| b | classifier-free | 1.5 | 1.23 | 0.500 | 0.250 | 7 |",
        "| b | classifier | 1 | 1.23 | 0.500 | 0.250 | 7 |",
        "| b | classifier | 2 | 1.23 | 0.500 | 0.250 | 7 |",
    ]
