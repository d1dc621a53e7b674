"""How many sequences fit into the memory there is, and whether an error says that it ran out."""

from typing import Any

USABLE = 0.8  # of the free memory
LOGIT_COPIES = 6  # fp32 rows as long as the vocabulary that sorting out the nucleus and drawing hold at once
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "bad allocation")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out: PyTorch's own, or one told by its text."""
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in OUT_OF_MEMORY)


def rows_that_fit(free: float, tokens: int, config: dict[str, Any], width: int = 2) -> int:
    """Return how many sequences of `tokens` tokens fit into `free` bytes.

    `width` is the number of bytes per number, `config` a model's config.json.

    row = tokens · (2 · layers · kv_heads · head_dim + 8 · hidden + 4 · intermediate) · width + 6 · 4 · vocabulary
    """
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    cached = 2 * config["num_hidden_layers"] * (config.get("num_key_value_heads") or heads) * head_dim
    passing = 8 * config["hidden_size"] + 4 * config.get("intermediate_size", 4 * config["hidden_size"])
    row = tokens * (cached + passing) * width + LOGIT_COPIES * 4 * config["vocab_size"]
    return max(1, int(USABLE * free / row))
