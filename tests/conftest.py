"""What tests share: tiny notebooks and run folders that never leave the test's own."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from lib.run.pipeline import STAGES, Stage

# What each tiny stage does: it writes every declared output, with its parameters in it, and notes that it ran.
TINY = """
from pathlib import Path
folder = Path(run_dir)
for name in {outputs!r}:
    path = folder / name.replace("*", "one")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{{draws}} {{seed}}")
(folder / "attempts").mkdir(exist_ok=True)
for name in ("mining", "evaluation"):
    (folder / "attempts" / f"{{name}}.jsonl").touch()
with open(folder / "calls.txt", "a") as calls:
    calls.write("{name}\\n")
"""


def write_notebook(folder: Path, name: str, parameters: str, *cells: str) -> Path:
    """A notebook with a parameters cell and the given code cells."""
    first = nbformat.v4.new_code_cell(parameters)
    first.metadata["tags"] = ["parameters"]
    book = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)])
    path = folder / f"{name}.ipynb"
    nbformat.write(book, path)
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Path]:
    """A function that makes a folder of tiny notebooks, one a stage, and a preset "p"; extra cells by stage name."""

    def make(stages: tuple[Stage, ...] = STAGES, preset: str = "shared: {seed: 1}\n", **cells: str) -> Path:
        folder = tmp_path / "books"
        (folder / "presets").mkdir(parents=True)
        (folder / "presets" / "p.yaml").write_text(preset)
        for stage in stages:
            source = cells.get(f"s{stage.name[:2]}", "") + TINY.format(outputs=stage.outputs, name=stage.name)
            write_notebook(
                folder, stage.name, 'run_dir = "runs/x"\nseed = 0\ndraws = 3\nrate = 0.5\nfast = True', source
            )
        return folder

    return make


# Threads of several processes that share the cores wait for one another in a loop, which takes many times as long.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A job started in the background ignores Ctrl-C, and so would everything it starts; several tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `slow`, by name, unless SLOW_TESTS is set, as `make test-all` does."""
    if not os.environ.get("SLOW_TESTS"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: `make test-all` runs it"))
