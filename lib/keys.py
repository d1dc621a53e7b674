"""What a stage depends on and what it left: digests, keys, markers."""

import ast
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lib.presets import ROOT, Notebook, PipelineError, Stage, Values

# Rooms that say when a stage runs and how it looks, never what it gives: they are no part of a key.
MACHINERY = {"pipeline", "presets", "keys", "kernel", "report", "progress", "colab", "sweep"}


def library_files(source: str, root: Path = ROOT) -> list[Path]:
    """Files of `lib` a program depends on: the rooms it imports, directly or not, also inside functions.

    A room that is a folder counts whole, data files included, because some of its modules are started by name.
    """
    found: set[Path] = set()
    waiting = [source]
    while waiting:
        for room in _rooms(waiting.pop()):
            for path in [root / "lib" / f"{room}.py", *sorted((root / "lib" / room).rglob("*"))]:
                if path not in found and path.is_file() and "__pycache__" not in path.parts:
                    found.add(path)
                    waiting += [path.read_text(encoding="utf-8")] if path.suffix == ".py" else []
    return sorted(found)


def _rooms(source: str) -> set[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("lib.")} - MACHINERY


def code_digest(source: str, root: Path = ROOT) -> str:
    """Digest of a program and the `lib` files it depends on; comments and layout do not count."""
    parts = [ast.dump(ast.parse(source))]
    for path in library_files(source, root):
        python = path.suffix == ".py"
        content = ast.dump(ast.parse(path.read_bytes())) if python else file_digest(path)
        parts.append(f"{path.relative_to(root)} {content}")
    return digest(parts)


def digest(value: Any) -> str:
    """SHA-256 of a value as JSON, keys sorted; what JSON has no form for counts as its str."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file; read once as long as its size and times stay."""
    stat = path.stat()
    return _file_digest(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@functools.lru_cache(maxsize=10_000)
def _file_digest(path: Path, *stat: int) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def matching(folder: Path, patterns: Iterable[str], why: str) -> dict[str, str]:
    """{relative path: digest} of the files that glob patterns match; PipelineError for one that matches nothing."""
    digests: dict[str, str] = {}
    for pattern in patterns:
        files = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
        if not files:
            raise PipelineError(f"{why} {pattern}, and {folder} has none")
        digests |= {str(path.relative_to(folder)): file_digest(path) for path in files}
    return digests


def parameter_files(values: Values, root: Path = ROOT) -> dict[str, str]:
    """Digests of the files that parameters name, alone or in a list."""
    digests = {}
    for key, value in values.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, str) and os.path.isfile(root / item):
                digests[f"{key}={item}"] = file_digest(root / item)
    return digests


def key_parts(
    stage: Stage, notebook: Notebook, values: Values, run_dir: Path, root: Path = ROOT
) -> dict[str, str]:
    """Digests of what a stage depends on. Raises PipelineError when an input is missing."""
    every = {key: value for key, value in {**notebook.defaults, **values}.items() if key != "run_dir"}
    inputs = matching(run_dir, stage.inputs, f"{stage.name} needs")
    return {
        "parameters": digest(every),
        "inputs": digest([inputs, parameter_files(every, root)]),
        "code": code_digest(notebook.source, root),
    }


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that appears whole or not at all, also when the power goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as out:
            json.dump(value, out, ensure_ascii=False, indent=1, default=str)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is none to read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def marker_path(run_dir: Path, stage: Stage) -> Path:
    """Where a finished stage is noted."""
    return run_dir / "stages" / f"{stage.name}.json"


def why_run(marker: Mapping[str, Any], parts: Mapping[str, str], run_dir: Path) -> str:
    """Why a stage must run ("never finished", "its inputs changed", …); empty when it is finished as it stands."""
    if not marker.get("outputs") or not marker.get("parts"):
        return "not finished before"
    changed = [part for part in parts if marker["parts"].get(part) != parts[part]]
    if changed:
        return f"its {' and '.join(changed)} changed"
    for name, digest in marker["outputs"].items():
        if not (run_dir / name).is_file() or file_digest(run_dir / name) != digest:
            return f"its output {name} is gone or was changed"
    return ""


def drop_stale(run_dir: Path, before: Mapping[str, str], started_ns: int) -> None:
    """Remove outputs of a stage's earlier run that its new run did not write again."""
    for name, digest in before.items():
        path = run_dir / name
        if path.is_file() and path.stat().st_mtime_ns < started_ns and file_digest(path) == digest:
            path.unlink()
