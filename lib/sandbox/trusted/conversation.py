"""The grader's conversation with one candidate: values in both directions, and requests.

What a test hands over arrives in the candidate as plain data, as the program's own object coming home, or as something to
call back. What comes back is never trusted: unknown tags, modules and shapes are `Garbage`, and garbage ends the
conversation for good, so that a test which swallows exceptions cannot pass over it.
"""

import builtins
import collections
import importlib
import io
import types
from collections.abc import Callable, Sequence
from typing import Any

from lib.sandbox import frames, wire
from lib.sandbox.crossing import patch, trusted_name
from lib.sandbox.trusted.remote import Facts, Remote, subclass_value
from lib.sandbox.verdict import Status

_NEVER = {"eval", "exec", "compile", "open", "input", "breakpoint", "__import__", "getattr", "setattr", "delattr"}
_PLAIN_BASES: tuple[Callable[[Any], Any], ...] = (str, int, float, tuple, list, set, frozenset, dict, bytes)


class Unshippable(Exception):
    """A test hands the program something that cannot cross the wire: the test's fault, not the program's."""


class TimeUp(BaseException):
    """The candidate, or the test itself, used up its time or its scratch space."""

    def __init__(self, message: str, status: str = Status.TIMEOUT) -> None:
        super().__init__(message)
        self.status = status


class Raised:
    """Mixed into every exception that was raised inside the candidate."""

    line = 0
    message = ""


