"""Where things are, and files that appear whole or not at all."""

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def cache_dir() -> Path:
    """Return the folder for converted models: $WORKBOOK_CACHE, else `.cache` beside `lib`."""
    return Path(os.environ.get("WORKBOOK_CACHE", ROOT / ".cache"))


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all, also after a power cut. Parent folders are made."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all, also after a power cut. Parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_folder(target: Path, write: Callable[[Path], object]) -> None:
    """Call `write(folder)` on a scratch folder and move it to `target`, which is therefore whole or absent.

    An existing `target` is replaced.
    """
    scratch = target.with_name(f"{target.name}.{os.getpid()}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        write(scratch)
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that appears whole or not at all; values without a JSON form are written as their str."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, default=str))


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object, or an empty one if the file is missing, unreadable or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def digest(value: Any) -> str:
    """Return the SHA-256 of a value as JSON with sorted keys; values without a JSON form count as their str."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, cached while its size and times stay the same."""
    stat = path.stat()
    return _file_digest(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@functools.lru_cache(maxsize=10_000)
def _file_digest(path: Path, *stat: int) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
