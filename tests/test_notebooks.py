"""The notebooks: their shape, then all of them from first to last on the smoke preset."""

import ast
import concurrent.futures
import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pandas
import pytest

from lib.evaluation import comparison
from lib.run import executed, presets

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
STUDIES = sorted((ROOT / "notebooks" / "studies").glob("*.ipynb"))


@pytest.fixture(params=[*NOTEBOOKS, *STUDIES], ids=lambda path: path.stem)
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
    logic = [cell for cell in code(notebook) if "parameters" not in cell.metadata.get("tags", [])]
    assert max(len(cell.source.splitlines()) for cell in logic) <= 26
    assert not any(line.startswith(("def ", "class ")) for cell in code(notebook) for line in cell.source.splitlines())


def test_every_name_that_a_notebook_imports_from_lib_exists(notebook):
    for node in (node for cell in code(notebook) for node in ast.walk(ast.parse(cell.source))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lib":
            module = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                found = hasattr(module, name) or importlib.util.find_spec(f"{node.module}.{name}")
                assert found, f"{node.module}.{name}"


def test_prose_opens_every_notebook(notebook):
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")


def test_headings_make_a_table_of_contents_and_the_last_proposes_a_change(notebook):
    headings = [line for cell in notebook.cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    headings = [line[3:] for line in headings if line.startswith("## ")]
    assert headings[0] == "Set-up" and len(headings) >= 3
    assert headings[-1] == "Change one thing and watch" and notebook.cells[-1].cell_type == "markdown"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_defaults_are_the_values_of_preset_cpu(path):
    assert presets.read_notebook(path).defaults == presets.parameters("cpu")[path.stem]


@pytest.mark.parametrize("name", presets.preset_names())
def test_a_preset_repeats_no_default_of_the_notebooks(name):
    books = {path.stem: presets.read_notebook(path) for path in NOTEBOOKS}
    changed = presets.resolve(books, presets.load_preset(name), name)
    for stage, values in changed.items():
        for key, value in values.items():
            assert value != books[stage].defaults[key], f"preset {name}, {stage}: {key} is {value} without it"


def test_figures_leave_a_notebook_the_backend_that_shows_them():
    inline = "module://matplotlib_inline.backend_inline"
    code = "import lib.figures.style, matplotlib; print(matplotlib.rcParams['backend'])"
    for asked, expected in (({"MPLBACKEND": inline}, inline), ({}, "agg")):
        environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"} | asked
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.stdout.strip().lower() == expected, done.stderr[-2000:]


@pytest.fixture(scope="module")
def smoke():
    """A finished run of the smoke preset, inside runs/ so that its notebooks can be opened where they lie."""
    (ROOT / "runs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "runs", prefix="test-") as folder:
        command = [sys.executable, "-m", "lib", "run", "--preset", "smoke", "--run-dir", folder]
        first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
        yield Path(folder), command


def test_the_smoke_preset_runs_from_first_to_last(smoke):
    folder, _ = smoke
    assert len(list((folder / "notebooks").glob("*.ipynb"))) == len(NOTEBOOKS)
    assert (folder / "report.html").stat().st_size > 50_000
    scores = pandas.read_csv(folder / "scores.csv")
    assert set(scores["model"]) == {"base", "rsft", "gmpo"} and set(scores["tests"]) == {"visible", "hidden", "all"}


def test_every_notebook_that_draws_shows_its_figures(smoke):
    folder, _ = smoke
    drawing = [path.name for path in NOTEBOOKS if "figures." in path.read_text(encoding="utf-8")]
    assert len(drawing) >= 6
    assert all("image/png" in (folder / "notebooks" / name).read_text(encoding="utf-8") for name in drawing)


def test_copies_for_readers_have_outputs_and_small_pictures_and_no_trace_of_the_machine(smoke, tmp_path):
    written = executed.publish(smoke[0], tmp_path)
    assert 100_000 < written < executed.MAX_BYTES
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in NOTEBOOKS]
    for path in tmp_path.iterdir():
        text = path.read_text(encoding="utf-8")
        book = nbformat.reads(text, as_version=4)
        assert str(ROOT) not in text and "preset `smoke`" in book.cells[0].source
        assert any(cell.get("outputs") for cell in book.cells)
        assert not any(output.get("name") == "stderr" for cell in book.cells for output in cell.get("outputs", []))


def test_the_copies_in_figures_are_of_these_notebooks():
    copies = {path.name: path for path in (ROOT / "figures" / "notebooks").glob("*.ipynb")}
    assert set(copies) == {path.name for path in NOTEBOOKS}
    assert sum(path.stat().st_size for path in copies.values()) <= executed.MAX_BYTES
    for path in copies.values():
        assert any(cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells)


def test_an_evaluated_run_compares_with_its_own_scores(smoke):
    run = comparison.read_run(smoke[0])
    scores = run.scores[run.scores["tests"] == "hidden"].set_index(["model", "protocol"])["rate"]
    rows, _ = comparison.pool_runs([run])
    assert len(rows) == 6
    for row in rows:
        assert row["rate"] == pytest.approx(scores[row["model"], row["protocol"]], abs=1e-6)


def test_a_second_run_repeats_nothing(smoke):
    folder, command = smoke
    attempts = (folder / "attempts" / "evaluation.jsonl").read_bytes()
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert second.returncode == 0 and "started" not in second.stdout, second.stdout[-2000:]
    assert (folder / "attempts" / "evaluation.jsonl").read_bytes() == attempts


@pytest.mark.parametrize("trains", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_nbval_runs_the_executed_notebooks_where_they_lie(smoke, trains):
    """In two halves at a time: most of it is kernels that start and import."""
    found = sorted((smoke[0] / "notebooks").glob("*.ipynb"))
    books = [str(path) for path in found if (path.stem in ("03_sft", "04_gmpo")) == trains]
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "-p", "no:cacheprovider"]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        halves = [[*command, *books[half::2]] for half in (0, 1)]
        runs = list(pool.map(lambda half: subprocess.run(half, cwd=ROOT, capture_output=True, text=True), halves))
    assert [run.returncode for run in runs] == [0, 0], "".join(run.stdout[-3000:] for run in runs)
