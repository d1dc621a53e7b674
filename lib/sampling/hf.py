"""The engine `transformers`: any causal language model on a GPU or a CPU, decoded in rows that never wait for one
another.

All rows take a step together, each at its own position; when a row is over, the next request takes its place. A prompt
is read once for all its samples. On CUDA, steps are captured in a CUDA graph and nothing crosses to the CPU but the
tokens drawn, a block at a time, where stop strings are looked for. (transformers' own continuous batching,
`generate_batch`, draws all rows from one generator, so that a sample would depend on its batch, and knows no stop
strings.)

Models that need more than keys and values of all earlier positions (sliding windows, states), and models that Unsloth
has patched, go through transformers' `generate`, with the same draws.
"""

import dataclasses
import inspect
import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AutoModelForCausalLM, DynamicCache, GenerationConfig, LogitsProcessor
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from lib.models.lora_fit import read_adapter
from lib.models.precision import torch_dtype
from lib.models.resolve import resolve
from lib.sampling import Completion, EngineError, Request, SamplingParams
from lib.sampling.batches import is_out_of_memory, rows_that_fit
from lib.sampling.draw import draw, seed_words
from lib.sampling.encoding import Encoder, tail_length
from lib.tasks.prompts import stop_at

MOST_ROWS = {"cpu": 16, "cuda": 512}
BLOCK = {"cpu": 1, "cuda": 8}  # steps between two looks for stops; a row draws at most BLOCK − 1 tokens in vain
PREFILLED = {"cpu": 1, "cuda": 16}  # prompts read at a time
PREFIX_BYTES = 2**30  # of prompts that are kept for their next samples
ROUND_UP = 128  # positions of a row are a multiple of this, so that prompts a little longer still fit


@dataclasses.dataclass
class Row:
    """A request that is being answered: its prompt's tokens, the tokens drawn and ln q of each."""

    request: Request
    prompt: tuple[int, ...]
    drawn: list[int] = dataclasses.field(default_factory=list)
    log_probs: list[float] = dataclasses.field(default_factory=list)


class RowCache(DynamicCache):
    """Keys and values, (layers, 2, rows, heads, positions, width); every row writes at its own position."""

    def __init__(self, memory: Tensor, position: Tensor) -> None:
        super().__init__()
        self.memory, self.position = memory, position
        self.rows = torch.arange(memory.shape[2], device=memory.device)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one position per row and return all of them."""
        keys, values = self.memory[layer_idx].unbind()
        keys[self.rows, :, self.position] = key_states[:, :, 0]
        values[self.rows, :, self.position] = value_states[:, :, 0]
        return keys, values


def grouped_query(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attend from one position per row without a copy of the keys for each query head; several positions go through
    sdpa.

    Query heads that share a key head take the place of positions: (rows, heads, 1, width) -> (rows, key heads, group,
    width).
    """
    rows, heads, positions, width = query.shape
    if positions != 1 or attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    grouped = query.view(rows, key.shape[1], -1, width)
    seen = torch.nn.functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=attention_mask, scale=options.get("scaling")
    )
    return seen.reshape(rows, 1, heads, width), None


AttentionInterface.register("grouped_query", grouped_query)
AttentionMaskInterface.register("grouped_query", sdpa_mask)


