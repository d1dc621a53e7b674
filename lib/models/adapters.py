"""LoRA adapters as PEFT folders: written whole or not at all, copied, merged into plain weights."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from lib.base.errors import WorkbookError
from lib.base.files import write_folder


class AdapterError(WorkbookError):
    """An adapter that cannot be used; the message names the folder and what does not fit."""


def save_adapter(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a PEFT folder; it appears whole or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def copy_adapter(source: Path, folder: Path) -> None:
    """The same adapter in another place; it appears whole or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, copy_function=shutil.copyfile)  # with new times: a stage drops older outputs
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def adapter_folder(path: Path) -> Path:
    """Return the adapter that a path names: the folder itself or, of a run folder, the adapter trained last.

    Raises AdapterError where there is none.
    """
    places = (path, path / "adapters" / "gmpo", path / "adapters" / "rsft")
    found = next((place for place in places if (place / "adapter_config.json").is_file()), None)
    if found is None:
        raise AdapterError(f"{path}: neither an adapter's folder (adapter_config.json) nor a run with one in adapters/")
    return found


def base_of(folder: Path) -> str:
    """The model that an adapter of this workbook was trained on. Raises AdapterError when nothing says so."""
    try:
        return str(json.loads((folder / "training.json").read_text(encoding="utf-8"))["model"])
    except (OSError, ValueError, KeyError):
        raise AdapterError(f"{folder}: no training.json that names its model; give --model") from None


def merge(folder: Path, model: str, out: Path) -> None:
    """Write the base model with the adapter added to its weights, W + (α/r)·B·A, as an ordinary transformers folder.

    It appears whole or not at all. Raises ModelError for an adapter of another model, AdapterError for an `out` that
    is there.
    """
    from lib.models.lora_fit import read_adapter
    from lib.models.resolve import resolve

    base = resolve(model)
    read_adapter(str(folder), model)
    if out.exists():
        raise AdapterError(f"{out}: is there already; choose another folder or remove it")
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    merged = PeftModel.from_pretrained(loaded, str(folder)).merge_and_unload(safe_merge=True)
    tokenizer = AutoTokenizer.from_pretrained(base)
    write_folder(out, lambda partial: (merged.save_pretrained(partial), tokenizer.save_pretrained(partial)))


def adapter_name(folder: Path) -> str:
    """An adapter's name in the ledger: its folder's name and eight digits of its weights' SHA-256."""
    weights = (folder / "adapter_model.safetensors").read_bytes()
    return f"{folder.name}-{hashlib.sha256(weights).hexdigest()[:8]}"
