"""Compare what a program wrote with what a case expects, byte for byte or as programming contests do."""

import decimal
import re

from lib.sandbox.verdict import one_line

_NUMBER = re.compile(rb"([+-]?)(?:(\d+)|(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d+)?)")
_TOLERANCE = decimal.Decimal("1e-6")
_CONTEXT = decimal.Context(prec=60, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[])


def same_output(got: bytes, expected: bytes, compare: str) -> bool:
    """Return whether two outputs are the same.

    `exact`: the same bytes. `lines`: every line stripped at both ends, blank lines at the end left out, CRLF as LF.
    `tokens`: the same words in the same order, whatever the blanks and line ends between them, where two numbers are
    the same if they differ by at most 1e-6, absolutely or relatively to the expected one, and two whole numbers only
    if they are equal.
    """
    if got == expected or compare == "exact":
        return got == expected
    if compare == "lines":
        return _lines(got) == _lines(expected)
    words, wanted = got.split(), expected.split()
    return len(words) == len(wanted) and all(map(_same_word, words, wanted))


def difference(got: bytes, expected: bytes, compare: str) -> str:
    """Say what was expected and what came, in one line."""
    shown, wanted = (one_line(repr(text[:120].decode("utf-8", "replace"))) for text in (got, expected))
    return f"got {shown}, expected {wanted}" + ("" if compare == "exact" else f" (compared by {compare})")


def _lines(text: bytes) -> list[bytes]:
    return [line.strip() for line in text.rstrip().split(b"\n")]


def _same_word(word: bytes, wanted: bytes) -> bool:
    if word == wanted:
        return True
    one, other = _NUMBER.fullmatch(word), _NUMBER.fullmatch(wanted)
    if not one or not other:
        return False
    if one[2] and other[2]:
        digits, wanted_digits = one[2].lstrip(b"0"), other[2].lstrip(b"0")
        return digits == wanted_digits and (not digits or (one[1] == b"-") == (other[1] == b"-"))
    value, right = (_CONTEXT.create_decimal(text.decode()) for text in (word, wanted))
    if not (value.is_finite() and right.is_finite()):
        return False
    apart = _CONTEXT.abs(_CONTEXT.subtract(value, right))
    return apart <= _CONTEXT.multiply(_TOLERANCE, max(decimal.Decimal(1), abs(right)))
