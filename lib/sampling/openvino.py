"""OpenVINO GenAI on a CPU: continuous batching with prefix caching, so a prompt's K draws share its prefill.

The pipeline lives in a process of its own: its `step` holds Python's global lock for a tenth of a second at a time, which
would starve the threads that speak to the sandbox. Only token ids cross to it and back. The memory goes back whole when the
engine is closed; when the process runs out of it, another starts with half the cache and half the requests.

Stop strings are looked for here: the library's own search runs its detokenizer for every request at every token, half of
all the time on two cores.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lib.models import ModelError, openvino_dir
from lib.sampling import Completion, EngineError, Request, Settings
from lib.sampling.adapters import Adapter, read_adapter
from lib.sampling.batches import is_out_of_memory
from lib.sampling.encoding import Encoder, tail_length

IN_FLIGHT = 128  # requests in the scheduler at a time; more gains nothing on a few cores
TOKENS_PER_STEP = 512  # prompts are read in pieces of what the requests being drawn leave of this
QUANTIZATION_GROUP = 64  # activations to a scale; the default of 32 costs a quarter of the speed
SPARE = 8  # more at hand, so that a place never waits for the caller; many would arrive before their prefix is cached


CACHE_GB = 2  # keys and values of some 90,000 tokens of a 135M model; a quarter of the free memory where that is less
FEWEST = 8  # with so few requests in flight it is not their number that takes the memory

Drawn = tuple[int, list[int], bool, float | None]  # request number, tokens, whether it ended by itself, Σ ln q


@dataclasses.dataclass(frozen=True)
class Source:
    """What the sampling process opens: the export's folder, adapter weights (or none) and their scale; how large it may grow."""

    folder: str
    weights: str | None
    scale: float
    end_ids: set[int]
    cache_gb: int
    in_flight: int


