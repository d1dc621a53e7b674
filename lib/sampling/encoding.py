"""Turn prompts into tokens and find where an answer ends, in the same way for every engine."""

import bisect
import json
import sys
from pathlib import Path
from typing import Any

from lib.sampling import Completion, Request, SamplingParams, token_ids
from lib.tasks.prompts import cut_at_stops, stop_at


class Encoder:
    """A model's tokenizer, the length of its context and the tokens that end an answer."""

    def __init__(self, folder: Path, context_length: int | None = None) -> None:
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.context_length = context_length or read_context_length(folder)
        self.end_ids = read_end_ids(folder) | {self.tokenizer.eos_token_id}
        self._seen: dict[str, list[int]] = {}

    def encode(self, request: Request, settings: SamplingParams) -> list[int]:
        """A request's prompt in tokens. Raises ValueError when it leaves no room for max_new_tokens more."""
        if request.text not in self._seen:
            self._seen[request.text] = token_ids(self.tokenizer, request.text)
        ids = self._seen[request.text]
        if len(ids) + settings.max_new_tokens > self.context_length:
            raise ValueError(
                f"request {request.label}: a prompt of {len(ids)} tokens and {settings.max_new_tokens} new ones are "
                f"more than the context of {self.context_length}; "
                "shorten it, or skip those that `exceeds_context` names"
            )
        return ids

    def completion(self, request: Request, ids: list[int], finished: bool, log_probs: list[float] | None) -> Completion:
        """What was drawn, as text up to the stop that ends the answer."""
        text = cut_at_stops(self.tokenizer.decode(ids, skip_special_tokens=True), request.stops, request.prefill)
        return Completion(text, tuple(ids), finished, None if log_probs is None else tuple(log_probs))

    def drawn_until(self, request: Request, ids: list[int]) -> int | None:
        """Return how many of these tokens complete the stop that ends the answer, None when none does.

        For engines that stop at a fence only: what they draw after a demonstration is left out.
        """

        def is_over(n: int) -> bool:
            text = self.tokenizer.decode(ids[:n], skip_special_tokens=True)
            return stop_at(text, request.stops, request.prefill) is not None

        return bisect.bisect_left(range(len(ids)), True, key=is_over) if is_over(len(ids)) else None


def read_context_length(folder: Path) -> int:
    """Return a model's longest sequence in tokens, from its config.json; unlimited where it names none."""
    config = json.loads((folder / "config.json").read_text())
    config = config.get("text_config", config)
    return int(config.get("max_position_embeddings") or config.get("n_positions") or sys.maxsize)


def read_end_ids(folder: Path) -> set[int]:
    """The end tokens that a model's generation_config.json names: none, one or several."""
    path = folder / "generation_config.json"
    named = json.loads(path.read_text()).get("eos_token_id") if path.is_file() else None
    return set() if named is None else set(named) if isinstance(named, list) else {int(named)}


def tail_length(stops: tuple[str, ...]) -> int:
    """How many of the newest tokens are sure to hold a stop string that has just been completed."""
    return max((len(stop.encode()) for stop in stops), default=0)
