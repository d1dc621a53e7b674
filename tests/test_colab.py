"""Colab's first cell: what stays, what is refused, what pip is asked for, and a session after a disconnect.

Colab is emulated by what the cell can see of it: the module google.colab, Colab's own packages, a Drive, and a pip that
writes down what it is asked. Nothing is installed.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from lib.run import colab
from lib.run.colab import ColabError

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))


def first_cell(path: Path) -> str:
    return next(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")


# ------------------------------------------------------------------------------------------------------ pure functions


@pytest.mark.parametrize("torch", ["2.4.0", "2.9.0+cu126", "2.14.2+cu130", ""])
def test_a_torch_that_unsloth_takes_is_not_refused(torch: str) -> None:
    assert [colab.refused(python, torch) for python in ((3, 11), (3, 12))] == ["", ""]


@pytest.mark.parametrize(
    ("python", "torch", "said"),
    [
        ((3, 10), "2.9.0", "Python 3.10: this workbook needs 3.11 or 3.12"),
        ((3, 13), "2.9.0", "Python 3.13"),
        ((3, 12), "2.3.1+cu121", "torch 2.3.1+cu121: unsloth needs at least 2.4 and less than 2.15"),
        ((3, 12), "2.15.0", "torch 2.15.0"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(python: tuple[int, int], torch: str, said: str) -> None:
    reason = colab.refused(python, torch)
    assert reason.startswith(said) and "\n" not in reason


def test_the_pythons_are_those_of_the_project() -> None:
    assert 'requires-python = ">=3.11,<3.13"' in (ROOT / "pyproject.toml").read_text()


def test_the_torch_that_vllm_needs_is_the_pinned_one() -> None:
    pinned = [line for line in colab.read("requirements.txt") if line.startswith("torch==")]
    assert pinned[0].split()[0] == f"torch=={colab.VLLM_TORCH}"
    assert colab.without_vllm(f"{colab.VLLM_TORCH}+cu130") == ""
    assert "2.9.0+cu126" in colab.without_vllm("2.9.0+cu126")


def test_what_colab_s_kernel_stands_on_stays_with_all_it_stands_on() -> None:
    installed = {
        "google-colab": "1.0",
        "pandas": "2.2.2",
        "numpy": "2.0.2",
        "torch": "2.9.0+cu126",
        "datasets": "3.0",
        "rich": "13",
    }
    needs = {
        "google-colab": ["pandas==2.2.2", 'rich; extra == "docs"', "absent"],
        "pandas": ["numpy>=1.26 ; python_version < '3.13'"],
    }
    stays = colab.kept(installed, lambda name: needs.get(name, ()))
    assert stays == {"torch": "2.9.0+cu126", "pandas": "2.2.2", "numpy": "2.0.2"}


def test_what_stays_is_pinned_and_not_asked_for() -> None:
    stays = {"torch": "2.9.0+cu126", "pandas": "2.2.2"}
    asked = colab.wanted(colab.read("requirements.txt"), stays)
    assert {"transformers==5.5.4", "trl==1.14.0", "papermill==2.7.0"} <= set(asked)
    assert not {"torch", "pandas", "jupyterlab", "pytest", ""} & {colab.name_of(line) for line in asked}
    pins = colab.constraints(colab.read("requirements-lock.txt"), stays)
    assert [pin for pin in pins if colab.name_of(pin) in stays] == ["pandas==2.2.2", "torch==2.9.0+cu126"]
    assert "tokenizers==0.22.2" in pins


def test_only_what_is_missing_or_of_another_version_is_installed() -> None:
    assert colab.missing(["a==1", "b==2", "c==3"], {"a": "1", "b": "1"}) == ["b==2", "c==3"]


def test_a_runs_folder_in_the_way_is_named_and_kept(tmp_path: Path) -> None:
    (tmp_path / "runs" / "lab").mkdir(parents=True)
    with pytest.raises(ColabError, match="is there and not on Drive"):
        colab.link_runs(tmp_path, tmp_path / "drive")
    assert (tmp_path / "runs" / "lab").is_dir()


# ------------------------------------------------------------------------------------------------------- the first cell


def test_all_notebooks_open_with_the_same_short_cell() -> None:
    (cell,) = {first_cell(path) for path in NOTEBOOKS}
    assert len([line for line in cell.splitlines() if line]) <= 6


def test_every_notebook_has_one_badge_to_itself_and_one_address() -> None:
    address = colab.address()
    for path in [*NOTEBOOKS, ROOT / "docs" / "colab.md"]:
        text = path.read_text(encoding="utf-8")
        assert colab.addressed(text, address) == text, f"{path.name}: `python -m lib.run.colab` writes the address"
        if path.suffix == ".ipynb":
            here = f"{address.removeprefix('https://github.com/')}/blob/main/{path.relative_to(ROOT)})"
            links = text.count(colab.BADGE), text.count(f"colab.research.google.com/github/{here}")
            assert links == (1, 1), f"{path.name}: `python -m lib.run.colab` adds the badge"


def test_another_address_reaches_badge_and_first_cell_alike() -> None:
    text = colab.addressed(NOTEBOOKS[0].read_text(encoding="utf-8"), "https://github.com/me/mine.too")
    assert text.count("me/mine.too") == 2 and colab.address() not in text
    assert "git clone -q https://github.com/me/mine.too workbook" in text and json.loads(text)


def test_a_notebook_without_a_badge_gets_one_and_keeps_it() -> None:
    book = json.dumps({"cells": [{"cell_type": "markdown", "source": ["# One"]}]}, indent=1) + "\n"
    once = colab.with_badge(book, "notebooks/x.ipynb", "https://github.com/me/mine")
    assert "github/me/mine/blob/main/notebooks/x.ipynb)" in once and colab.with_badge(once, "y", "z") == once


# A pip that writes down what it is asked for, and may replace a package or fail.
PIP = r"""
import json, os, sys
pins = [open(after).read() for word, after in zip(sys.argv, sys.argv[1:]) if word == "--constraint"]
with open(os.environ["ASKED"], "a") as asked:
    asked.write(json.dumps([sys.argv[2:], pins]) + "\n")
