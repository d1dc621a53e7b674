"""OpenVINO GenAI on a CPU: continuous batching with prefix caching, so a prompt's K draws share its prefill.

With many requests there is a sampling process for each core, with one thread, as far as memory allows: the matrices of a small
model are too small to share between threads, and two processes draw far more than one with two threads. A prompt stays with
the process that has read it. Only token ids cross to them and back. Their memory goes back whole when the engine is closed; when
one runs out of it, a single process goes on, and then with half the cache and half the requests.
"""

import dataclasses
import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path

from lib.models import ModelError, openvino_dir
from lib.sampling import Completion, EngineError, Request, Settings
from lib.sampling.adapters import Adapter, read_adapter
from lib.sampling.batches import is_out_of_memory
from lib.sampling.encoding import Encoder
from lib.sampling.openvino_process import Drawn, Source, serve

IN_FLIGHT = 128  # requests in a process's scheduler at a time; more gains nothing
SPARE = 8  # more at hand, so that a place never waits for the caller; many would arrive before their prefix is cached
ENOUGH = 32  # requests in every process before another one starts, which takes as long as drawing some twenty
LEAN = 8  # requests that a prompt's own process may have more than the idlest: about what reading the prompt again costs
CACHE_GB = 2  # keys and values of some 90,000 tokens of a 135M model, over all processes; at most a quarter of the free memory
FEWEST = 8  # with so few requests in flight it is not their number that takes the memory


class OutOfMemory(EngineError):
    """A sampling process that ended for want of memory."""


class Worker:
    """A sampling process and the requests that it is drawing."""

    def __init__(self, source: Source) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.line, theirs = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(theirs, source), daemon=True)
        self.process.start()
        theirs.close()
        self.flying: dict[int, Request] = {}

    def send(self, number: int, request: Request, ids: list[int], settings: Settings) -> None:
        """Have one completion drawn."""
        self.flying[number] = request
        with suppress(ConnectionError):  # it has ended; `receive` finds out why
            self.line.send((number, ids, request.stops, request.seed, settings))

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

    def __init__(self, model: str, adapter: str | None = None, cache_gb: int | None = None) -> None:
        lora = read_adapter(adapter, model) if adapter is not None else None
        weights, scale = (str(lora.weights), _single_scale(lora)) if lora is not None else (None, 1.0)
        folder = openvino_dir(model)
        self._encoder = Encoder(folder)
        self.tokenizer, self.context_length = self._encoder.tokenizer, self._encoder.context_length
        cores, size = len(os.sched_getaffinity(0)), cache_gb or _cache_gb()
        self._count = processes_that_fit(folder, cores, _free_memory())
        each = max(1, size // self._count)
        self._source = Source(
            str(folder), weights, scale, self._encoder.end_ids, each, IN_FLIGHT, max(1, cores // self._count)
        )
        self._workers: list[Worker] = []

    def stream(self, requests: Iterable[Request], settings: Settings) -> Iterator[tuple[Request, Completion]]:
        """Completions in the order in which they finish; requests are taken from the iterable as places free up.

        Raises EngineError when a sampling process fails, ValueError for a prompt too long for the context.
        """
        self._workers = self._workers or [Worker(self._source)]
        waiting, homes, number = iter(requests), dict[str, Worker](), 0
        try:
            while True:
                idlest = self._idlest()
                while len(idlest.flying) < self._source.in_flight + SPARE and (request := next(waiting, None)) is not None:
                    ids = self._encoder.encode(request, settings)
                    if len(idlest.flying) >= ENOUGH and len(self._workers) < self._count:
                        idlest = Worker(self._source)
                        self._workers.append(idlest)
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
                for request, (_, ids, ended, logprob_sum) in finished:
                    yield request, self._encoder.completion(request, ids, ended, logprob_sum)
        finally:
            if any(worker.flying for worker in self._workers):  # stopped early: what is still being drawn is nobody's
                self.close()

    def _idlest(self) -> Worker:
        return min(self._workers, key=lambda worker: len(worker.flying))

    def _shrink(self, error: OutOfMemory, settings: Settings) -> None:
        """Fewer or smaller processes take over everything that is being drawn. Raises `error` when there is nothing to save."""
        if self._count == 1 and self._source.in_flight <= FEWEST:
            raise error
        if self._count > 1:
            more = self._source.threads * self._count
            self._count, self._source = 1, dataclasses.replace(self._source, threads=more)
        else:
            in_flight, cache_gb = self._source.in_flight // 2, max(1, self._source.cache_gb // 2)
            self._source = dataclasses.replace(self._source, in_flight=in_flight, cache_gb=cache_gb)
        warnings.warn(f"{error}; going on in one process with {self._source.in_flight} requests at a time", stacklevel=3)
        flying = {number: request for worker in self._workers for number, request in worker.flying.items()}
        self.close()
        self._workers = [Worker(self._source)]
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
        raise ModelError(f"{lora.folder}: has {', '.join(found)}, which OpenVINO does not apply; use engine transformers")
    return lora.scale


def _free_memory() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


def _cache_gb() -> int:
    return max(1, min(CACHE_GB, _free_memory() // 4 // 10**9))
