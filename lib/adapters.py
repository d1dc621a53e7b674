"""LoRA adapters as PEFT folders: written whole or not at all, checked against a base model, merged into plain weights."""

import json
import shutil
from pathlib import Path
from typing import Any

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class AdapterError(RuntimeError):
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
    shutil.copytree(source, partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def check_adapter(folder: Path, base: Path) -> None:
    """Raise AdapterError unless `folder` is a LoRA adapter for the model in `base`.

    ΔW = B·A adds to a layer W (out, in): A is (r, in) and B is (out, r). Only the files' headers are read.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise AdapterError(f"{folder}: no {name}; a PEFT adapter folder is expected")
    layers = {name: shape for path in sorted(base.glob("*.safetensors")) for name, shape in _shapes(path).items()}
    for name, shape in _shapes(folder / WEIGHTS).items():
        part = next((part for part in (".lora_A.", ".lora_B.") if part in name), None)
        if part is None:
            continue
        layer = name.removeprefix("base_model.model.").partition(part)[0] + ".weight"
        if layer not in layers:
            raise AdapterError(f"{folder}: made for another base model: it changes {layer}, which {base} does not have")
        ours, theirs = (shape[1], layers[layer][1]) if part == ".lora_A." else (shape[0], layers[layer][0])
        if ours != theirs:
            raise AdapterError(
                f"{folder}: made for another base model: {layer} has {ours} {'in' if part == '.lora_A.' else 'out'}puts "
                f"there and {theirs} in {base}"
            )


def _shapes(weights: Path) -> dict[str, list[int]]:
    from safetensors import safe_open

    with safe_open(weights, "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}


def base_of(folder: Path) -> str:
    """The model that an adapter of this workbook was trained on. Raises AdapterError when nothing says so."""
    try:
        return str(json.loads((folder / "training.json").read_text(encoding="utf-8"))["model"])
    except (OSError, ValueError, KeyError):
        raise AdapterError(f"{folder}: no training.json that names its model; give --model") from None


def merge(folder: Path, model: str, out: Path) -> None:
    """Write the base model with the adapter added to its weights, W + (α/r)·B·A, as an ordinary transformers folder.

    It appears whole or not at all. Raises AdapterError for an adapter of another model and for an `out` that is there already.
    """
    from lib.models import resolve

    base = resolve(model)
    check_adapter(folder, base)
    if out.exists():
        raise AdapterError(f"{out}: is there already; choose another folder or remove it")
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    merged = PeftModel.from_pretrained(loaded, str(folder)).merge_and_unload(safe_merge=True)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    merged.save_pretrained(partial)
    AutoTokenizer.from_pretrained(base).save_pretrained(partial)
    partial.rename(out)
