"""Score completions with the model as a trainer opens it: log-probabilities, and how far a sampler is from them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lib.models.precision import torch_dtype
from lib.models.resolve import resolve
from lib.sampling import Engine, SamplingParams, sample, token_ids
from lib.tasks.prompts import Prompt

Ids = Sequence[Sequence[int]]
Rows = Sequence[Sequence[int]] | Sequence[Sequence[float]]


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


def padded(rows: Rows, side: str, device: Any = "cpu") -> tuple[Tensor, Tensor]:
    """Return token ids, (N, longest), padded with 0, and the mask of real ones."""
    tensors = [torch.tensor(list(row), device=device) for row in rows]
    mask = [torch.ones_like(tensor) for tensor in tensors]
    ids, real = (pad_sequence(some, batch_first=True, padding_side=side) for some in (tensors, mask))
    return ids, real


def token_differences(left: Tensor, right: Tensor, mask: Tensor) -> Tensor:
    """Return left − right where mask, 0 elsewhere, (N, T) fp32; the gradient at padding is 0.

    Raises ValueError for other shapes or a non-finite log-probability under the mask.
    """
    if not left.shape == right.shape == mask.shape:
        shapes = f"{tuple(left.shape)}, {tuple(right.shape)} and {tuple(mask.shape)}"
        raise ValueError(f"log-probabilities and mask have shapes {shapes}: expected (N, T) three times")
    difference = torch.where(mask.bool(), left.float() - right.float(), 0.0)
    broken = int((~difference.isfinite()).sum())
    if broken:
        raise ValueError(f"log-probabilities of {broken} of {int(mask.sum())} tokens are NaN or infinite")
    return difference


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """Return (Σ s)² / Σ s² from ln s (n,): 0-d, 1 to n, 0 for none; the largest s is divided out: no overflow."""
    if log_weights.numel() == 0:
        return log_weights.new_zeros(())
    s = (log_weights - log_weights.max()).exp()
    return s.sum().square() / s.square().sum()


def mismatch(old_logps: Tensor, sampler_logps: Tensor, mask: Tensor) -> dict[str, float]:
    """Return how far the engine's distribution q is from the trainer's pi_old, on tokens drawn from q.

    kl: mean over tokens of KL(q‖pi_old), by k3 (Schulman 2020);  ess: effective sample size of the sequences'
    pi_old / q, as a share of N;  ratio_max: the largest token ratio, in either direction. All (N, T). Raises ValueError
    as `token_differences` does.
    """
    tokens = token_differences(old_logps, sampler_logps, mask)
    kl = torch.expm1(tokens) - tokens
    return {
        "mismatch_kl": float(kl[mask.bool()].mean()),
        "mismatch_ess": float(effective_sample_size(tokens.sum(1))) / len(tokens),
        "mismatch_ratio_max": float(tokens.abs().max().exp()),
    }


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
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(resolve(model), dtype=torch_dtype()).eval()
    old, mask = token_log_probs(network, asked, [one.token_ids for one in drawn], temperature, size=8)
    return mismatch(old, padded([one.logprobs or () for one in drawn], "right")[0], mask)
