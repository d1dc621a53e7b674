"""What a test sees in place of the program's objects.

Plain data arrives as real, exact builtins. An instance of one of the program's classes is a `Remote` of a local class
of the same name, whose operations run in the program's process. The danger in that is an operation that is told the
expected value and answers with the outcome. Whether a class is under test is the task's word (`Facts.under_test`). If
it is not:

- a Remote equals no plain value. Two Remotes are equal if they are one object, or if the attributes that they had when
  they were handed out are equal and their class defines `__eq__`;
- what arithmetic with a plain value gave is never a plain value, and nothing can be asked of it;
- a Remote is never ordered against a plain value, `x in remote` iterates here, and a method that was told something may
  not answer yes or no.

If it is, its operators are its own, but for `==` and order against plain values: those are answered from what it holds
as a builtin, or the test is refused as one that cannot be judged here. A subclass of a builtin that is not under test
arrives as `Content`: its builtin content, and the program's attributes beside it.
"""

import abc
import dataclasses
import operator
from collections.abc import Iterator
from typing import Any

from lib.sandbox import wire

# Methods of builtin values: a test that calls one on a result takes it for such a value.
_OF_BUILTINS = {
    name
    for kind in (str, bytes, tuple, int, float, frozenset)
    for name in dir(kind)
    if name not in ("__call__", "__iter__", "__len__", "__init__", "__class__", "copy", "format", "join")
} | {"equals", "compare", "is_equal", "equal", "matches"}


# What every class has of its own, whatever its ancestors hold.
_OF_CLASSES = {"__dict__", "__weakref__", "__slots__", "__abstractmethods__", "_abc_impl", "__annotations__"}


class Misuse(TypeError):
    """A test asked of a Remote what must not be decided by the program."""


class Unsupported(BaseException):
    """A test asks for what this side of the boundary cannot do: the test's doing, not the program's."""


@dataclasses.dataclass
class Facts:
    """What is known here about one of the program's objects."""

    session: Any  # the conversation
    number: int
    kind: str = "object"  # or function, callable, iterator
    name: str = "object"
    family: Any = None  # its class, where that is the standard library's
    under_test: bool = False
    state: Any = None  # attributes as they were when last described; None: its class has no __eq__
    constructed: bool = False  # the test made it by calling a class
    informed: bool = False  # it came of an operation with values of the test's
    owner: Any = None  # (object, name) of a bound method

    @property
    def own_operators(self) -> bool:
        """Whether two objects like this one are compared by their own class."""
        return self.under_test or self.constructed


def facts_of(value: Any) -> Facts | None:
    """The facts of one of the program's objects, None for anything else."""
    return value._facts if issubclass(type(value), Remote) else None


# ------------------------------------------------------------------------------------------------------------- classes


class RemoteClass(type):
    """The local class of a class of the program's: its name and ancestors, everything else asked of the program."""

    _session: Any
    _number: int

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any], **ours: Any) -> "RemoteClass":
        if "session" not in ours:
            parent = next(base for base in bases if isinstance(base, RemoteClass))
            parent._session.refuse(f"the test's class {name} is a subclass of one of the program's")
        return type.__new__(cls, name, bases, body)

    def __init__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any], session: Any, number: int) -> None:
        type.__init__(cls, name, bases, body)
        type.__setattr__(cls, "_session", session)
        type.__setattr__(cls, "_number", number)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        value = cls._session.operate("call", cls._number, args, kwargs)
        facts = facts_of(value)
        if facts is not None:
            facts.constructed = True
        return value

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__array"):  # numpy would ask the class how to compare its instances
            raise AttributeError(name)
        if name == "__dataclass_fields__":
            cls._session.refuse("the test asks for the fields of a data class of the program's")
        return cls._session.operate("getattr", cls._number, [name])

    def __setattr__(cls, name: str, value: Any) -> None:
        cls._session.operate("setattr", cls._number, [name, value])

    def __iter__(cls) -> Iterator[Any]:
        return _as_iterator(cls._session.operate("iter", cls._number))

    def __len__(cls) -> int:
        return _exact(int, cls._session.operate("len", cls._number))

    def __bool__(cls) -> bool:
        return True

    def __getitem__(cls, key: Any) -> Any:
        return cls._session.operate("getitem", cls._number, [key])

    def __contains__(cls, item: Any) -> bool:
        return cls._session.operate("contains", cls._number, [item]) is True

    def __repr__(cls) -> str:
        return f"<class {cls.__name__!r}>"


