"""Bangla text: Unicode normalisation that leaves code alone, and script mix.

NFC follows the standard (Unicode Standard Annex 15) and so takes U+09DC, U+09DD and U+09DF apart: they are
excluded from composition. Digits, danda, ZWJ and ZWNJ have no decomposition and stay. Code, fenced or between
backticks, is kept byte for byte.
"""

import dataclasses
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any

import regex

from lib.tasks.task import Case, Task, task_to_row

Changes = dict[str, int]

# U+1FEF is canonically a backtick: it must open and close spans as one, or normalising it would move their
# borders.
_TICK = r"[`\u1fef]"
_CODE = regex.compile(
    rf"{_TICK}{{3,}}(?s:.*?)(?:{_TICK}{{3,}}|\Z)"  # a fence; one that is never closed runs to the end
    rf"|(?<!{_TICK}){_TICK}{{2}}(?!{_TICK})[^\n]+?(?<!{_TICK}){_TICK}{{2}}(?!{_TICK})"
    rf"|(?<!{_TICK}){_TICK}(?!{_TICK})(?:(?!{_TICK})[^\n])+{_TICK}(?!{_TICK})"
)
_BENGALI = regex.compile(r"[\u0980-\u09ff]")
_GRAPHEME = regex.compile(r"\X")
_SCRIPTS = {
    "bengali": regex.compile(r"\p{Script=Bengali}"),
    "latin": regex.compile(r"\p{Script=Latin}"),
    "danda": regex.compile(r"[\u0964\u0965]"),
    "digit": regex.compile(r"[0-9]"),
    "joiner": regex.compile(r"[\u200c\u200d]"),
}


def is_bangla(text: str) -> bool:
    """Return whether a text holds a Bengali letter, mark or digit."""
    return bool(_BENGALI.search(text))


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
    left = next((i for i, (a, b) in enumerate(zip(shown, other, strict=False)) if a != b), min(len(shown), len(other)))
    most = min(len(shown), len(other)) - left
    right = next((i for i in range(most) if shown[-1 - i] != other[-1 - i]), most)
    return " ".join(f"U+{ord(character):04X}" for character in shown[left : len(shown) - right]) or "nothing"


def normalise_tasks(tasks: Iterable[Task]) -> tuple[list[Task], list[tuple[str, Changes]]]:
    """Return tasks whose prompts and tests write Bangla alike, and (task id, changes) for every row that changed.

    A program writes what its prompt shows, so a literal has to stand in tests and cases as it does in the prompt. Where
    all but the prompt is NFC already, the prompt's prose becomes so. Where it is not and the prompt writes the same
    letters in NFC, the whole task becomes NFC, code included. Where the prompt does not, the task stays as it is: what
    a test says of a text's length would no longer be true.
    """
    pairs = [(task.task_id, *_alike(task)) for task in tasks]
    return [task for _, task, _ in pairs], [(name, changes) for name, _, changes in pairs if changes]


def _alike(task: Task) -> tuple[Task, Changes]:
    judged = json.dumps(task_to_row(dataclasses.replace(task, prompt="")), ensure_ascii=False)
    plain = {letter: unicodedata.normalize("NFC", letter) for letter in set(_GRAPHEME.findall(judged))}
    if all(letter == other for letter, other in plain.items()):
        prompt, changes = normalise(task.prompt)
        return dataclasses.replace(task, prompt=prompt), changes
    if not any(other in task.prompt for letter, other in plain.items() if letter != other):
        return task, {}
    counts: Counter[str] = Counter()
    texts = {field.name: _in_nfc(getattr(task, field.name), counts) for field in dataclasses.fields(task)}
    return dataclasses.replace(task, **texts), dict(counts)


def _in_nfc(value: Any, changes: Counter[str]) -> Any:
    if isinstance(value, str):
        return _nfc(value, changes)
    if isinstance(value, Case):
        return Case(_nfc(value.input, changes), _nfc(value.output, changes))
    return tuple(_in_nfc(item, changes) for item in value) if isinstance(value, tuple) else value


def count_changes(report: Iterable[tuple[str, Changes]]) -> Changes:
    """All rows' changes together, the most frequent first."""
    total: Counter[str] = Counter()
    for _, changes in report:
        total.update(changes)
    return dict(total.most_common())


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
