"""Compare a wrong answer with the right one: form only, near miss, or different."""

import ast
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

Polycode = Literal["surface", "format", "semantic", "performance"]
NEAR = 1e-2  # numbers within this relative distance are a near miss
UNREADABLE = object()
_SETS = (set, frozenset)


def value_of(text: str) -> Any:
    """Return the literal that a text shows; UNREADABLE if it is none, or was shortened."""
    if "..." in text or "…" in text:
        return UNREADABLE
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return UNREADABLE


def difference(got: Any, expected: Any) -> tuple[Polycode, str]:
    """Return how two unequal values differ: PolyCode category and name of the first rule that holds."""
    for polycode, rule, holds in NEAR_MISSES:
        if holds(got, expected):
            return polycode, rule
    return "semantic", "wrong-answer"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """A number, numeral or truth value without its form: 5, 5.0 and "5" alike, True and "yes" alike."""
    if isinstance(value, bool | str) and str(value).lower() in ("true", "false", "yes", "no"):
        return str(value).lower() in ("true", "yes")
    if not isinstance(value, str) or not value.isascii():
        return value
    for number in (int, float):  # whole numbers stay exact, however large
        try:
            return number(value)
        except ValueError:
            continue
    return value


def _only_form_differs(got: Any, expected: Any) -> bool:
    """Same content: list for tuple or set, a number for its numeral, at any depth."""
    if isinstance(got, _SETS) != isinstance(expected, _SETS):
        shapes = (list, tuple, *_SETS)
        return isinstance(got, shapes) and isinstance(expected, shapes) and _sorted(got) == _sorted(expected)
    if isinstance(got, list | tuple) and isinstance(expected, list | tuple):
        return len(got) == len(expected) and all(map(_only_form_differs, got, expected))
    if isinstance(got, dict) and isinstance(expected, dict):
        pairs = [[list(item) for item in side.items()] for side in (got, expected)]
        return _only_form_differs(*pairs)
    if isinstance(got, str) and isinstance(expected, str):
        return got == expected
    text, other = (got, expected) if isinstance(got, str) else (expected, got)
    shown = value_of(text) if isinstance(text, str) else UNREADABLE
    if isinstance(shown, list | tuple | dict | set):
        return _only_form_differs(shown, other)
    return bool(_plain(got) == _plain(expected))


def _sorted(values: Iterable[Any]) -> list[str]:
    return sorted(map(repr, values))


def _wrapped(got: Any, expected: Any) -> bool:
    """One value in a container of its own, or out of it: 5 for [5]."""
    inside = [pair for pair in ((got, expected), (expected, got)) if isinstance(pair[0], list | tuple)]
    return any(len(outer) == 1 and outer[0] == inner for outer, inner in inside)


def _rounded(got: Any, expected: Any) -> bool:
    """One number is the other to two decimals or more, or they differ by what floating point leaves behind."""
    if not isinstance(got, float) or not isinstance(expected, float) or not math.isfinite(got - expected):
        return False
    decimals = min(len(repr(value).partition(".")[2]) for value in (got, expected))
    to_decimals = 2 <= decimals < 10 and round(got, decimals) == round(expected, decimals)
    return to_decimals or math.isclose(got, expected, rel_tol=1e-12)


def _holds_more(got: Any, expected: Any) -> bool:
    """The expected value whole among a few returned, or a number alone among words: (5, 2) and "Sum: 5" for 5."""
    if isinstance(got, str) and _is_number(expected):
        numbers = [token for token in got.split() if _is_number(_plain(token))]
        return numbers == [repr(expected)] != got.split()
    few = isinstance(got, tuple) and len(got) in (2, 3) and not isinstance(expected, tuple | bool)
    return few and expected in got


def _spelling(got: Any, expected: Any) -> bool:
    def folded(value: Any) -> Any:
        if isinstance(value, str):
            return "".join(value.split()).casefold()
        return [folded(item) for item in value] if isinstance(value, list | tuple) else value

    return bool(folded(got) == folded(expected))


def _near(got: Any, expected: Any) -> bool:
    if isinstance(got, list | tuple) and isinstance(expected, list | tuple) and len(got) == len(expected) > 0:
        return all(a == b or _near(a, b) for a, b in zip(got, expected, strict=True))
    if not _is_number(got) or not _is_number(expected) or not {type(got), type(expected)} & {float}:
        return False
    rounded = {type(got), type(expected)} == {int, float} and abs(got - expected) < 1
    return math.isclose(got, expected, rel_tol=NEAR) or rounded


def _off_by_one(got: Any, expected: Any) -> bool:
    if isinstance(got, int) and isinstance(expected, int):
        return _is_number(got) and _is_number(expected) and abs(got - expected) == 1
    if type(got) is not type(expected) or not isinstance(got, list | tuple | str):
        return False
    short, long = sorted((got, expected), key=len)
    return len(long) - len(short) == 1 and len(short) > 0 and short in (long[1:], long[:-1])


def _reordered(got: Any, expected: Any) -> bool:
    same = isinstance(got, list | tuple) and isinstance(expected, list | tuple) and len(got) == len(expected)
    return same and _sorted(got) == _sorted(expected)


def _kind(value: Any) -> str:
    return "number" if _is_number(value) else type(value).__name__


NEAR_MISSES: tuple[tuple[Polycode, str, Callable[[Any, Any], bool]], ...] = (
    ("format", "type-differs", _only_form_differs),
    ("format", "wrapped", _wrapped),
    ("format", "case-or-whitespace", _spelling),
    ("format", "rounded", _rounded),
    ("format", "extra-output", _holds_more),
    ("semantic", "off-by-one", _off_by_one),
    ("semantic", "near-miss", _near),
    ("semantic", "reordered", _reordered),
    ("semantic", "inverted", lambda got, expected: isinstance(got, bool) and isinstance(expected, bool)),
    ("semantic", "sign", lambda got, expected: _is_number(got) and _is_number(expected) and got == -expected),
    ("semantic", "wrong-type", lambda got, expected: _kind(got) != _kind(expected)),
)


def text_difference(got: str, expected: str) -> tuple[Polycode, str]:
    """Return how printed text differs from the expected text, token by token."""
    tokens, wanted = got.split(), expected.split()
    if _spelling(got, expected):
        return "format", "case-or-whitespace"
    if list(map(_plain, tokens)) == list(map(_plain, wanted)):
        return "format", "type-differs"
    if wanted and len(tokens) > len(wanted) and _holds(tokens, wanted):
        return "format", "extra-output"
    if len(tokens) == len(wanted) == 1:
        return difference(token_value(tokens[0]), token_value(wanted[0]))
    return difference([token_value(token) for token in tokens], [token_value(token) for token in wanted])


def _holds(tokens: list[str], wanted: list[str]) -> bool:
    """True when `wanted` is a run of `tokens` and what surrounds it is words, not other answers."""
    for start in range(len(tokens) - len(wanted) + 1):
        if tokens[start : start + len(wanted)] == wanted:
            around = tokens[:start] + tokens[start + len(wanted) :]
            return any(not _is_number(_plain(token)) for token in around)
    return False


def token_value(text: str) -> Any:
    """Return the literal that a token shows, the token itself where it shows none."""
    value = value_of(text)
    return text if value is UNREADABLE else value
