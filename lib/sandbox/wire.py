"""Plain values as JSON, for both ends of the channel between grader and program; never pickle.

None, bool, float, str and small int stand for themselves. A list is an array that begins with its number, everything
else an object with a tag. Exact types only: what a program subclasses is not plain.

What can change or has an identity (a container, an instance of a class that both ends have, a NaN, an exception) gets a
number from the end that sends it first. From then on the number stands for the same object on both ends. Every message
closes with the contents that have changed on the sender's side since its last one, and with the numbers of copies that
nothing on that side refers to any more. What is nested deep travels among the changes, too.
"""

import array
import base64
import collections
import datetime
import decimal
import fractions
import gc
import importlib
import io
import operator
import re
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

from lib.sandbox.frames import Garbage

_SMALL = 1 << 62
_ATOMS = (str, bool, type(None))
LONG = 1000  # items of a content that is compared as a whole
DEEP = 200  # levels of nesting in one value; what lies deeper follows it


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


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _text(value: Any) -> str:
    return base64.b64encode(value).decode()


# Type -> (tag, how to take it apart into plain values, how to make it of them).
_IMMUTABLE: dict[type, tuple[str, Callable[[Any], Iterable[Any]], Callable[..., Any]]] = {
    tuple: ("t", iter, lambda *items: items),
    frozenset: ("f", iter, lambda *items: frozenset(items)),
    bytes: ("b", lambda value: [_text(value)], _bytes),
    memoryview: (
        "mv",
        lambda value: [value.tobytes(), value.format, value.shape],
        lambda content, form, shape: memoryview(content).cast(form, shape),
    ),
    complex: ("c", lambda value: [value.real, value.imag], complex),
    range: ("r", lambda value: [value.start, value.stop, value.step], range),
    slice: ("sl", lambda value: [value.start, value.stop, value.step], slice),
    type(...): ("E", lambda value: [], lambda: ...),
    type(NotImplemented): ("NI", lambda value: [], lambda: NotImplemented),
    decimal.Decimal: ("D", lambda value: [str(value)], decimal.Decimal),
    fractions.Fraction: ("F", lambda value: [value.numerator, value.denominator], fractions.Fraction),
    datetime.date: ("da", lambda value: [value.year, value.month, value.day], datetime.date),
    datetime.time: ("ti", _clock, _time),
    datetime.datetime: ("dt", lambda value: [value.year, value.month, value.day, *_clock(value)], _datetime),
    datetime.timedelta: ("td", lambda value: [value.days, value.seconds, value.microseconds], datetime.timedelta),
    datetime.timezone: ("tz", lambda value: value.__getinitargs__(), datetime.timezone),
    types.MappingProxyType: ("mp", gc.get_referents, types.MappingProxyType),
    type({}.keys()): ("dk", lambda value: gc.get_referents(value.mapping), dict.keys),
    type({}.values()): ("dv", lambda value: gc.get_referents(value.mapping), dict.values),
    type({}.items()): ("di", lambda value: gc.get_referents(value.mapping), dict.items),
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


def _numpy_kind(value: Any) -> bool:
    """Whether this is an exact numpy array or scalar of numbers, bools or text."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value).__module__ != "numpy" or not isinstance(value, (numpy.ndarray, numpy.generic)):
        return False
    return value.dtype.kind in "biufcSUmM"


def _new_numpy(kind: str, shape: Any) -> Any:
    numpy = sys.modules.get("numpy")
    if numpy is None or kind.lstrip("<>|=")[:1] not in tuple("biufcSUmM"):
        raise Garbage("numpy form")
    return numpy.empty(shape, dtype=numpy.dtype(kind))


def _flat(value: Any) -> list[Any]:
    return [item for pair in value.items() for item in pair]


def _written(stream: Any) -> bytes:
    """Position and content of a stream in memory, nothing but a mark of one that is closed."""
    if stream.closed:
        return b"-"
    content = stream.getvalue()
    return b"%d " % stream.tell() + (content.encode("utf-8", "surrogatepass") if type(content) is str else content)


def _write(stream: Any, written: bytes) -> None:
    if stream.closed:
        return
    if written == b"-":
        return stream.close()
    position, _, content = written.partition(b" ")
    stream.seek(0)
    stream.truncate()
    stream.write(content.decode("utf-8", "surrogatepass") if type(stream) is io.StringIO else content)
    stream.seek(int(position))


def _nothing(value: Any) -> tuple[Any, ...]:
    return ()


# Tag -> (type, its content as a list or bytes, what else makes an empty one, how to make that).
_MUTABLE: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Iterable[Any]], Callable[..., Any]]] = {
    "l": (list, list, _nothing, list),
    "d": (dict, _flat, _nothing, dict),
    "s": (set, list, _nothing, set),
    "B": (bytearray, bytes, _nothing, bytearray),
    "C": (collections.Counter, _flat, _nothing, collections.Counter),
    "od": (collections.OrderedDict, _flat, _nothing, collections.OrderedDict),
    "dd": (collections.defaultdict, _flat, lambda value: (value.default_factory,), collections.defaultdict),
    "q": (collections.deque, list, lambda value: (value.maxlen,), lambda most: collections.deque([], most)),
    "a": (array.array, array.array.tobytes, lambda value: (value.typecode,), array.array),
    "ns": (types.SimpleNamespace, lambda value: _flat(vars(value)), _nothing, types.SimpleNamespace),
    "cm": (collections.ChainMap, lambda value: list(value.maps), _nothing, collections.ChainMap),
    "io": (io.StringIO, _written, _nothing, io.StringIO),
    "bi": (io.BytesIO, _written, _nothing, io.BytesIO),
    "np": (None, lambda value: value.tobytes(), lambda value: (value.dtype.str, value.shape), _new_numpy),
}
_TAGS: dict[Any, str] = {row[0]: tag for tag, row in _MUTABLE.items() if row[0]}


def _refill(kind: Any, value: Any, content: Any) -> None:
    """Make a container hold this content, in place, by the methods of its exact type or of the builtin below it."""
    if issubclass(kind, dict):
        kind.clear(value)
        for key, item in zip(content[::2], content[1::2], strict=True):
            kind.__setitem__(value, key, item)
    elif kind in (list, bytearray):
        kind.__setitem__(value, slice(None), content)
    elif kind is set:
        set.clear(value)
        set.update(value, content)
    elif kind is types.SimpleNamespace:
        _refill(dict, vars(value), content)
    elif kind in (io.StringIO, io.BytesIO):
        _write(value, content)
    elif kind is collections.ChainMap:
        value.maps[:] = content
    elif kind is collections.deque:
        value.clear()
        value.extend(content)
    elif kind is array.array:
        del value[:]
        value.frombytes(content)
    else:
        value[...] = sys.modules["numpy"].frombuffer(content, dtype=value.dtype).reshape(value.shape)


def _same(before: Any, now: Any) -> bool:
    """Whether a content is still made of the very same items. Of many numbers or words: of equal ones, which is told
    a hundred times as fast and before every message."""
    if type(now) is bytes or len(now) > LONG and type(now[0]) in (int, float, str):
        return bool(before == now)
    return len(before) == len(now) and all(map(operator.is_, before, now))


class Codec:
    """Plain values both ways. Subclasses say what becomes of the rest through `opaque` and `resolve`."""

    def __init__(self, parity: int) -> None:
        self.parity = parity  # numbers that this end gives away are even in the grader, odd in the program's process
        self.count = 0
        self.numbers: dict[int, int] = {}  # id of an object -> its number
        self.objects: dict[int, Any] = {}
        self.known: dict[int, Any] = {}  # number of what can change -> its content as the other end knows it
        self.later: list[int] = []  # numbers whose content follows the value that mentions them
        self.gone: list[int] = []  # numbers to tell the other end that nothing here refers to any more
        self.depth = 0
        self.shared: dict[str, type] = {}  # classes that both ends have, by name

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

    def forget(self, numbers: Iterable[int]) -> None:
        """Give numbers up."""
        for number in numbers:
            self.numbers.pop(id(self.objects.pop(number)), None)
            self.known.pop(number, None)

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
        if self.is_shared(kind) and not issubclass(kind, BaseException):
            return self._shared_instance(value)
        if issubclass(kind, type) and self.is_shared(value):
            return {"sh": value.__name__}
        return self.opaque(value)

    def is_shared(self, kind: type) -> bool:
        """Whether both ends have this class."""
        return self.shared.get(kind.__name__) is kind

    def _not_a_number(self, value: float) -> Any:
        number, new = self.number(value)
        return {"nan": number} if new else {"#": number}

    def encode_numpy(self, value: Any) -> Any:
        """The JSON form of a numpy array or scalar."""
        if hasattr(value, "__setitem__") and value.shape:
            return self._container("np", value)
        return {"n0": [value.dtype.str, _text(value.tobytes())]}

    def _container(self, tag: str, value: Any) -> Any:
        number, new = self.number(value)
        if not new:
            return {"#": number}
        if tag == "l":
            return [number, *self.encode_content(number)]
        return {tag: [number, [self.encode(item) for item in _MUTABLE[tag][2](value)], self.encode_content(number)]}

    def encode_content(self, number: int) -> Any:
        """What a numbered object holds now; nothing yet where it is nested too deep."""
        if self.depth == DEEP:
            self.later.append(number)
            return []
        content = self.known[number] = self.content(self.objects[number])
        if type(content) is bytes:
            return _text(content)
        self.depth += 1
        form = [self.encode(item) for item in content]
        self.depth -= 1
        return form

    def content(self, value: Any) -> Any:
        """What a container holds, or an instance: the number of its fields, their names and values, and the items of
        the builtin that its class is a subclass of."""
        kind = type(value)
        tag = _TAGS.get(kind) or (_numpy_kind(value) and "np")
        if tag:
            return _MUTABLE[tag][1](value)
        fields = fields_of(value) if self.is_shared(kind) else {}
        base = builtin_base(kind)
        return [len(fields), *_flat(fields), *(_MUTABLE[_TAGS[base]][1](plain(base, value)) if base in _TAGS else ())]

    def _shared_instance(self, value: Any) -> Any:
        """A member of an enumeration by its name, any other instance of a class that both ends have as such."""
        kind, member = type(value), getattr(value, "_name_", None)
        if isinstance(member, str) and kind.__dict__.get("_member_map_", {}).get(member) is value:
            return {"en": [kind.__name__, member]}
        return self.instance(value, kind.__name__)

    def instance(self, value: Any, kind: Any) -> Any:
        """The number of an instance; the first time its class, the frozen builtin that it is and what it holds, too."""
        number, new = self.number(value)
        if not new:
            return {"#": number}
        base = builtin_base(type(value))
        held = self.encode(plain(base, value)) if base in FROZEN else None
        tracked = base in _TAGS or self.is_shared(type(value))
        return {"ob": [number, kind, held, self.encode_content(number) if tracked else None]}

    def decode(self, data: Any) -> Any:
        """The value a JSON form stands for. Raises Garbage for a form this protocol does not have."""
        kind = type(data)
        if kind is list:
            made = self.learn(data[0], [])
            made += [self.decode(item) for item in data[1:]]
            self.known[data[0]] = list(made)
            return made
        if kind is not dict:
            return data
        ((tag, payload),) = data.items()
        if tag in _MUTABLE:
            return self._decode_container(tag, *payload)
        if tag in _MAKERS:
            return _MAKERS[tag](*[self.decode(item) for item in payload])
        return self._decode_rest(tag, payload)

    def _decode_container(self, tag: str, number: Any, extra: Any, form: Any) -> Any:
        made = self.learn(number, _MUTABLE[tag][3](*[self.decode(item) for item in extra]))
        self.decode_content(number, form)
        return made

    def decode_content(self, number: int, form: Any) -> None:
        """Have a numbered object hold what the other end says."""
        content = _bytes(form) if type(form) is str else [self.decode(item) for item in form]
        value = self.objects[number]
        if content or number in self.known:
            self.refill(value, content)
        self.known[number] = self.content(value)

    def refill(self, value: Any, content: Any) -> None:
        """Have an object hold this content, as `content` gives it."""
        kind = type(value)
        if kind in _TAGS or _numpy_kind(value):
            return _refill(kind, value, content)
        end = 2 * content[0] + 1
        if self.is_shared(kind):
            fields = dict(zip(content[1:end:2], content[2:end:2], strict=True))
            for name in fields_of(value).keys() - fields.keys():
                object.__delattr__(value, name)
            for name, item in fields.items():
                object.__setattr__(value, name, item)
        base = builtin_base(kind)
        if base in _TAGS:
            _refill(base, value, content[end:])

    def _decode_rest(self, tag: str, payload: Any) -> Any:
        if tag == "i":
            return int(payload, 16)
        if tag == "#":
            return self.objects[payload]
        if tag == "re":
            return re.compile(self.decode(payload[0]), payload[1])
        if tag == "nan":
            return self.learn(payload, float("nan"))
        if tag == "n0":
            scalar = _new_numpy(payload[0], [1])
            _refill(type(scalar), scalar, _bytes(payload[1]))
            return scalar[0]
        if tag == "py":
            module, name, text = payload
            if name not in _BY_TEXT.get(module, ()) or type(text) is not str:
                raise Garbage("a type")
            return getattr(importlib.import_module(module), name)(text)
        if tag == "en":
            return self.shared[payload[0]].__dict__["_member_map_"][payload[1]]
        if tag == "sh":
            return self.shared[payload]
        if tag == "ob":
            return self._decode_instance(*payload)
        return self.resolve(tag, payload)

    def _decode_instance(self, number: Any, kind: Any, held: Any, form: Any) -> Any:
        kind = self.shared[kind] if type(kind) is str else self.decode(kind)
        made = self.learn(number, self.new_instance(number, kind, self.decode(held)))
        if form is not None:
            self.decode_content(number, form)
        return made

    def new_instance(self, number: int, kind: Any, held: Any) -> Any:
        """Make an instance past its class's `__new__` and `__init__`: of a frozen builtin's content, or empty."""
        base = builtin_base(kind)
        made = base.__new__(kind, held) if base in FROZEN else (base or object).__new__(kind)
        if base in _TAGS:
            base.__init__(made)
        return made

    def opaque(self, value: Any) -> Any:
        """The JSON form of a value of any other type."""
        raise TypeError(f"a {type(value).__name__} cannot cross")

    def resolve(self, tag: str, payload: Any) -> Any:
        """The value of any other tag."""
        raise Garbage(f"unknown tag {tag!r:.20}")

    # ---------------------------------------------------------------------------------------------- one message

    def compose(self, encode: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A message of encoded values, closed with what has changed. An exception leaves everything as it was."""
        self._let_go()
        before, first, self.depth, self.later = dict(self.known), self.count, 0, []
        try:
            message = encode()
            changed = [[number, self.encode_content(number)] for number in before if self._has_changed(number)]
            for number in self.later:  # which grows
                changed.append([number, self.encode_content(number)])
        except BaseException:
            given = (2 * count + self.parity for count in range(first + 1, self.count + 1))
            self.forget(number for number in given if number in self.objects)
            self.known = before
            raise
        if changed:
            message["changed"] = changed
        if self.gone:
            message["gone"], self.gone = self.gone, []
        return message

    def _has_changed(self, number: int) -> bool:
        return not _same(self.known[number], self.content(self.objects[number]))

    def catch_up(self, message: dict[str, Any]) -> None:
        """Change here what the sender of a message says has changed there."""
        for number, form in message.get("changed", ()):
            if number not in self.known:
                raise Garbage("a change of what cannot change")
            self.decode_content(number, form)
        self.forget(number for number in message.get("gone", ()) if number in self.known)

    def is_copy(self, value: Any) -> bool:
        """Whether the other end can do without this end's object, as long as nothing else refers to it here."""
        return True

    def _let_go(self) -> None:
        """Give up the copies that nothing on this end refers to any more, once the other end knows what they held last.

        Containers have lower numbers than what they held at first, so that one pass frees both. Rings are kept.
        """
        for number in list(self.known):
            if sys.getrefcount(self.objects[number]) == _OWN_REFERENCES and self.is_copy(self.objects[number]):
                if not self._has_changed(number):
                    self.forget([number])
                    self.gone.append(number)


_OWN_REFERENCES = 2  # to a numbered object: Codec.objects and the argument of getrefcount


# ------------------------------------------------------------------------------------------------- instances of classes

FROZEN = (int, float, complex, str, bytes, tuple, frozenset)
BASES = (*FROZEN, bytearray, list, set, dict)


def builtin_base(kind: type) -> Any:
    """The builtin that a class is a subclass of, None where it is of none that holds content."""
    return next((base for base in BASES if base in kind.__mro__), None)


def plain(base: Any, value: Any) -> Any:
    """The content of a subclass instance as its exact builtin, read past the subclass's own methods."""
    if base is dict:
        return {key: dict.__getitem__(value, key) for key in dict.__iter__(value)}
    if base in (tuple, list, set, frozenset):
        return base(base.__iter__(value))
    if base in (int, float):
        return base.__pos__(value)
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
