"""How the candidate's side looks at objects: what they hold, what they are called, what can be done with them."""

import builtins
import importlib
import operator
import sys
from collections.abc import Callable
from typing import Any

MODULE = "solution"  # the module a program runs as
BASES = (int, float, complex, str, bytes, bytearray, tuple, list, set, frozenset, dict)
OPERATIONS: dict[str, Callable[..., Any]] = {
    name: getattr(operator, name)
    for name in "add sub mul truediv floordiv mod pow lshift rshift and_ or_ xor matmul "
    "iadd isub imul itruediv ifloordiv imod ipow ilshift irshift iand ior ixor imatmul "
    "lt le gt ge eq ne neg pos invert abs index contains getitem setitem delitem".split()
} | {
    "call": lambda target, *args, **kwargs: target(*args, **kwargs),
    **{name: getattr(builtins, name) for name in "len iter next str repr bool float int complex round divmod".split()},
    **{name: getattr(builtins, name) for name in "getattr setattr delattr reversed hash bytes dir format".split()},
    "length_hint": operator.length_hint,
}


def builtin_exception(name: str, message: str) -> BaseException:
    """An exception of a builtin class, or a plain one where that class wants more than a message."""
    kind = getattr(builtins, name, Exception)
    try:
        error: BaseException = kind(message)
    except TypeError:
        error = Exception(message)
    return error


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
        return complex(value.real, value.imag)
    return base(memoryview(value))


def slots(kind: type) -> tuple[str, ...]:
    """Attribute names that a class keeps in slots."""
    slots = kind.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(name for name in slots if not name.startswith("__"))


def truth(value: Any) -> bool:
    """bool(value), True where that fails."""
    try:
        return bool(value)
    except Exception:
        return True


def importable_name(value: Any) -> str:
    """ "module.name" of something the standard library or an allowed module exports, else empty."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not isinstance(module, str) or module == MODULE or "." in name:
        return ""
    return f"{module}:{name}" if getattr(sys.modules.get(module), name, None) is value else ""


def named_object(dotted: str) -> Any:
    """What "module:name" names."""
    module, _, name = dotted.partition(":")
    target = importlib.import_module(module)
    for part in name.split("."):
        target = getattr(target, part)
    return target


def is_own_class(item: Any) -> bool:
    """Whether this is a class that the program or its setup code defined."""
    return isinstance(item, type) and item.__module__ == MODULE