def local_class(session: Any, number: int, name: str, parents: list[Any], under_test: bool) -> RemoteClass:
    """The local class of one of the program's classes, with those of its ancestors that mean something here."""
    bases: list[type] = []
    for parent in parents:
        if isinstance(parent, RemoteClass) or isinstance(parent, type) and issubclass(parent, BaseException):
            bases.append(parent)
        elif isinstance(parent, type) and not under_test and wire.builtin_base(parent):
            bases += [Content, wire.builtin_base(parent) or object]
    if not any(issubclass(base, Remote | Content | BaseException) for base in bases):
        bases.insert(0, Remote)
    setup = [parent for parent in parents if session.is_shared(parent) and parent not in bases]
    body: dict[str, Any] = {"__module__": "solution"}
    for name in {name for parent in setup for base in parent.__mro__[:-1] for name in vars(base)} - _OF_CLASSES:
        if name == "__del__":
            body[name] = lambda value: None
        elif name not in vars(Remote):
            body[name] = vars(object).get(name, _Asked(name))
    abstract = [parent for parent in setup if isinstance(parent, abc.ABCMeta)]
    bases += [parent for parent in setup if type(parent) is type]
    if issubclass(bases[0], BaseException):
        body |= {"__getattr__": _of_error, "__str__": _message}
    else:
        body["__slots__"] = ()
    try:
        made = RemoteClass(name, tuple(bases), body, session=session, number=number)
    except Exception:  # ancestors that do not go together here
        made = RemoteClass(name, (Remote,), {"__slots__": ()}, session=session, number=number)
    for parent in abstract:
        parent.register(made)  # type: ignore[arg-type]
    return made


