"""vLLM in this process on CUDA: continuous batching, prefix caching and LoRA requests, on as much memory as is free.

Not tried by the tests of a machine without a GPU; written against vLLM 0.28.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from lib.models.lora_fit import Adapter, read_adapter
from lib.models.resolve import resolve
from lib.sampling import Completion, EngineError, Request, SamplingParams
from lib.sampling.encoding import Encoder
from lib.tasks.prompts import server_stops

IN_FLIGHT = 1024  # requests handed over at a time; vLLM batches as many of them as its cache holds
USABLE = 0.9  # of the GPU's free memory
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM reserves adapters for
_adapter_ids = itertools.count(1)  # vLLM tells adapters apart by number, also in an engine that outlives this one


class VllmEngine:
    """`model` with an optional PEFT LoRA adapter folder.

    `llm` is a vllm.LLM already loaded with `model`, as unsloth's `model.vllm_engine` after
    FastLanguageModel.from_pretrained(..., fast_inference=True); it stays open when this engine is closed.
    """

    name = "vllm"

    def __init__(self, model: str, adapter: str | None = None, llm: Any = None) -> None:
        folder = resolve(model)
        lora = read_adapter(adapter, model) if adapter is not None else None
        self._own = llm is None
        self._engine = (llm or _load(str(folder), lora)).llm_engine
        config = self._engine.model_config
        self._processed = config.logprobs_mode == "processed_logprobs"
        self._encoder = Encoder(folder, config.max_model_len)
        self.tokenizer, self.context_length = self._encoder.tokenizer, self._encoder.context_length
        self._lora = _request(lora) if lora is not None else None

    def stream(self, requests: Iterable[Request], settings: SamplingParams) -> Iterator[tuple[Request, Completion]]:
        """Completions in the order in which they finish.

        Raises ValueError for a prompt too long for the context, EngineError when vLLM fails, or for log-probabilities
        from an `llm` that was not loaded with logprobs_mode="processed_logprobs".
        """
        if settings.logprobs and not self._processed:
            raise EngineError('vLLM: log-probabilities need an LLM loaded with logprobs_mode="processed_logprobs"')
        waiting = iter(requests)
        flying: dict[str, Request] = {}
        try:
            while True:
                for request in itertools.islice(waiting, IN_FLIGHT - len(flying)):
                    flying[self._add(request, settings)] = request
                if not flying:
                    return
                for output in self._step():
                    if output.finished and output.request_id in flying:
                        request, drawn = flying.pop(output.request_id), output.outputs[0]
                        end = self._encoder.drawn_until(request, list(drawn.token_ids))
                        ids = list(drawn.token_ids)[:end]
                        steps = zip(drawn.logprobs or (), ids, strict=False)
                        known = [step[token].logprob for step, token in steps] if settings.logprobs else None
                        finished = drawn.finish_reason == "stop" or end is not None
                        yield request, self._encoder.completion(request, ids, finished, known)
        finally:
            if flying:  # the caller stopped early
                self._engine.abort_request(list(flying))

    def _add(self, request: Request, settings: SamplingParams) -> str:
        from vllm import SamplingParams as VllmSamplingParams
        from vllm.sampling_params import RequestOutputKind

        name = f"{id(self)}-{next(_request_ids)}"
        parameters = VllmSamplingParams(
            temperature=settings.temperature,
            top_p=settings.top_p if settings.temperature else 1.0,
            seed=request.seed,
            max_tokens=settings.max_new_tokens,
            stop=server_stops(request.stops, request.prefill),
            stop_token_ids=sorted(self._encoder.end_ids),
            logprobs=0 if settings.logprobs else None,  # of the token drawn and no others
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        prompt = {"prompt_token_ids": self._encoder.encode(request, settings)}
        self._engine.add_request(name, prompt, parameters, lora_request=self._lora)
        return name

    def _step(self) -> list[Any]:
        try:
            return list(self._engine.step())
        except Exception as error:  # the core's process died, or the GPU's memory ran out beyond what was reserved
            raise EngineError(f"vLLM failed: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Free the model, unless it was handed over."""
        if self._own:
            self._engine.engine_core.shutdown()
        del self._engine


_request_ids = itertools.count()


def _load(folder: str, lora: Adapter | None) -> Any:
    """An LLM on the memory that is free now. Raises EngineError with vLLM's reason when it does not start."""
    try:
        import torch
        from vllm import LLM
    except ImportError as error:
        raise EngineError(f"engine vllm: not installed ({error}); pip install -r requirements-gpu.txt") from None
    if not torch.cuda.is_available():
        raise EngineError("engine vllm: there is no CUDA device; use engine auto")
    free, total = torch.cuda.mem_get_info()
    adapters = {"enable_lora": True, "max_lora_rank": _reserved_rank(lora)} if lora is not None else {}
    try:
        return LLM(
            model=folder,
            dtype="auto" if torch.cuda.is_bf16_supported(including_emulation=False) else "half",
            enable_prefix_caching=True,
            gpu_memory_utilization=USABLE * free / total,
            logprobs_mode="processed_logprobs",  # of what is drawn from: after temperature and nucleus
            generation_config="vllm",  # no penalties or top-k of the model's own
            **adapters,
        )
    except Exception as error:
        raise EngineError(f"engine vllm did not start: {type(error).__name__}: {error}") from error


def _reserved_rank(lora: Adapter) -> int:
    """The least rank that vLLM reserves and the adapter fits. Raises EngineError above the largest."""
    for rank in RANKS:
        if lora.rank <= rank:
            return rank
    raise EngineError(f"{lora.folder}: rank {lora.rank} is more than vLLM's {RANKS[-1]}; use engine transformers")


def _request(lora: Adapter) -> Any:
    from vllm.lora.request import LoRARequest

    number = next(_adapter_ids)
    return LoRARequest(f"{lora.folder.name}-{number}", number, str(lora.folder))
