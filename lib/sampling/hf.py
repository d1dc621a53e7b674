"""transformers' own `generate`, wherever torch runs: the slow engine that is always there."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, StoppingCriteria

from lib.models import resolve
from lib.prompts import cut_at_stops
from lib.sampling import Completion, Request, Settings, stop_token_ids

BATCH = 16
TAIL = 16  # tokens looked at for a stop string after each step


class SeededDraw(LogitsProcessor):
    """Makes argmax a draw: adds Gumbel noise, from one generator a row, to the tempered nucleus.

    argmax_v (log p_v + g_v), g ~ Gumbel(0, 1), is distributed as p; a row's draw depends on its own seed alone.
    """

    def __init__(self, seeds: list[int], settings: Settings) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.settings = settings

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        logits = nucleus(scores.float() / self.settings.temperature, self.settings.top_p)
        noise = [torch.rand(logits.shape[-1], generator=generator) for generator in self.generators]
        uniform = torch.stack(noise).clamp_min(1e-20).to(logits.device)
        return logits - torch.log(-torch.log(uniform))


def nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Logits outside the smallest set of tokens whose probability reaches `top_p` become −∞. Shape (rows, vocabulary)."""
    if top_p >= 1:
        return logits
    ordered, index = logits.sort(dim=-1, descending=True)
    before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
    return logits.masked_fill(
        torch.zeros_like(before, dtype=torch.bool).scatter(-1, index, before >= top_p), -torch.inf
    )


class StopStrings(StoppingCriteria):
    """A row is over once its newest tokens hold one of its stop strings."""

    def __init__(self, tokenizer: Any, stops: list[tuple[str, ...]], prompt_length: int) -> None:
        self.tokenizer, self.stops, self.prompt_length = tokenizer, stops, prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        start = max(self.prompt_length, input_ids.shape[1] - TAIL)
        tails = self.tokenizer.batch_decode(input_ids[:, start:])
        over = [any(stop in tail for stop in stops) for tail, stops in zip(tails, self.stops, strict=True)]
        return torch.tensor(over, device=input_ids.device)


class TransformersEngine:
    """`model` with an optional PEFT LoRA adapter folder, in batches padded on the left."""

    name = "transformers"

    def __init__(self, model: str, adapter: str | None = None) -> None:
        folder = resolve(model)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(device).eval()
        if adapter is not None:
            from peft import PeftModel

            self._model = PeftModel.from_pretrained(self._model, adapter).eval()
        self._stop_ids = sorted(stop_token_ids(self.tokenizer))

    def stream(self, requests: Iterable[Request], settings: Settings) -> Iterator[tuple[Request, Completion]]:
        """Completions batch by batch, in the order asked."""
        for batch in _batched(requests):
            yield from zip(batch, self._complete(list(batch), settings), strict=True)

    @torch.no_grad()
    def _complete(self, batch: list[Request], settings: Settings) -> list[Completion]:
        inputs = self.tokenizer(
            [r.text for r in batch], return_tensors="pt", padding=True, add_special_tokens=False
        )
        length = inputs["input_ids"].shape[1]
        greedy = settings.temperature == 0
        output = self._model.generate(
            **inputs.to(self._model.device),
            do_sample=False,
            max_new_tokens=settings.max_new_tokens,
            eos_token_id=self._stop_ids,
            pad_token_id=self.tokenizer.pad_token_id,
            logits_processor=[] if greedy else [SeededDraw([r.seed for r in batch], settings)],
            stopping_criteria=[StopStrings(self.tokenizer, [r.stops for r in batch], length)],
        )
        rows = zip(batch, output[:, length:].tolist(), strict=True)
        return [self._completion(request, ids, settings.max_new_tokens) for request, ids in rows]

    def _completion(self, request: Request, ids: list[int], limit: int) -> Completion:
        end = next((place + 1 for place, token in enumerate(ids) if token in self._stop_ids), len(ids))
        while end and ids[end - 1] == self.tokenizer.pad_token_id:
            end -= 1
        text = self.tokenizer.decode(ids[:end], skip_special_tokens=True)
        cut = cut_at_stops(text, request.stops)
        return Completion(cut, tuple(ids[:end]), finished=cut != text or end < limit)

    def close(self) -> None:
        """Free the model."""
        del self._model


def _batched(requests: Iterable[Request]) -> Iterator[tuple[Request, ...]]:
    rows = iter(requests)
    while batch := tuple(itertools.islice(rows, BATCH)):
        yield batch
