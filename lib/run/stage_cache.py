"""What a stage depends on and what it left: digests, keys, records."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lib.base.code import code_digest
from lib.base.files import ROOT, digest, file_digest
from lib.run.presets import Notebook, PipelineError, Stage, Values


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


def key_parts(stage: Stage, notebook: Notebook, values: Values, run_dir: Path, root: Path = ROOT) -> dict[str, str]:
    """Digests of what a stage depends on. Raises PipelineError when an input is missing."""
    every = {key: value for key, value in {**notebook.defaults, **values}.items() if key != "run_dir"}
    inputs = matching(run_dir, stage.inputs, f"{stage.name} needs")
    return {
        "parameters": digest(every),
        "inputs": digest([inputs, parameter_files(every, root)]),
        "code": code_digest(notebook.source, root),
    }


def stage_record_path(run_dir: Path, stage: Stage) -> Path:
    """Return the path of the record that a finished stage leaves."""
    return run_dir / "stages" / f"{stage.name}.json"


def stale_reason(stage_record: Mapping[str, Any], parts: Mapping[str, str], run_dir: Path) -> str:
    """Return why a stage must run ("not finished before", "its inputs changed", …); empty when it need not."""
    if not stage_record.get("outputs") or not stage_record.get("parts"):
        return "not finished before"
    changed = [part for part in parts if stage_record["parts"].get(part) != parts[part]]
    if changed:
        return f"its {' and '.join(changed)} changed"
    for name, expected in stage_record["outputs"].items():
        if not (run_dir / name).is_file() or file_digest(run_dir / name) != expected:
            return f"its output {name} is gone or was changed"
    return ""


def drop_stale(run_dir: Path, before: Mapping[str, str], started_ns: int) -> None:
    """Remove outputs of a stage's earlier run that its new run did not write again."""
    for name, expected in before.items():
        path = run_dir / name
        if path.is_file() and path.stat().st_mtime_ns < started_ns and file_digest(path) == expected:
            path.unlink()
