"""Canonical forms: what two prompts or two programs have to share to count as the same.

Differs from the paper in: the paper names the steps (lowercase, white space, comments and headers, numeric
literals); which lines are headers is decided here by how often they occur in a corpus, not by a list.

Both forms are idempotent: they hold nothing that a second pass could take for a comment, a header or a
literal.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import regex
import xxhash

_WORD = regex.compile(r"[\p{L}\p{M}\p{N}_]+")
_FORMAT = regex.compile(r"\p{Cf}+")
_EXAMPLE = regex.compile(
    r"^[#\-*\s]*(?:exam+ples?|উদাহরণ[\p{L}\p{M}]*)\s*:\s*$.*",
    regex.MULTILINE | regex.DOTALL | regex.IGNORECASE,
)
_ASSERT = regex.compile(r"^[#\-\s]*assert\s.*$", regex.MULTILINE)
_NUMBERS = regex.compile(r"(?<!\S)\p{N}+(?: \p{N}+)*(?!\S)")
_LITERAL = regex.compile(r"(?<![\w.])\d(?:e[+-]\d|[\w.])*")
_TOKEN = regex.compile(r"\w+|[^\w\s]")
_SPAN = regex.compile(r"(`+)[^`\n]+\1")

_QUOTED = r'"(?:\\.|[^"\\\n])*"|' + r"'(?:\\.|[^'\\\n])*'"
_TRIPLE = r"(?:\"\"\"(?s:.*?)\"\"\"|'''(?s:.*?)''')"
_HASH = r"\#[^\n]*"
# One alternation a language: strings (group "text") are tried first, so a comment mark inside one is no
# comment.
_LEXERS = {
    "python": rf"(?<note>^[ \t]*{_TRIPLE}|{_HASH})|(?<text>{_TRIPLE}|{_QUOTED})",
    "lua": rf"(?<note>--\[(=*)\[(?s:.*?)\]\2\]|--[^\n]*)|(?<text>{_QUOTED}|\[(=*)\[(?s:.*?)\]\4\])",
    "ocaml": r"(?<note>\(\*(?:(?&note)|(?s:.))*?\*\))|(?<text>\"(?:\\(?s:.)|[^\"\\])*\")",
    "r": rf"(?<note>{_HASH})|(?<text>{_QUOTED})",
    "fortran": r"(?<note>![^\n]*)|(?<text>\"[^\"\n]*\"|'[^'\n]*')",
    "julia": rf"(?<note>\#=(?:(?&note)|(?s:.))*?=\#|{_HASH})|(?<text>\"\"\"(?s:.*?)\"\"\"|{_QUOTED})",
}
_COMPILED = {name: regex.compile(pattern, regex.MULTILINE) for name, pattern in _LEXERS.items()}

HEADER_SHARE = 0.1  # a line this common among a corpus's prompts is a template, not a problem
HEADER_MINIMUM = 20  # prompts a corpus needs before any of its lines can be a header
_BUCKETS = 1 << 20


def canonical_prompt(text: str, numbers: bool = False) -> str:
    """Lower-case NFC words. Example blocks, asserts, punctuation and joiners are gone; numbers are 0
    unless kept.
    """
    text = statement(_FORMAT.sub("", unicodedata.normalize("NFC", text)).lower())
    words = unicodedata.normalize("NFC", " ".join(_WORD.findall(text)))
    return words if numbers else without_numbers(words)


def without_numbers(words: str) -> str:
    """Each run of numbers as one 0, so that another literal or a longer list of them changes nothing."""
    return str(_NUMBERS.sub("0", words))


def statement(prompt: str) -> str:
    """A prompt up to its example block and without quoted asserts; whole if no word would be left."""
    stated = _ASSERT.sub("", _EXAMPLE.sub("", prompt))
    return stated if _WORD.search(stated) else prompt


def canonical_code(code: str, language: str, numbers: bool = False) -> str:
    """Lower-case tokens. Comments are gone, strings keep their words alone, numbers are 0 unless kept."""
    lexer = _COMPILED.get(language, _COMPILED["python"])
    text = lexer.sub(_words_of, unicodedata.normalize("NFC", code).lower())
    text = text.replace('"', " ").replace("'", " ")
    if not numbers:
        text = _LITERAL.sub("0", text)
    return " ".join(_TOKEN.findall(text))


def _words_of(match: "regex.Match[str]") -> str:
    if match.group("note") is not None:
        return " "
    return f" {' '.join(_WORD.findall(match.group()))} "


def _buckets(text: str) -> set[int]:
    keys = {_SPAN.sub("``", line).strip() for line in text.split("\n")} - {""}
    return {xxhash.xxh3_64_intdigest(key.encode("utf-8", "surrogatepass")) % _BUCKETS for key in keys}


class Headers:
    """Lines that open or close many prompts of one corpus, such as a chat template; code spans count as
    equal.

    Counts are kept in a table of fixed size, so a corpus of any length can be counted as it streams by.
    """

    def __init__(self, prompts: Iterable[str]) -> None:
        counts = np.zeros(_BUCKETS, dtype=np.int64)
        total = 0
        for prompt in prompts:
            total += 1
            for bucket in _buckets(statement(prompt)):
                counts[bucket] += 1
        needed = max(HEADER_MINIMUM, HEADER_SHARE * total)
        self._common = frozenset(np.flatnonzero(counts >= needed).tolist())

    def remove(self, prompt: str) -> str:
        """The statement of `prompt` without its header lines; with them if no word would be left."""
        stated = statement(prompt)
        if not self._common:
            return stated
        kept = [line for line in stated.split("\n") if not _buckets(line) & self._common]
        return "\n".join(kept) if _WORD.search("\n".join(kept)) else stated


def digest(parts: Sequence[str]) -> str:
    """SHA-256 over canonical texts, each closed by a zero byte."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return whole.hexdigest()
