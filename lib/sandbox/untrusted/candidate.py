"""The candidate's side of the wire: runs a program and does with its objects what the grader asks.

Everything here lives in the untrusted process. A program may rewrite all of it; then it speaks for itself on the wire,
where all it can say is a value, an exception or nonsense. It is never told what answer is expected.
"""

import builtins
import importlib
import io
import resource
import socket
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

from lib.sandbox import frames, values, wire
from lib.sandbox.values import MODULE

ROOM = 1000  # frames of recursion a program has to itself, as in a script
OWN_FRAMES = 6  # between the worker's loop and the program
MAX_NESTED = 200  # objects described in one reply; further ones arrive as bare handles


class Foreign:
    """A function of the test's, callable from the program."""

    def __init__(self, session: "Session", number: int, name: str) -> None:
        self._session, self._number = session, number
        self.__name__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._session.call_back(self._number, args, kwargs)


class ForeignIterator(Foreign):
    """An iterator of the test's."""

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self()


class Session(wire.Codec):
    """One candidate's objects and its conversation with the grader."""

    def __init__(self, channel: frames.Channel, mapped: int) -> None:
        self.channel, self.mapped = channel, mapped
        self.module = types.ModuleType(MODULE)
        self.shared: dict[str, type] = {}  # classes of the task's setup code, which cross by value
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.described: set[int] = set()
        self.lock = threading.RLock()
        self.modules: frozenset[str] = frozenset()

    # ------------------------------------------------------------------------------------------------ values

    def opaque(self, value: Any) -> Any:
        """Anything that is not plain data: by name, by value beside a handle, or a handle alone."""
        kind = type(value)
        if kind is types.ModuleType and self.named(value.__name__):
            return {"m": value.__name__}
        if isinstance(value, type) or kind is types.BuiltinFunctionType:
            named = values.importable_name(value)
            if named and self.named(named.partition(":")[0]):
                return {"ty": named}
        array = wire.to_numpy_form(value)
        if array is not None:
            return array
        shared = self.shared.get(kind.__name__)
        if shared is not None and (kind is shared or kind is self.module.__dict__.get(kind.__name__)):
            return {"ob": [kind.__name__, self._content(value), self._state(value)]}
        if isinstance(value, BaseException):
            return {"x": self.describe_exception(value)}
        if isinstance(value, values.BASES):
            return {"su": [self._content(value), self.handle(value)]}
        return {"h": self.handle(value)}

    def named(self, module: str) -> bool:
        """Whether both sides have this module for real."""
        top = module.partition(".")[0]
        return top in wire.MODULES or top in self.modules

    def _content(self, value: Any) -> Any:
        """What a subclass of a builtin holds, read past whatever the subclass overrides."""
        for base in values.BASES:
            if isinstance(value, base):
                return self.encode(values.plain(base, value))
        return None

    def _state(self, value: Any) -> Any:
        state = dict(getattr(value, "__dict__", {}))
        for name in (name for kind in type(value).__mro__ for name in values.slots(kind)):
            if hasattr(value, name):
                state[name] = getattr(value, name)
        return self.encode(state)

    def handle(self, value: Any) -> list[Any]:
        """[number] of an object already described in this reply, else [number, kind, class, name, truth, state]."""
        number = self.number(value)
        if number in self.described or len(self.described) > MAX_NESTED:
            return [number]
        self.described.add(number)
        if isinstance(value, type):
            return [number, "class", [self.opaque(base) for base in value.__mro__[1:-1]], value.__name__, True, None]
        kind = "function" if callable(value) else "iterator" if hasattr(value, "__next__") else "object"
        truth, state, family = True, None, None
        if kind == "object":
            truth, family = values.truth(value), self.opaque(type(value))
            state = self._state(value) if type(value).__eq__ is not object.__eq__ else None
        return [number, kind, family, getattr(value, "__name__", type(value).__name__), truth, state]

    def number(self, value: Any) -> int:
        """The number of an object, for as long as this process lives."""
        number = self.numbers.get(id(value))
        if number is None:
            number = self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return number

    def resolve(self, tag: str, payload: Any) -> Any:
        """Handles come home; functions and iterators of the test's become callables."""
        if tag == "h":
            return self.objects[payload]
        if tag == "cb":
            return Foreign(self, *payload)
        if tag == "it":
            return ForeignIterator(self, *payload)
        if tag == "ty":
            return values.named_object(payload)
        if tag == "m":
            return importlib.import_module(payload)
        if tag == "np":
            return wire.from_numpy_form(payload)
        if tag == "ob":
            return self._build(*payload)
        if tag == "io":
            return io.StringIO(payload)
        raise frames.Garbage(tag)

    def _build(self, name: str, content: Any, state: Any) -> Any:
        kind = self.module.__dict__.get(name, self.shared.get(name))
        assert isinstance(kind, type)
        value: Any
        if content is None:
            value = object.__new__(kind)
        else:
            plain = self.decode(content)
            value = type(plain).__new__(kind, plain)
        for key, item in self.decode(state).items():
            object.__setattr__(value, key, item)
        return value

    # ---------------------------------------------------------------------------------------------- requests

    def serve(self) -> Any:
        """Answer requests until the grader hangs up, or answers a callback."""
        while True:
            request = self.channel.receive()
            if request["do"] == "return":
                if "stop" in request:
                    raise StopIteration
                if "raise" in request:
                    raise values.builtin_exception(*request["raise"])
                return self.decode(request["value"])
            with self.lock:
                self.channel.send(self.answer(request))

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do one request; what the program raises is part of the answer."""
        self.described.clear()
        try:
            result = self.run(request) if request["do"] == "run" else self.operate(request)
        except frames.Closed:
            raise
        except BaseException as error:
            self.described.clear()
            result = {"err": self.describe_exception(error)}
        _flush()
        return result

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Execute setup definitions and the program; answer with the names it now defines, and those asked for."""
        namespace = self.module.__dict__
        self.modules = frozenset(request["modules"])
        if self.mapped:
            _limit(request["cpu_s"], self.mapped + (request["memory_mb"] << 20))
        if request["setup"]:
            exec(compile(request["setup"], "<setup>", "exec"), namespace)
            self.shared = {name: item for name, item in namespace.items() if values.is_own_class(item)}
        try:
            code = compile(request["source"].encode("utf-8", "surrogatepass").decode(), f"<{MODULE}>", "exec")
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            kind = "memory" if isinstance(error, MemoryError) else "compile"
            return {kind: f"{type(error).__name__}: {error}"}
        before = set(namespace)
        exec(code, namespace)
        functions = [
            name
            for name, item in namespace.items()
            if name not in before and isinstance(item, types.FunctionType) and item.__module__ == MODULE
        ]
        wanted = {name: self.encode(namespace[name]) for name in request["names"] if name in namespace}
        return {"ok": wanted, "functions": functions}

    def operate(self, request: dict[str, Any]) -> dict[str, Any]:
        """One operation on one object, with arguments; tells which arguments it changed."""
        target = self.objects[request["on"]] if "on" in request else self.module.__dict__[request["name"]]
        if request["do"] == "value":
            return {"ok": self.encode(target)}
        sent = request["args"]
        args = [self.decode(item) for item in sent]
        kwargs = {key: self.decode(item) for key, item in request.get("kwargs", {}).items()}
        if request.get("swap"):
            args, target = [target], args[0]
        try:
            value = values.OPERATIONS[request["do"]](target, *args, **kwargs)
        except StopIteration:
            return {"stop": True}
        answer = {"ok": self._answered(value, args)}
        changed = self._changed(sent, args)
        if changed:
            answer["changed"] = changed
        owner = getattr(target, "__self__", target) if request["do"] != "next" else None
        if id(owner) in self.numbers and not isinstance(owner, (type, types.FunctionType)):
            self.described.clear()
            answer["self"] = self.opaque(owner)
        return answer

    def _answered(self, value: Any, args: list[Any]) -> Any:
        if type(value) in (list, dict, set):
            for position, argument in enumerate(args):
                if value is argument:
                    return {"a": position}
        return self.encode(value)

    def _changed(self, sent: list[Any], args: list[Any]) -> list[Any]:
        """[position, value] of every mutable argument that no longer reads as it was sent."""
        changed = []
        for position, (before, argument) in enumerate(zip(sent, args, strict=True)):
            if type(before) is list or type(before) is dict and next(iter(before)) not in ("h", "cb", "it", "ty", "m"):
                now = self.encode(argument)
                if now != before:
                    changed.append([position, now])
        return changed

    def call_back(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of the test's and wait for what it returns, serving requests meanwhile."""
        with self.lock:
            encoded = [self.encode(item) for item in args]
            named = {key: self.encode(item) for key, item in kwargs.items()}
            self.channel.send({"cb": [number, encoded, named]})
            return self.serve()

    def describe_exception(self, error: BaseException) -> dict[str, Any]:
        """Class, builtin ancestry, message, arguments and where in the program it was raised."""
        kind = type(error)
        line, trace = 0, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == f"<{MODULE}>":
                line = trace.tb_lineno
            trace = trace.tb_next
        own = [base for base in kind.__mro__ if base.__module__ != "builtins"]
        try:
            message, arguments = str(error), self.encode(list(error.args))
        except Exception:
            message, arguments = "", []
        return {
            "name": kind.__name__,
            "bases": [base.__name__ for base in kind.__mro__ if base.__module__ == "builtins"],
            "classes": [self.number(base) for base in own],
            "message": message[:1000],
            "args": arguments,
            "line": line,
            "on": self.number(error),
        }


def _flush() -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:
        return


def _limit(cpu_s: float, address_space: int) -> None:
    seconds = int(cpu_s) + 2  # a backstop of whole seconds; the grader watches the exact clock
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))


