"""Values on the wire between grader and candidate: JSON with one tag an object, never pickle.

None, bool, float, str and small int stand for themselves and an array is a list. Everything else is an object with one
key, its tag. Exact types only: what a program subclasses arrives as its builtin content beside a handle, so no method of
the program's ever takes part in a comparison. Types not listed here become handles (see `remote`).
"""

import base64
import collections
import datetime
import decimal
import fractions
import sys
import types
from collections.abc import Callable
from typing import Any

from lib.sandbox.frames import Garbage

MODULES = frozenset(  # whose types, functions and selves cross by name: real on both sides, and harmless
    "array bisect builtins calendar cmath collections copy datetime decimal enum fractions functools heapq itertools json "
    "math numbers operator queue random re statistics string struct textwrap time typing unicodedata uuid zoneinfo".split()
)
_SMALL = 1 << 62


# ---------------------------------------------------------------------------------------------------------- plain values


def _items(codec: "Codec", value: Any) -> list[Any]:
    return [[codec.encode(key), codec.encode(item)] for key, item in dict.items(value)]


def _list(codec: "Codec", value: Any) -> list[Any]:
    return [codec.encode(item) for item in value]


def _date_fields(value: Any) -> list[Any]:
    return [value.year, value.month, value.day]


def _time_fields(value: Any) -> list[Any]:
    return [value.hour, value.minute, value.second, value.microsecond]


def _offset(codec: "Codec", value: Any) -> list[Any]:
    """A datetime or time keeps its UTC offset in seconds, None when naive."""
    offset = value.utcoffset()
    return [None if offset is None else offset.total_seconds(), value.fold]


def _time(payload: Any) -> datetime.time:
    hour, minute, second, microsecond, offset, fold = payload
    return datetime.time(hour, minute, second, microsecond, _zone(offset), fold=fold)


def _datetime(payload: Any) -> datetime.datetime:
    year, month, day, hour, minute, second, microsecond, offset, fold = payload
    return datetime.datetime(year, month, day, hour, minute, second, microsecond, _zone(offset), fold=fold)


def _zone(seconds: Any) -> datetime.timezone | None:
    return None if seconds is None else datetime.timezone(datetime.timedelta(seconds=seconds))


Writer = Callable[["Codec", Any], Any]
Reader = Callable[["Codec", Any], Any]

_WRITERS: dict[type, tuple[str, Writer]] = {
    tuple: ("t", _list),
    dict: ("d", _items),
    set: ("s", _list),
    frozenset: ("f", _list),
    bytes: ("b", lambda codec, value: base64.b64encode(value).decode()),
    bytearray: ("B", lambda codec, value: base64.b64encode(value).decode()),
    complex: ("c", lambda codec, value: [value.real, value.imag]),
    range: ("r", lambda codec, value: _list(codec, (value.start, value.stop, value.step))),
    slice: ("sl", lambda codec, value: _list(codec, (value.start, value.stop, value.step))),
    type(...): ("E", lambda codec, value: 0),
    type(NotImplemented): ("NI", lambda codec, value: 0),
    decimal.Decimal: ("D", lambda codec, value: str(value)),
    fractions.Fraction: ("F", lambda codec, value: _list(codec, (value.numerator, value.denominator))),
    datetime.date: ("da", lambda codec, value: _date_fields(value)),
    datetime.time: ("ti", lambda codec, value: _time_fields(value) + _offset(codec, value)),
    datetime.datetime: (
        "dt",
        lambda codec, value: _date_fields(value) + _time_fields(value) + _offset(codec, value),
    ),
    datetime.timedelta: ("td", lambda codec, value: [value.days, value.seconds, value.microseconds]),
    collections.Counter: ("C", _items),
    collections.OrderedDict: ("od", lambda codec, value: [_list(codec, pair) for pair in value.items()]),
    collections.defaultdict: (
        "dd",
        lambda codec, value: [codec.encode(value.default_factory), _items(codec, value)],
    ),
    collections.deque: ("q", lambda codec, value: [_list(codec, value), value.maxlen]),
    type({}.keys()): ("dk", _list),
    type({}.values()): ("dv", _list),
    type({}.items()): ("di", lambda codec, value: [_list(codec, pair) for pair in value]),
    types.SimpleNamespace: ("ns", lambda codec, value: _items(codec, vars(value))),
}


def _pairs(codec: "Codec", payload: Any) -> list[tuple[Any, Any]]:
    return [(codec.decode(key), codec.decode(value)) for key, value in payload]


def _decode_all(codec: "Codec", payload: Any) -> list[Any]:
    return [codec.decode(item) for item in payload]


def _ordered(codec: "Codec", payload: Any) -> Any:
    return collections.OrderedDict(_pairs(codec, payload))


def _default_dict(codec: "Codec", payload: Any) -> Any:
    factory, items = payload
    return collections.defaultdict(codec.decode(factory), _pairs(codec, items))