if "REPLACES" in os.environ:
    with open(os.environ["REPLACES"], "w") as metadata:
        metadata.write("Name: demo\nVersion: 2\n")
sys.exit(int(os.environ.get("FAILS", 0)))
"""


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A folder that stands for a Colab machine's packages, and the workbook as it is cloned or unpacked."""
    packages, repository = tmp_path / "packages", tmp_path / "repository"
    files = {
        "google/colab/__init__.py": "",
        "pip/__init__.py": "",
        "pip/__main__.py": PIP,
        "demo.py": "",
        "demo-1.dist-info/METADATA": "Name: demo\nVersion: 1\n",
        "demo-1.dist-info/top_level.txt": "demo\n",
        "google_colab-1.0.dist-info/METADATA": "Name: google-colab\nVersion: 1.0\nRequires-Dist: pandas==2.2.2\n",
        "pandas-2.2.2.dist-info/METADATA": "Name: pandas\nVersion: 2.2.2\n",
        "torch-2.9.0.dist-info/METADATA": "Name: torch\nVersion: 2.9.0+cu126\n",
    }
    for name, text in files.items():
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text(text)
    modules = ("__init__", "base/__init__", "base/errors", "base/files", "run/__init__", "run/colab")
    for path in [*(ROOT / "lib" / f"{module}.py" for module in modules), *ROOT.glob("requirements*.txt")]:
        copy = repository / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path


