"""OpenVINO GenAI on a CPU: continuous batching with prefix caching, so a prompt's K draws share its prefill.

Sampling has processes of its own: the pipeline's `step` holds Python's global lock for a tenth of a second at a time,
which would starve the threads that speak to the sandbox. Few requests share one process with all cores. Many have a
process for each core, as far as memory allows: the matrices of a small model are too small to share between threads,
and two processes draw far more than one with two threads. A prompt stays with the process that has read it; its other
draws wait until it has been read once. Only token ids cross to them and back. Their memory goes back whole when the
engine is closed; when one runs out of it, a single process goes on, and then with half the cache and half the requests.

How a sum is rounded depends on how many threads share it and on what else is in the batch. A deterministic engine draws
one request at a time per process, on one thread, and reads every prompt afresh.
"""

import dataclasses
import itertools
import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path

from lib.models.lora_fit import Adapter, read_adapter
from lib.models.resolve import ModelError, openvino_dir
from lib.sampling import Completion, EngineError, Request, SamplingParams
from lib.sampling.batches import is_out_of_memory
from lib.sampling.encoding import Encoder
from lib.sampling.openvino_process import Drawn, WorkerConfig, serve

IN_FLIGHT = 256  # requests in a process's scheduler at a time: a fifth faster than 128 where 150 prompts are read
SPARE = 8  # more at hand, so that a place never waits for the caller
FEW = 32  # requests for which one process is enough: starting another takes as long as drawing some twenty
LEAN = (
    8  # requests that a prompt's own process may have more than the idlest: about what reading the prompt again costs
)
CACHE_GB = (
    2  # keys and values of some 90,000 tokens of a 135M model, over all processes; at most a quarter of the free memory
)
FEWEST = 8  # with so few requests in flight it is not their number that takes the memory


class OutOfMemory(EngineError):
    """A sampling process that ended for want of memory."""


class Worker:
    """A sampling process and the requests that it is drawing."""

    def __init__(self, config: WorkerConfig) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.line, theirs = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(theirs, config), daemon=True)
        self.process.start()
        theirs.close()
        self.flying: dict[int, Request] = {}

    def send(self, number: int, request: Request, ids: list[int], settings: SamplingParams) -> None:
        """Have one completion drawn."""
        self.flying[number] = request
        with suppress(ConnectionError):  # it has ended; `receive` finds out why
            self.line.send((number, ids, (request.stops, request.prefill), request.seed, settings))

    def receive(self) -> list[tuple[Request, Drawn]]:
        """What has finished. Raises EngineError when the process has failed, OutOfMemory where that is why."""
        try:
            message: list[Drawn] | str = self.line.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            message = f"the sampling process ended with exit code {code}"
            if code == -signal.SIGKILL:  # how the kernel takes memory back
                raise OutOfMemory(f"{message} (killed, as when memory runs out)") from None
        if isinstance(message, str):
            raise (OutOfMemory if is_out_of_memory(RuntimeError(message)) else EngineError)(message)
        return [(self.flying.pop(drawn[0]), drawn) for drawn in message]

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()
        self.line.close()


