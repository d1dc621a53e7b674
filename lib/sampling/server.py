"""Any server that speaks the OpenAI completions protocol, vLLM first of all, by its address.

The tokenizer comes from the model's own folder or id, because prompts are made here. A LoRA adapter is asked for by its
folder's name, as `vllm serve … --enable-lora --lora-modules NAME=FOLDER` publishes it.
"""

import itertools
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx

from lib.models import resolve
from lib.prompts import cut_at_stops
from lib.sampling import Completion, EngineError, Request, Settings

IN_FLIGHT = 64  # requests under way; the server batches them
ATTEMPTS = 4  # tries a request gets
PAUSE_S = 0.5  # before the second try, doubled before each further one
ANSWER_S = 600.0  # the longest wait for one completion


class ServerEngine:
    """The model behind `url`, such as http://127.0.0.1:8000/v1, with `model`'s tokenizer."""

    name = "server"

    def __init__(self, url: str, model: str, adapter: str | None = None) -> None:
        from transformers import AutoTokenizer

        self.url = url.rstrip("/")
        self.tokenizer: Any = AutoTokenizer.from_pretrained(resolve(model))
        self._client = httpx.Client(timeout=ANSWER_S, limits=httpx.Limits(max_connections=IN_FLIGHT))
        self._model = self._published(Path(adapter).name if adapter else None)

    def _published(self, adapter: str | None) -> str:
        """The name to ask for: the adapter's, or that of the first model the server lists."""
        names = [row["id"] for row in self._call("GET", "models")["data"]]
        wanted = adapter or next(iter(names), "")
        if wanted not in names:
            raise EngineError(f"{self.url}: serves {', '.join(names) or 'nothing'}; {wanted or 'a model'} is wanted")
        return wanted

    def stream(self, requests: Iterable[Request], settings: Settings) -> Iterator[tuple[Request, Completion]]:
        """Completions in the order in which they finish. Raises EngineError once a request has failed for good."""
        waiting = iter(requests)
        flying: dict[Future[Completion], Request] = {}
        pool = ThreadPoolExecutor(IN_FLIGHT)
        try:
            while True:
                for request in itertools.islice(waiting, IN_FLIGHT - len(flying)):
                    flying[pool.submit(self._complete, request, settings)] = request
                if not flying:
                    return
                for done in wait(flying, return_when=FIRST_COMPLETED).done:
                    yield flying.pop(done), done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for the server

    def _complete(self, request: Request, settings: Settings) -> Completion:
        body = {
            "model": self._model,
            "prompt": request.text,
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p if settings.temperature else 1.0,
            "seed": request.seed,
            "stop": list(request.stops),
        }
        answer = self._call("POST", "completions", body)
        try:
            choice = answer["choices"][0]
            text, finished = str(choice["text"]), choice["finish_reason"] == "stop"
        except (KeyError, IndexError, TypeError):
            raise EngineError(f"{self.url}: an answer without choices: {str(answer)[:120]}") from None
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return Completion(cut_at_stops(text, request.stops), tuple(ids), finished)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One exchange; a server that is away or overloaded is asked again, an answer that says no is not."""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE_S * 2 ** (attempt - 1))
            try:
                response = self._client.request(method, f"{self.url}/{path}", json=body)
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if response.status_code < 400:
                return dict(response.json())
            problem = f"status {response.status_code}: {response.text[:200]}"
            if response.status_code < 500 and response.status_code != 429:
                raise EngineError(f"{self.url}: refused {path}, {problem}")
        raise EngineError(f"{self.url}: no answer to {path} after {ATTEMPTS} tries ({problem})")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
