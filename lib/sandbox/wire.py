"""Plain values as JSON, for both ends of the channel between grader and program; never pickle.

None, bool, float, str and small int stand for themselves and a list is an array. Everything else is an object with a
tag. Exact types only: what a program subclasses is not plain. Identity is kept: a mutable container that occurs again
in one exchange is a reference to where it stood first, and an instance of a class that both ends have (the task's
set-up code), a NaN or an exception keeps one number for as long as both processes live. Fields of instances travel
beside the value, one entry per instance, so that a ring or a long chain of them is no deep nesting.
"""

import array
import base64
import collections
import datetime
import decimal
import fractions
import importlib
import operator
import re
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

from lib.sandbox.frames import Garbage

_SMALL = 1 << 62
_ATOMS = (str, bool, type(None))


# ----------------------------------------------------------------------------------------------------- immutable values


def _zone(offset: Any) -> Any:
    return offset if offset is None or isinstance(offset, datetime.tzinfo) else datetime.timezone(offset)


def _zone_of(value: Any) -> Any:
    """A zone as plain data: itself where its class is the standard library's, else the offset it has at that moment."""
    known = type(value.tzinfo) is datetime.timezone or type(value.tzinfo).__module__ == "zoneinfo"
    return value.tzinfo if known else value.utcoffset()


def _clock(value: Any) -> list[Any]:
    return [value.hour, value.minute, value.second, value.microsecond, _zone_of(value), value.fold]


def _time(hour: int, minute: int, second: int, microsecond: int, zone: Any, fold: int) -> datetime.time:
    return datetime.time(hour, minute, second, microsecond, _zone(zone), fold=fold)


def _datetime(year: int, month: int, day: int, *clock: Any) -> datetime.datetime:
    return datetime.datetime.combine(datetime.date(year, month, day), _time(*clock))


# Type -> (tag, how to take it apart into plain values, how to make it of them).
_IMMUTABLE: dict[type, tuple[str, Callable[[Any], Iterable[Any]], Callable[..., Any]]] = {
    tuple: ("t", iter, lambda *items: items),
    frozenset: ("f", iter, lambda *items: frozenset(items)),
    bytes: ("b", lambda value: [base64.b64encode(value).decode()], lambda text: base64.b64decode(text, validate=True)),
    complex: ("c", lambda value: [value.real, value.imag], complex),
    range: ("r", lambda value: [value.start, value.stop, value.step], range),
    slice: ("sl", lambda value: [value.start, value.stop, value.step], slice),
    type(...): ("E", lambda value: [], lambda: ...),
    type(NotImplemented): ("NI", lambda value: [], lambda: NotImplemented),
    decimal.Decimal: ("D", lambda value: [str(value)], decimal.Decimal),
    fractions.Fraction: ("F", lambda value: [value.numerator, value.denominator], fractions.Fraction),
    datetime.date: ("da", lambda value: [value.year, value.month, value.day], datetime.date),
    datetime.time: ("ti", _clock, _time),
    datetime.datetime: (
        "dt",
        lambda value: [value.year, value.month, value.day, *_clock(value)],
        _datetime,
    ),
    datetime.timedelta: ("td", lambda value: [value.days, value.seconds, value.microseconds], datetime.timedelta),
    datetime.timezone: ("tz", lambda value: value.__getinitargs__(), datetime.timezone),
    types.MappingProxyType: ("mp", lambda value: value.items(), lambda *items: types.MappingProxyType(dict(items))),
    type({}.keys()): ("dk", iter, lambda *items: dict.fromkeys(items).keys()),
    type({}.values()): ("dv", iter, lambda *items: dict(enumerate(items)).values()),
    type({}.items()): ("di", iter, lambda *items: dict(items).items()),
}
_MAKERS = {tag: make for tag, _, make in _IMMUTABLE.values()}
# Types of modules that few programs import, by name: their text says all about them.
_BY_TEXT = {
    "pathlib": ("PosixPath", "PurePosixPath", "PureWindowsPath"),
    "uuid": ("UUID",),
    "zoneinfo": ("ZoneInfo",),
    "ipaddress": ("IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network", "IPv4Interface", "IPv6Interface"),
}


# ------------------------------------------------------------------------------------------------------- mutable values


def _refill(value: Any, content: Any) -> None:
    """Make a container hold this content, in place."""
    if isinstance(value, collections.ChainMap):
        value = value.maps
    elif isinstance(value, types.SimpleNamespace):
        value = vars(value)
    if isinstance(value, dict):
        value.clear()
        for key, item in content:
            value[key] = item
    elif isinstance(value, (list, bytearray)):
        value[:] = content
    elif isinstance(value, set):
        value.clear()
        value.update(content)
    elif isinstance(value, collections.deque):
        value.clear()
        value.extend(content)
    elif isinstance(value, array.array):
        del value[:]
        value.frombytes(content)
    else:
        value[...] = sys.modules["numpy"].frombuffer(content, dtype=value.dtype).reshape(value.shape)


