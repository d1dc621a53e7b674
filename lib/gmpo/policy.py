"""The trained model and what GMPO computes with it: embeddings of prompts, log-probabilities of completions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from lib.models.precision import torch_dtype
from lib.models.resolve import resolve
from lib.training.resume import TrainingError

Ids = Sequence[Sequence[int]]


def load_policy(model: str, adapter: Path, device: Any = "cpu") -> Any:
    """Return the model with the folder's adapter, trainable. Raises TrainingError when it is no PEFT folder."""
    if not (adapter / "adapter_config.json").is_file():
        raise TrainingError(f"{adapter}: no adapter_config.json; training starts from a PEFT adapter folder")
    base = AutoModelForCausalLM.from_pretrained(resolve(model), dtype=torch_dtype())
    return PeftModel.from_pretrained(base, str(adapter), is_trainable=True).to(device)


@torch.no_grad()
def prompt_embeddings(model: Any, ids: Tensor, mask: Tensor, size: int) -> Tensor:
    """Return h_j, the mean of the last hidden state over prompt tokens, L2-normalised; `size` prompts per pass.

    ids and mask (B, P), padded on the left -> (B, d) fp32.
    """
    backbone = (model.get_base_model() if isinstance(model, PeftModel) else model).base_model
    parts = []
    for rows, keep in zip(ids.split(size), mask.split(size), strict=True):
        states = backbone(input_ids=rows, attention_mask=keep, use_cache=False).last_hidden_state.float()
        parts.append((states * keep[..., None]).sum(1) / keep.sum(1, keepdim=True))
    return torch.nn.functional.normalize(torch.cat(parts), dim=1)


def token_log_probs(
    model: Any, prompts: Ids, completions: Ids, temperature: float, size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return ln pi(token) of completion tokens at the sampling temperature, and the mask of real tokens: (N, T) each.

    `size` rows per pass (default: all); the gradient runs through; padding holds 0.
    """
    left, known = padded(prompts, "left", model.device)
    right, mask = padded(completions, "right", model.device)
    parts, size = [], size or len(right)
    for ids, keep, tokens in zip(
        torch.cat([left, right], 1).split(size), torch.cat([known, mask], 1).split(size), right.split(size), strict=True
    ):
        logits = model(input_ids=ids, attention_mask=keep, logits_to_keep=right.shape[1] + 1).logits[:, :-1]
        log_probs = (logits.float() / temperature).log_softmax(-1)
        parts.append(log_probs.gather(2, tokens[..., None])[..., 0])
    return torch.where(mask.bool(), torch.cat(parts), 0.0), mask


def padded(rows: Ids, side: str, device: Any = "cpu") -> tuple[Tensor, Tensor]:
    """Return token ids, (N, longest), padded with 0, and the mask of real ones."""
    tensors = [torch.tensor(list(row), device=device) for row in rows]
    mask = [torch.ones_like(tensor) for tensor in tensors]
    ids, real = (pad_sequence(some, batch_first=True, padding_side=side) for some in (tensors, mask))
    return ids, real