class OpenVinoEngine:
    """The int8 export of `model` with an optional PEFT LoRA adapter folder."""

    name = "openvino"

    def __init__(self, model: str, adapter: str | None = None, cache_gb: int | None = None) -> None:
        lora = read_adapter(adapter, model) if adapter is not None else None
        weights, scale = (str(lora.weights), _single_scale(lora)) if lora is not None else (None, 1.0)
        folder = openvino_dir(model)
        self._encoder = Encoder(folder)
        self.tokenizer, self.context_length = self._encoder.tokenizer, self._encoder.context_length
        size = cache_gb or _cache_gb()
        self._source = Source(str(folder), weights, scale, self._encoder.end_ids, size, IN_FLIGHT)
        self._process: Any = None
        self._line: Any = None

    def _open(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._line, theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(theirs, self._source), daemon=True)
        self._process.start()
        theirs.close()

    def stream(self, requests: Iterable[Request], settings: Settings) -> Iterator[tuple[Request, Completion]]:
        """Completions in the order in which they finish; requests are taken from the iterable as places free up.

        Raises EngineError when the sampling process fails, ValueError for a prompt too long for the context.
        """
        if self._process is None:
            self._open()
        waiting = iter(requests)
        flying: dict[int, Request] = {}
        number = 0
        try:
            while True:
                while len(flying) < self._source.in_flight + SPARE and (request := next(waiting, None)) is not None:
                    self._send(number, request, settings)
                    flying[number] = request
                    number += 1
                if not flying:
                    return
                for index, ids, finished, logprob_sum in self._receive(flying, settings):
                    request = flying.pop(index)
                    yield request, self._encoder.completion(request, ids, finished, logprob_sum)
        finally:
            if flying:  # the caller stopped early: what is still being drawn is nobody's
                self.close()

    def _send(self, number: int, request: Request, settings: Settings) -> None:
        ids = self._encoder.encode(request, settings)
        with contextlib.suppress(ConnectionError):  # it has ended; `_receive` finds out why
            self._line.send((number, ids, request.stops, request.seed, settings))

    def _receive(self, flying: dict[int, Request], settings: Settings) -> list[Drawn]:
        """What has finished; nothing yet where the process ran out of memory and a smaller one has taken its requests over."""
        try:
            message = self._line.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            message = f"the sampling process ended with exit code {code}"
            if code == -signal.SIGKILL:  # how the kernel takes memory back
                message += " (killed, as when memory runs out)"
            lacking = code == -signal.SIGKILL
        else:
            lacking = isinstance(message, str) and is_out_of_memory(RuntimeError(message))
        if not isinstance(message, str):
            return message  # type: ignore[no-any-return]
        if not lacking or self._source.in_flight <= FEWEST:
            raise EngineError(message)
        self._shrink(message)
        for number, request in flying.items():
            self._send(number, request, settings)
        return []

    def _shrink(self, reason: str) -> None:
        in_flight, cache_gb = self._source.in_flight // 2, max(1, self._source.cache_gb // 2)
        warnings.warn(f"{reason}; going on with {in_flight} requests at a time", stacklevel=4)
        self._source = dataclasses.replace(self._source, in_flight=in_flight, cache_gb=cache_gb)
        self.close()
        self._open()

    def close(self) -> None:
        """End the sampling process; a later `stream` starts a new one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._line.close()
            self._process = None


def _single_scale(lora: Adapter) -> float:
    """The scale of all modules. Raises ModelError for what this engine would silently leave out."""
    beyond = ("use_dora", "modules_to_save", "alpha_pattern", "rank_pattern", "trainable_token_indices")
    found = [name for name in beyond if lora.config.get(name)]
    if found:
        raise ModelError(f"{lora.folder}: has {', '.join(found)}, which OpenVINO does not apply; use engine transformers")
    return lora.scale


def _cache_gb() -> int:
    import psutil

    return max(1, min(CACHE_GB, psutil.virtual_memory().available // 4 // 10**9))


# --------------------------------------------------------------------------------------------- in the sampling process


def serve(line: Connection, source: Source) -> None:
    """Answer requests from the other end of `line` until it closes."""
    try:
        pipeline = Pipeline(source)
        while True:
            while line.poll(0 if pipeline.flying else None):
                pipeline.add(*line.recv())
            if finished := pipeline.step():
                line.send(finished)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        pass
    except Exception as error:
        line.send(f"{type(error).__name__}: {error}")


class Pipeline:
    """A continuous-batching pipeline and the requests in it."""

    def __init__(self, source: Source) -> None:
        import openvino_genai as genai
        from tokenizers import Tokenizer

        self.genai = genai
        self.end_ids, self.cache_gb = source.end_ids, source.cache_gb
        self.tokenizer = Tokenizer.from_file(str(Path(source.folder) / "tokenizer.json"))
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = source.cache_gb
        scheduler.enable_prefix_caching = True
        scheduler.max_num_seqs = source.in_flight
        scheduler.max_num_batched_tokens = TOKENS_PER_STEP
        properties: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0)),
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(QUANTIZATION_GROUP),
        }
        if source.weights is not None:
            adapter, mode = genai.Adapter(source.weights), genai.AdapterConfig.Mode.MODE_STATIC  # constants in the graph: 1.7 × as fast
            properties["adapters"] = genai.AdapterConfig(adapter, source.scale, mode)
        self.pipeline = genai.ContinuousBatchingPipeline(source.folder, scheduler, "CPU", properties)
        self.flying: dict[int, _Flight] = {}

    def add(
        self, number: int, prompt_ids: list[int], stops: tuple[str, ...], seed: int, settings: Settings
    ) -> None:
        """Queue one request."""
        handle = self.pipeline.add_request(number, _tensor(prompt_ids), self._config(seed, settings))
        self.flying[number] = _Flight(handle, stops, tail_length(stops), [] if settings.logprobs else None)

    def _config(self, seed: int, settings: Settings) -> Any:
        config = self.genai.GenerationConfig()
        config.max_new_tokens = settings.max_new_tokens
        config.do_sample = settings.temperature > 0
        if config.do_sample:
            config.temperature, config.top_p = settings.temperature, settings.top_p
            config.rng_seed = seed
        elif settings.logprobs:
            config.logprobs = 1  # at temperature 1 over the whole vocabulary; a greedy draw's own are all 0
        config.stop_token_ids = self.end_ids
        return config

    def step(self) -> list[Drawn]:
        """One token for everybody; whoever is finished leaves."""
        self.pipeline.step()
        done = [number for number, flight in self.flying.items() if self._over(flight)]
        return [self.flying.pop(number).drawn(number) for number in done]

    def _over(self, flight: "_Flight") -> bool:
        """Take in a request's new tokens; whether it has ended, by itself, at a stop string or at its length."""
        while flight.handle.can_read():
            for output in flight.handle.read().values():
                flight.token_ids += output.generated_ids
                if flight.log_probs is not None:
                    flight.log_probs += output.generated_log_probs
                flight.finished |= output.finish_reason == self.genai.GenerationFinishReason.STOP
        status = flight.handle.get_status()
        if status == self.genai.GenerationStatus.IGNORED:
            raise RuntimeError(f"a prompt does not fit into the cache of {self.cache_gb} GB")
        if status != self.genai.GenerationStatus.RUNNING:
            return True
        if flight.stops and flight.token_ids:
            tail = self.tokenizer.decode(flight.token_ids[-flight.tail :], skip_special_tokens=False)
            flight.finished = any(stop in tail for stop in flight.stops)
            if flight.finished:
                flight.handle.stop()
        return flight.finished


@dataclasses.dataclass
class _Flight:
    """A request being drawn; its last `tail` tokens hold any stop string that has just been completed."""

    handle: Any
    stops: tuple[str, ...]
    tail: int
    log_probs: list[float] | None
    token_ids: list[int] = dataclasses.field(default_factory=list)
    finished: bool = False

    def drawn(self, number: int) -> Drawn:
        """What crosses to the other side."""
        total = None if self.log_probs is None else sum(self.log_probs)
        return number, self.token_ids, self.finished, total


def _tensor(token_ids: list[int]) -> Any:
    import numpy
    import openvino

    return openvino.Tensor(numpy.array([token_ids]))