class Decoder:
    """A fixed number of rows of a fixed length on the device, and the step that all of them take together."""

    def __init__(self, model: Any, rows: int, length: int, params: SamplingParams) -> None:
        self.model, self.params, self.device = model, params, model.device
        self.token, self.position = torch.zeros(2, rows, dtype=torch.int64, device=self.device).unbind()
        self.steps = torch.zeros(rows, dtype=torch.int32, device=self.device)
        self.seeds = torch.zeros(rows, 2, dtype=torch.int32, device=self.device)
        self.columns = torch.arange(length, device=self.device)
        self.prefixes: dict[tuple[int, ...], Tensor] = {}  # prompt -> its keys and values
        self.cache: RowCache | None = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.blocks, self.captured = 0, (self.token, self.token)

    @torch.no_grad()
    def start(self, places: Sequence[int], rows: Sequence[Row]) -> None:
        """Put rows in their places: keys and values of the prompt, and its last token as the one to go on from."""
        fresh = [prompt for prompt in dict.fromkeys(row.prompt for row in rows) if prompt not in self.prefixes]
        for first in range(0, len(fresh), PREFILLED[self.device.type]):
            self._read(fresh[first : first + PREFILLED[self.device.type]])
        if self.cache is None:
            layers, two, heads, _, width = self.prefixes[rows[0].prompt].shape
            shape = (layers, two, len(self.token), heads, len(self.columns), width)
            self.cache = RowCache(torch.zeros(shape, dtype=self.model.dtype, device=self.device), self.position)
        for prompt in dict.fromkeys(row.prompt for row in rows):
            same = torch.tensor([place for place, row in zip(places, rows, strict=True) if row.prompt == prompt])
            self.cache.memory[:, :, same.to(self.device), :, : len(prompt)] = self.prefixes[prompt][:, :, None]
        while len(self.prefixes) > 1 and sum(prefix.nbytes for prefix in self.prefixes.values()) > PREFIX_BYTES:
            del self.prefixes[next(iter(self.prefixes))]
        where = torch.tensor(places, device=self.device)
        self.token[where] = torch.tensor([row.prompt[-1] for row in rows], device=self.device)
        self.position[where] = torch.tensor([len(row.prompt) - 1 for row in rows], device=self.device)
        self.seeds[where] = seed_words([row.request.seed for row in rows]).to(self.device)
        self.steps[where] = 0

    def _read(self, prompts: Sequence[tuple[int, ...]]) -> None:
        """Keys and values of prompts, padded on the right, where no token of the prompt attends to."""
        longest = max(map(len, prompts))
        padded = torch.tensor([[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts], device=self.device)
        cache = self.model(input_ids=padded, use_cache=True, logits_to_keep=1).past_key_values
        whole = torch.stack([torch.stack((layer.keys, layer.values)) for layer in cache.layers])
        self.prefixes |= {prompt: whole[:, :, row, :, : len(prompt)].clone() for row, prompt in enumerate(prompts)}

    @torch.no_grad()
    def block(self) -> tuple[list[list[int]], list[list[float]]]:
        """Take BLOCK steps and return the tokens drawn and ln q of each, a list per row."""
        self.blocks += 1
        if self.device.type == "cuda" and self.blocks == 2:  # after one block whose kernels are set up as usual
            self._capture()
        if self.graph is not None:
            self.graph.replay()
        tokens, log_probs = self.captured if self.graph is not None else self._steps()
        return tokens.tolist(), log_probs.tolist()

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.captured = self._steps()
            self.graph = graph
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            warnings.warn(f"no CUDA graph of this model, steps are slower: {str(error).splitlines()[0]}", stacklevel=2)

    def _steps(self) -> tuple[Tensor, Tensor]:
        drawn = [self._step() for _ in range(BLOCK[self.device.type])]
        tokens, log_probs = zip(*drawn, strict=True)
        return torch.stack(tokens, dim=1), torch.stack(log_probs, dim=1)

    def _step(self) -> tuple[Tensor, Tensor]:
        mask = (self.columns <= self.position[:, None])[:, None, None]
        logits = self.model(
            input_ids=self.token[:, None],
            position_ids=self.position[:, None],
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]
        token, log_prob = draw(logits, self.seeds, self.steps, self.params)
        self.token.copy_(token)
        self.steps.add_(1)
        self.position.add_(1).clamp_(max=len(self.columns) - 1)  # a row that is over stays at the end
        return token, log_prob


class TransformersEngine:
    """`model` with an optional PEFT LoRA adapter folder."""

    name = "transformers"
    _deterministic = False

    def __init__(self, model: str, adapter: str | None = None, deterministic: bool = False) -> None:
        folder = resolve(model)
        self._deterministic = deterministic
        if adapter is not None:
            read_adapter(adapter, model)
        self._encoder = Encoder(folder)
        self.tokenizer, self.context_length = self._encoder.tokenizer, self._encoder.context_length
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch_dtype())
        loaded.generation_config = (
            GenerationConfig()
        )  # no penalties or top-k of the model's own: no other engine has them
        if loaded.config._attn_implementation == "sdpa":
            loaded.set_attn_implementation("grouped_query")
        try:
            self._model = loaded.to(self.device).eval()
        except torch.OutOfMemoryError:
            size = sum(weight.nbytes for weight in loaded.parameters()) / 2**30
            raise EngineError(
                f"{model}: its {size:.1f} GiB do not fit into the GPU's memory; choose a smaller model"
            ) from None
        if adapter is not None:
            from peft import PeftModel

            self._model = PeftModel.from_pretrained(self._model, adapter).eval()

    def stream(self, requests: Iterable[Request], params: SamplingParams) -> Iterator[tuple[Request, Completion]]:
        """Completions as they finish. When memory runs out, what is unanswered is drawn again in half as many rows."""
        waiting: Iterator[Row] = (Row(request, tuple(self._encoder.encode(request, params))) for request in requests)
        answer = self._decode if _decodes_in_rows(self._model) else self._generate
        most = 1 if self._deterministic else MOST_ROWS[self.device]
        while rows := list(itertools.islice(waiting, most)):
            length = max(map(self._length, rows, itertools.repeat(params)))
            config = self._model.config.get_text_config().to_dict()
            fitting = min(
                len(rows), rows_that_fit(_free_memory(self.device), length, config, self._model.dtype.itemsize)
            )
            running, later = dict(enumerate(rows[:fitting])), rows[fitting:]
            try:
                yield from answer(running, later, waiting, params)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if fitting == 1:
                    reason = str(error).splitlines()[0][:200]
                    raise EngineError(f"out of memory with a single sequence: {reason}") from None
                most = fitting // 2
            waiting = itertools.chain([Row(row.request, row.prompt) for row in running.values()], later, waiting)

    def _length(self, row: Row, params: SamplingParams) -> int:
        """Positions that a row takes, rounded up, so that prompts a little longer still fit."""
        return -(-(len(row.prompt) + params.max_new_tokens + BLOCK[self.device]) // ROUND_UP) * ROUND_UP

    def _decode(
        self, rows: dict[int, Row], later: list[Row], waiting: Iterator[Row], params: SamplingParams
    ) -> Iterator[tuple[Request, Completion]]:
        """Answer `rows`, {place: row}, and those that follow them; the first that is too long waits in `later`."""
        length = max(self._length(row, params) for row in rows.values())
        decoder, places = Decoder(self._model, len(rows), length, params), list(rows)
        while rows:
            if places:
                decoder.start(places, [rows[place] for place in places])
            tokens, log_probs = decoder.block()
            for place, row in rows.items():
                row.drawn += tokens[place]
                row.log_probs += log_probs[place]
            ends, places = self._ends(rows, BLOCK[self.device], params), []
            for place, completion in ends.items():
                yield rows.pop(place).request, completion
                follower = None if later else next(waiting, None)
                longer = self._length(follower, params) - length if follower else 0
                if follower and (longer > 0 or self._deterministic and longer):  # equal shapes are rounded equally
                    later.append(follower)
                elif follower:
                    rows[place] = follower
                    places.append(place)

    @torch.no_grad()
    def _generate(
        self, rows: dict[int, Row], later: list[Row], waiting: Iterator[Row], params: SamplingParams
    ) -> Iterator[tuple[Request, Completion]]:
        """Answer `rows` with transformers' `generate`, padded on the left; texts are cut at stops afterwards."""
        longest, pad = max(len(row.prompt) for row in rows.values()), self.tokenizer.pad_token_id
        padded = [[pad] * (longest - len(row.prompt)) + list(row.prompt) for row in rows.values()]
        mask = [[0] * (longest - len(row.prompt)) + [1] * len(row.prompt) for row in rows.values()]
        drawing = Drawing(seed_words([row.request.seed for row in rows.values()]).to(self.device), params)
        output = self._model.generate(
            input_ids=torch.tensor(padded, device=self.device),
            attention_mask=torch.tensor(mask, device=self.device),
            do_sample=False,
            max_new_tokens=params.max_new_tokens,
            pad_token_id=pad,
            eos_token_id=sorted(self._encoder.end_ids),
            logits_processor=[drawing],
        )[:, longest:].tolist()
        log_probs = torch.stack(drawing.log_probs, dim=1).tolist()
        for place, row in rows.items():
            row.drawn, row.log_probs = output[place], log_probs[place]
        for place, completion in self._ends(rows, len(output[0]), params).items():
            yield rows.pop(place).request, completion

    def _ends(self, rows: dict[int, Row], newest: int, params: SamplingParams) -> dict[int, Completion]:
        """Completions, by place, of the rows that are over with one of their `newest` tokens."""
        tail = max(tail_length(row.request.stops) for row in rows.values()) + newest
        newest_ids, backend = (
            [row.drawn[-tail:] for row in rows.values()],
            getattr(self.tokenizer, "backend_tokenizer", None),
        )
        if backend is None:
            texts = self.tokenizer.batch_decode(newest_ids)
        else:  # all rows at once, on all cores
            texts = backend.decode_batch(newest_ids, skip_special_tokens=False)
        ends = {}
        for (place, row), text in zip(rows.items(), texts, strict=True):
            near = any(stop in text for stop in row.request.stops)
            for n in range(len(row.drawn) - newest + 1, min(len(row.drawn), params.max_new_tokens) + 1):
                finished = row.drawn[n - 1] in self._encoder.end_ids or (near and self._is_over(row, n))
                if finished or n == params.max_new_tokens:
                    known = row.log_probs[:n] if params.logprobs else None
                    ends[place] = self._encoder.completion(row.request, row.drawn[:n], finished, known)
                    break
        return ends

    def _is_over(self, row: Row, n: int) -> bool:
        """Return whether the first `n` tokens of a row hold a stop at which the answer is complete."""
        text = self.tokenizer.decode(row.drawn[:n], skip_special_tokens=True)
        return stop_at(text, row.request.stops, row.request.prefill) is not None

    def close(self) -> None:
        """Free the model."""
        del self._model


class Drawing(LogitsProcessor):
    """Leaves `generate` one token per row to choose from: the one that `draw` has drawn."""

    def __init__(self, seeds: Tensor, params: SamplingParams) -> None:
        self.seeds, self.params = seeds, params
        self.log_probs: list[Tensor] = []  # (rows,) per step

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        steps = torch.full((len(scores),), len(self.log_probs), dtype=torch.int32, device=scores.device)
        token, log_prob = draw(scores, self.seeds, steps, self.params)
        self.log_probs.append(log_prob)
        return torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0)


def _decodes_in_rows(model: Any) -> bool:
    """Whether keys and values of all earlier positions are all that the model keeps, and it takes a mask over them."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    forward = type(base).forward
    return (
        all(type(layer) is DynamicLayer for layer in DynamicCache(config=base.config).layers)
        and base.config._attn_implementation in ("sdpa", "grouped_query")
        and not forward.__module__.startswith("unsloth")
        and "position_ids" in inspect.signature(forward).parameters
    )


def _free_memory(device: str) -> float:
    """Bytes to be had: on a GPU, what is free and what PyTorch holds in reserve."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    import psutil

    return float(psutil.virtual_memory().available)
