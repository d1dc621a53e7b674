"""The notebooks: shape, then all of them from first to last on the smoke preset, checked by nbval's own reader."""

from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_eight():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{n:02d}" for n in range(8)]


def test_outputs_are_stripped(notebook):
    assert all(not cell.outputs and cell.execution_count is None for cell in code(notebook))


def test_one_parameters_cell(notebook):
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code(notebook)) == 1


def test_cells_are_short_and_define_nothing_long(notebook):
    assert max(len(cell.source.splitlines()) for cell in code(notebook)) <= 25
    assert not any(line.startswith(("def ", "class ")) for cell in code(notebook) for line in cell.source.splitlines())


def test_prose_opens_every_notebook(notebook):
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
