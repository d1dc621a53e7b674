"""The grader's side of the wire: what a test sees in place of the program's objects.

Plain data arrives as real, exact builtins, and everything else as a `Remote`, whose operations run in the candidate. The
danger in that is an operation that is told the expected value and answers with the outcome, so:

- a Remote equals no plain value. Two Remotes are equal by identity where their class has no `__eq__`; else when their
  states, which were sent along before the other side was known, are equal; or by their own `__eq__` when the test
  constructed both and so is testing that method;
- arithmetic with a plain operand must give another Remote, never a plain answer (`abs(f(2) - 1.41) < 0.01`), and a Remote
  is never ordered against a plain value. What such arithmetic gives is never asked for a number, a text or its truth;
- `x in remote` iterates here;
- predicates that builtin types have (`startswith`, `issubset`...) are not called with arguments on what a program returned;
- StopIteration ends nothing here but an explicit `next`.

An object the test constructed by calling a class and has since called a method on is plainly a class under test: its own
operators do take part.
"""

import builtins
import importlib
import io
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from lib.sandbox import wire

_PREDICATES = {"startswith", "endswith", "issubset", "issuperset", "isdisjoint", "equals", "__eq__", "__contains__"}
_MODULES = set(  # what a program's word may make a test see: the real ones, and harmless
    "array bisect builtins calendar cmath collections copy datetime decimal enum fractions functools heapq itertools json "
    "math numbers operator queue random re statistics string struct textwrap time typing unicodedata uuid zoneinfo".split()
)
_NEVER = {"eval", "exec", "compile", "open", "input", "breakpoint", "__import__", "getattr", "setattr", "delattr"}


class Misuse(TypeError):
    """A test asked of a Remote what must not be decided by the program."""


class Unshippable(Exception):
    """A test hands the program something that cannot cross the wire: the test's fault, not the program's."""


class TimeUp(BaseException):
    """The candidate, or the test itself, used up its time or its scratch space."""

    def __init__(self, message: str, status: str = "timeout") -> None:
        super().__init__(message)
        self.status = status


class Raised:
    """Mixed into every exception that was raised inside the candidate."""

    line = 0
    message = ""


