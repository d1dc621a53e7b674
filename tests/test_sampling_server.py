"""The server engine against a small server on the loopback that answers with the real embedded model."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lib.prompts import build_prompt
from lib.sampling import EngineError, Request, Settings, draw_seed, open_engine, server
from lib.tasks import read_tasks

TASKS = {t.task_id: t for t in read_tasks(Path(__file__).parent.parent / "data/starter_bn.jsonl")}
EASY = [TASKS[name] for name in ("bn/add_numbers", "bn/square", "bn/is_odd")]
SETTINGS = Settings(temperature=0.8, max_new_tokens=12)


class Completions(BaseHTTPRequestHandler):
    """The completions protocol over an engine of ours; `broken` answers 503 that many times first."""

    engine: Any = None
    lock = threading.Lock()
    broken = 0
    asked: list[dict[str, Any]] = []

    def do_GET(self) -> None:
        self.answer({"data": [{"id": "base"}, {"id": "rsft"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind = type(self)
        with self.lock:
            kind.asked.append(body)
            if kind.broken:
                kind.broken -= 1
                self.send_error(503)
                return
            settings = Settings(body["temperature"], body["top_p"], body["max_tokens"])
            request = Request(0, body["prompt"], tuple(body["stop"]), body["seed"])
            ((_, completion),) = self.engine.stream([request], settings)
        reason = "stop" if completion.finished else "length"
        self.answer({"choices": [{"text": completion.text, "finish_reason": reason}]})

    def answer(self, payload: dict[str, Any]) -> None:
        raw = json.dumps(payload).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def plain() -> Iterator[Any]:
    engine = open_engine("embedded", engine="transformers")
    yield engine
    engine.close()


@pytest.fixture
def handler(plain: Any) -> type[Completions]:
    return type("Handler", (Completions,), {"engine": plain, "asked": []})


@pytest.fixture
def address(handler: type[Completions]) -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/v1"
    httpd.shutdown()
    httpd.server_close()


def requests(engine: Any) -> list[Request]:
    prompts = [build_prompt(task, engine.tokenizer) for task in EASY]
    return [Request(p.task_id, p.text, p.stops, draw_seed(0, p.task_id, 0)) for p in prompts]


def test_answers_are_the_model_s_own(address: str, plain: Any) -> None:
    engine = open_engine("embedded", engine=address)
    alone = {r.key: c for request in requests(plain) for r, c in plain.stream([request], SETTINGS)}
    found = {request.key: completion for request, completion in engine.stream(requests(engine), SETTINGS)}
    assert {key: c.text for key, c in found.items()} == {key: c.text for key, c in alone.items()}
    assert {key: c.finished for key, c in found.items()} == {key: c.finished for key, c in alone.items()}


def test_an_adapter_is_asked_for_by_its_folder_s_name(address: str, handler: type[Completions]) -> None:
    engine = open_engine("embedded", "runs/x/adapters/rsft", address)
    list(engine.stream(requests(engine)[:1], SETTINGS))
    assert handler.asked[0]["model"] == "rsft"


def test_an_adapter_that_is_not_served_is_named(address: str) -> None:
    with pytest.raises(EngineError, match="serves base, rsft; other is wanted"):
        open_engine("embedded", "adapters/other", address)


def test_a_server_that_stumbles_is_asked_again(
    address: str, handler: type[Completions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PAUSE_S", 0.01)
    engine = open_engine("embedded", engine=address)
    handler.broken = 2
    assert len(list(engine.stream(requests(engine)[:1], SETTINGS))) == 1
    assert len(handler.asked) == 3


def test_a_server_that_stops_answering_is_one_error(
    address: str, handler: type[Completions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PAUSE_S", 0.01)
    engine = open_engine("embedded", engine=address)
    handler.broken = 100
    with pytest.raises(EngineError, match="no answer to completions after 4 tries"):
        list(engine.stream(requests(engine), SETTINGS))


def test_nobody_at_the_address_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PAUSE_S", 0.01)
    with pytest.raises(EngineError, match="no answer to models"):
        open_engine("embedded", engine="http://127.0.0.1:9/v1")


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(EngineError, match="engine 'vlm': choose one of auto, openvino, transformers"):
        open_engine("embedded", engine="vlm")