def prepare(mapped: int) -> Session:
    """A session that only wants its descriptor: made before the fork, so that no child has to.

    `mapped` bytes of address space are not the program's.
    """
    session = Session(frames.Channel(-1, frames.MAX_REQUEST, trusting=True), mapped)
    session.module.__dict__["__builtins__"] = builtins
    sys.modules[MODULE] = session.module
    frame: Any = sys._getframe()
    depth = 0
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    sys.setrecursionlimit(ROOM + depth + OWN_FRAMES)
    return session


def rehearse(times: int = 16) -> None:
    """Go through the motions before the first fork.

    Code that has run is specialised by the interpreter, which writes to it; a child that runs it for the first time
    would copy every page it writes to.
    """
    program = "import math\ndef f(x, y=1):\n    return [x, {'a': (y, 1.5)}, str(x)]\nclass C:\n    pass"
    for _ in range(times):
        ours, theirs = socket.socketpair()
        session = prepare(mapped=0)
        session.channel.descriptor = theirs.fileno()
        grader = frames.Channel(ours.fileno(), frames.MAX_REPLY)
        run = {"do": "run", "modules": [], "setup": "", "source": program, "names": ["f", "C", "x"]}
        grader.send(run, *({"do": "call", "name": "f", "args": [[1, "a"]]} for _ in range(3)))
        for _ in range(4):
            session.channel.send(session.answer(session.channel.receive()))
            grader.receive()
        ours.close()
        theirs.close()
