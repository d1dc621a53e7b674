"""The server engine against a small server on the loopback that answers with the real embedded model."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lib.sampling import EngineError, Request, SamplingParams, open_engine, sample_seed, server
from lib.tasks.prompts import build_prompt
from lib.tasks.task import read_tasks

TASKS = {t.task_id: t for t in read_tasks(Path(__file__).parent.parent / "data/starter_bn.jsonl")}
EASY = [TASKS[name] for name in ("bn/add_numbers", "bn/square", "bn/is_odd")]
SETTINGS = SamplingParams(temperature=0.8, max_new_tokens=12)


class Completions(BaseHTTPRequestHandler):
    """The completions protocol over an engine of ours; `broken` answers 503 that many times first.

    `silent` seconds pass before any completion; `listed` and `raw` replace the list of models and the answers.
    """

    engine: Any = None
    lock = threading.Lock()
    broken = 0
    silent = 0.0
    listed: Any = {"data": [{"id": "base", "max_model_len": 400}, {"id": "rsft"}]}
    raw: bytes | None = None
    asked: list[dict[str, Any]] = []

    def do_GET(self) -> None:
        self.answer(self.listed)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind = type(self)
        time.sleep(self.silent)
        with self.lock:
            kind.asked.append(body)
            if kind.broken:
                kind.broken -= 1
                self.send_error(503)
                return
            settings = SamplingParams(body["temperature"], body["top_p"], body["max_tokens"], "logprobs" in body)
            request = Request(0, body["prompt"], tuple(body["stop"]), body["seed"])
            ((_, completion),) = self.engine.stream([request], settings)
        reason = "stop" if completion.finished else "length"
        choice: dict[str, Any] = {"text": completion.text, "finish_reason": reason}
        if body["return_token_ids"]:
            choice["token_ids"] = completion.token_ids
        if "logprobs" in body:
            choice["logprobs"] = {"token_logprobs": [completion.logprob_sum / 2] * 2}
        self.answer({"choices": [choice]})

    def answer(self, payload: dict[str, Any]) -> None:
        raw = self.raw or json.dumps(payload).encode()
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
    return [Request(p.task_id, p.text, p.stops, sample_seed(0, p.task_id, 0), p.prefill) for p in prompts]


def test_answers_are_the_model_s_own(address: str, plain: Any) -> None:
    engine = open_engine("embedded", engine=address)
    alone = {r.key: c for request in requests(plain) for r, c in plain.stream([request], SETTINGS)}
    found = {request.key: completion for request, completion in engine.stream(requests(engine), SETTINGS)}
    assert found == alone


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


def test_a_server_that_says_nothing_is_one_error(
    address: str, handler: type[Completions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PAUSE_S", 0.01)
    monkeypatch.setattr(server, "ANSWER_S", 0.2)
    engine = open_engine("embedded", engine=address)
    handler.silent = 2.0
    with pytest.raises(EngineError, match="no answer to completions after 4 tries .ReadTimeout"):
        list(engine.stream(requests(engine)[:1], SETTINGS))


def test_an_answer_that_is_none_is_one_error(address: str, handler: type[Completions]) -> None:
    engine = open_engine("embedded", engine=address)
    for raw, message in (
        (b"<html>", "completions answers no JSON object: '<html>'"),
        (b"{}", "an answer without choices"),
    ):
        handler.raw = raw
        with pytest.raises(EngineError, match=message):
            list(engine.stream(requests(engine)[:1], SETTINGS))


def test_a_list_without_models_is_one_error(address: str, handler: type[Completions]) -> None:
    for listed, message in (
        ({"models": []}, "a list of models without data"),
        ({"data": []}, "serves nothing; a model is wanted"),
    ):
        handler.listed = listed
        with pytest.raises(EngineError, match=message):
            open_engine("embedded", engine=address)


def test_nothing_of_the_server_s_own_is_applied(address: str, handler: type[Completions]) -> None:
    engine = open_engine("embedded", engine=address)
    list(engine.stream(requests(engine)[:1], SETTINGS))
    asked = handler.asked[0]
    assert (asked["top_k"], asked["min_p"], asked["repetition_penalty"], asked["add_special_tokens"]) == (
        -1,
        0,
        1,
        False,
    )


def test_a_prompt_longer_than_the_server_s_context_is_refused(address: str, handler: type[Completions]) -> None:
    engine = open_engine("embedded", engine=address)
    assert engine.context_length == 400
    with pytest.raises(ValueError, match="request long: a prompt of .* more than the context of 400"):
        list(engine.stream([Request("long", "x " * 500, (), 0)], SETTINGS))
    assert not handler.asked


def test_log_probabilities_are_asked_for_where_all_servers_mean_the_same(address: str, plain: Any) -> None:
    engine = open_engine("embedded", engine=address)
    settings = SamplingParams(1.0, 1.0, 6, logprobs=True)
    ((_, ours),) = engine.stream(requests(engine)[:1], settings)
    ((_, alone),) = plain.stream(requests(plain)[:1], settings)
    assert ours.logprob_sum == pytest.approx(alone.logprob_sum)
    with pytest.raises(EngineError, match="log-probabilities are those at temperature 1 and top_p 1"):
        list(engine.stream(requests(engine)[:1], SamplingParams(0.8, 1.0, 6, logprobs=True)))


def test_nobody_at_the_address_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PAUSE_S", 0.01)
    with pytest.raises(EngineError, match="no answer to models"):
        open_engine("embedded", engine="http://127.0.0.1:9/v1")


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(EngineError, match="engine 'vlm': choose one of auto, openvino, vllm, transformers"):
        open_engine("embedded", engine="vlm")