class Remote:
    """An object that lives in the candidate."""

    def __init__(self, talk: "Conversation", number: int) -> None:
        self.__dict__.update(
            _talk=talk, _number=number, _kind="object", _family=None, _truth=True, _state=None, _content=None,
            _constructed=False, _touched=False, _informed=False, _name="object",
        )  # fmt: skip

    # ------------------------------------------------------------------------------- operations without plain operands

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__array"):
            raise AttributeError(name)
        value = self._talk.operate("getattr", self._number, [name])
        if isinstance(value, Remote):
            value.__dict__["_owner"] = (self, name)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        self._talk.operate("setattr", self._number, [name, value])

    def __delattr__(self, name: str) -> None:
        self._talk.operate("delattr", self._number, [name])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        owner, name = self.__dict__.get("_owner", (None, ""))
        if owner is not None:
            if name in _PREDICATES and args and not owner._constructed:
                raise Misuse(f"a {owner._name} that the program returned may not decide {name}()")
            owner.__dict__["_touched"] = True
        value = self._talk.operate("call", self._number, args, kwargs, constructs=self._kind == "class")
        return value

    def __getitem__(self, key: Any) -> Any:
        return self._talk.operate("getitem", self._number, [key])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._talk.operate("setitem", self._number, [key, value])

    def __delitem__(self, key: Any) -> None:
        self._talk.operate("delitem", self._number, [key])

    def __iter__(self) -> Iterator[Any]:
        if self._kind == "iterator":
            return self
        return _as_iterator(self._talk.operate("iter", self._number, []))

    def __next__(self) -> Any:
        return self._talk.operate("next", self._number, [])

    def __reversed__(self) -> Iterator[Any]:
        return _as_iterator(self._talk.operate("reversed", self._number, []))

    def __enter__(self) -> Any:
        return self.__getattr__("__enter__")()

    def __exit__(self, *details: Any) -> Any:
        return self.__getattr__("__exit__")(None, None, None)

    def __instancecheck__(self, instance: Any) -> bool:
        if not isinstance(instance, Remote) and not hasattr(type(instance), "_number"):
            return False
        family = getattr(instance, "_family", None)
        return family is self or isinstance(family, Remote) and self in (family._family or ())

    def __len__(self) -> int:
        return _exact(int, self._convert("len"))

    def __str__(self) -> str:
        return _exact(str, self._convert("str"))

    def __repr__(self) -> str:
        return _exact(str, self._convert("repr"))

    def __format__(self, form: str) -> str:
        return _exact(str, self._convert("format", form))

    def __bool__(self) -> bool:
        if self._informed:
            raise Misuse(f"a {self._name} that came of arithmetic with the test's values has no truth value")
        return bool(self._truth)

    def __float__(self) -> float:
        return _exact(float, self._convert("float"))

    def __int__(self) -> int:
        return _exact(int, self._convert("int"))

    def __index__(self) -> int:
        return _exact(int, self._convert("index"))

    def __abs__(self) -> Any:
        return self._convert("abs")

    def __neg__(self) -> Any:
        return self._convert("neg")

    def __pos__(self) -> Any:
        return self._convert("pos")

    def __invert__(self) -> Any:
        return self._convert("invert")

    def __round__(self, digits: int | None = None) -> Any:
        return self._convert("round", *([] if digits is None else [digits]))

    def _convert(self, name: str, *args: Any) -> Any:
        if self._informed:
            raise Misuse(f"a {self._name} that came of arithmetic with the test's values may not decide {name}()")
        return self._talk.operate(name, self._number, args)

    # ------------------------------------------------------------------------------------ operations that could decide

    def __hash__(self) -> int:
        return hash(self._name) if self._state is not None else self._number

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, Remote):
            if self._constructed and other._constructed:
                return self._talk.operate("eq", self._number, [other]) is True
            same_class = self._family is other._family and self._family is not None
            return bool(same_class and self._state and self._state == other._state)
        if self._constructed and self._touched:
            return self._talk.operate("eq", self._number, [other]) is True
        return self._content is not None and bool(self._content == other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __contains__(self, item: Any) -> bool:
        if self._constructed and self._touched:
            return self._talk.operate("contains", self._number, [item]) is True
        return any(item is held or item == held for held in self)

    def _order(self, name: str, other: Any) -> bool:
        if self._informed or getattr(other, "_informed", False):
            raise Misuse(f"a {self._name} that came of arithmetic with the test's values is not ordered")
        if self._content is not None:
            return bool(_ORDERS[name](self._content, getattr(other, "_content", other)))
        if not isinstance(other, Remote) and not (self._constructed and self._touched):
            raise Misuse(f"a {self._name} is not ordered against a {type(other).__name__}")
        return self._talk.operate(name, self._number, [other]) is True

    def _arithmetic(self, name: str, other: Any, swap: bool) -> Any:
        value = self._talk.operate(name, self._number, [other], swap=swap)
        if self._constructed and self._touched:
            return value
        informed = self._informed or getattr(other, "_informed", not isinstance(other, Remote))
        if isinstance(value, Remote):
            value.__dict__["_informed"] = value._informed or informed
        if not informed or isinstance(value, Remote) or value is NotImplemented:
            return value
        raise Misuse(f"{name} of a {self._name} and a {type(other).__name__} gave a plain {type(value).__name__}")


_ORDERS: dict[str, Callable[[Any, Any], Any]] = {
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
_ARITHMETIC = "add sub mul truediv floordiv mod pow lshift rshift and or xor matmul divmod".split()


def _define_operators() -> None:
    for name in _ORDERS:
        setattr(Remote, f"__{name}__", lambda self, other, name=name: self._order(name, other))
    for name in _ARITHMETIC:
        operation = name + "_" if name in ("and", "or") else name

        def forward(self: Remote, other: Any, operation: str = operation) -> Any:
            return self._arithmetic(operation, other, False)

        def backward(self: Remote, other: Any, operation: str = operation) -> Any:
            return self._arithmetic(operation, other, True)

        setattr(Remote, f"__{name}__", forward)
        setattr(Remote, f"__r{name}__", backward)


_define_operators()


def _exact(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise Misuse(f"expected {kind.__name__}, the program gave {type(value).__name__}")
    return value


def _as_iterator(value: Any) -> Iterator[Any]:
    return value if isinstance(value, Remote) else iter(value)


def _subclass_value(name: str, plain: Any, remote: Remote) -> Any:
    """`plain` as an instance of a local subclass: the builtin's own methods first, the program's for the rest."""
    base = type(plain)

    def lookup(self: Any, attribute: str) -> Any:
        return getattr(remote, attribute)

    body = {"__getattr__": lookup, "_number": remote._number, "_family": remote._family, "__slots__": ()}
    kind = type(name, (base,), body)
    return kind.__new__(kind, plain) if base in (int, float, complex, str, bytes, tuple, frozenset) else kind(plain)


class Conversation(wire.Codec):
    """One candidate's objects as the grader knows them."""

    def __init__(self, channel: wire.Channel, idle: Callable[[], None], modules: tuple[str, ...] = ()) -> None:
        self.channel, self.idle, self.modules = channel, idle, modules
        self.remotes: dict[int, Remote] = {}
        self.exceptions: dict[int, type] = {}
        self.lent: list[Any] = []
        self.shared: dict[str, type] = {}
        self.broken: BaseException | None = None  # set once the candidate is gone, silent or talks nonsense

    # -------------------------------------------------------------------------------------------------- values

    def opaque(self, value: Any) -> Any:
        """How the test's objects reach the program."""
        if isinstance(value, Remote):
            return {"h": value._number}
        number = getattr(type(value), "_number", None)
        if number is not None:
            return {"h": number}
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
        named = _trusted_name(value)
        if named:
            return {"ty": named}
        if callable(value):
            self.lent.append(value)
            return {"cb": [len(self.lent) - 1, getattr(value, "__name__", "function")]}
        if hasattr(value, "__next__"):
            self.lent.append(value.__next__)
            return {"it": [len(self.lent) - 1, "iterator"]}
        for base in (str, int, float, tuple, list, set, frozenset, dict, bytes):
            if isinstance(value, base):
                return self.encode(base(value))
        raise Unshippable(f"the test hands the program a {type(value).__name__}, which cannot cross to the sandbox")

    def resolve(self, tag: str, payload: Any) -> Any:
        """What the program's objects become here."""
        if tag == "h":
            return self.remote(payload)
        if tag == "su":
            remote = self.remote(payload[1])
            remote.__dict__["_content"] = plain = self.decode(payload[0])
            return _subclass_value(remote._name, plain, remote)
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
        raise wire.Garbage(f"unknown tag {tag!r:.20}")

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
            raise wire.Garbage("handle")
        if number in self.exceptions:
            return self.exceptions[number]
        known = self.remotes.get(number)
        if known is None:
            known = self.remotes[number] = Remote(self, number)
        if len(payload) == 1:
            return known
        _, kind, family, name, truth, state = payload
        if kind == "class":
            parents = [self.decode(parent) for parent in family]
            builtin = next((p for p in parents if isinstance(p, type) and issubclass(p, BaseException)), None)
            if builtin is not None:
                return self._exception_class(number, str(name), (builtin,))
            known.__dict__.update(_family=tuple(parents))
        elif family is not None:
            known.__dict__.update(_family=self.decode(family))
        known.__dict__.update(_kind=kind, _name=str(name), _truth=truth)
        known.__dict__["_state"] = None if state is None else self.decode(state)
        return known

    def _type(self, dotted: Any) -> Any:
        module, _, name = str(dotted).partition(":")
        owner = self.module(module)
        target = getattr(owner, name, None)
        if isinstance(target, types.BuiltinFunctionType | type) and name not in _NEVER:
            return target
        raise wire.Garbage(f"no type {dotted!r:.40}")

    def module(self, name: Any) -> Any:
        """A standard library module, or one that is allowed, by its real name."""
        top = str(name).partition(".")[0]
        if top not in _MODULES and top not in self.modules:
            raise wire.Garbage(f"no module {name!r:.40} for a test")
        return importlib.import_module(str(name))

    # ----------------------------------------------------------------------------------------------- exceptions

    def exception(self, payload: dict[str, Any]) -> BaseException:
        """An exception of the class, builtin or the program's own, that the candidate describes."""
        builtin = next((vars(builtins)[name] for name in payload["bases"] if name in vars(builtins)), Exception)
        if not (isinstance(builtin, type) and issubclass(builtin, BaseException)):
            raise wire.Garbage("exception")
        kind: type = builtin
        for number in reversed(payload["classes"]):
            kind = self._exception_class(int(number), str(payload["name"]), (kind,))
        if builtin in (StopIteration, StopAsyncIteration, GeneratorExit):
            kind = RuntimeError  # would end a loop of the test's own
        raised = type(kind.__name__, (Raised, kind), {"__getattr__": self._attribute_of(payload["on"])})
        error = raised.__new__(raised)
        error.args = tuple(self.decode(payload["args"]))
        if kind is UnicodeDecodeError or kind is UnicodeEncodeError:
            error = type("UnicodeError", (Raised, kind.__mro__[1]), {})(payload["message"])
        error.message, error.line = str(payload["message"]), payload["line"]
        return error  # type: ignore[no-any-return]

    def _exception_class(self, number: int, name: str, bases: tuple[type, ...]) -> type:
        if number not in self.exceptions:
            self.exceptions[number] = type(name, bases, {"_number": number})
        return self.exceptions[number]

    def _attribute_of(self, number: int) -> Callable[[Any, str], Any]:
        return lambda error, name: self.operate("getattr", number, [name])

    # ------------------------------------------------------------------------------------------------ requests

    def run(self, source: str, setup: str, names: list[str]) -> dict[str, Any]:
        """Execute the program; the raw answer."""
        return self._ask({"do": "run", "source": source, "setup": setup, "names": names})

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
                    remote.__dict__["_constructed"] = True
                    return remote
                return value
        return self.read(form)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.broken:
            raise self.broken
        try:
            return self._exchange(request)
        except (wire.Closed, wire.Garbage, TimeUp) as error:
            self.broken = error
            raise

    def read(self, data: Any) -> Any:
        """A value the candidate sent; nonsense breaks the conversation for good."""
        try:
            return super().read(data)
        except wire.Garbage as error:
            self.broken = error
            raise

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        self.channel.send(request)
        while True:
            answer = self.channel.receive(self.idle)
            if type(answer) is not dict:
                raise wire.Garbage("an answer that is no object")
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
        return {"do": "return", "value": self.encode(value)}


def _trusted_name(value: Any) -> str:
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not isinstance(module, str) or not isinstance(name, str):
        owner = getattr(value, "__objclass__", None)
        return f"{owner.__module__}:{owner.__name__}.{name}" if isinstance(owner, type) else ""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is value and module in sys.stdlib_module_names else ""


def patch(old: Any, new: Any, shared: Mapping[str, type] = MappingProxyType({})) -> None:
    """Make `old` read like `new` in place, keeping the identity of nested containers that still match."""
    if type(old) is not type(new):
        return
    if isinstance(old, list):
        keep = len(old) == len(new)
        old[:] = [_patched(old[i], item) if keep else item for i, item in enumerate(new)]
    elif isinstance(old, dict):
        merged = {key: _patched(old.get(key), item) for key, item in new.items()}
        old.clear()
        old.update(merged)
    elif isinstance(old, set):
        old.intersection_update(new)
        old.update(new)
    elif isinstance(old, bytearray):
        old[:] = new
    elif hasattr(old, "appendleft"):
        old.clear()
        old.extend(new)
    elif shared.get(type(old).__name__) is type(old):
        old.__dict__.update(new.__dict__)


def _patched(old: Any, new: Any) -> Any:
    if type(old) is type(new) and isinstance(old, list | dict | set | bytearray):
        patch(old, new)
        return old
    return new
