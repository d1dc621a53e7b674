"""The order of the wings, and that no import points down."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WINGS = (
    "base", "stats", "tasks", "decontamination", "models", "sandbox", "sampling", "mining", "training", "gmpo",
    "evaluation", "figures", "papers", "run",
)  # fmt: skip


def imported_wings(source: str) -> set[str]:
    """Return the wings that a module imports, at the top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("lib.")}


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_imports_only_wings_above_it(wing: str) -> None:
    allowed = set(WINGS[: WINGS.index(wing) + 1])
    for path in sorted((ROOT / "lib" / wing).rglob("*.py")):
        downward = imported_wings(path.read_text(encoding="utf-8")) - allowed
        assert not downward, f"{path.relative_to(ROOT)} imports {sorted(downward)}, which come later than {wing}"


def test_lib_holds_wings_and_no_loose_files() -> None:
    names = {path.name for path in (ROOT / "lib").iterdir() if path.name != "__pycache__"}
    assert names == {*WINGS, "__init__.py", "__main__.py"}


def test_a_downward_import_is_found() -> None:
    assert imported_wings("def f():\n    from lib.run import doctor\n    import lib.stats.intervals\n") == {
        "run",
        "stats",
    }
