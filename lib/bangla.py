"""Bangla text: Unicode normalisation that leaves code alone, script mix, and what Bangla costs in tokens.

Differs from the paper in: the joint tokenizers are trained for the study only and never replace the model's
own.

NFC follows the standard (Unicode Standard Annex 15) and so takes U+09DC, U+09DD and U+09DF apart: they are
excluded from composition. Digits, danda, ZWJ and ZWNJ have no decomposition and stay. Code, fenced or between
backticks, is kept byte for byte.
"""

import dataclasses
import io
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import regex

from lib.tasks import Task

Changes = dict[str, int]
Encode = Callable[[str], Sequence[Any]]

# U+1FEF is canonically a backtick: it must open and close spans as one, or normalising it would move their
# borders.
_TICK = r"[`\u1fef]"
_CODE = regex.compile(
    rf"{_TICK}{{3,}}(?s:.*?)(?:{_TICK}{{3,}}|\Z)"  # a fence; one that is never closed runs to the end
    rf"|(?<!{_TICK}){_TICK}{{2}}(?!{_TICK})[^\n]+?(?<!{_TICK}){_TICK}{{2}}(?!{_TICK})"
    rf"|(?<!{_TICK}){_TICK}(?!{_TICK})(?:(?!{_TICK})[^\n])+{_TICK}(?!{_TICK})"
)
_GRAPHEME = regex.compile(r"\X")
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}_\u200c\u200d]+")
_SCRIPTS = {
    "bengali": regex.compile(r"\p{Script=Bengali}"),
    "latin": regex.compile(r"\p{Script=Latin}"),
    "danda": regex.compile(r"[\u0964\u0965]"),
    "digit": regex.compile(r"[0-9]"),
    "joiner": regex.compile(r"[\u200c\u200d]"),
}


def normalise(text: str) -> tuple[str, Changes]:
    """NFC outside code spans, and what it changed: {"U+09DF → U+09AF U+09BC": times}. Idempotent."""
    changes: Counter[str] = Counter()
    parts: list[str] = []
    end = 0
    for span in _CODE.finditer(text):
        parts += [_nfc(text[end : span.start()], changes), span.group()]
        end = span.end()
    parts.append(_nfc(text[end:], changes))
    return "".join(parts), dict(changes)


def _nfc(text: str, changes: Counter[str]) -> str:
    if unicodedata.is_normalized("NFC", text):
        return text
    for grapheme in _GRAPHEME.findall(text):
        normal = unicodedata.normalize("NFC", grapheme)
        if normal != grapheme:
            changes[f"{_code_points(grapheme, normal)} → {_code_points(normal, grapheme)}"] += 1
    return unicodedata.normalize("NFC", text)


def _code_points(shown: str, other: str) -> str:
    """`shown` as U+ names, without what it starts and ends with in common with `other`."""
    left = next(
        (i for i, (a, b) in enumerate(zip(shown, other, strict=False)) if a != b), min(len(shown), len(other))
    )
    most = min(len(shown), len(other)) - left
    right = next((i for i in range(most) if shown[-1 - i] != other[-1 - i]), most)
    return " ".join(f"U+{ord(character):04X}" for character in shown[left : len(shown) - right]) or "nothing"


def normalise_tasks(tasks: Iterable[Task]) -> tuple[list[Task], list[tuple[str, Changes]]]:
    """Tasks with normalised prompts, and (task id, changes) for every row that changed."""
    normal: list[Task] = []
    report: list[tuple[str, Changes]] = []
    for task in tasks:
        prompt, changes = normalise(task.prompt)
        normal.append(dataclasses.replace(task, prompt=prompt) if changes else task)
        if changes:
            report.append((task.task_id, changes))
    return normal, report


def script_mix(text: str) -> dict[str, float]:
    """Share of the non-space characters in each script or class; what is in none is "other". Sums to 1, or
    all 0.
    """
    characters = [character for character in text if not character.isspace()]
    counts: Counter[str] = Counter(_script(character) for character in characters)
    total = len(characters) or 1
    return {name: counts[name] / total for name in (*_SCRIPTS, "other")}


def _script(character: str) -> str:
    if character in "\u0964\u0965":  # Unicode shares the danda among Indic scripts
        return "danda"
    return next((name for name, pattern in _SCRIPTS.items() if pattern.match(character)), "other")


@dataclasses.dataclass(frozen=True)
class Fertility:
    """What a tokenizer spends on some texts. Ratios are of totals, so long texts weigh more."""

    name: str
    texts: int
    tokens: int
    per_word: float
    per_character: float
    per_grapheme: float
    per_text: float
    round_trips: int  # texts that decode to themselves; -1 when no decoder was given


def fertility(
    name: str, texts: Sequence[str], encode: Encode, decode: Callable[[Sequence[Any]], str] | None = None
) -> Fertility:
    """Tokens a word, a character and a grapheme over `texts`.

    Words are runs of letters, marks, digits and joiners; graphemes are extended grapheme clusters (UAX 29).
    `encode` should add no special tokens. Raises ValueError without a text that holds a word.
    """
    words = sum(len(_WORD.findall(text)) for text in texts)
    if not words:
        raise ValueError(f"{name}: no words in {len(texts)} texts; fertility needs at least one")
    encoded = [encode(text) for text in texts]
    tokens = sum(map(len, encoded))
    return Fertility(
        name=name,
        texts=len(texts),
        tokens=tokens,
        per_word=tokens / words,
        per_character=tokens / sum(map(len, texts)),
        per_grapheme=tokens / sum(len(_GRAPHEME.findall(text)) for text in texts),
        per_text=tokens / len(texts),
        round_trips=-1
        if decode is None
        else sum(decode(ids) == text for ids, text in zip(encoded, texts, strict=True)),
    )


def train_sentencepiece(
    texts: Sequence[str], vocab_size: int, model_type: Literal["bpe", "unigram"] = "unigram", threads: int = 1
) -> Any:
    """A SentencePiece processor trained on `texts` alone, lossless: bytes for unseen characters, white space
    kept.

    Normalise the texts first; the model itself changes nothing, save that it reads U+2581 back as a space.
    Raises ValueError when the texts cannot fill `vocab_size` pieces or are empty (the paper's section 4: a
    joint tokenizer over Bangla and Python).
    """
    import sentencepiece

    if not any(text.strip() for text in texts):
        raise ValueError("train_sentencepiece: no text to train on")
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([line for text in texts for line in text.splitlines() if line.strip()]),
            model_writer=written,
            vocab_size=vocab_size,
            model_type=model_type,
            num_threads=threads,
            byte_fallback=True,
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            user_defined_symbols=["\n", "\t"],
            max_sentence_length=1 << 16,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = regex.sub(r"^.*\] ", "", str(error).strip().splitlines()[-1])
        raise ValueError(f"train_sentencepiece: {reason}") from None
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
