"""What runs in a sampling process: a continuous-batching pipeline that is fed token ids through a pipe.

Stop strings are looked for here: the library's own search runs its detokenizer for every request at every token, half
of all the time on two cores, and knows nothing of answers that are not complete where one occurs.
"""

import dataclasses
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lib.sampling import SamplingParams
from lib.sampling.encoding import tail_length
from lib.tasks.prompts import stop_at

TOKENS_PER_STEP = 512  # prompts are read in pieces of what the requests being drawn leave of this

_Stops = tuple[tuple[str, ...], str]  # stop strings and prefill
_Asked = tuple[int, list[int], _Stops, int, SamplingParams]  # request number, prompt, stops, seed, settings
Drawn = tuple[int, list[int], bool, list[float] | None]  # request number, tokens, whether it ended by itself, ln q


@dataclasses.dataclass(frozen=True)
class WorkerConfig:
    """Hold what a sampling process opens: the export, adapter weights (or none), their scale, and its limits."""

    folder: str
    weights: str | None
    scale: float
    end_ids: set[int]
    cache_gb: int
    in_flight: int
    threads: int
    shares_prefixes: bool = True


def serve(line: Connection, config: WorkerConfig) -> None:
    """Answer requests from the other end of `line` until it closes."""
    try:
        pipeline = Pipeline(config)
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

    def __init__(self, config: WorkerConfig) -> None:
        import openvino_genai as genai
        from tokenizers import Tokenizer

        self.genai = genai
        self.end_ids, self.cache_gb = config.end_ids, config.cache_gb
        self.tokenizer = Tokenizer.from_file(str(Path(config.folder) / "tokenizer.json"))
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = config.cache_gb
        scheduler.enable_prefix_caching = config.shares_prefixes
        scheduler.max_num_seqs = config.in_flight
        scheduler.max_num_batched_tokens = TOKENS_PER_STEP
        properties: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": config.threads,
            # Pinned, the first thread of every process would sit on the same core.
            "ENABLE_CPU_PINNING": False,
            # The default, 8 bits, is a seventh slower without AVX-512 and less exact.
            "KV_CACHE_PRECISION": "f16",
            # The default, bf16 where the processor has it, rounds a logit of 20 to an eighth.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if config.weights is not None:
            adapter, mode = (
                genai.Adapter(config.weights),
                genai.AdapterConfig.Mode.MODE_STATIC,
            )  # constants in the graph: 1.7 × as fast
            properties["adapters"] = genai.AdapterConfig(adapter, config.scale, mode)
        self.pipeline = genai.ContinuousBatchingPipeline(config.folder, scheduler, "CPU", properties)
        self.flying: dict[int, _Flight] = {}
        self.held: dict[
            tuple[int, ...], list[_Asked]
        ] = {}  # by a prompt that is being read for the first of its requests

    def add(self, number: int, prompt_ids: list[int], stops: _Stops, seed: int, settings: SamplingParams) -> None:
        """Queue one request; hold it while its prompt is being read for another, so that it finds the prefix cached."""
        asked, prompt = (number, prompt_ids, stops, seed, settings), tuple(prompt_ids)
        if prompt in self.held:
            self.held[prompt].append(asked)
        else:
            self.held[prompt] = []
            self._start(*asked, reading=prompt)

    def _start(
        self,
        number: int,
        prompt_ids: list[int],
        stops: _Stops,
        seed: int,
        settings: SamplingParams,
        reading: tuple[int, ...] | None = None,
    ) -> None:
        handle = self.pipeline.add_request(number, _tensor(prompt_ids), self._config(seed, settings))
        log_probs: list[float] | None = [] if settings.logprobs else None
        self.flying[number] = _Flight(handle, stops, tail_length(stops[0]), log_probs, reading)

    def _config(self, seed: int, settings: SamplingParams) -> Any:
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
        for flight in list(self.flying.values()):
            if flight.reading is not None and flight.handle.can_read():
                for asked in self.held.pop(flight.reading):
                    self._start(*asked)
                flight.reading = None
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
        if flight.tail and flight.token_ids:
            strings, prefill = flight.stops
            tail = self.tokenizer.decode(flight.token_ids[-flight.tail :], skip_special_tokens=False)
            if any(stop in tail for stop in strings):
                text = self.tokenizer.decode(flight.token_ids, skip_special_tokens=True)
                flight.finished = stop_at(text, strings, prefill) is not None
            if flight.finished:
                flight.handle.stop()
        return flight.finished


@dataclasses.dataclass
class _Flight:
    """A request being drawn; its last `tail` tokens hold any stop string that has just been completed."""

    handle: Any
    stops: _Stops
    tail: int
    log_probs: list[float] | None
    reading: tuple[int, ...] | None  # its prompt, until the first token shows that it has been read
    token_ids: list[int] = dataclasses.field(default_factory=list)
    finished: bool = False

    def drawn(self, number: int) -> Drawn:
        """What crosses to the other side."""
        return number, self.token_ids, self.finished, self.log_probs


def _tensor(token_ids: list[int]) -> Any:
    import numpy
    import openvino

    return openvino.Tensor(numpy.array([token_ids]))
