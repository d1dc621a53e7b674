"""docs/papers.md: every file and name it gives exists, every row says where, and no item is left out."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DRAWS = (ROOT / "lib" / "papers" / "run_figures.py").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
REFERENCE = re.compile(
    r"`((?:lib|tests|notebooks|data|docs|benchmarks)/[\w./-]+\.(?:py|md|csv|yaml|ipynb))(?::(\w+))?`"
)
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ") and "`" in line]
PARTS = dict(zip(("troopers", "polycode", "own"), re.split(r"^## .*$", PAGE, flags=re.MULTILINE)[1:], strict=True))


@functools.cache
def names_in(path: Path) -> set[str]:
    """Return what a Python file defines at its top level; of any other file, its words."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return set(re.findall(r"\w+", text))
    found = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def missing(page: str) -> list[str]:
    """Return the references of a page that lead nowhere."""
    lost = []
    for path, name in REFERENCE.findall(page):
        file = ROOT / path
        if not file.is_file() or (name and name not in names_in(file)):
            lost.append(f"{path}:{name}" if name else path)
    return lost


def test_every_file_and_name_on_the_page_exists() -> None:
    assert missing(PAGE) == []
    assert len(REFERENCE.findall(PAGE)) > 120


@pytest.mark.parametrize("lost", ["`lib/no.py`", "`lib/stats/paired.py:no_such_test`", "`docs/no.md`"])
def test_what_leads_nowhere_is_found(lost: str) -> None:
    assert missing(f"| item | {lost} |") == [lost.strip("`")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_every_row_names_code_notebook_and_test_and_says_where_we_differ(row: list[str]) -> None:
    assert len(row) == 5 and all(row)
    code, notebook, test = (REFERENCE.findall(cell) for cell in row[1:4])
    assert code and all(path.endswith(".ipynb") for path, _ in notebook) and notebook
    assert test and all(path.startswith("tests/") for path, _ in test)


ITEMS = {
    "troopers": ("Algorithm 1", "Algorithm 2", "Table 1", "Table 2", "Table 3", "Figure 1", "Figure 2", "Figure 3"),
    "polycode": ("Algorithm 1", "Algorithm 2", "Algorithm 3", "Proposition 1", "Figures 1 to 7", "Appendix C",
                 "Appendix D", "Appendix G", "Appendix I"),
}  # fmt: skip


@pytest.mark.parametrize(("part", "item"), [(part, item) for part, items in ITEMS.items() for item in items])
def test_every_numbered_item_has_a_row(part: str, item: str) -> None:
    assert any(line.startswith(f"| {item}") for line in PARTS[part].splitlines())


def test_no_picture_bears_a_number_of_polycode() -> None:
    drawn = set(re.findall(r'"((?:troopers|polycode)_\w+)"', DRAWS))
    files = {path.stem for path in (ROOT / "figures").glob("*.png")}
    numbered = {name for name in drawn | files if re.match(r"polycode_(?:figure|table)_", name)}
    assert not numbered and "polycode_by_language" in drawn


def test_numbered_pictures_of_troopers_are_on_the_page() -> None:
    numbered = set(re.findall(r'"troopers_((?:table|figure)_\d)"', DRAWS))
    assert numbered == {f"{kind}_{n}" for kind in ("table", "figure") for n in (1, 2, 3)}