def session(
    runtime: Path, number: int, place: str = "workbook-main", on_drive: bool = False, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the cell on a fresh machine: its own folder with the workbook in `place`, and perhaps the owner's Drive."""
    content, drive = runtime / f"content{number}", runtime / "MyDrive"
    content.mkdir()
    if on_drive:
        drive.mkdir(exist_ok=True)
        (content / "drive").mkdir()
        (content / "drive" / "MyDrive").symlink_to(drive)
    shutil.copytree(runtime / "repository", content / place, dirs_exist_ok=True)
    return run_cell(content, f"import demo, google.colab\n{first_cell(NOTEBOOKS[0])}", runtime, **more)


def run_cell(folder: Path, cell: str, runtime: Path, **more: str) -> subprocess.CompletedProcess[str]:
    paths = {"PYTHONPATH": str(runtime / "packages"), "ASKED": str(runtime / "asked")}
    command = [sys.executable, "-S", "-c", f"{cell}\nprint(getcwd())"]
    return subprocess.run(command, cwd=folder, env={**os.environ, **paths, **more}, capture_output=True, text=True)


@pytest.mark.parametrize("folder", [".", "notebooks", "notebooks/studies"])
def test_elsewhere_the_cell_only_goes_to_the_workbook(runtime: Path, folder: str) -> None:
    done = run_cell(
        ROOT / folder, f"{first_cell(NOTEBOOKS[0])}\nimport lib\nassert 'lib.run' not in sys.modules", runtime
    )
    assert done.stdout == f"{ROOT}\n", done.stderr
    assert not (runtime / "asked").exists()


def test_the_cell_installs_the_pinned_set_around_colab_s_own_torch(runtime: Path) -> None:
    done = session(runtime, 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(runtime / "content1" / "workbook-main")
    assert "runs/ ends with this machine" in done.stdout
    (first, pins), (second, _) = map(json.loads, (runtime / "asked").read_text().splitlines())
    assert "transformers==5.5.4" in first and "--no-deps" in second and "unsloth==2026.10.9" in second
    assert not [word for word in first + second if word.startswith(("torch", "pandas", "numpy==1"))]
    assert {"torch==2.9.0+cu126", "pandas==2.2.2"} <= set(pins[0].splitlines())


def test_a_notebook_opened_by_its_badge_alone_clones_the_workbook(runtime: Path) -> None:
    """Git is emulated: it copies the repository, or fails."""
    git, content = runtime / "bin" / "git", runtime / "content"
    git.parent.mkdir()
    content.mkdir()
    git.write_text(f'#!/bin/sh\necho "$@" > {runtime}/cloned\n[ -z "$OFFLINE" ] && cp -r {runtime}/repository "$4"\n')
    git.chmod(0o755)
    where = {"PATH": f"{git.parent}:{os.environ['PATH']}"}
    cell = f"import google.colab\n{first_cell(NOTEBOOKS[0])}"
    failed = run_cell(content, cell, runtime, **where, OFFLINE="1")
    assert failed.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'lib'"
    done = run_cell(content, cell, runtime, **where)
    assert done.stdout.splitlines()[-1] == str(content / "workbook"), done.stderr
    assert (runtime / "cloned").read_text() == f"clone -q {colab.address()} workbook\n"


def test_after_a_disconnect_the_next_machine_finds_the_run(runtime: Path) -> None:
    first = session(runtime, 1, "workbook", on_drive=True)
    assert first.returncode == 0, first.stderr
    stages = runtime / "content1" / "workbook" / "runs" / "lab" / "stages"
    stages.mkdir(parents=True)
    (stages / "00_environment.json").write_text("{}")
    shutil.rmtree(runtime / "content1")
    assert session(runtime, 2, "workbook", on_drive=True).returncode == 0
    assert (runtime / "content2" / "workbook" / "runs" / "lab" / "stages" / "00_environment.json").is_file()


def test_a_workbook_on_drive_keeps_its_runs_where_it_lies(runtime: Path) -> None:
    done = session(runtime, 1, "drive/MyDrive/workbook", on_drive=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(runtime / "MyDrive" / "workbook")
    assert "runs/" not in done.stdout and not (runtime / "MyDrive" / "workbook" / "runs").is_symlink()


def test_a_torch_that_cannot_be_used_stops_the_cell_before_pip(runtime: Path) -> None:
    metadata = runtime / "packages" / "torch-2.9.0.dist-info" / "METADATA"
    metadata.write_text("Name: torch\nVersion: 2.3.0\n")
    done = session(runtime, 1)
    assert "torch 2.3.0: unsloth needs" in done.stderr.splitlines()[-1] and not (runtime / "asked").exists()


def test_a_failed_installation_is_not_passed_over(runtime: Path) -> None:
    assert "ColabError: pip: " in session(runtime, 1, FAILS="1").stderr.splitlines()[-1]


def test_a_package_replaced_under_the_kernel_that_has_loaded_it_asks_for_a_restart(runtime: Path) -> None:
    metadata = str(runtime / "packages" / "demo-1.dist-info" / "METADATA")
    assert (
        "ColabError: demo: replaced after being loaded"
        in session(runtime, 1, REPLACES=metadata).stderr.splitlines()[-1]
    )
    assert session(runtime, 2).returncode == 0  # after the restart
