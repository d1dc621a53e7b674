"""Any server that speaks the OpenAI completions protocol, vLLM first of all, by its address.

The tokenizer comes from the model's own folder or id, because prompts are made here. A LoRA adapter is asked for by its
folder's name, as `vllm serve … --enable-lora --lora-modules NAME=FOLDER` publishes it.

A server applies what its own model folder recommends (top-k, min-p, penalties) to whoever does not object: every
request does.
"""

import itertools
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx

from lib.models.lora_fit import read_adapter
from lib.models.resolve import resolve
from lib.sampling import Completion, EngineError, Request, SamplingParams, token_ids
from lib.sampling.encoding import Encoder
from lib.tasks.prompts import cut_at_stops, server_stops

IN_FLIGHT = 64  # requests under way; the server batches them
ATTEMPTS = 4  # tries a request gets
PAUSE_S = 0.5  # before the second try, doubled before each further one
ANSWER_S = 300.0  # the longest wait for one completion
CONNECT_S = 10.0
# Names of vLLM, SGLang and llama.cpp; a server that does not know one ignores it.
NOTHING_ELSE = {
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "add_special_tokens": False,
    "return_token_ids": True,
}


class ServerEngine:
    """The model behind `url`, such as http://127.0.0.1:8000/v1, with `model`'s tokenizer."""

    name = "server"

    def __init__(self, url: str, model: str, adapter: str | None = None) -> None:
        folder = resolve(model)
        if adapter is not None and Path(adapter).is_dir():  # it may lie on the server's machine alone
            read_adapter(adapter, model)
        self.url = url.rstrip("/")
        self._over = threading.Event()  # nobody waits for the stream's answers any more
        timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
        self._client = httpx.Client(timeout=timeout, limits=httpx.Limits(max_connections=IN_FLIGHT))
        self._model, served_length = self._published(Path(adapter).name if adapter else None)
        self._encoder = Encoder(folder, served_length)
        self.tokenizer, self.context_length = self._encoder.tokenizer, self._encoder.context_length

    def _published(self, adapter: str | None) -> tuple[str, int | None]:
        """Return the adapter's name or that of the first model listed, and the longest sequence if it is given."""
        listed = self._call("GET", "models")
        try:
            lengths = {str(row["id"]): row.get("max_model_len") for row in listed["data"]}
        except (KeyError, TypeError, AttributeError):
            raise EngineError(f"{self.url}: a list of models without data: {str(listed)[:120]}") from None
        wanted = adapter or next(iter(lengths), "")
        if wanted not in lengths:
            names = ", ".join(lengths) or "nothing"
            raise EngineError(f"{self.url}: serves {names}; {wanted or 'a model'} is wanted")
        return wanted, lengths[wanted] or next(iter(lengths.values()))

    def stream(self, requests: Iterable[Request], settings: SamplingParams) -> Iterator[tuple[Request, Completion]]:
        """Completions in the order in which they finish.

        Raises EngineError once a request has failed for good, or for log-probabilities that a server may tell of
        another distribution than the one drawn from (vLLM's do not know temperature and top-p); ValueError for a prompt
        too long.
        """
        if settings.logprobs and settings.temperature and (settings.temperature, settings.top_p) != (1, 1):
            raise EngineError(
                f"{self.url}: a server's log-probabilities are those at temperature 1 and top_p 1; "
                "sample so, or in process"
            )
        waiting = iter(requests)
        flying: dict[Future[Completion], Request] = {}
        self._over.clear()
        pool = ThreadPoolExecutor(IN_FLIGHT)
        try:
            while True:
                for request in itertools.islice(waiting, IN_FLIGHT - len(flying)):
                    self._encoder.encode(request, settings)  # refuses what the server would cut or refuse
                    flying[pool.submit(self._complete, request, settings)] = request
                if not flying:
                    return
                for done in wait(flying, return_when=FIRST_COMPLETED).done:
                    yield flying.pop(done), done.result()
        finally:
            self._over.set()
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for the server

    def _complete(self, request: Request, settings: SamplingParams) -> Completion:
        body = NOTHING_ELSE | {
            "model": self._model,
            "prompt": request.text,
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p if settings.temperature else 1.0,
            "seed": request.seed,
            "stop": server_stops(request.stops, request.prefill),
        }
        if settings.logprobs:
            body["logprobs"] = 1
        answer = self._call("POST", "completions", body)
        try:
            choice = answer["choices"][0]
            text, finished = str(choice["text"]), choice["finish_reason"] == "stop"
            ids = choice.get("token_ids") or token_ids(self.tokenizer, text)
            end = self._encoder.drawn_until(request, ids)
            known = tuple(choice["logprobs"]["token_logprobs"][:end]) if settings.logprobs else None
        except (KeyError, IndexError, TypeError):
            lacking = "choices and log-probabilities" if settings.logprobs else "choices"
            raise EngineError(f"{self.url}: an answer without {lacking}: {str(answer)[:120]}") from None
        finished |= end is not None
        return Completion(cut_at_stops(text, request.stops, request.prefill), tuple(ids[:end]), finished, known)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One exchange; a server that is away or overloaded is asked again, an answer that says no is not."""
        for attempt in range(ATTEMPTS):
            if attempt and self._over.wait(PAUSE_S * 2 ** (attempt - 1)):
                break
            try:
                response = self._client.request(method, f"{self.url}/{path}", json=body)
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if response.status_code < 400:
                try:
                    return dict(response.json())
                except (ValueError, TypeError):
                    raise EngineError(f"{self.url}: {path} answers no JSON object: {response.text[:120]!r}") from None
            problem = f"status {response.status_code}: {response.text[:200]}"
            if response.status_code < 500 and response.status_code != 429:
                raise EngineError(f"{self.url}: refused {path}, {problem}")
        raise EngineError(f"{self.url}: no answer to {path} after {ATTEMPTS} tries ({problem})")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
