"""Requests and answers, the same way round on both ends of the channel between grader and program.

A request is {"do", "on", "args", "kwargs"}, its answer {"ok" | "err" | "stop"}; both close with what has changed on the
sender's side (`wire.Codec.compose`). While one end waits for an answer it serves the other end's requests: calls of the
functions it has handed over.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from lib.sandbox import frames, wire


class Endpoint(wire.Codec):
    """One end. Subclasses say how a request is done (`perform`) and how an exception looks (`encode_error`)."""

    def __init__(self, channel: frames.Channel, parity: int) -> None:
        super().__init__(parity)
        self.channel = channel

    # --------------------------------------------------------------------------------------------------- asking

    def ask(self, request: dict[str, Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Send a request and return what it gave; raises what it raised."""

        def encode() -> dict[str, Any]:
            if args:
                request["args"] = [self.encode(item) for item in args]
            if kwargs:
                request["kwargs"] = {key: self.encode(item) for key, item in kwargs.items()}
            return request

        self.channel.send(self.compose(encode))
        return self.take(self.wait())

    def wait(self) -> dict[str, Any]:
        """The next answer; requests that come first are served."""
        while True:
            message = self.channel.receive()
            if type(message) is not dict:
                raise frames.Garbage("a message that is no object")
            if "do" not in message:
                return message
            self.channel.send(self.serve(message))

    def take(self, answer: dict[str, Any]) -> Any:
        """What an answer holds. Raises StopIteration for "stop", and the exception of "err"."""
        value = self.read(answer)
        if "stop" in answer:
            raise StopIteration(*() if value is None else (value,))
        if "err" in answer:
            raise value if isinstance(value, BaseException) else frames.Garbage("an error that is none")
        return value

    def read(self, answer: dict[str, Any]) -> Any:
        """What an answer holds, exceptions as values."""
        with self.reading():
            value = self.decode(next((answer[key] for key in ("err", "stop", "ok") if key in answer), None))
            self.catch_up(answer)
        return value

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Around the reading of a message."""
        return contextlib.nullcontext()

    # -------------------------------------------------------------------------------------------------- serving

    def serve(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do one request; its answer."""
        with self.reading():
            args = [self.decode(item) for item in request.get("args", ())]
            kwargs = {key: self.decode(item) for key, item in request.get("kwargs", {}).items()}
            self.catch_up(request)
        try:
            value, key = self.perform(request, args, kwargs), "ok"
        except StopIteration as stop:
            value, key = stop.value, "stop"
        except frames.Closed:
            raise
        except BaseException as error:
            value, key = error, "err"
        return self.answer(key, value)

    def answer(self, key: str, value: Any) -> dict[str, Any]:
        """The answer to the request in hand."""
        try:
            return self.compose(lambda: {key: self.encode_error(value) if key == "err" else self.encode(value)})
        except Exception as error:
            failed = RuntimeError(f"{type(error).__name__} in an answer")
            return self.compose(lambda: {"err": self.encode_error(failed)})

    def perform(self, request: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Do what a request asks for."""
        raise NotImplementedError

    def encode_error(self, error: BaseException) -> Any:
        """The form of an exception."""
        raise NotImplementedError


def build_error(kind: Any, args: Any) -> BaseException:
    """An exception of a class with the arguments that it held, without running its `__init__`."""
    try:
        error: BaseException = kind.__new__(kind, *args)
    except Exception:
        error = kind.__new__(kind)
    error.args = tuple(args)
    return error


def hold(error: BaseException, held: dict[str, Any]) -> None:
    """Give an exception the attributes that it had."""
    for name, item in held.items():
        try:
            object.__setattr__(error, name, item)
        except (AttributeError, TypeError):
            continue