class Conversation(wire.Codec):
    """One candidate's objects as the grader knows them."""

    def __init__(self, channel: frames.Channel, modules: tuple[str, ...] = ()) -> None:
        self.channel, self.modules = channel, modules
        self.remotes: dict[int, Remote] = {}
        self.exceptions: dict[int, type] = {}
        self.lent: list[Any] = []
        self.shared: dict[str, type] = {}
        self.ahead: collections.deque[list[Any]] = collections.deque()  # calls made ahead, unanswered
        self.kept: collections.deque[tuple[list[Any], dict[str, Any]]] = collections.deque()  # and answered
        self.entry: int | None = None
        self.failed_callback: AssertionError | None = None
        self.broken: BaseException | None = None  # set once the candidate is gone, silent or talks nonsense

    # -------------------------------------------------------------------------------------------------- values

    def opaque(self, value: Any) -> Any:
        """How the test's objects reach the program."""
        facts = value._facts if isinstance(value, Remote) else getattr(type(value), "_facts", None)
        if isinstance(facts, Facts):
            return {"h": facts.number}
        if isinstance(value, type) and "_number" in vars(value):  # an exception class of the program's
            return {"h": vars(value)["_number"]}
        if isinstance(value, types.ModuleType):
            return {"m": value.__name__}
        shared = self.shared.get(type(value).__name__)
        if shared is type(value):
            content = tuple(value) if isinstance(value, tuple) else None
            return {"ob": [shared.__name__, self.encode(content), self.encode(dict(getattr(value, "__dict__", {})))]}
        array = wire.to_numpy_form(value)
        if array is not None:
            return array
        if isinstance(value, io.StringIO):
            return {"io": value.getvalue()}
        return self._lend(value)

    def _lend(self, value: Any) -> Any:
        named = trusted_name(value)
        if named:
            return {"ty": named}
        if callable(value):
            self.lent.append(value)
            return {"cb": [len(self.lent) - 1, getattr(value, "__name__", "function")]}
        if hasattr(value, "__next__"):
            self.lent.append(value.__next__)
            return {"it": [len(self.lent) - 1, "iterator"]}
        for base in _PLAIN_BASES:
            if isinstance(value, base):  # type: ignore[arg-type]
                return self.encode(base(value))
        raise Unshippable(f"the test hands the program a {type(value).__name__}, which cannot cross to the sandbox")

    def resolve(self, tag: str, payload: Any) -> Any:
        """What the program's objects become here."""
        if tag == "h":
            return self.remote(payload)
        if tag == "su":
            remote = self.remote(payload[1])
            remote._facts.content = plain = self.decode(payload[0])
            return subclass_value(remote._facts.name, plain, remote)
        if tag == "ty":
            return self._type(payload)
        if tag == "m":
            return self.module(payload)
        if tag == "np":
            return wire.from_numpy_form(payload)
        if tag == "x":
            return self.exception(payload)
        if tag == "ob":
            return self._build(*payload)
        raise frames.Garbage(f"unknown tag {tag!r:.20}")

    def _build(self, name: str, content: Any, state: Any) -> Any:
        kind = self.shared[name]
        plain = self.decode(content)
        value = object.__new__(kind) if plain is None else type(plain).__new__(kind, plain)
        for key, item in self.decode(state).items():
            object.__setattr__(value, key, item)
        return value

    def remote(self, payload: Any) -> Any:
        """The Remote of a handle, brought up to date with what the handle says."""
        number = payload[0]
        if type(number) is not int:
            raise frames.Garbage("handle")
        if number in self.exceptions:
            return self.exceptions[number]
        known = self.remotes.get(number)
        if known is None:
            known = self.remotes[number] = Remote(self, number)
        if len(payload) == 1:
            return known
        _, kind, family, name, truth, state = payload
        facts = known._facts
        facts.kind, facts.name, facts.truth = str(kind), str(name), bool(truth)
        if kind == "class":
            parents = [self._parent(form) for form in family]
            base = next((p for p in parents if isinstance(p, type) and issubclass(p, BaseException)), None)
            if base is not None:
                return self._exception_class(number, str(name), (base,))
            facts.family = tuple(parents)
        elif family is not None:
            facts.family = self._parent(family)
        facts.state = None if state is None else self.decode(state)
        return known

    def _parent(self, form: Any) -> Any:
        """A class among an object's ancestors; one this side does not know matters to nobody."""
        try:
            return self.decode(form)
        except frames.Garbage:
            return object

    def _type(self, dotted: Any) -> Any:
        module, _, name = str(dotted).partition(":")
        owner = self.module(module)
        target = getattr(owner, name, None)
        if isinstance(target, types.BuiltinFunctionType | type) and name not in _NEVER:
            return target
        raise frames.Garbage(f"no type {dotted!r:.40}")

    def module(self, name: Any) -> Any:
        """A standard library module, or one that is allowed, by its real name."""
        top = str(name).partition(".")[0]
        if top not in wire.MODULES and top not in self.modules:
            raise frames.Garbage(f"no module {name!r:.40} for a test")
        return importlib.import_module(str(name))

    # ----------------------------------------------------------------------------------------------- exceptions

    def exception(self, payload: dict[str, Any]) -> BaseException:
        """An exception of the class, builtin or the program's own, that the candidate describes."""
        builtin = next((vars(builtins)[name] for name in payload["bases"] if name in vars(builtins)), Exception)
        if not (isinstance(builtin, type) and issubclass(builtin, BaseException)):
            raise frames.Garbage("exception")
        kind: type = builtin
        for number in reversed(payload["classes"]):
            kind = self._exception_class(int(number), str(payload["name"]), (kind,))
        if builtin in (StopIteration, StopAsyncIteration, GeneratorExit):
            kind = RuntimeError  # would end a loop of the test's own
        raised: Any = type(kind.__name__, (Raised, kind), {"__getattr__": self._attribute_of(payload["on"])})
        error = raised.__new__(raised)
        error.args = tuple(self.decode(payload["args"]))
        if kind is UnicodeDecodeError or kind is UnicodeEncodeError:
            error = type("UnicodeError", (Raised, kind.__mro__[1]), {})(payload["message"])
        error.message, error.line = str(payload["message"]), payload["line"]
        return error

    def _exception_class(self, number: int, name: str, bases: tuple[type, ...]) -> type:
        if number not in self.exceptions:
            self.exceptions[number] = type(name, bases, {"_number": number})
        return self.exceptions[number]

    def _attribute_of(self, number: int) -> Callable[[Any, str], Any]:
        return lambda error, name: self.operate("getattr", number, [name])

    # ------------------------------------------------------------------------------------------------ requests

    def run(self, request: dict[str, Any], calls: Sequence[Sequence[Any]], entry_point: str) -> dict[str, Any]:
        """Have the program executed, and the calls the tests are known to begin with right after it; its raw answer.

        The calls save a round trip each. `operate` takes their answers when the tests come to make them.
        """
        forms = [[self.encode(argument) for argument in call] for call in calls]
        ahead = [{"do": "call", "name": entry_point, "args": form} for form in forms]
        self.channel.send({"do": "run", "modules": self.modules, **request}, *ahead)
        self.ahead.extend(forms)
        return self._guarded(self._answer)

    def take_up(self, entry: Any) -> None:
        """Name the object that the calls made ahead were made on; without one they came to nothing."""
        if isinstance(entry, Remote):
            self.entry = entry._facts.number
            return
        self._guarded(self._drain)
        self.kept.clear()

    def _drain(self) -> dict[str, Any]:
        """Read the answers still under way, before anything else is asked."""
        while self.ahead:
            self.kept.append((self.ahead.popleft(), self._answer()))
        return {}

    def _called_ahead(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a call that was made ahead, None if this one was not."""
        if request["do"] != "call" or request["on"] != self.entry or "kwargs" in request:
            return None
        if self.kept and self.kept[0][0] == request["args"]:
            return self.kept.popleft()[1]
        if not self.kept and self.ahead and self.ahead[0] == request["args"]:
            self.ahead.popleft()
            return self._answer()
        return None

    def current_value(self, name: str) -> Any:
        """What a global of the program's holds now."""
        return self.read(self._ask({"do": "value", "name": name, "args": []}).get("ok"))

    def operate(
        self,
        operation: str,
        number: int,
        args: Any,
        kwargs: dict[str, Any] | None = None,
        swap: bool = False,
        constructs: bool = False,
    ) -> Any:
        """One operation in the candidate: its value here, arguments it changed changed here too, or its exception."""
        request = {"do": operation, "on": number, "args": [self.encode(item) for item in args]}
        if kwargs:
            request["kwargs"] = {key: self.encode(item) for key, item in kwargs.items()}
        if swap:
            request["swap"] = True
        answer = self._ask(request)
        if "err" in answer:
            raise self.read({"x": answer["err"]})
        if "stop" in answer:
            raise StopIteration if operation == "next" else RuntimeError("StopIteration")
        for position, form in answer.get("changed", ()):
            patch(args[position], self.read(form), self.shared)
        if "self" in answer:
            self.read(answer["self"])
        return self._value(answer["ok"], args, constructs)

    def _value(self, form: Any, args: Any, constructs: bool) -> Any:
        if type(form) is dict and len(form) == 1:
            if "a" in form:
                return args[form["a"]]
            if constructs and ("h" in form or "su" in form):
                value = self.read(form)
                remote = self.remote(form["h"] if "h" in form else form["su"][1])
                if isinstance(remote, Remote):
                    remote._facts.constructed = True
                    return remote
                return value
        return self.read(form)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._guarded(lambda: self._called_ahead(request) or self._exchange(request))

    def _guarded(self, attempt: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if self.broken:
            raise self.broken
        try:
            return attempt()
        except (frames.Closed, frames.Garbage, TimeUp) as error:
            self.broken = error
            raise

    def read(self, data: Any) -> Any:
        """A value the candidate sent; nonsense breaks the conversation for good."""
        try:
            return super().read(data)
        except frames.Garbage as error:
            self.broken = error
            raise

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        self._drain()
        self.channel.send(request)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        while True:
            answer = self.channel.receive()
            if type(answer) is not dict:
                raise frames.Garbage("an answer that is no object")
            if "cb" not in answer:
                return answer
            self.channel.send(self._called_back(answer["cb"]))

    def _called_back(self, form: Any) -> dict[str, Any]:
        number, args, kwargs = form
        try:
            function = self.lent[number]
            value = function(*self.read(args), **{key: self.read(item) for key, item in kwargs.items()})
        except StopIteration:
            return {"do": "return", "stop": True}
        except (frames.Garbage, TimeUp):
            raise
        except BaseException as error:
            if isinstance(error, AssertionError) and not isinstance(error, Raised):
                self.failed_callback = self.failed_callback or error  # the program may swallow it; the test does not
            kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]
            return {"do": "return", "raise": [kinds[0], str(error)]}
        return {"do": "return", "value": self.encode(value)}