def _numpy_kind(value: Any) -> bool:
    """Whether this is an exact numpy array or scalar of numbers, bools or text."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value).__module__ != "numpy" or not isinstance(value, (numpy.ndarray, numpy.generic)):
        return False
    return value.dtype.kind in "biufcSUmM"


def _new_numpy(kind: str, shape: list[int]) -> Any:
    numpy = sys.modules.get("numpy")
    if numpy is None or kind.lstrip("<>|=")[:1] not in tuple("biufcSUmM"):
        raise Garbage("numpy form")
    return numpy.empty(shape, dtype=numpy.dtype(kind))


def _pairs(value: Any) -> list[Any]:
    return [list(pair) for pair in value.items()]


def _none(value: Any) -> list[Any]:
    return []


# Tag -> (type, its content as a plain value, what else makes an empty one, how to make that).
_MUTABLE: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], list[Any]], Callable[..., Any]]] = {
    "l": (list, list, _none, list),
    "d": (dict, _pairs, _none, dict),
    "s": (set, list, _none, set),
    "B": (bytearray, bytes, _none, bytearray),
    "C": (collections.Counter, _pairs, _none, collections.Counter),
    "od": (collections.OrderedDict, _pairs, _none, collections.OrderedDict),
    "dd": (collections.defaultdict, _pairs, lambda value: [value.default_factory], collections.defaultdict),
    "q": (collections.deque, list, lambda value: [value.maxlen], lambda most: collections.deque([], most)),
    "a": (array.array, lambda value: value.tobytes(), lambda value: [value.typecode], array.array),
    "ns": (types.SimpleNamespace, lambda value: _pairs(vars(value)), _none, types.SimpleNamespace),
    "cm": (collections.ChainMap, lambda value: list(value.maps), _none, collections.ChainMap),
    "np": (None, lambda value: value.tobytes(), lambda value: [value.dtype.str, list(value.shape)], _new_numpy),
}
_OF_PAIRS = ("d", "C", "od", "dd", "ns")
_TAGS = {row[0]: tag for tag, row in _MUTABLE.items()}
_UNHASHED = (list, set, collections.deque, bytearray, array.array)


def contents(value: Any) -> tuple[Any, ...]:
    """The items a container holds now, to tell later whether it was changed."""
    if isinstance(value, dict):
        return (*value, *value.values())
    return tuple(value) if isinstance(value, _UNHASHED) else (object(),)


def same_items(before: tuple[Any, ...], value: Any) -> bool:
    """Whether a container still holds the very items it held."""
    now = contents(value)
    return len(before) == len(now) and all(map(operator.is_, before, now))


class Codec:
    """Plain values both ways. Subclasses say what becomes of the rest through `opaque` and `resolve`."""

    def __init__(self, parity: int) -> None:
        self.parity = parity  # numbers that this end gives away are even in the grader, odd in the program's process
        self.count = 0
        self.numbers: dict[int, int] = {}  # id of an object -> its number
        self.objects: dict[int, Any] = {}
        self.shared: dict[str, type] = {}  # classes that both ends have, by name
        self.begin([])

    def begin(self, containers: list[Any]) -> None:
        """Start one direction of an exchange; `containers` are those that the other direction has mentioned."""
        self.containers = containers
        self.places = {id(item): place for place, item in enumerate(containers)}
        self.mentioned: dict[int, None] = {}  # numbers of what was mentioned, in order

    def number(self, value: Any) -> tuple[int, bool]:
        """The number of an object, and whether it is new."""
        number = self.numbers.get(id(value))
        if number is not None:
            return number, False
        self.count += 1
        number = self.numbers[id(value)] = 2 * self.count + self.parity
        self.objects[number] = value
        return number, True

    def learn(self, number: Any, value: Any) -> Any:
        """Note an object under the number that the other end gave it. Raises Garbage for a number of this end's."""
        if type(number) is not int or number % 2 == self.parity or number in self.objects:
            raise Garbage("a number")
        self.objects[number] = value
        self.numbers[id(value)] = number
        return value

    # ------------------------------------------------------------------------------------------------- one value

    def encode(self, value: Any) -> Any:
        """The JSON form of a value, by its exact type."""
        kind = type(value)
        if kind in _ATOMS:
            return value
        if kind is int:
            return value if -_SMALL < value < _SMALL else {"i": hex(value)}
        if kind is float:
            return value if value == value else self._not_a_number(value)
        tag = _TAGS.get(kind)
        if tag:
            return self._container(tag, value)
        row = _IMMUTABLE.get(kind)
        if row:
            return {row[0]: [self.encode(item) for item in row[1](value)]}
        if kind is re.Pattern:
            return {"re": [self.encode(value.pattern), value.flags]}
        if _numpy_kind(value):
            return self.encode_numpy(value)
        if kind.__name__ in _BY_TEXT.get(kind.__module__, ()) and kind is getattr(
            sys.modules.get(kind.__module__), kind.__name__, None
        ):
            return {"py": [kind.__module__, kind.__name__, str(value)]}
        if self.shared.get(kind.__name__) is kind and not issubclass(kind, BaseException):
            return self._instance(value)
        if issubclass(kind, type) and issubclass(value, BaseException):
            name = value.__name__
            if self.shared.get(name) is value:
                return {"ex": name}
        return self.opaque(value)

    def _not_a_number(self, value: float) -> Any:
        number, new = self.number(value)
        return {"nan": number} if new else {"#": number}

    def encode_numpy(self, value: Any) -> Any:
        """The JSON form of a numpy array or scalar."""
        if hasattr(value, "__setitem__") and value.shape:
            return self._container("np", value)
        return {"n0": [value.dtype.str, base64.b64encode(value.tobytes()).decode()]}

    def _container(self, tag: str, value: Any) -> Any:
        place = self.places.get(id(value))
        if place is not None:
            return {"=": place}
        self.places[id(value)] = len(self.containers)
        self.containers.append(value)
        if tag == "l":
            return [self.encode(item) for item in value]
        if tag == "d":
            return {"d": [[self.encode(key), self.encode(item)] for key, item in value.items()]}
        extra = self.encode(_MUTABLE[tag][2](value))
        return {tag: self._content(tag, value), "of": extra}

    def _content(self, tag: str, value: Any) -> Any:
        """What a container holds, each item encoded: the container itself has its place already."""
        plain = _MUTABLE[tag][1](value)
        if type(plain) is bytes:
            return base64.b64encode(plain).decode()
        if tag in _OF_PAIRS:
            return [[self.encode(key), self.encode(item)] for key, item in plain]
        return [self.encode(item) for item in plain]

    def _instance(self, value: Any) -> Any:
        """An instance of a class that both ends have: its number, and its class and builtin content the first time."""
        kind = type(value)
        member = getattr(value, "_name_", None)
        if isinstance(member, str) and kind.__dict__.get("_member_map_", {}).get(member) is value:
            return {"en": [kind.__name__, member]}
        number, new = self.number(value)
        self.mention(number)
        if not new:
            return {"#": number}
        base = builtin_base(kind)
        return {"ob": [number, kind.__name__, None if base is None else self.encode(plain(base, value))]}

    def decode(self, data: Any) -> Any:
        """The value a JSON form stands for. Raises Garbage for a form this protocol does not have."""
        kind = type(data)
        if kind is list:
            made: Any = []
            self.containers.append(made)
            made += [self.decode(item) for item in data]
            return made
        if kind is not dict:
            return data
        if "of" in data:
            return self._decode_container(data)
        ((tag, payload),) = data.items()
        if tag == "d":
            made = {}
            self.containers.append(made)
            for key, item in payload:
                made[self.decode(key)] = self.decode(item)
            return made
        if tag in _MAKERS:
            return _MAKERS[tag](*[self.decode(item) for item in payload])
        return self._decode_rest(tag, payload)

    def _decode_container(self, data: Any) -> Any:
        extra = data.pop("of")
        ((tag, payload),) = data.items()
        place = len(self.containers)
        self.containers.append(None)
        made = self.containers[place] = _MUTABLE[tag][3](*self.decode(extra))
        self._fill(tag, made, payload)
        return made

    def _fill(self, tag: str, made: Any, payload: Any) -> None:
        if type(payload) is str:
            content: Any = base64.b64decode(payload, validate=True)
        elif tag in _OF_PAIRS:
            content = [(self.decode(key), self.decode(item)) for key, item in payload]
        else:
            content = [self.decode(item) for item in payload]
        _refill(made, content)

    def _decode_rest(self, tag: str, payload: Any) -> Any:
        if tag == "=":
            return self.containers[payload]
        if tag == "i":
            return int(payload, 16)
        if tag == "#":
            self.mentioned.setdefault(payload)
            return self.objects[payload]
        if tag == "re":
            return re.compile(self.decode(payload[0]), payload[1])
        if tag == "nan":
            return self.learn(payload, float("nan"))
        if tag == "n0":
            scalar = _new_numpy(payload[0], [1])
            _refill(scalar, base64.b64decode(payload[1], validate=True))
            return scalar[0]
        if tag == "py":
            module, name, text = payload
            if name not in _BY_TEXT.get(module, ()) or type(text) is not str:
                raise Garbage("a type")
            return getattr(importlib.import_module(module), name)(text)
        if tag == "en":
            return self.shared[payload[0]].__dict__["_member_map_"][payload[1]]
        if tag == "ex":
            return self.shared[payload]
        if tag == "ob":
            return self._decode_instance(*payload)
        return self.resolve(tag, payload)

    def _decode_instance(self, number: Any, name: str, content: Any) -> Any:
        kind = self.shared[name]
        held = None if content is None else self.decode(content)
        base: Any = builtin_base(kind)
        value = base.__new__(kind, held) if base in _FROZEN else (base or object).__new__(kind)
        if base is not None and base not in _FROZEN:
            base.__init__(value, held)  # type: ignore[misc]
        return self.learn(number, value)

    def mention(self, number: int) -> None:
        """Have the fields of an object follow the value."""
        self.mentioned.setdefault(number)

    def opaque(self, value: Any) -> Any:
        """The JSON form of a value of any other type."""
        raise TypeError(f"a {type(value).__name__} cannot cross")

    def resolve(self, tag: str, payload: Any) -> Any:
        """The value of any other tag."""
        raise Garbage(f"unknown tag {tag!r:.20}")

    # ---------------------------------------------------------------------------------------------- one exchange

    def encode_fields(self) -> list[Any]:
        """[number, fields] of every instance mentioned, and of those that their fields mention."""
        fields: list[Any] = []
        done = 0
        while done < len(self.mentioned):
            for number in list(self.mentioned)[done:]:
                state = self.state_of(number)
                if state is not None:
                    fields.append([number, [[name, self.encode(item)] for name, item in state.items()]])
                done += 1
        return fields

    def state_of(self, number: int) -> dict[str, Any] | None:
        """The fields that travel for an object; None where none do."""
        value = self.objects[number]
        return fields_of(value) if self.shared.get(type(value).__name__) is type(value) else None

    def decode_fields(self, fields: Any) -> None:
        """Give every instance the fields that the other end says it has."""
        for number, items in fields:
            self.set_state(number, {str(name): self.decode(item) for name, item in items})

    def set_state(self, number: int, state: dict[str, Any]) -> None:
        """Give one instance its fields. Raises Garbage for what is no instance of a shared class."""
        value = self.objects[number]
        if self.shared.get(type(value).__name__) is not type(value):
            raise Garbage("fields of something that has none")
        for name in fields_of(value).keys() - state.keys():
            object.__delattr__(value, name)
        for name, item in state.items():
            object.__setattr__(value, name, item)

    def encode_changes(self, before: list[tuple[Any, ...]]) -> list[Any]:
        """[place, content] of every container of the request that no longer holds what it held."""
        changed = []
        for place, items in enumerate(before):
            value = self.containers[place]
            if value is not None and not same_items(items, value):
                tag = _TAGS.get(type(value), "np")
                changed.append([place, tag, self._content(tag, value)])
        return changed

    def decode_changes(self, changed: Any) -> None:
        """Change the containers of the request as the other end says."""
        for place, tag, payload in changed:
            value = self.containers[place]
            if type(value) is not _MUTABLE[tag][0] and not (tag == "np" and _numpy_kind(value)):
                raise Garbage("a change of another type")
            self._fill(tag, value, payload)


# ------------------------------------------------------------------------------------------------- instances of classes

_FROZEN = (int, float, complex, str, bytes, tuple, frozenset)
BASES = (*_FROZEN, bytearray, list, set, dict)


def builtin_base(kind: type) -> type | None:
    """The builtin that a class is a subclass of, None where it is of none that holds content."""
    return next((base for base in BASES if base in kind.__mro__), None)


def plain(base: type, value: Any) -> Any:
    """The content of a subclass instance as its exact builtin, read past the subclass's own methods."""
    if base is dict:
        return {key: dict.__getitem__(value, key) for key in dict.__iter__(value)}
    if base in (tuple, list, set, frozenset):
        return base(base.__iter__(value))  # type: ignore[attr-defined]
    if base in (int, float):
        return base.__pos__(value)  # type: ignore[attr-defined]
    if base is str:
        return str.__str__(value)
    if base is complex:
        return complex.__pos__(value)
    return base(memoryview(value))


def fields_of(value: Any) -> dict[str, Any]:
    """The attributes an instance holds itself, in its dictionary and in slots."""
    fields = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not name.startswith("__") and hasattr(value, name):
                fields[name] = getattr(value, name)
    return fields
