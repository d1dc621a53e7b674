"""The trained model and what GMPO computes with it: embeddings of prompts, log-probabilities of completions."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from lib.models.precision import torch_dtype
from lib.models.resolve import resolve
from lib.training.resume import TrainingError


def load_policy(model: str, adapter: Path, device: Any = "cpu") -> Any:
    """Return the model with the folder's adapter, trainable. Raises TrainingError when it is no PEFT folder."""
    if not (adapter / "adapter_config.json").is_file():
        raise TrainingError(f"{adapter}: no adapter_config.json; training starts from a PEFT adapter folder")
    base = AutoModelForCausalLM.from_pretrained(resolve(model), dtype=torch_dtype())
    return PeftModel.from_pretrained(base, str(adapter), is_trainable=True).to(device)


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Switch dropout and gradient checkpointing off; afterwards every module is in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def own_tokens(tokenizer: Any, text: str, question: str) -> tuple[int, int]:
    """Return which tokens of a prompt hold the task's own words, first and one past the last; all if none do."""
    encoded, first = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True), text.find(question.strip())
    places = [
        place for place, (a, b) in enumerate(encoded["offset_mapping"]) if first < b and a < first + len(question)
    ]
    return (places[0], places[-1] + 1) if first >= 0 and places else (0, len(encoded["input_ids"]))


@torch.no_grad()
def prompt_embeddings(model: Any, ids: Tensor, mask: Tensor, size: int, own: Tensor | None = None) -> Tensor:
    """Return h_j, the mean of the last hidden state over a prompt's own tokens; `size` prompts per pass.

    ids and mask (B, P), padded on the left; own (B, 2), `own_tokens` of each, None for all tokens -> (B, d) fp32.
    """
    backbone = (model.get_base_model() if isinstance(model, PeftModel) else model).base_model
    place = mask.cumsum(1) - 1
    counted = mask.bool() if own is None else mask.bool() & (place >= own[:, :1]) & (place < own[:, 1:])
    parts = []
    with evaluating(model):
        for rows, keep, kept in zip(ids.split(size), mask.split(size), counted.split(size), strict=True):
            states = backbone(input_ids=rows, attention_mask=keep, use_cache=False).last_hidden_state.float()
            parts.append((states * kept[..., None]).sum(1) / kept.sum(1, keepdim=True))
    return torch.cat(parts)
