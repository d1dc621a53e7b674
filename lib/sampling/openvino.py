"""OpenVINO GenAI on a CPU: continuous batching with prefix caching, so a prompt's K draws share its prefill.

The pipeline lives in a process of its own: its `step` holds Python's global lock for a tenth of a second at a time, which
would starve the threads that speak to the sandbox. Only token ids cross to it and back. The memory goes back whole when the
engine is closed.

Stop strings are looked for here: the library's own search runs its detokenizer for every request at every token, half of
all the time on two cores.
"""

import dataclasses
import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lib.models import ModelError, openvino_dir
from lib.prompts import cut_at_stops
from lib.sampling import Completion, EngineError, Request, Settings, stop_token_ids

IN_FLIGHT = 128  # requests in the scheduler at a time; more gains nothing on a few cores
TOKENS_PER_STEP = 512  # prompts are read in pieces of what the requests being drawn leave of this
QUANTIZATION_GROUP = 64  # activations to a scale; the default of 32 costs a quarter of the speed
SPARE = 8  # more at hand, so that a place never waits for the caller; many would arrive before their prefix is cached


Drawn = tuple[int, list[int], bool]  # request number, its tokens, whether it ended by itself


@dataclasses.dataclass(frozen=True)
class Source:
    """What the sampling process opens: the export's folder, adapter weights (or none) and their scale, cache size."""

    folder: str
    weights: str | None
    scale: float
    cache_gb: int
    stop_ids: set[int]


class OpenVinoEngine:
    """The int8 export of `model` with an optional PEFT LoRA adapter folder."""

    name = "openvino"

    def __init__(self, model: str, adapter: str | None = None, cache_gb: int = 2) -> None:
        from transformers import AutoTokenizer

        folder = openvino_dir(model)
        weights, scale = _adapter(Path(adapter)) if adapter is not None else (None, 1.0)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._source = Source(str(folder), weights, scale, cache_gb, stop_token_ids(self.tokenizer))
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

        Raises EngineError when the sampling process fails.
        """
        if self._process is None:
            self._open()
        waiting = iter(requests)
        flying: dict[int, Request] = {}
        prompt_ids: dict[str, list[int]] = {}
        number = 0
        try:
            while True:
                while len(flying) < IN_FLIGHT + SPARE and (request := next(waiting, None)) is not None:
                    flying[number] = request
                    if request.text not in prompt_ids:
                        prompt_ids[request.text] = self._encode(request.text)
                    self._line.send((number, prompt_ids[request.text], request.stops, request.seed, settings))
                    number += 1
                if not flying:
                    return
                for index, token_ids, finished in self._receive():
                    request = flying.pop(index)
                    text = self.tokenizer.decode(token_ids, skip_special_tokens=True)
                    yield request, Completion(cut_at_stops(text, request.stops), tuple(token_ids), finished)
        finally:
            if flying:  # the caller stopped early: what is still being drawn is nobody's
                self.close()

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _receive(self) -> list[Drawn]:
        try:
            message = self._line.recv()
        except EOFError:
            self._process.join()
            raise EngineError(f"the sampling process ended with exit code {self._process.exitcode}") from None
        if isinstance(message, str):
            raise EngineError(message)
        return message

    def close(self) -> None:
        """End the sampling process; a later `stream` starts a new one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._line.close()
            self._process = None


def _adapter(folder: Path) -> tuple[str, float]:
    """An adapter's weights file and its scale, alpha / r."""
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if not (weights.is_file() and config.is_file()):
        raise ModelError(f"{folder}: not a PEFT adapter folder (adapter_model.safetensors, adapter_config.json)")
    lora = json.loads(config.read_text())
    return str(weights), lora["lora_alpha"] / lora["r"]


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
        self.stop_ids = source.stop_ids
        self.tokenizer = Tokenizer.from_file(str(Path(source.folder) / "tokenizer.json"))
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = source.cache_gb
        scheduler.enable_prefix_caching = True
        scheduler.max_num_seqs = IN_FLIGHT
        scheduler.max_num_batched_tokens = TOKENS_PER_STEP
        properties: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0)),
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(QUANTIZATION_GROUP),
        }
        if source.weights is not None:
            properties["adapters"] = genai.AdapterConfig(genai.Adapter(source.weights), source.scale)
        self.pipeline = genai.ContinuousBatchingPipeline(source.folder, scheduler, "CPU", properties)
        self.flying: dict[int, _Flight] = {}
        if source.weights is not None:
            self._switch_adapter_on()

    def _switch_adapter_on(self) -> None:
        """`generate` puts the adapter's weights into the graph, `step` alone never does and samples the base model."""
        config = self.genai.GenerationConfig()
        config.max_new_tokens = 1
        self.pipeline.generate([_tensor(sorted(self.stop_ids)[:1])], [config])

    def add(
        self, number: int, prompt_ids: list[int], stops: tuple[str, ...], seed: int, settings: Settings
    ) -> None:
        """Queue one request."""
        handle = self.pipeline.add_request(number, _tensor(prompt_ids), self._config(seed, settings))
        self.flying[number] = _Flight(handle, stops, max(len(stop.encode()) for stop in ("", *stops)))

    def _config(self, seed: int, settings: Settings) -> Any:
        config = self.genai.GenerationConfig()
        config.max_new_tokens = settings.max_new_tokens
        config.do_sample = settings.temperature > 0
        if config.do_sample:
            config.temperature, config.top_p = settings.temperature, settings.top_p
            config.rng_seed = seed
        config.stop_token_ids = self.stop_ids
        return config

    def step(self) -> list[Drawn]:
        """One token for everybody; whoever is finished leaves."""
        self.pipeline.step()
        done = [number for number, flight in self.flying.items() if self._over(flight)]
        return [(number, flight.token_ids, flight.finished) for number in done
                for flight in [self.flying.pop(number)]]  # fmt: skip

    def _over(self, flight: "_Flight") -> bool:
        """Take in a request's new tokens; whether it has ended, by itself, at a stop string or at its length."""
        while flight.handle.can_read():
            for output in flight.handle.read().values():
                flight.token_ids += output.generated_ids
                flight.finished |= output.finish_reason == self.genai.GenerationFinishReason.STOP
        if flight.handle.get_status() != self.genai.GenerationStatus.RUNNING:
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
    token_ids: list[int] = dataclasses.field(default_factory=list)
    finished: bool = False


def _tensor(token_ids: list[int]) -> Any:
    import numpy
    import openvino

    return openvino.Tensor(numpy.array([token_ids]))
