"""The pages of docs/, followed literally: every block runs, in order, in a copy of the repository, and prints what the page says.

Blocks marked `long` take minutes together and run with DOCS_FULL=1.
"""

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
FENCE = re.compile(r"^```(\w+)( long)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, bool, str]]:
    """(language, long, text) of every fenced block."""
    return [(found[1], bool(found[2]), found[3]) for found in FENCE.finditer((ROOT / "docs" / page).read_text())]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The repository's tracked folders, for a page to write into."""
    for name in ("lib", "notebooks", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("external"))
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if any(kind in EXECUTED for kind, _, _ in blocks(page))])
def test_a_page_followed_literally_does_what_it_says(page: str, copy: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "WORKBOOK_CACHE": str(cache_dir()),
    }
    printed: str | None = None  # by the block before; None: it was left out
    for kind, long, text in blocks(page):
        if kind in EXECUTED:
            printed = None
            if not long or os.environ.get("DOCS_FULL"):
                done = subprocess.run(
                    [*EXECUTED[kind], text], cwd=copy, env=environment, capture_output=True, text=True
                )
                assert done.returncode == 0, f"{text}\n{done.stdout[-1000:]}{done.stderr[-2000:]}"
                printed = done.stdout
        elif kind == "text" and printed is not None:
            assert [line for line in text.splitlines() if line not in printed] == [], printed


def test_every_page_is_linked_and_every_link_leads_somewhere() -> None:
    linked = set()
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
            linked.add((path.parent / target).resolve())
    assert {(ROOT / "docs" / page).resolve() for page in PAGES} <= linked
