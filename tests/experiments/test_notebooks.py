"""Every notebook runs from its first cell to its last; what it claims, its own assertions check."""

from pathlib import Path

import nbclient
import nbformat
import pytest

pytestmark = pytest.mark.thorough

NOTEBOOKS = sorted((Path(__file__).parents[2] / "experiments" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path):
    notebook = nbformat.read(path, as_version=4)
    kept = [len(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(kept) > 0, f"{path.name} is kept with its outputs, for readers who do not run it"
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parents[2])}}).execute()
    assert [len(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"] == kept