class OpenVinoEngine:
    """The int8 export of `model` with an optional PEFT LoRA adapter folder."""

    name = "openvino"

    def __init__(
        self, model: str, adapter: str | None = None, cache_gb: int | None = None, deterministic: bool = False
    ) -> None:
        lora = read_adapter(adapter, model) if adapter is not None else None
        weights, scale = (str(lora.weights), _single_scale(lora)) if lora is not None else (None, 1.0)
        folder = openvino_dir(model)
        self._encoder = Encoder(folder)
        self.tokenizer, self.context_length = self._encoder.tokenizer, self._encoder.context_length
        self._cores, size = len(os.sched_getaffinity(0)), cache_gb or _cache_gb()
        self._most = processes_that_fit(folder, self._cores, _free_memory())
        self._deterministic, in_flight = deterministic, 1 if deterministic else IN_FLIGHT
        self._config = WorkerConfig(
            str(folder), weights, scale, self._encoder.end_ids, size, in_flight, self._cores, not deterministic
        )
        self._workers: list[Worker] = []

    def stream(self, requests: Iterable[Request], settings: SamplingParams) -> Iterator[tuple[Request, Completion]]:
        """Completions in the order in which they finish; requests are taken from the iterable as places free up.

        Raises EngineError when a sampling process fails, ValueError for a prompt too long for the context.
        """
        rest = iter(requests)
        first = list(itertools.islice(rest, FEW + 1))
        if len(self._workers) < (processes := self._most if len(first) > FEW else 1):
            self._open(processes)
        waiting, homes, number = itertools.chain(first, rest), dict[str, Worker](), 0
        try:
            while True:
                idlest, room = self._idlest(), 1 if self._deterministic else self._config.in_flight + SPARE
                while len(idlest.flying) < room and (request := next(waiting, None)) is not None:
                    ids = self._encoder.encode(request, settings)
                    home = homes.get(request.text, idlest)
                    if len(home.flying) > len(idlest.flying) + LEAN:
                        home = idlest
                    homes[request.text] = home
                    home.send(number, request, ids, settings)
                    number, idlest = number + 1, self._idlest()
                busy = [worker for worker in self._workers if worker.flying]
                if not busy:
                    return
                ready, finished = connection.wait([worker.line for worker in busy]), list[tuple[Request, Drawn]]()
                try:
                    for worker in busy:
                        finished += worker.receive() if worker.line in ready else []
                except OutOfMemory as error:
                    self._shrink(error, settings)
                    homes.clear()
                for request, (_, ids, ended, log_probs) in finished:
                    yield request, self._encoder.completion(request, ids, ended, log_probs)
        finally:
            if any(worker.flying for worker in self._workers):  # stopped early: what is still being drawn is nobody's
                self.close()

    def _open(self, processes: int) -> None:
        """So many processes in place of those that there are; cores and cache are shared out among them."""
        self.close()
        cache_gb = max(1, self._config.cache_gb // processes)
        threads = 1 if self._deterministic else max(1, self._cores // processes)
        config = dataclasses.replace(self._config, cache_gb=cache_gb, threads=threads)
        self._workers = [Worker(config) for _ in range(processes)]

    def _idlest(self) -> Worker:
        return min(self._workers, key=lambda worker: len(worker.flying))

    def _shrink(self, error: OutOfMemory, settings: SamplingParams) -> None:
        """Let fewer or smaller processes take over all requests. Raises `error` when none can be smaller."""
        if len(self._workers) == 1:
            if self._config.in_flight <= FEWEST:
                raise error
            in_flight, cache_gb = self._config.in_flight // 2, max(1, self._config.cache_gb // 2)
            self._config = dataclasses.replace(self._config, in_flight=in_flight, cache_gb=cache_gb)
        self._most = 1
        warnings.warn(
            f"{error}; going on in one process with {self._config.in_flight} requests at a time", stacklevel=3
        )
        flying = {number: request for worker in self._workers for number, request in worker.flying.items()}
        self._open(1)
        for number, request in flying.items():
            self._workers[0].send(number, request, self._encoder.encode(request, settings), settings)

    def close(self) -> None:
        """End the sampling processes; a later `stream` starts new ones."""
        for worker in self._workers:
            worker.close()
        self._workers = []


def processes_that_fit(folder: Path, cores: int, free: int) -> int:
    """One a core, as many as half of the free bytes hold: three times the weights and a gigabyte of cache each."""
    weights = sum(path.stat().st_size for path in folder.glob("openvino_model*.bin"))
    return max(1, min(cores, free // 2 // (3 * weights + 10**9)))


def _single_scale(lora: Adapter) -> float:
    """The scale of all modules. Raises ModelError for what this engine would silently leave out."""
    beyond = ("use_dora", "modules_to_save", "alpha_pattern", "rank_pattern", "trainable_token_indices")
    found = [name for name in beyond if lora.config.get(name)]
    if found:
        raise ModelError(
            f"{lora.folder}: has {', '.join(found)}, which OpenVINO does not apply; use engine transformers"
        )
    return lora.scale


def _free_memory() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


def _cache_gb() -> int:
    return max(1, min(CACHE_GB, _free_memory() // 4 // 10**9))
