"""Log-probabilities of a group's completions from one row: the prompt goes through the model once per group.

    prompt | completion 1 | … | completion g

A completion's tokens see the prompt and what is before them in their own completion, and their positions go on from the
prompt's end, so that nothing but rounding differs from g separate rows. For prompts of P and completions of T tokens
that is P + gT instead of g(P + T) tokens, forwards and backwards. What it costs is attention between completions,
computed and masked: long answers to short questions are better off in rows of their own (`packing_saves_compute`).
"""

from typing import Any

import torch
from torch import Tensor
from trl.trainer.utils import selective_log_softmax, selective_log_softmax_and_entropy


def can_pack(model: Any) -> bool:
    """Return whether a model takes a mask for every pair of tokens: full attention in all layers, by torch's kernel."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    full = set(kinds) == {"full_attention"} if kinds else not getattr(config, "sliding_window", None)
    own_kernels = hasattr(model, "for_inference")  # Unsloth's
    return full and getattr(config, "_attn_implementation", "") == "sdpa" and not own_kernels


def packing_saves_compute(d: int, p: int, t: int, g: int) -> bool:
    """Tell whether a row costs less than g rows: g T² < P² + 6 d P, for hidden states of d features.

    A layer's matrices take 24 d² operations per token and its attention 4 d L² per row of L tokens; P + gT tokens in
    one row are compared with P + T in each of g.
    """
    return g * t**2 < p**2 + 6 * d * p


def packed_inputs(
    prompts: Tensor, known: Tensor, completions: Tensor, mask: Tensor, group: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens and positions, (N/g, P + gT), and which token attends to which, (N/g, 1, P + gT, P + gT) bool.

    prompts and `known` (N, P), padded on the left; completions and mask (N, T), padded on the right; the rows of a
    group of g = `group` side by side.
    """
    rows, length = len(prompts) // group, completions.shape[1]
    prompts, known = prompts[::group], known[::group].bool()
    ids = torch.cat([prompts, completions.reshape(rows, -1)], dim=1)
    real = torch.cat([known, mask.reshape(rows, -1).bool()], dim=1)
    sizes = known.sum(1, keepdim=True)
    after = torch.arange(length, device=ids.device).repeat(group)
    positions = torch.cat([(known.cumsum(1) - 1).clamp(min=0), sizes + after], dim=1)
    part = torch.arange(1, group + 1, device=ids.device).repeat_interleave(length)
    part = torch.cat([part.new_zeros(prompts.shape[1]), part])  # 0: the prompt
    places = torch.arange(len(part), device=ids.device)
    seen = (places[:, None] >= places) & ((part[:, None] == part) | (part == 0))
    itself = places[:, None] == places  # so that padding, too, sees something
    return ids, positions, ((seen & real[:, None, :]) | itself)[:, None]


def packed_log_probs(
    model: Any,
    prompts: Tensor,
    known: Tensor,
    completions: Tensor,
    mask: Tensor,
    group: int,
    temperature: float,
    entropy: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return ln π(token) of completion tokens at `temperature`, (N, T), and entropies if asked; padding holds 0.

    Arguments as in `packed_inputs`. The gradient runs through log-probabilities.
    """
    widest, length = int(known.sum(1).max()), max(1, int(mask.sum(1).max()))
    prompts, known = prompts[:, -widest:], known[:, -widest:]
    tokens, real = completions[:, :length], mask[:, :length]
    ids, positions, seen = packed_inputs(prompts, known, tokens, real, group)
    keep = group * length + 1  # what follows the prompt, and what follows each token of completions
    logits = model(
        input_ids=ids, position_ids=positions, attention_mask=seen, logits_to_keep=keep, use_cache=False
    ).logits[:, -keep:]
    before = torch.arange(group * length, device=ids.device).view(group, length)  # of a token: where its prediction is
    before[:, 0] = 0
    logits = logits[:, before.flatten()].reshape(len(tokens), length, -1)
    if entropy:
        log_probs, entropies = selective_log_softmax_and_entropy(
            logits, tokens, entropy_requires_grad=False, temperature=temperature, row_mask=real
        )
    else:
        log_probs, entropies = selective_log_softmax(logits, tokens, temperature=temperature, row_mask=real), None

    def as_asked(values: Tensor) -> Tensor:
        kept = values.masked_fill(~real.bool(), 0.0)
        return torch.nn.functional.pad(kept, (0, completions.shape[1] - length))

    return as_asked(log_probs), None if entropies is None else as_asked(entropies)
