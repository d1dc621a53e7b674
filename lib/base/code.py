"""Which files of `lib` a program computes with, and their digest: what decides whether a result is still the code's."""

import ast
import functools
from pathlib import Path

from lib.base.files import ROOT, digest, file_digest

# Wings and files that schedule or show results but never change them: a change here invalidates nothing.
NOT_HASHED = (
    "lib/run/",
    "lib/figures/",
    "lib/base/parallel.py",
    "lib/base/progress.py",
    "lib/base/errors.py",
    "lib/base/code.py",
    "lib/__init__.py",
    "lib/__main__.py",
)
# Packages whose modules are started by name in other processes, or read as data: every file of theirs counts.
WHOLE = ("lib/sandbox", "lib/sampling")
PYTHON = (".py", ".pyc")


def library_files(source: str, root: Path = ROOT) -> list[Path]:
    """Return the files of `lib` that a program computes with: its imports, direct or not, also inside functions.

    A name that a package only passes on counts as the module that defines it; the package's other modules do not count.
    Data files count with the modules beside them.
    """
    found: set[Path] = set()
    waiting = [source]
    while waiting:
        for path in _imported_files(waiting.pop(), root) - found:
            found.add(path)
            waiting += [path.read_text(encoding="utf-8")] if path.suffix == ".py" else []
    folders = {path.parent for path in found} - {root / "lib"}
    data = {path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix not in PYTHON}
    return sorted(found | data)


@functools.lru_cache(maxsize=1000)
def _read(source: str) -> tuple[frozenset[str], str]:
    """Return the dotted names of `lib` that a source imports, and the digest of its syntax tree."""
    tree, names = ast.parse(source), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(name for name in names if name.split(".")[0] == "lib"), digest(ast.dump(tree))


def _imported_files(source: str, root: Path) -> set[Path]:
    found = {path for name in _read(source)[0] for path in _files_of(name, root)}
    return {path for path in found if not str(path.relative_to(root)).startswith(NOT_HASHED)}


def _files_of(name: str, root: Path) -> set[Path]:
    """Return the files behind a dotted name: a module, a package, or a name inside one of them."""
    path = root / name.replace(".", "/")
    inside = [whole for whole in WHOLE if f"{path.relative_to(root)}/".startswith(f"{whole}/")]
    if inside:
        return {file for file in (root / inside[0]).rglob("*") if file.is_file() and file.suffix != ".pyc"}
    for file in (path.with_suffix(".py"), path / "__init__.py", path.parent.with_suffix(".py")):
        if file.is_file():
            return {file}
    package = path.parent / "__init__.py"
    if not package.is_file():
        return set()
    origin = _passed_on(package.read_text(encoding="utf-8")).get(path.name)
    return _files_of(origin, root) if origin else {package}


@functools.lru_cache(maxsize=100)
def _passed_on(package: str) -> dict[str, str]:
    """Return {name: where it is from} of the names that a package's source only imports from elsewhere."""
    imports = [node for node in ast.parse(package).body if isinstance(node, ast.ImportFrom) and not node.level]
    return {alias.asname or alias.name: f"{node.module}.{alias.name}" for node in imports for alias in node.names}


def code_digest(source: str, root: Path = ROOT) -> str:
    """Return the digest of a program and the `lib` files it computes with; comments and layout do not count."""
    parts = [_read(source)[1]]
    for path in library_files(source, root):
        content = _read(path.read_text(encoding="utf-8"))[1] if path.suffix == ".py" else file_digest(path)
        parts.append(f"{path.relative_to(root)} {content}")
    return digest(parts)
