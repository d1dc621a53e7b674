"""Requests and answers, the same way round on both ends of the channel between grader and program.

A request is {"do", "on", "args", "kwargs", "fields"}, its answer {"ok" | "err" | "stop", "changed", "fields"}: what a
call gave, which containers among its arguments now hold something else, and the fields of the instances both ends have.
While one end waits for an answer it serves the other end's requests: calls of the functions it has handed over.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lib.sandbox import frames, wire


class Endpoint(wire.Codec):
    """One end. Subclasses say how a request is done (`perform`) and how an exception looks (`encode_error`)."""

    def __init__(self, channel: frames.Channel, parity: int) -> None:
        super().__init__(parity)
        self.channel = channel

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Containers are numbered per exchange; one inside another leaves the outer one's numbers alone."""
        kept = self.containers, self.places, self.mentioned
        self.begin([])
        try:
            yield
        finally:
            self.containers, self.places, self.mentioned = kept

    # --------------------------------------------------------------------------------------------------- asking

    def ask(self, request: dict[str, Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Send a request and return what it gave, arguments changed here as there; raises what it raised."""
        with self.scope():
            self.channel.send(self.encode_request(request, args, kwargs or {}))
            return self.take(self.wait())

    def encode_request(self, request: dict[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The request with its arguments."""
        if args:
            request["args"] = [self.encode(item) for item in args]
        if kwargs:
            request["kwargs"] = {key: self.encode(item) for key, item in kwargs.items()}
        fields = self.encode_fields()
        if fields:
            request["fields"] = fields
        return request

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
        self.begin_answer()
        with self.reading():
            value = self.decode(answer.get("err" if "err" in answer else "ok"))
            self.decode_changes(answer.get("changed", ()))
            self.decode_fields(answer.get("fields", ()))
        if "stop" in answer:
            raise StopIteration
        if "err" in answer:
            raise value if isinstance(value, BaseException) else frames.Garbage("an error that is none")
        return value

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Around the reading of an answer."""
        return contextlib.nullcontext()

    def begin_answer(self) -> None:
        """Go on from the request to its answer: containers keep their places."""
        self.begin(self.containers)

    # -------------------------------------------------------------------------------------------------- serving

    def serve(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do one request; its answer."""
        with self.scope():
            args = [self.decode(item) for item in request.get("args", ())]
            kwargs = {key: self.decode(item) for key, item in request.get("kwargs", {}).items()}
            self.decode_fields(request.get("fields", ()))
            before = [wire.contents(item) for item in self.containers]
            try:
                value, key = self.perform(request, args, kwargs), "ok"
            except StopIteration as stop:
                value, key = stop.value, "stop"
            except frames.Closed:
                raise
            except BaseException as error:
                value, key = error, "err"
            return self.answer(key, value, before)

    def answer(self, key: str, value: Any, before: list[tuple[Any, ...]]) -> dict[str, Any]:
        """The answer to the request in hand."""
        held, given = len(self.containers), self.count
        try:
            return self._answer(key, value, before)
        except Exception as error:  # nothing of it was sent: the numbers it used are free again
            del self.containers[held:]
            for count in range(given + 1, self.count + 1):
                self.numbers.pop(id(self.objects.pop(2 * count + self.parity, None)), None)
            return self._answer("err", RuntimeError(f"{type(error).__name__} in an answer"), [])

    def _answer(self, key: str, value: Any, before: list[tuple[Any, ...]]) -> dict[str, Any]:
        self.begin_answer()
        answer = {key: self.encode_error(value) if key == "err" else self.encode(value)}
        changed = self.encode_changes(before)
        if changed:
            answer["changed"] = changed
        fields = self.encode_fields()
        if fields:
            answer["fields"] = fields
        return answer

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