class _Asked:
    """An attribute that the setup's class has, asked of the program, whose class may have another."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, value: Any, owner: Any) -> Any:
        return type(owner).__getattr__(owner, self.name) if value is None else value.__getattr__(self.name)


def _of_error(error: Any, name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    return type(error)._session.operate("getattr", error.__dict__["_number"], [name])


def _message(error: Any) -> str:
    return str(error.__dict__.get("_message", ""))


# -------------------------------------------------------------------------------------------------------------- objects


class Remote:
    """An object that lives in the program's process."""

    __slots__ = ("_facts",)

    def __init_subclass__(cls) -> None:
        """Run nothing of the setup's for a class of the program's."""

    # ------------------------------------------------------------------------------- operations without plain operands

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        family = self._facts.family
        return family if isinstance(family, type) and not isinstance(family, RemoteClass) else type(self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__array") or name == "__reduce_ex__":
            raise AttributeError(name)
        facts = self._facts
        if name == "__signature__" and facts.kind == "function":
            return facts.session.signature(facts.number)  # type: ignore[attr-defined]
        value = self._ask("getattr", name)
        if not facts.under_test and callable(value):
            if (
                isinstance(value, type)
                and not isinstance(value, RemoteClass)
                and (name in _OF_BUILTINS or value is bool)
            ):
                raise Misuse(f"a {facts.name} that the program returned may not decide {name}()")
            note_owner(value, self, name)
        return value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        facts = self._facts
        if facts.informed:
            self._ask("call")
        value = facts.session.operate("call", facts.number, args, kwargs)
        if facts.owner is not None and (args or kwargs):
            self._judge_method(value)
        return value

    def _judge_method(self, value: Any) -> None:
        """A method of an object that is not under test was told something: what it gave decides nothing."""
        owner, name = self._facts.owner
        told = f"a {type(owner).__name__} that the program returned may not decide {name}()"
        facts = facts_of(value)
        if name in _OF_BUILTINS and facts is None and value is not None:
            raise Misuse(told)
        if name in _OF_BUILTINS and facts is not None:
            facts.informed = True
        elif type(value) is bool:
            self._facts.session.refuse(told)

    def __iter__(self) -> Iterator[Any]:
        if self._facts.kind == "iterator":
            return self
        return _as_iterator(self._ask("iter"))

    def __reversed__(self) -> Iterator[Any]:
        return _as_iterator(self._ask("reversed"))

    def __enter__(self) -> Any:
        return self._ask("getattr", "__enter__")()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> Any:
        leave = self._ask("getattr", "__exit__")
        return self._facts.session.operate("call", leave._facts.number, [kind, error, None])

    def __aiter__(self) -> Any:
        self._facts.session.refuse("the test iterates asynchronously over an object of the program's")

    __aenter__ = __aiter__

    def __aexit__(self, *details: Any) -> Any:
        self.__aiter__()

    def __bool__(self) -> bool:
        if self._facts.kind in ("function", "iterator") and not self._facts.informed:
            return True
        return _exact(bool, self._ask("bool"))

    def _ask(self, name: str, *args: Any) -> Any:
        facts = self._facts
        if facts.informed:
            raise Misuse(f"a {facts.name} that came of an operation with the test's values may not decide {name}()")
        return facts.session.operate(name, facts.number, args)

    # ------------------------------------------------------------------------------------ operations that could decide

    def __hash__(self) -> int:
        facts = self._facts
        if facts.under_test:
            return _exact(int, self._ask("hash"))
        return hash(facts.name) if facts.state is not None else facts.number

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        mine, theirs = self._facts, facts_of(other)
        if theirs is None:
            return self._equals_plain(other)
        if mine.informed or theirs.informed:
            raise Misuse(f"a {mine.name} that came of an operation with the test's values equals nothing")
        if mine.own_operators and theirs.own_operators:
            return mine.session.operate("eq", mine.number, [other]) is True
        return type(self) is type(other) and bool(mine.state) and bool(mine.state == theirs.state)

    def _equals_plain(self, other: object) -> bool:
        held = self._held()
        if held:
            return bool(held[0] == other)
        for base in type(self).__mro__[:-1]:
            if self._facts.session.is_shared(base) and "__eq__" in vars(base):
                return vars(base)["__eq__"](self, other) is True
        if self._facts.under_test and self._facts.constructed:
            self._facts.session.refuse(f"== of a {self._facts.name} and a {type(other).__name__} is the program's own")
        return False

    def _held(self) -> Any:
        """[what an object under test holds as a builtin], None where its class is of none."""
        return self._ask("content") if self._facts.under_test else None

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __contains__(self, item: Any) -> bool:
        if self._facts.under_test:
            return _exact(bool, self._ask("contains", item))
        return any(item is held or item == held for held in self)

    def _order(self, name: str, other: Any) -> bool:
        mine, theirs = self._facts, facts_of(other)
        if theirs is not None and not (mine.informed or theirs.informed):
            return mine.session.operate(name, mine.number, [other]) is True
        held = None if theirs is not None else self._held()
        if held:
            return bool(getattr(operator, name)(held[0], other))
        if mine.under_test and theirs is None:
            mine.session.refuse(f"order of a {mine.name} and a {type(other).__name__} is the program's own")
        raise Misuse(f"a {mine.name} is not ordered against a {type(other).__name__}")

    def _arithmetic(self, name: str, other: Any, *more: Any, swap: bool = False) -> Any:
        mine, theirs = self._facts, facts_of(other)
        value = mine.session.operate(name, mine.number, [other, *more], swap=swap)
        informed = mine.informed or theirs is None or theirs.informed
        if value is NotImplemented or not informed:
            return value
        gave = facts_of(value)
        if gave is not None and gave.under_test:
            return value
        if gave is not None:
            gave.informed = True
            return value
        told = f"{name} of a {mine.name} and a {type(other).__name__} gave a plain {type(value).__name__}"
        if mine.under_test:
            mine.session.refuse(told)
        raise Misuse(told)


_ORDERS = ("lt", "le", "gt", "ge")
_ARITHMETIC = "add sub mul truediv floordiv mod pow lshift rshift and or xor matmul divmod".split()
_ASKED = "abs neg pos invert floor ceil trunc round getitem setitem delitem setattr delattr next copy".split()
_EXACT = {"len": int, "str": str, "repr": str, "format": str, "bytes": bytes, "float": float, "complex": complex}
_EXACT |= {"int": int, "index": int}


def _define_operators() -> None:
    for name in _ORDERS:
        setattr(Remote, f"__{name}__", lambda self, other, name=name: self._order(name, other))
    for name in _ASKED:
        setattr(Remote, f"__{name}__", lambda self, *args, name=name: self._ask(name, *args))
    for name, kind in _EXACT.items():
        setattr(Remote, f"__{name}__", lambda self, *args, n=name, k=kind: _exact(k, self._ask(n, *args)))
    for name in _ARITHMETIC:
        operation = name + "_" if name in ("and", "or") else name

        def forward(self: Remote, other: Any, *more: Any, operation: str = operation) -> Any:
            return self._arithmetic(operation, other, *more)

        def backward(self: Remote, other: Any, operation: str = operation) -> Any:
            return self._arithmetic(operation, other, swap=True)

        setattr(Remote, f"__{name}__", forward)
        setattr(Remote, f"__r{name}__", backward)
        if name != "divmod":

            def in_place(self: Remote, other: Any, operation: str = f"i{name}") -> Any:
                return self._arithmetic(operation, other)

            setattr(Remote, f"__i{name}__", in_place)


_define_operators()
Remote.__deepcopy__ = lambda self, memo: self._ask("deepcopy")  # type: ignore[attr-defined]
Remote.__doc__ = property(lambda self: self._ask("getattr", "__doc__"))  # type: ignore[assignment]
Remote.__module__ = property(lambda self: self._ask("getattr", "__module__"))  # type: ignore[assignment]


class Content:
    """Mixed into local subclasses of builtins: the builtin's own methods first, the program's for the rest."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__array"):
            raise AttributeError(name)
        value = type(self)._session.operate("getattr", self._own_number(), [name])  # type: ignore[attr-defined]
        note_owner(value, self, name)
        return value

    def __missing__(self, key: Any) -> Any:
        return type(self)._session.operate("getitem", self._own_number(), [key])  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return _exact(str, type(self)._session.operate("str", self._own_number()))  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return _exact(str, type(self)._session.operate("repr", self._own_number()))  # type: ignore[attr-defined]

    def _own_number(self) -> int:
        return type(self)._session.numbers[id(self)]  # type: ignore[attr-defined, no-any-return]


def note_owner(value: Any, owner: Any, name: str) -> None:
    """Note whose method this is: what it gives when it is told something is judged by that."""
    method = facts_of(value)
    if method is not None and method.owner is None and method.kind in ("function", "callable"):
        method.owner = (owner, name)


def make_remote(kind: type, facts: Facts) -> Any:
    """A Remote of a local class; its own attribute assignment goes to the program's process."""
    remote: Any = object.__new__(kind)
    object.__setattr__(remote, "_facts", facts)
    return remote


def _exact(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise Misuse(f"expected {kind.__name__}, the program gave {type(value).__name__}")
    return value


def _as_iterator(value: Any) -> Iterator[Any]:
    return value if isinstance(value, Remote) else iter(value)
