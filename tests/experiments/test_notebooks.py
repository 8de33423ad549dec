"""Every notebook runs from its first cell to its last; what it claims, its own assertions check."""

from pathlib import Path

import nbclient
import nbformat
import pytest

pytestmark = pytest.mark.e2e

NOTEBOOKS = sorted((Path(__file__).parents[2] / "experiments" / "notebooks").glob("*.ipynb"))


def pictures(notebook):
    """The number of pictures that each cell shows."""
    return [
        sum("image/png" in output.get("data", {}) for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_is_kept_with_its_pictures(path):
    notebook = nbformat.read(path, as_version=4)
    kept = pictures(notebook)
    assert sum(kept) > 0
    root = str(path.parents[2])
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": root}}).execute()
    assert pictures(notebook) == kept
