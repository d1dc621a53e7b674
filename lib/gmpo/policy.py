"""The trained model and what GMPO computes with it: embeddings of prompts, log-probabilities of completions."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from lib.gmpo.objective import mismatch
from lib.models.precision import torch_dtype
from lib.models.resolve import resolve
from lib.sampling import Engine, SamplingParams, sample, token_ids
from lib.tasks.prompts import Prompt
from lib.training.resume import TrainingError

Ids = Sequence[Sequence[int]]
Rows = Sequence[Sequence[int]] | Sequence[Sequence[float]]


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


@torch.no_grad()
def sampler_mismatch(
    engine: Engine, model: str, prompts: Sequence[Prompt], *, temperature: float, max_new_tokens: int, seed: int = 0
) -> dict[str, float]:
    """Draw a sample per prompt at top_p = 1 and return `mismatch` of the engine with `model` as the trainer opens it.

    Empty for an engine that hands over no log-probabilities, as some servers do.
    """
    settings = SamplingParams(temperature, 1.0, max_new_tokens, logprobs=True)
    drawn = [completion for one in sample(engine, prompts, 1, settings, seed) for completion in one]
    if any(one.logprobs is None for one in drawn):
        return {}
    asked = [token_ids(engine.tokenizer, prompt.text) for prompt in prompts]
    network = AutoModelForCausalLM.from_pretrained(resolve(model), dtype=torch_dtype()).eval()
    old, mask = token_log_probs(network, asked, [one.token_ids for one in drawn], temperature, size=8)
    return mismatch(old, padded([one.logprobs or () for one in drawn], "right")[0], mask)


def padded(rows: Rows, side: str, device: Any = "cpu") -> tuple[Tensor, Tensor]:
    """Return token ids, (N, longest), padded with 0, and the mask of real ones."""
    tensors = [torch.tensor(list(row), device=device) for row in rows]
    mask = [torch.ones_like(tensor) for tensor in tensors]
    ids, real = (pad_sequence(some, batch_first=True, padding_side=side) for some in (tensors, mask))
    return ids, real
