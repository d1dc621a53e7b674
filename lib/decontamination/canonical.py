"""Canonical forms: what two prompts or two programs have to share to count as the same.

Differs from the paper in: the paper names the steps (lowercase, white space, comments and headers, numeric
literals); which lines are headers is decided here by how often they occur in a corpus, not by a list.

Both forms are idempotent: they hold nothing that a second pass could take for a comment, a header or a
literal.
"""

import hashlib
import html
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import regex
import xxhash

_WORD = regex.compile(r"[\p{L}\p{M}\p{N}](?:[\p{L}\p{M}\p{N}_]*[\p{L}\p{M}\p{N}])?")
_DROPPED = regex.compile(r"\p{Cf}+")
_ESCAPED_SPACE = regex.compile(r"\\{1,2}[nrt]")  # a line end or tab that was escaped once too often
_EXAMPLE = regex.compile(
    r"^[#\-*\s]*(?:exam+ples?|উদাহরণ[\p{L}\p{M}]*)\s*:\s*$.*",
    regex.MULTILINE | regex.DOTALL | regex.IGNORECASE,
)
_ASSERT = regex.compile(r"^[#\-\s]*assert\s.*$", regex.MULTILINE | regex.IGNORECASE)
_SENTENCE_END = regex.compile(r"[.!?:;।]+(?=\s|$)|\n")
_BLANKS = regex.compile(r"\s+")
_NUMBERS = regex.compile(r"(?<!\S)\p{N}+(?: \p{N}+)*(?!\S)")
_SPAN = regex.compile(r"(`+)[^`\n]+\1")

_QUOTED = r'"(?:\\.|[^"\\\n])*"' + r"|'(?:\\.|[^'\\\n])*'"
_TRIPLE = r"(?:\"\"\"(?s:.*?)\"\"\"|'''(?s:.*?)''')"
_CHARACTER = r"'(?:\\[^'\n]+|\\'|[^'\\\n])'"
_HASH = r"\#[^\n]*"
# One alternation per language: strings (group "text") are tried first, so a comment mark inside one is no comment.
_LEXERS = {
    "python": rf"(?<note>^[ \t]*{_TRIPLE}|{_HASH})|(?<text>{_TRIPLE}|{_QUOTED})",
    "lua": rf"(?<note>--\[(=*)\[(?s:.*?)\]\2\]|--[^\n]*)|(?<text>{_QUOTED}|\[(=*)\[(?s:.*?)\]\4\])",
    "ocaml": (
        r"(?<note>\(\*(?:(?&note)|(?s:.))*?\*\))"
        rf"|(?<text>\"(?:\\(?s:.)|[^\"\\])*\"|{_CHARACTER})|(?<primed>[^\W\d]\w*'[\w']*)"
    ),
    "r": rf"(?<note>{_HASH})|(?<text>{_QUOTED})",
    "fortran": r"(?<note>![^\n]*)|(?<text>\"[^\"\n]*\"|'[^'\n]*')",
    "julia": (
        rf"(?<note>\#=(?:(?&note)|(?s:.))*?=\#|{_HASH})"
        rf"|(?<text>\"\"\"(?s:.*?)\"\"\"|\"(?:\\.|[^\"\\\n])*\"|(?<![\w)\]])(?:{_CHARACTER}))"
    ),
}
_COMPILED = {name: regex.compile(pattern, regex.MULTILINE) for name, pattern in _LEXERS.items()}
_PRIME = "\u02b9"  # a letter, so that a second pass reads a primed OCaml name as one name

