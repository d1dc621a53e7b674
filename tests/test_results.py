"""README.md and RESULTS.md say what the files that they name hold, and the comparison finds what differs."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = "model,rate,lo,hi,p\nbase,0.0204,0.011,0.036,\nrsft,0.056,0.039,0.0797,0.00012\n"


def load() -> ModuleType:
    """Return tests/numbers_in_text.py as a module."""
    spec = importlib.util.spec_from_file_location("numbers_in_text", ROOT / "tests" / "numbers_in_text.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = load()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one result, and a README that quotes it rightly."""
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "x.csv").write_text(SOURCE)
    (tmp_path / "README.md").write_text("It is [2.0 %](figures/x.csv#model=base&show=rate) of the tasks.\n")
    (tmp_path / "RESULTS.md").write_text("")
    return tmp_path


def test_every_number_in_the_pages_is_that_of_the_file_it_names() -> None:
    assert list(tool.problems()) == []


def test_the_pages_quote_many_files() -> None:
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in tool.TEXTS)
    files = {found[1] for found in tool.TABLE.findall(text)} | {found[1] for found in tool.LINK.findall(text)}
    assert len(files) >= 10 and len(tool.LINK.findall(text)) >= 15


def test_a_right_number_is_no_problem(root: Path) -> None:
    assert list(tool.problems(root)) == []


def test_a_wrong_number_is_found_and_put_right(root: Path) -> None:
    page = root / "README.md"
    page.write_text(page.read_text().replace("2.0", "3.0"))
    assert len(list(tool.problems(root))) == 1
    assert tool.filled(page.read_text(), root) == "It is [2.0 %](figures/x.csv#model=base&show=rate) of the tasks.\n"


@pytest.mark.parametrize(
    "claim", ["It gains 3 points.", "It is 12.5 % of them.", "Here p = 0.04.", "It is 7 times as fast."]
)
def test_a_number_without_a_file_is_found(root: Path, claim: str) -> None:
    (root / "RESULTS.md").write_text(claim)
    assert len(list(tool.problems(root))) == 1


@pytest.mark.parametrize(
    "target",
    [
        "figures/y.csv#show=rate",
        "figures/x.csv#model=gmpo&show=rate",
        "figures/x.csv#show=rate",
        "figures/x.csv#model=base&show=no",
    ],
)
def test_a_target_that_names_no_one_number_is_refused(root: Path, target: str) -> None:
    (root / "README.md").write_text(f"[2.0 %]({target})")
    with pytest.raises(ValueError, match="figures/"):
        list(tool.problems(root))


def test_a_table_is_made_from_its_file(root: Path) -> None:
    spec = 'rows: {Base: {model: base}, RSFT: {model: rsft}}\ncolumns: {a: "{rate:%} [{lo:100}]", b: "{p:p}"}\n'
    head = f"<!-- table figures/x.csv\n{spec}-->\n"
    made = tool.filled(head + "| old |\n<!-- end of table -->\n", root)
    assert made.removeprefix(head).splitlines() == [
        "|  | a | b |",
        "|---|---|---|",
        "| Base | 2.0 % [1.1] |  |",
        "| RSFT | 5.6 % [3.9] | 0.0001 |",
        "<!-- end of table -->",
    ]


def test_rows_are_averaged_on_request(root: Path) -> None:
    spec = {"rows": {"both": {"model": ["base", "rsft"]}}, "columns": {"rate": {"show": "{rate:.4f}", "mean": True}}}
    assert tool.table(tool.read_rows(root / "figures" / "x.csv"), spec).splitlines()[-1] == "| both | 0.0382 |"
