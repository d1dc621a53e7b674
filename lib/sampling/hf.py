"""transformers' own `generate`, wherever torch runs: the slow engine that is always there."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessor, StoppingCriteria

from lib.models.lora_fit import read_adapter
from lib.models.resolve import resolve
from lib.sampling import Completion, Request, SamplingParams
from lib.sampling.batches import in_batches, rows_that_fit
from lib.sampling.encoding import Encoder, tail_length

MOST_ROWS = {"cpu": 16, "cuda": 256}  # more rows gain nothing, however much memory there is


class Draw(LogitsProcessor):
    """Makes argmax a draw: adds Gumbel noise, from one generator a row, to the tempered nucleus.

    argmax_v (log p_v + g_v), g ~ Gumbel(0, 1), is distributed as p; a row's draw depends on its own seed alone. Greedy rows
    get no noise. With `settings.logprobs`, `log_probs` gains one tensor (rows,) a step: ln p of the token drawn.
    """

    def __init__(self, seeds: list[int], settings: SamplingParams) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.settings = settings
        self.log_probs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        logits, noisy = scores.float(), scores
        if self.settings.temperature:
            logits = nucleus(logits / self.settings.temperature, self.settings.top_p)
            noise = [torch.rand(logits.shape[-1], generator=generator) for generator in self.generators]
            noisy = logits - torch.log(-torch.log(torch.stack(noise).clamp_min(1e-20).to(logits.device)))
        if self.settings.logprobs:
            drawn = noisy.argmax(dim=-1, keepdim=True)
            self.log_probs.append(logits.log_softmax(dim=-1).gather(-1, drawn).squeeze(-1))
        return noisy


def nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Logits outside the smallest set of tokens whose probability reaches `top_p` become −∞. Shape (rows, vocabulary)."""
    if top_p >= 1:
        return logits
    ordered, index = logits.sort(dim=-1, descending=True)
    before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
    return logits.masked_fill(
        torch.zeros_like(before, dtype=torch.bool).scatter(-1, index, before >= top_p), -torch.inf
    )


class Ends(StoppingCriteria):
    """A row is over once it has drawn an end token, or its newest tokens hold one of its stop strings.

    `lengths` holds how many tokens each row had drawn by then, 0 while it is not over.
    """

    def __init__(self, encoder: Encoder, stops: list[tuple[str, ...]], prompt_length: int) -> None:
        self.encoder, self.stops, self.prompt_length = encoder, stops, prompt_length
        self.tail = max(map(tail_length, stops))
        self.lengths = [0] * len(stops)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        drawn = input_ids.shape[1] - self.prompt_length
        newest = input_ids[:, input_ids.shape[1] - min(drawn, max(1, self.tail)) :]
        tails = self.encoder.tokenizer.batch_decode(newest)
        for row, (last, tail, stops) in enumerate(zip(newest[:, -1].tolist(), tails, self.stops, strict=True)):
            if not self.lengths[row] and (last in self.encoder.end_ids or any(stop in tail for stop in stops)):
                self.lengths[row] = drawn
        return torch.tensor([length > 0 for length in self.lengths], device=input_ids.device)


class TransformersEngine:
    """`model` with an optional PEFT LoRA adapter folder, in batches padded on the left."""

    name = "transformers"

    def __init__(self, model: str, adapter: str | None = None) -> None:
        folder = resolve(model)
        if adapter is not None:
            read_adapter(adapter, model)
        self._encoder = Encoder(folder)
        self.tokenizer, self.context_length = self._encoder.tokenizer, self._encoder.context_length
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=_dtype())
        loaded.generation_config = (
            GenerationConfig()
        )  # no penalties or top-k of the model's own: no other engine has them
        self._model = loaded.to(self.device).eval()
        if adapter is not None:
            from peft import PeftModel

            self._model = PeftModel.from_pretrained(self._model, adapter).eval()

    def stream(self, requests: Iterable[Request], settings: SamplingParams) -> Iterator[tuple[Request, Completion]]:
        """Completions batch by batch, in the order asked; a batch that runs out of memory is halved."""
        coded = ((request, self._encoder.encode(request, settings)) for request in requests)

        def fitting(batch: list[tuple[Request, list[int]]]) -> int:
            tokens = max(len(ids) for _, ids in batch) + settings.max_new_tokens
            config = self._model.config.get_text_config().to_dict()
            return rows_that_fit(_free_memory(self.device), tokens, config, self._model.dtype.itemsize)

        def run(batch: list[tuple[Request, list[int]]]) -> list[Completion]:
            return self._complete(batch, settings)

        for (request, _), completion in in_batches(coded, MOST_ROWS[self.device], run, fitting):
            yield request, completion

    @torch.no_grad()
    def _complete(self, batch: list[tuple[Request, list[int]]], settings: SamplingParams) -> list[Completion]:
        requests = [request for request, _ in batch]
        length = max(len(ids) for _, ids in batch)
        padding = [length - len(ids) for _, ids in batch]
        pad = self.tokenizer.pad_token_id
        rows = [[pad] * short + ids for short, (_, ids) in zip(padding, batch, strict=True)]
        mask = [[0] * short + [1] * (length - short) for short in padding]
        draw = Draw([request.seed for request in requests], settings)
        ends = Ends(self._encoder, [request.stops for request in requests], length)
        output = self._model.generate(
            input_ids=torch.tensor(rows, device=self.device),
            attention_mask=torch.tensor(mask, device=self.device),
            do_sample=False,
            max_new_tokens=settings.max_new_tokens,
            pad_token_id=pad,
            logits_processor=[draw],
            stopping_criteria=[ends],
        )
        log_probs = torch.stack(draw.log_probs, dim=1).tolist() if settings.logprobs else None  # (rows, steps)
        completions = []
        for row, (request, ids) in enumerate(zip(requests, output[:, length:].tolist(), strict=True)):
            end = ends.lengths[row] or len(ids)
            total = sum(log_probs[row][:end]) if log_probs else None
            completions.append(self._encoder.completion(request, ids[:end], ends.lengths[row] > 0, total))
        return completions

    def close(self) -> None:
        """Free the model."""
        del self._model


def _dtype() -> torch.dtype:
    """bf16, or fp16 on a GPU that does not compute in bf16."""
    cuda = torch.cuda.is_available()
    return torch.float16 if cuda and not torch.cuda.is_bf16_supported(including_emulation=False) else torch.bfloat16


def _free_memory(device: str) -> float:
    """Bytes to be had: on a GPU, what is free and what PyTorch holds in reserve."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    import psutil

    return float(psutil.virtual_memory().available)