# A number: hexadecimal, or digits with a point anywhere, an exponent and a suffix (5L, 2im, 1.0_dp). Its point is not
# the first one of an operator or an attribute (1.eq.2, 1..2, 1.5.real).
_NUMBER = (
    r"(?<number>0[xob][\da-f_]+(?:\.[\da-f]+)?(?:p[+-]?\d+)?(?:u?l{0,2}|n|i)(?!\w)"
    r"|(?:\d+(?:_\d+)*(?:\.\d+(?:_\d+)*|\.(?=[edfq][+-]?\d)|\.(?![.\w]))?|\.\d+(?:_\d+)*)"
    r"(?:[edfq][+-]?\d+)?(?:(?:u?l{1,2}|n|i|j|im|f\d*|_\w+)(?!\w))?)"
)
# A name with its attributes is one token, so that a digit in it is never taken for a number: t.x5, R's x.5.
_DOTTED = r"(?<name>[^\W\d]\w*(?:\s*\.\s*[^\W\d]\w*|\.\w+)*)"
_TOKEN = regex.compile(rf"{_DOTTED}|{_NUMBER}|\w+|[^\w\s]")
_FORTRAN_TOKEN = regex.compile(rf"\.[a-z]+\.(?:_\w+)?|(?<name>[^\W\d]\w*)|{_NUMBER}|\w+|[^\w\s]")

HEADER_SHARE = 0.1  # a line this common among a corpus's prompts is a template, not a problem
HEADER_MINIMUM = 20  # prompts a corpus needs before any of its lines can be a header
ANYWHERE_WORDS = 6  # a text of fewer words counts as part of a longer one only where it stands as its sentences
_BUCKETS = 1 << 20


def canonical_prompt(text: str, numbers: bool = False) -> str:
    """Return the case-folded NFKC words of a prompt's statement, joined by blanks; numbers are 0 unless kept.

    Example blocks, asserts, punctuation, HTML entities and invisible characters are gone.
    """
    words = words_of(folded(statement(text)))
    return words if numbers else without_numbers(words)


def folded(text: str) -> str:
    """Return a text in the one form that its words are compared in: case-folded NFKC with ASCII digits."""
    text = _ESCAPED_SPACE.sub(" ", html.unescape(text) if "&" in text else text)
    text = unicodedata.normalize("NFKC", _DROPPED.sub("", unicodedata.normalize("NFKC", text)).casefold())
    return text if text.isascii() else "".join(map(_ascii_digit, text))


def _ascii_digit(character: str) -> str:
    return str(unicodedata.decimal(character)) if character.isdecimal() else character


def words_of(text: str) -> str:
    """Return the words of a folded text, joined by blanks."""
    return " ".join(_WORD.findall(text))


def short_sentences(text: str) -> frozenset[str]:
    """Return the sentences of a folded text, and runs of them, of two words to fewer than ANYWHERE_WORDS."""
    pieces = [words for piece in _SENTENCE_END.split(text) if (words := _WORD.findall(piece))]
    runs = set()
    for start in range(len(pieces)):
        run: list[str] = []
        for piece in pieces[start:]:
            run = run + piece
            if len(run) >= ANYWHERE_WORDS:
                break
            if len(run) > 1:
                runs.add(" ".join(run))
    return frozenset(runs)


def without_numbers(words: str) -> str:
    """Return the words with each run of numbers as one 0: other literals or a longer list of them change nothing."""
    return str(_NUMBERS.sub("0", words))


def statement(prompt: str) -> str:
    """Return a prompt up to its example block and without quoted asserts; the whole of it if no word would be left."""
    stated = _ASSERT.sub("", _EXAMPLE.sub("", prompt))
    return stated if _WORD.search(stated) else prompt


def canonical_code(code: str, language: str, numbers: bool = False) -> str:
    """Return lower-case tokens joined by blanks. Comments go, strings keep their words, numbers are 0."""
    lexer = _COMPILED.get(language, _COMPILED["python"])
    text = lexer.sub(_words_of, unicodedata.normalize("NFC", code).lower())
    text = text.replace('"', " ").replace("'", " ")
    tokens = (_FORTRAN_TOKEN if language == "fortran" else _TOKEN).finditer(text)
    return " ".join(_plain_token(token, numbers) for token in tokens)


def _plain_token(token: "regex.Match[str]", numbers: bool) -> str:
    if token["number"] is not None and not numbers:
        return "0"
    return str(_BLANKS.sub("", token.group()))  # an attribute may stand on the next line


def _words_of(match: "regex.Match[str]") -> str:
    if match.group("note") is not None:
        return " "
    if match.group("text") is None:
        return match.group().replace("'", _PRIME)
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
