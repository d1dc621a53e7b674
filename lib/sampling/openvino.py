"""OpenVINO GenAI on a CPU: continuous batching with prefix caching, so a prompt's K draws share its prefill.

The pipeline lives in a process of its own: its `step` holds Python's global lock for a tenth of a second at a time, which
would starve the threads that speak to the sandbox. The memory goes back whole when the engine is closed.
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
from lib.sampling import Completion, Request, Settings, stop_token_ids

IN_FLIGHT = 128  # requests in the scheduler at a time; more gains nothing on a few cores
SPARE = 8  # more at hand, so that a place never waits for the caller; many would arrive before their prefix is cached


class EngineError(RuntimeError):
    """The sampling process failed; the message carries its error."""


@dataclasses.dataclass(frozen=True)
class Source:
    """What the sampling process opens: the export's folder, adapter weights (or none) and their scale, cache size."""

    folder: str
    weights: str | None
    scale: float
    cache_gb: int


class OpenVinoEngine:
    """The int8 export of `model` with an optional PEFT LoRA adapter folder."""

    name = "openvino"

    def __init__(self, model: str, adapter: str | None = None, cache_gb: int = 2) -> None:
        from transformers import AutoTokenizer

        folder = openvino_dir(model)
        weights, scale = _adapter(Path(adapter)) if adapter is not None else (None, 1.0)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._source = Source(str(folder), weights, scale, cache_gb)
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
        number = 0
        try:
            while True:
                while len(flying) < IN_FLIGHT + SPARE and (request := next(waiting, None)) is not None:
                    flying[number] = request
                    self._line.send((number, request.text, request.stops, request.seed, settings))
                    number += 1
                if not flying:
                    return
                for index, completion in self._receive():
                    yield flying.pop(index), completion
        finally:
            if flying:  # the caller stopped early: what is still being drawn is nobody's
                self.close()

    def _receive(self) -> list[tuple[int, Completion]]:
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
        from transformers import AutoTokenizer

        self.genai = genai
        self.tokenizer = AutoTokenizer.from_pretrained(source.folder)
        self.stop_ids = stop_token_ids(self.tokenizer)
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = source.cache_gb
        scheduler.enable_prefix_caching = True
        scheduler.max_num_seqs = IN_FLIGHT
        properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0))}
        if source.weights is not None:
            properties["adapters"] = genai.AdapterConfig(genai.Adapter(source.weights), source.scale)
        self.pipeline = genai.ContinuousBatchingPipeline(source.folder, scheduler, "CPU", properties)
        self.flying: dict[int, tuple[tuple[str, ...], Any]] = {}
        if source.weights is not None:
            self._switch_adapter_on()

    def _switch_adapter_on(self) -> None:
        """`generate` puts the adapter's weights into the graph, `step` alone never does and samples the base model."""
        config = self.genai.GenerationConfig()
        config.max_new_tokens = 1
        self.pipeline.generate([self._tokens("def")], [config])

    def _tokens(self, text: str) -> Any:
        import numpy
        import openvino

        return openvino.Tensor(numpy.array([self.tokenizer(text, add_special_tokens=False)["input_ids"]]))

    def add(self, number: int, text: str, stops: tuple[str, ...], seed: int, settings: Settings) -> None:
        """Queue one request."""
        config = self._config(stops, seed, settings)
        self.flying[number] = stops, self.pipeline.add_request(number, self._tokens(text), config)

    def _config(self, stops: tuple[str, ...], seed: int, settings: Settings) -> Any:
        config = self.genai.GenerationConfig()
        config.max_new_tokens = settings.max_new_tokens
        config.do_sample = settings.temperature > 0
        if config.do_sample:
            config.temperature, config.top_p = settings.temperature, settings.top_p
            config.rng_seed = seed
        config.stop_token_ids = self.stop_ids
        config.stop_strings = set(stops)
        config.include_stop_str_in_output = True
        return config

    def step(self) -> list[tuple[int, Completion]]:
        """One token for everybody; whoever is finished leaves."""
        self.pipeline.step()
        running = self.genai.GenerationStatus.RUNNING
        done = [number for number, (_, handle) in self.flying.items() if handle.get_status() != running]
        return [(number, self._completion(*self.flying.pop(number))) for number in done]

    def _completion(self, stops: tuple[str, ...], handle: Any) -> Completion:
        output = handle.read_all()[0]
        text = self.tokenizer.decode(output.generated_ids, skip_special_tokens=True)
        finished = output.finish_reason == self.genai.GenerationFinishReason.STOP
        return Completion(cut_at_stops(text, stops), tuple(output.generated_ids), finished)
