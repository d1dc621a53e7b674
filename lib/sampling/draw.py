"""Draw one token per row from logits, on the device where they lie.

Gumbel-max: argmax_v (ln p_v + g_v) with g ~ Gumbel(0, 1) is distributed as p (Gumbel, 1954). The noise g_v is a hash
of the row's seed, the step and the token's id, so a row's draw depends on its own seed and logits alone, in any batch
and on any device.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lib.sampling import SamplingParams

GOLDEN = 0x9E3779B9 - 2**32  # 2³² over the golden ratio, as int32
NUCLEUS = 1024  # tokens that a nucleus has at most; with top_p = 1 the whole vocabulary is drawn from


def draw(logits: Tensor, seeds: Tensor, steps: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Return the tokens drawn (rows,) and ln q of each, where q is what it was drawn from; see
    `Completion.logprobs`.

    `logits` (rows, vocabulary), `seeds` (rows, 2) from `seed_words`, `steps` (rows,) int32: tokens that a row has
    drawn before.
    """
    logits = logits.float()
    if params.temperature == 0:
        top, ids = logits.max(dim=-1)
        return ids, top - logits.logsumexp(dim=-1)
    kept, ids = nucleus(logits / params.temperature, params.top_p)
    chosen = (kept + gumbel(hash_words(seeds, steps, ids))).argmax(dim=-1, keepdim=True)
    log_probs = kept.gather(-1, chosen) - kept.logsumexp(dim=-1, keepdim=True)
    return ids.expand_as(kept).gather(-1, chosen)[:, 0], log_probs[:, 0]


def nucleus(logits: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Return the logits of the likeliest tokens and their ids, both (rows, candidates).

    Logits outside the smallest set of tokens whose probability reaches `top_p` are −∞ (Holtzman et al., 2020, arXiv
    1904.09751).
    """
    if top_p >= 1:
        return logits, torch.arange(logits.shape[-1], device=logits.device)[None]
    top, ids = logits.topk(min(NUCLEUS, logits.shape[-1]), dim=-1)
    p = (top - logits.logsumexp(dim=-1, keepdim=True)).exp()
    return top.masked_fill(p.cumsum(dim=-1) - p >= top_p, -torch.inf), ids


def gumbel(words: Tensor) -> Tensor:
    """Return −ln(−ln(1 − v)) for v uniform in (0, 1), from the 31 low bits of `words`; the precision is where v is
    near 0.
    """
    v = ((words & 0x7FFFFFFF).float() + 0.5) * 2.0**-31
    return -torch.log(-torch.log1p(-v.clamp(max=1 - 2.0**-24)))


def hash_words(seeds: Tensor, steps: Tensor, ids: Tensor) -> Tensor:
    """Return 32 bits (rows, candidates) for each row's seed (rows, 2) and step (rows,), and token ids (rows or 1,
    candidates).
    """
    first = mix(mix(steps) ^ seeds[:, 0])
    second = mix((first ^ seeds[:, 1]) + GOLDEN)  # else it would be mix(first), which token 0 takes back
    return mix(mix(ids.int() + first[:, None]) ^ second[:, None])


def mix(words: Tensor) -> Tensor:
    """Return MurmurHash3's finaliser of int32 words, a bijection in which every bit depends on every other."""
    words = (words ^ ((words >> 16) & 0xFFFF)) * (0x85EBCA6B - 2**32)
    words = (words ^ ((words >> 13) & 0x7FFFF)) * (0xC2B2AE35 - 2**32)
    return words ^ ((words >> 16) & 0xFFFF)


def seed_words(seeds: Sequence[int]) -> Tensor:
    """Return seeds of 63 bits as two int32 words each, (rows, 2)."""
    return torch.tensor(seeds, dtype=torch.int64).view(-1, 1).view(torch.int32)