def _counter(codec: "Codec", payload: Any) -> Any:
    counter: collections.Counter[Any] = collections.Counter()
    for key, value in _pairs(codec, payload):
        counter[key] = value
    return counter


_READERS: dict[str, Reader] = {
    "i": lambda codec, payload: int(payload, 16),
    "t": lambda codec, payload: tuple(_decode_all(codec, payload)),
    "d": lambda codec, payload: dict(_pairs(codec, payload)),
    "s": lambda codec, payload: set(_decode_all(codec, payload)),
    "f": lambda codec, payload: frozenset(_decode_all(codec, payload)),
    "b": lambda codec, payload: base64.b64decode(payload, validate=True),
    "B": lambda codec, payload: bytearray(base64.b64decode(payload, validate=True)),
    "c": lambda codec, payload: complex(float(payload[0]), float(payload[1])),
    "r": lambda codec, payload: range(*_decode_all(codec, payload)),
    "sl": lambda codec, payload: slice(*_decode_all(codec, payload)),
    "E": lambda codec, payload: ...,
    "NI": lambda codec, payload: NotImplemented,
    "D": lambda codec, payload: decimal.Decimal(str(payload)),
    "F": lambda codec, payload: fractions.Fraction(*_decode_all(codec, payload)),
    "da": lambda codec, payload: datetime.date(*payload),
    "ti": lambda codec, payload: _time(payload),
    "dt": lambda codec, payload: _datetime(payload),
    "td": lambda codec, payload: datetime.timedelta(*payload),
    "C": _counter,
    "od": _ordered,
    "dd": _default_dict,
    "q": lambda codec, payload: collections.deque(_decode_all(codec, payload[0]), payload[1]),
    "dk": lambda codec, payload: dict.fromkeys(_decode_all(codec, payload)).keys(),
    "dv": lambda codec, payload: dict(enumerate(_decode_all(codec, payload))).values(),
    "di": lambda codec, payload: dict(_pairs(codec, payload)).items(),
    "ns": lambda codec, payload: types.SimpleNamespace(**dict(_pairs(codec, payload))),
}


class Codec:
    """Plain values both ways. Subclasses say what becomes of the rest through `opaque` and `resolve`."""

    def encode(self, value: Any) -> Any:
        """The JSON form of a value, by its exact type."""
        kind = type(value)
        if kind is str or kind is bool or kind is float or value is None:
            return value
        if kind is int:
            return value if -_SMALL < value < _SMALL else {"i": hex(value)}
        if kind is list:
            return [self.encode(item) for item in value]
        writer = _WRITERS.get(kind)
        if writer is None:
            return self.opaque(value)
        return {writer[0]: writer[1](self, value)}

    def decode(self, data: Any) -> Any:
        """The value a JSON form stands for. Raises Garbage for a form this protocol does not have."""
        kind = type(data)
        if kind is list:
            return [self.decode(item) for item in data]
        if kind is not dict:
            return data
        if len(data) != 1:
            raise Garbage(f"an object with {len(data)} keys")
        ((tag, payload),) = data.items()
        reader = _READERS.get(tag)
        if reader is None:
            return self.resolve(tag, payload)
        return reader(self, payload)

    def opaque(self, value: Any) -> Any:
        """The JSON form of a value of any other type."""
        raise TypeError(f"a {type(value).__name__} cannot cross")

    def resolve(self, tag: str, payload: Any) -> Any:
        """The value of any other tag."""
        raise Garbage(f"unknown tag {tag!r:.20}")

    def read(self, data: Any) -> Any:
        """`decode`, where whatever goes wrong is Garbage: the entry point for what a candidate sent."""
        try:
            return self.decode(data)
        except (Garbage, MemoryError):
            raise
        except Exception as error:
            raise Garbage(f"{type(error).__name__} in a value") from None


def to_numpy_form(value: Any) -> Any:
    """The form of an exact numpy array or scalar of numbers, bools or text; None for anything else."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, (numpy.ndarray, numpy.generic)):
        return None
    if type(value).__module__ != "numpy" or value.dtype.kind not in "biufcSU":
        return None
    raw = base64.b64encode(value.tobytes()).decode()
    return {"np": [value.dtype.str, list(value.shape), raw, isinstance(value, numpy.ndarray)]}


def from_numpy_form(payload: Any) -> Any:
    """The array or scalar of a numpy form. Raises Garbage when numpy is not in use here or the form is no such thing."""
    numpy = sys.modules.get("numpy")
    kind, shape, raw, is_array = payload
    if numpy is None or not isinstance(kind, str) or kind.lstrip("<>|=")[:1] not in tuple("biufcSU"):
        raise Garbage("numpy form")
    array = numpy.frombuffer(base64.b64decode(raw, validate=True), dtype=numpy.dtype(kind)).reshape(shape).copy()
    return array if is_array else array[()]
