"""The grader's end of the channel to one program: what a test hands over, and what becomes of the program's answers.

What a test hands over arrives as plain data, as the program's own object coming home, or as something to call back.
What comes back is never trusted: unknown tags, numbers and shapes are `Garbage`, and garbage ends the conversation for
good, so that a test which swallows exceptions cannot pass over it. Functions never cross by name: whatever the program
returns as one stays there and is called there.
"""

import contextlib
import importlib
import inspect
import io
import operator
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from lib.sandbox import frames, wire
from lib.sandbox.exchange import Endpoint, build_error, hold
from lib.sandbox.trusted.remote import (
    Content,
    Facts,
    Remote,
    RemoteClass,
    Unsupported,
    facts_of,
    local_class,
    make_remote,
)
from lib.sandbox.trusted.suite import words

TESTS = "tests"  # the module that tests and setup code run as
# Modules whose types cross by name, to be compared with and asked for their name.
_TYPES_OF = frozenset(
    "array builtins calendar collections datetime decimal enum fractions functools ipaddress itertools json numbers "
    "operator pathlib queue random re statistics string struct textwrap time types typing uuid zoneinfo".split()
)
# Modules that a name of the program's may stand for in a test: none of their functions reaches files or processes.
_MODULES = _TYPES_OF - {"builtins", "types"} | set("abc bisect cmath copy dataclasses heapq math unicodedata".split())
_ENDS = (StopIteration, StopAsyncIteration, GeneratorExit)  # raised in a test they would end a loop of its own


