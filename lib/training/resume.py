"""Skip, continue or begin: what fine-tuning and GMPO do when they are asked to train an adapter once more.

A training is known by its identity: the model, what it learns from, the settings, the start, and the code that trains.
A finished training of the same identity is not repeated; an interrupted one goes on from its last checkpoint; any other
starts anew.
"""

import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lib.base.code import code_digest
from lib.base.errors import WorkbookError
from lib.base.files import digest, file_digest, read_json, write_json
from lib.models.card import read_facts

Identity = dict[str, str]


class TrainingError(WorkbookError):
    """Training that cannot start or must stop; the message says why and what to change."""


def identity_of(
    module: str, model: str, rows: Sequence[Any], settings: Mapping[str, Any], *, start: Path | None = None
) -> Identity:
    """Return what two parts of one training share, as digests. `module` holds its code ("lib.gmpo.run").

    `start`: the adapter folder that training starts from. `settings` leaves out what does not change the result, such
    as where numbers are reported.
    """
    weights = sorted(start.glob("adapter_*")) if start else []
    return {
        "model": model,
        "rows": digest(list(rows)),
        "settings": digest(dict(settings)),
        "start": digest({path.name: file_digest(path) for path in weights}),
        "code": code_digest(f"import {module}"),
    }


def finished(adapter: Path, identity: Identity) -> dict[str, Any]:
    """Return the summary of a finished training of this identity from the adapter's training.json, else {}."""
    summary = dict(read_facts(adapter).get("summary", {}))
    return summary if summary.get("identity") == identity else {}


def continue_from(folder: Path, identity: Identity) -> Path | None:
    """Return the newest whole checkpoint of this very training; anything else in `folder` is removed."""
    note = folder / "run.json"
    if read_json(note) != identity:
        shutil.rmtree(folder, ignore_errors=True)
        write_json(note, identity)
        return None
    return last_checkpoint(folder)


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint in a trainer's folder, None without one; torn ones are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    while found:
        newest = found.pop()
        if is_whole(newest):
            return newest
        shutil.rmtree(newest)
    return None


def is_whole(checkpoint: Path) -> bool:
    """Return whether every file of a checkpoint can be read to its end.

    The trainer's state is written last, so what a kill left half written has none that parses. After a power cut an
    earlier file may be short: safetensors name their length, and what torch writes is a zip archive with checksums.
    """
    try:
        for path in checkpoint.rglob("*"):
            if path.suffix == ".safetensors":
                with safe_open(path, "pt"):
                    pass
            elif path.suffix in (".pt", ".pth", ".bin") and zipfile.ZipFile(path).testzip():
                return False
    except (OSError, zipfile.BadZipFile, SafetensorError):
        return False
    return bool(read_json(checkpoint / "trainer_state.json"))
