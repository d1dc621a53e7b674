"""The pages of docs/ and the README, followed literally: every block runs, in order, and prints what the page says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lib.models.resolve import cache_dir

ROOT = Path(__file__).parent.parent
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
EXECUTED = {"sh": ["bash", "-e", "-c"], "python": [sys.executable, "-c"]}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of every fenced block."""
    return [(found[1], found[2]) for found in FENCE.finditer(page.read_text(encoding="utf-8"))]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The repository's tracked folders, for a page to write into."""
    for name in ("lib", "notebooks", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("external"))
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    """What a command prints in a folder; it has to succeed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "WORKBOOK_CACHE": str(cache_dir())}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout[-1000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(kind in EXECUTED for kind, _ in blocks(ROOT / "docs" / page))]
)
def test_a_page_followed_literally_does_what_it_says(page: str, copy: Path) -> None:
    printed = None
    for kind, text in blocks(ROOT / "docs" / page):
        if kind in EXECUTED:
            printed = run([*EXECUTED[kind], text], copy)
        elif kind == "text":
            assert printed is not None, f"{page}: shows output before any command"
            assert [line for line in text.splitlines() if line not in printed] == [], printed


def test_the_snippets_of_the_readme_run_one_after_the_other(copy: Path) -> None:
    snippets = [text for kind, text in blocks(ROOT / "README.md") if kind == "python"]
    assert len(re.findall(r"^# \w", "\n".join(snippets), re.MULTILINE)) >= 4
    shown = re.findall(r"print\(.*\)  # (.*)", "".join(snippets))
    printed = run([sys.executable, "-c", "\n".join(snippets)], copy)
    assert shown and [line for line in shown if line not in printed] == [], printed
    assert (copy / "adapters" / "rsft" / "adapter_model.safetensors").is_file()


def test_every_page_is_linked_and_every_link_leads_somewhere() -> None:
    linked = set()
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
            linked.add((path.parent / target).resolve())
    assert {(ROOT / "docs" / page).resolve() for page in PAGES} <= linked
