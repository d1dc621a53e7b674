"""Whether a PEFT LoRA adapter belongs to a model, seen before anything is sampled: by the names and shapes of its
tensors.
"""

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.models.resolve import ModelError, resolve

LORA = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(A|B)\.weight")
QUANTISED = re.compile(r"(-unsloth)?(-bnb-4bit|-gptq.*|-awq|-fp8|-4bit|-int8)$|\.q\d\w*$")


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter's folder, weights file and adapter_config.json."""

    folder: Path
    weights: Path
    config: dict[str, Any]

    @property
    def rank(self) -> int:
        """The largest rank of any module."""
        return max([self.config["r"], *(self.config.get("rank_pattern") or {}).values()])

    @property
    def scale(self) -> float:
        """What B·A is multiplied by: alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA."""
        r = self.config["r"]
        return float(self.config["lora_alpha"] / (math.sqrt(r) if self.config.get("use_rslora") else r))


def read_adapter(adapter: str, model: str) -> Adapter:
    """The adapter in folder `adapter`. Raises ModelError unless it is a LoRA adapter for `model`."""
    folder = Path(adapter)
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if not (weights.is_file() and config.is_file()):
        raise ModelError(f"{folder}: not a PEFT adapter folder (adapter_model.safetensors, adapter_config.json)")
    try:
        found = Adapter(folder, weights, json.loads(config.read_text()))
        stated = found.config.get("base_model_name_or_path") or "a base model it does not name"
        shapes = dict(_shapes(weights))
        _ = found.rank, found.scale
    except Exception as error:  # safetensors has an exception class of its own
        raise ModelError(f"{folder}: an adapter that cannot be read ({type(error).__name__}: {error})") from None
    base = resolve(model)
    named, wanted = known_name(str(stated)), known_name(model) or known_name(str(base))
    reason = misfit(shapes, _base_shapes(base))
    if reason is None and named and wanted and named != wanted:
        reason = "adapter_config.json's base_model_name_or_path says so"
    if reason is not None:
        raise ModelError(f"{folder}: an adapter for {stated}, not for {model}: {reason}")
    return found


def misfit(adapter: dict[str, tuple[int, ...]], base: dict[str, tuple[int, ...]]) -> str | None:
    """Why tensors of these names and shapes do not fit, or None. Module W (out, in) takes A (r, in) and B (out, r).

    An empty `base` (weights that are packed or in another format) fits everything.
    """
    pairs = [(found[1], found[2], shape) for name, shape in adapter.items() if (found := LORA.fullmatch(name))]
    if not pairs:
        return "it holds no LoRA matrices"
    for module, kind, shape in pairs:
        weight = base.get(f"{module}.weight")
        if weight is None:
            if base and module.rpartition(".")[2] not in ("lm_head", "embed_tokens"):  # may be tied to one another
                return f"the model has no {module}"
        elif shape[kind == "A"] != weight[kind == "A"]:
            axis = "takes" if kind == "A" else "gives"
            return f"{module} {axis} {weight[kind == 'A']} numbers in the model and {shape[kind == 'A']} in the adapter"
    return None


def known_name(model: str) -> str | None:
    """The model's name where `model` says it: a hub id, a folder of the hub's cache, or a folder made from a GGUF.

    Quantised forms of a model share its name. Any other folder may hold anything: None.
    """
    if found := re.search(r"models--[^/]+--([^/]+)/snapshots/", model):
        name = found[1]
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not Path(model).exists():
        name = model.partition("/")[2]
    elif re.search(r"\.q\d\w*$", model):
        name = Path(model).name
    else:
        return None
    return QUANTISED.sub("", name.lower())


def _shapes(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as tensors:
        for name in tensors.keys():
            found = tensors.get_slice(name)
            if found.get_dtype() in ("F32", "F16", "BF16"):
                yield name, tuple(found.get_shape())


def _base_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's weights; empty where they are packed into fewer bits or in another format than
    safetensors.
    """
    if "quantization_config" in json.loads((folder / "config.json").read_text()):
        return {}
    return {name: shape for path in sorted(folder.glob("*.safetensors")) for name, shape in _shapes(path)}
