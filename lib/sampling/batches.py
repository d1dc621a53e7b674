"""Batches that fit the memory there is: estimated before, halved when the estimate was wrong."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from lib.sampling import EngineError

Item = TypeVar("Item")
Answer = TypeVar("Answer")
USABLE = 0.8  # of the free memory
LOGIT_COPIES = 6  # fp32 rows as long as the vocabulary that sorting out the nucleus and drawing hold at once
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "bad allocation")


def in_batches(
    items: Iterable[Item],
    most: int,
    run: Callable[[list[Item]], list[Answer]],
    fitting: Callable[[list[Item]], int] = len,
) -> Iterator[tuple[Item, Answer]]:
    """Every item with its answer, in order, from batches of at most `most`, and at most fitting(the items next in line).

    A batch that runs out of memory is run again in halves, and no later one is larger than the half.
    Raises EngineError when one item alone is too much.
    """
    waiting = iter(items)
    while batch := list(itertools.islice(waiting, most)):
        while batch:
            part = batch[: max(1, min(most, fitting(batch)))]
            answers = _attempt(run, part)
            if answers is None:
                most = len(part) // 2
                continue
            yield from zip(part, answers, strict=True)
            batch = batch[len(part) :]


def _attempt(run: Callable[[list[Item]], list[Answer]], part: list[Item]) -> list[Answer] | None:
    """The answers, or None for too many items; by the time it returns the failed attempt's tensors are free."""
    try:
        return run(part)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(part) == 1:
            raise EngineError(f"out of memory with a single sequence: {str(error).splitlines()[0][:200]}") from None
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out: PyTorch's own, or one told by its text."""
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in OUT_OF_MEMORY)


def rows_that_fit(free: float, tokens: int, config: dict[str, Any], width: int = 2) -> int:
    """How many sequences of `tokens` tokens fit into `free` bytes; `width` bytes a number, `config` a model's config.json.

    row = tokens · (2 · layers · kv_heads · head_dim + 8 · hidden + 4 · intermediate) · width + 6 · 4 · vocabulary
    """
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    cached = 2 * config["num_hidden_layers"] * (config.get("num_key_value_heads") or heads) * head_dim
    passing = 8 * config["hidden_size"] + 4 * config.get("intermediate_size", 4 * config["hidden_size"])
    row = tokens * (cached + passing) * width + LOGIT_COPIES * 4 * config["vocab_size"]
    return max(1, int(USABLE * free / row))
