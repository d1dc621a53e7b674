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

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

_PREDICATES = {"startswith", "endswith", "issubset", "issuperset", "isdisjoint", "equals", "__eq__", "__contains__"}


class Misuse(TypeError):
    """A test asked of a Remote what must not be decided by the program."""


class Talk(Protocol):
    """What a Remote needs of its conversation."""

    def operate(
        self,
        operation: str,
        number: int,
        args: Any,
        kwargs: dict[str, Any] | None = None,
        swap: bool = False,
        constructs: bool = False,
    ) -> Any:
        """One operation on one object in the candidate."""


@dataclasses.dataclass
class Facts:
    """What is known here about one of the program's objects."""

    talk: Talk
    number: int
    kind: str = "object"  # or function, class, iterator
    name: str = "object"
    family: Any = None  # an object's class, or a class's ancestors
    truth: bool = True
    state: Any = None  # attributes as they were when last described; None: its class has no __eq__
    content: Any = None  # what it holds as a builtin
    constructed: bool = False  # the test made it by calling a class
    touched: bool = False  # the test has called a method on it
    informed: bool = False  # it came of arithmetic with values of the test's
    owner: Any = None  # (object, name) of a bound method

    @property
    def under_test(self) -> bool:
        """Whether the object's own operators are what the test is about."""
        return self.constructed and self.touched


class Remote:
    """An object that lives in the candidate."""

    __slots__ = ("_facts",)

    def __init__(self, talk: Talk, number: int) -> None:
        note(self, Facts(talk, number))

    # ------------------------------------------------------------------------------- operations without plain operands

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__array"):
            raise AttributeError(name)
        value = self._facts.talk.operate("getattr", self._facts.number, [name])
        if isinstance(value, Remote):
            value._facts.owner = (self, name)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        self._facts.talk.operate("setattr", self._facts.number, [name, value])

    def __delattr__(self, name: str) -> None:
        self._facts.talk.operate("delattr", self._facts.number, [name])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._facts.owner is not None:
            owner, name = self._facts.owner
            if name in _PREDICATES and args and not owner._facts.under_test:
                raise Misuse(f"a {owner._facts.name} that the program returned may not decide {name}()")
            owner._facts.touched = True
        value = self._facts.talk.operate(
            "call", self._facts.number, args, kwargs, constructs=self._facts.kind == "class"
        )
        return value

    def __getitem__(self, key: Any) -> Any:
        return self._facts.talk.operate("getitem", self._facts.number, [key])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._facts.talk.operate("setitem", self._facts.number, [key, value])

    def __delitem__(self, key: Any) -> None:
        self._facts.talk.operate("delitem", self._facts.number, [key])

    def __iter__(self) -> Iterator[Any]:
        if self._facts.kind == "iterator":
            return self
        return _as_iterator(self._facts.talk.operate("iter", self._facts.number, []))

    def __next__(self) -> Any:
        return self._facts.talk.operate("next", self._facts.number, [])

    def __reversed__(self) -> Iterator[Any]:
        return _as_iterator(self._facts.talk.operate("reversed", self._facts.number, []))

    def __enter__(self) -> Any:
        return self.__getattr__("__enter__")()

    def __exit__(self, *details: Any) -> Any:
        return self.__getattr__("__exit__")(None, None, None)

    def __instancecheck__(self, instance: Any) -> bool:
        facts = getattr(type(instance), "_facts", None) if not isinstance(instance, Remote) else instance._facts
        family = facts.family if isinstance(facts, Facts) else None
        return family is self or isinstance(family, Remote) and any(self is one for one in family._facts.family or ())

    def __subclasscheck__(self, kind: Any) -> bool:
        return kind is self or isinstance(kind, Remote) and any(self is one for one in kind._facts.family or ())

    def __len__(self) -> int:
        return _exact(int, self._convert("len"))

    def __str__(self) -> str:
        return _exact(str, self._convert("str"))

    def __repr__(self) -> str:
        return _exact(str, self._convert("repr"))

    def __format__(self, form: str) -> str:
        return _exact(str, self._convert("format", form))

    def __bool__(self) -> bool:
        if self._facts.informed:
            raise Misuse(f"a {self._facts.name} that came of arithmetic with the test's values has no truth value")
        return bool(self._facts.truth)

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
        if self._facts.informed:
            raise Misuse(f"a {self._facts.name} that came of arithmetic with the test's values may not decide {name}()")
        return self._facts.talk.operate(name, self._facts.number, args)

    # ------------------------------------------------------------------------------------ operations that could decide

    def __hash__(self) -> int:
        return hash(self._facts.name) if self._facts.state is not None else self._facts.number

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, Remote):
            if self._facts.constructed and other._facts.constructed:
                return self._facts.talk.operate("eq", self._facts.number, [other]) is True
            same_class = self._facts.family is other._facts.family and self._facts.family is not None
            return bool(same_class and self._facts.state and self._facts.state == other._facts.state)
        if self._facts.under_test:
            return self._facts.talk.operate("eq", self._facts.number, [other]) is True
        return self._facts.content is not None and bool(self._facts.content == other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __contains__(self, item: Any) -> bool:
        if self._facts.under_test:
            return self._facts.talk.operate("contains", self._facts.number, [item]) is True
        return any(item is held or item == held for held in self)

    def _order(self, name: str, other: Any) -> bool:
        if self._facts.informed or isinstance(other, Remote) and other._facts.informed:
            raise Misuse(f"a {self._facts.name} that came of arithmetic with the test's values is not ordered")
        if self._facts.content is not None:
            return bool(
                _ORDERS[name](self._facts.content, other._facts.content if isinstance(other, Remote) else other)
            )
        if not isinstance(other, Remote) and not (self._facts.under_test):
            raise Misuse(f"a {self._facts.name} is not ordered against a {type(other).__name__}")
        return self._facts.talk.operate(name, self._facts.number, [other]) is True

    def _arithmetic(self, name: str, other: Any, swap: bool) -> Any:
        value = self._facts.talk.operate(name, self._facts.number, [other], swap=swap)
        if self._facts.under_test:
            return value
        informed = self._facts.informed or not isinstance(other, Remote) or other._facts.informed
        if isinstance(value, Remote):
            value._facts.informed = value._facts.informed or informed
        if not informed or isinstance(value, Remote) or value is NotImplemented:
            return value
        raise Misuse(f"{name} of a {self._facts.name} and a {type(other).__name__} gave a plain {type(value).__name__}")


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
Remote.__doc__ = property(lambda self: self.__getattr__("__doc__"))  # type: ignore[assignment]
Remote.__module__ = property(lambda self: self.__getattr__("__module__"))  # type: ignore[assignment]


def note(remote: Remote, facts: Facts) -> None:
    """Give a Remote its facts; its own attribute assignment goes to the candidate."""
    object.__setattr__(remote, "_facts", facts)


def _exact(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise Misuse(f"expected {kind.__name__}, the program gave {type(value).__name__}")
    return value


def _as_iterator(value: Any) -> Iterator[Any]:
    return value if isinstance(value, Remote) else iter(value)


def subclass_value(name: str, plain: Any, remote: Remote) -> Any:
    """`plain` as an instance of a local subclass: the builtin's own methods first, the program's for the rest."""
    base = type(plain)

    def lookup(self: Any, attribute: str) -> Any:
        return getattr(remote, attribute)

    body = {"__getattr__": lookup, "_facts": remote._facts, "__slots__": ()}
    kind = type(name, (base,), body)
    return kind.__new__(kind, plain) if base in (int, float, complex, str, bytes, tuple, frozenset) else kind(plain)