class Conversation(Endpoint):
    """One program's objects as the grader knows them."""

    def __init__(
        self,
        channel: frames.Channel,
        modules: tuple[str, ...] = (),
        under_test: frozenset[str] = frozenset(),
        sources: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(channel, 0)
        self.modules, self.under_test, self.sources = modules, under_test, dict(sources or {})
        self.raised: dict[int, tuple[BaseException, int]] = {}  # what the program raised, and in which of its lines
        self.namespace: dict[str, Any] = {}  # what names stand for in the tests
        self.defining: list[list[str]] = []  # classes of the test's that go along with the next message
        self.updatable: set[int] = set()  # numbers whose state this answer may tell: those it was about, and new ones
        self.expects_end = False  # the test speaks of StopIteration
        self.after: Callable[[], None] = lambda: None  # called after every operation of the test's
        self.failed_callback: AssertionError | None = None
        self.heard: Callable[[], None] = lambda: None  # called after every answer
        self.broken: BaseException | None = None  # set once nothing further can be judged

    def refuse(self, why: str) -> NoReturn:
        """Give the test up as one that cannot be judged here."""
        self.broken = Unsupported(why)
        raise self.broken

    # ----------------------------------------------------------------------------------------- from the test's side

    def opaque(self, value: Any) -> Any:
        """How the test's objects reach the program."""
        number = self.numbers.get(id(value))
        facts = facts_of(value)
        if isinstance(value, RemoteClass):
            number = value._number
        elif facts is not None:
            number = facts.number
            self.updatable.add(number)
        if number is not None:
            return {"#": number}
        if isinstance(value, types.ModuleType):
            return {"m": value.__name__}
        if isinstance(value, BaseException):
            return self.encode_error(value)
        named = _trusted_name(value)
        if named:
            return {"ty": named}
        if self._shares(type(value)):
            return self._shared_instance(value)
        return self._lend(value)

    def _shares(self, kind: type) -> bool:
        """Whether the class of a test's object can be defined in the program's process; it then is, after those of the
        test's that it names."""
        needed: dict[str, type] = {}
        sources: dict[str, str] = {}
        pending = [kind]
        while pending:
            item = pending.pop()
            name = item.__name__
            if self.shared.get(name) is item or name in needed:
                continue
            needed[name], sources[name] = item, self._source_of(item)
            if not sources[name]:
                return False
            pending += [base for base in item.__bases__ if base.__module__ == TESTS]
            others = words(sources[name]) & self.sources.keys() & self.namespace.keys()
            pending += [other for other in map(self.namespace.get, others) if isinstance(other, type)]
        order = [name for name in self.namespace if name in needed]
        order += [name for name in needed if name not in self.namespace]
        scratch: dict[str, Any] = {"__name__": TESTS, **self.shared}
        try:
            if not issubclass(kind, BaseException):
                (wire.builtin_base(kind) or object).__new__(kind)  # as the program's process makes one
            for name in order:
                exec(sources[name], scratch)
        except Exception:
            return False
        self.shared |= needed
        self.defining += [[name, sources[name]] for name in order]
        return True

    def _source_of(self, kind: type) -> str:
        """The source of a test's class or of a named tuple, empty where the program cannot have it."""
        named = issubclass(kind, tuple) and hasattr(kind, "_fields")
        if isinstance(kind, RemoteClass) or kind.__module__ != TESTS and not named:
            return ""
        source = self.sources.get(kind.__name__, "")
        if "numpy" in source and "numpy" not in self.modules:
            return ""
        if not source and named and kind.__bases__ == (tuple,):
            fields = ("collections", kind.__name__, list(kind._fields))  # type: ignore[attr-defined]
            source = "{1} = __import__({0!r}).namedtuple({1!r}, {2!r})".format(*fields)
        return source

    def encode_numpy(self, value: Any) -> Any:
        """As for both ends, unless the program may not import numpy."""
        if "numpy" not in self.modules:
            self.refuse("the test hands the program a value of numpy's, which the program may not import here")
        return super().encode_numpy(value)

    def _lend(self, value: Any) -> Any:
        if hasattr(value, "__next__") and not (isinstance(value, io.IOBase) and value.writable()):
            return {"it": [self.number(value)[0], "iterator"]}
        if callable(value) and not isinstance(value, type):
            return {"cb": [self.number(value)[0], str(getattr(value, "__name__", "function"))]}
        base = wire.builtin_base(type(value))
        if base is None or isinstance(value, Content) or type(value).__module__ == TESTS:
            self.refuse(f"the test hands the program a {type(value).__name__}, which cannot cross to the sandbox")
        return self.encode(wire.plain(base, value))

    def encode_error(self, error: BaseException) -> Any:
        """The form of an exception; one whose class the program has no name for goes as its nearest ancestor."""
        number, new = self.number(error)
        if not new:
            return {"#": number}
        known = (
            kind
            for kind in type(error).__mro__
            if isinstance(kind, RemoteClass) or _trusted_name(kind) or self._shares(kind)
        )
        form = self.encode(next(known))
        args = self.encode([item if _is_plain(item) else str(item) for item in error.args])
        held = vars(error) if self._shares(type(error)) else {}
        return {"x": [number, form, "", args, [[name, self.encode(item)] for name, item in held.items()], 0]}

    def compose(self, encode: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A message, with the classes that it needs."""
        message = super().compose(encode)
        if self.defining:
            message["define"], self.defining = self.defining, []
        return message

    # --------------------------------------------------------------------------------------- from the program's side

    def resolve(self, tag: str, payload: Any) -> Any:
        """What the program's objects become here."""
        if tag == "h":
            return self._object(*payload)
        if tag == "cl":
            number, name, parents = payload
            self.updatable.add(number)
            bases = [self.decode(form) for form in parents]
            name = str(name)
            return self.learn(number, local_class(self, number, name, bases, name in self.under_test))
        if tag == "ty":
            return self._type(payload)
        if tag == "m":
            return self.module(payload)
        if tag == "x":
            return self._error(*payload)
        raise frames.Garbage(f"unknown tag {tag!r:.20}")

    def _object(self, number: Any, kind: str, family: Any, name: str, has_state: Any) -> Any:
        family = self.decode(family)
        facts = Facts(self, number, str(kind), str(name), family, state={} if has_state is True else None)
        self.updatable.add(number)
        if kind == "coroutine":
            return self.learn(number, _awaited(self, number))
        if isinstance(family, RemoteClass) and issubclass(family, Remote):
            facts.under_test = any(
                base.__name__ in self.under_test for base in family.__mro__ if isinstance(base, RemoteClass)
            )
            return self.learn(number, make_remote(family, facts))
        if family in wire.BASES:
            raise frames.Garbage("a builtin that is none")
        if kind == "function":
            facts.family = family if isinstance(family, type) else types.FunctionType
        return self.learn(number, make_remote(Remote, facts))

    def new_instance(self, number: int, kind: Any, held: Any) -> Any:
        """An instance of the test's class, or of a subclass of a builtin: its content, or a Remote if it is under
        test."""
        if isinstance(kind, RemoteClass) and issubclass(kind, Remote):
            name = kind.__name__
            return make_remote(kind, Facts(self, number, name=name, family=kind, under_test=name in self.under_test))
        if not isinstance(kind, RemoteClass) and not self.is_shared(kind):
            raise frames.Garbage("content without a class")
        return super().new_instance(number, kind, held)

    def catch_up(self, message: dict[str, Any]) -> None:
        """Take note of what has changed, and of the attributes of those objects that the question was about."""
        states = [
            (number, {str(name): self.decode(item) for name, item in state})
            for number, state in message.get("states", ())
        ]
        super().catch_up(message)
        for number, state in states:
            facts = facts_of(self.objects[number])
            if facts is not None and number in self.updatable:
                facts.state = still(state)

    def _type(self, dotted: Any) -> Any:
        module, _, name = str(dotted).partition(":")
        allowed = module.partition(".")[0] in _TYPES_OF or module.partition(".")[0] in self.modules
        owner = importlib.import_module(module) if allowed else sys.modules.get(module)
        target = getattr(owner, name, None)
        if isinstance(target, type) and (allowed or issubclass(target, BaseException)):
            return target
        return object  # a class that means nothing here

    def module(self, name: Any) -> Any:
        """A module of the table, or one that is allowed, by its real name; any other is a name and nothing more."""
        top = str(name).partition(".")[0]
        if top not in _MODULES and top not in self.modules:
            return _OtherModule(str(name), self)
        return importlib.import_module(str(name))

    def _error(self, number: Any, kind: Any, message: Any, args: Any, held: Any, line: Any) -> Any:
        kind, args = self.decode(kind), self.decode(args)
        if not isinstance(kind, type) or not issubclass(kind, BaseException):
            kind = Exception
        error = build_error(kind, args)
        self.learn(number, error)
        hold(error, {str(name): self.decode(item) for name, item in held})
        if isinstance(kind, RemoteClass):
            error.__dict__.update(_number=number, _message=str(message))
        self.raised[id(error)] = (error, line if type(line) is int else 0)
        return error

    def signature(self, number: int) -> inspect.Signature:
        """The signature of a function of the program's."""
        parameters = self.operate("signature", number)
        made = [
            inspect.Parameter(name, inspect._ParameterKind(kind), default=default if has else inspect.Parameter.empty)
            for name, kind, has, default in parameters
        ]
        return inspect.Signature(made)

    # ------------------------------------------------------------------------------------------------ requests

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Have the program executed; its raw answer."""
        self.channel.send(request | {"do": "run"})
        return self.guarded(self.wait)

    def names(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The program's globals that were asked for, by name."""
        with self.reading():
            found = {str(name): self.decode(form) for name, form in answer["ok"]}
            self.catch_up(answer)
        return found

    def current_value(self, name: str) -> Any:
        """What a global of the program's holds now."""
        return self.guarded(lambda: self._asked({"do": "value", "name": name}, (), {}))

    def operate(self, operation: str, number: int, args: Any = (), kwargs: Any = None, swap: bool = False) -> Any:
        """Run one operation in the program's process; return its value or raise its exception.

        Arguments that it changed there are changed here, too.
        """
        request: dict[str, Any] = {"do": operation, "on": number}
        if swap:
            request["swap"] = True
        try:
            value = self.guarded(lambda: self._asked(request, args, kwargs or {}))
            self.after()
            return value
        except _ENDS as error:
            if type(error) is StopIteration and (operation == "next" or self._may_end(number)):
                raise
            raise RuntimeError(f"{type(error).__name__} in the program") from None

    def _may_end(self, number: int) -> bool:
        """Whether a call may raise StopIteration in the test: `send` of a generator, or anything in a test of just
        that."""
        facts = facts_of(self.objects[number])
        owner, name = facts.owner if facts is not None and facts.owner else (None, "")
        owning = facts_of(owner)
        return self.expects_end or owning is not None and owning.kind == "iterator" and name in ("send", "throw")

    def _asked(self, request: dict[str, Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        kept, self.updatable = self.updatable, {request.get("on", 0)}
        try:
            return self.ask(request, args, kwargs)
        finally:
            self.updatable = kept

    def guarded(self, attempt: Callable[[], Any]) -> Any:
        """What an attempt gives; nonsense and silence break the conversation for good."""
        if self.broken:
            raise self.broken
        try:
            return attempt()
        except (frames.Closed, frames.Garbage) as error:
            self.broken = error
            raise

    def wait(self) -> dict[str, Any]:
        """The next answer."""
        answer = super().wait()
        self.heard()
        return answer

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Whatever goes wrong in reading an answer is Garbage."""
        try:
            yield
        except (frames.Garbage, MemoryError):
            raise
        except Exception as error:
            raise frames.Garbage(f"{type(error).__name__} in a value") from None

    def perform(self, request: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Call a function, or take the next item of an iterator, that the test has handed over."""
        function = self.objects[request["on"]]
        if request["on"] % 2 or request["do"] != "call":
            raise frames.Garbage("a request for nothing that was handed over")
        try:
            if hasattr(function, "__next__"):
                return next(function)
            return function(*args, **kwargs)
        except AssertionError as error:
            if id(error) not in self.raised:
                self.failed_callback = self.failed_callback or error  # the program may swallow it; the test does not
            raise


class _OtherModule(types.ModuleType):
    """A module of the program's that a test may hold and hand back, but not look into."""

    def __init__(self, name: str, session: Conversation) -> None:
        super().__init__(name)
        self.__dict__["__session__"] = session

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.__dict__["__session__"].refuse(f"the test asks for {name!r:.40} of the program's module {self.__name__}")


def still(value: Any) -> Any:
    """A copy of a value that later changes of its lists, sets and dictionaries leave as it is."""
    if type(value) is dict:
        return {key: still(item) for key, item in value.items()}
    return type(value)(map(still, value)) if type(value) in (list, tuple, set, frozenset, deque) else value


def _awaited(session: Conversation, number: int) -> Any:
    """A coroutine of the program's as one of this side: awaiting it runs it there."""

    async def coroutine() -> Any:
        return session.operate("await", number)

    return coroutine()


def _is_plain(value: Any) -> bool:
    return value is None or type(value) in (str, int, float, bool, bytes, complex)


def _trusted_name(value: Any) -> str:
    """ "module:name" of something the standard library exports, else empty."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not isinstance(module, str) or not isinstance(name, str):
        owner = getattr(value, "__objclass__", None)  # a method of a builtin type, such as str.upper
        return f"{owner.__module__}:{name}" if isinstance(owner, type) and owner.__module__ == "builtins" else ""
    if module not in sys.stdlib_module_names and module.partition(".")[0] not in sys.stdlib_module_names:
        return ""
    try:
        return f"{module}:{name}" if operator.attrgetter(name)(sys.modules[module]) is value else ""
    except (AttributeError, KeyError):
        return ""
