"""The two-sided screen: which training and evaluation items are the same problem, and how sure that is.

Differs from the paper in (Algorithm 2): pairs come from an exact join in place of MinHash bands and are scored by exact
Jaccard similarity; exact matches keep their numbers, so that "31 days" and "30 days" only count as near; a statement
that stands word for word in a longer text is a match (`containment`); a near match that rests on a shared wrapper alone
is none.

Both sides are named: which one gives way is the caller's choice, and either makes the two sides disjoint.
"""

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

from lib.decontamination.canonical import (
    Headers,
    canonical_code,
    canonical_prompt,
    digest,
    folded,
    short_sentences,
    without_numbers,
    words_of,
)
from lib.decontamination.containment import Containment, only_wrapper_shared
from lib.decontamination.join import Index
from lib.decontamination.shingles import BATCH, Grams, character_ngrams, concatenate
from lib.decontamination.structure import structure_sets
from lib.tasks.task import Task

Reason = Literal["exact-prompt", "exact-code", "contained-prompt", "near-prompt", "near-code", "structure"]
REASONS: tuple[Reason, ...] = get_args(Reason)
CERTAIN = ("exact-prompt", "exact-code", "contained-prompt")  # no score, and no decision of a reviewer's
PROMPT_NGRAM, CODE_NGRAM = 4, 5  # characters of a shingle
SMALLEST_STRUCTURE = 24  # with fewer subtree shingles, a program is too small for its structure to be evidence
ITEMS_AT_ONCE = 512  # small enough for the processor's cache


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Jaccard similarities from which two items count as the same.

    Raises ValueError for a value that cannot be one. Defaults were chosen on unrelated real programs and the
    BLP splits.
    """

    prompt: float = 0.70
    code: float = 0.90
    structure: float = 0.90
    margin: float = 0.05  # pairs this close to a threshold, on either side, are borderline

    def __post_init__(self) -> None:
        for name in ("prompt", "code", "structure"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"threshold {name}={getattr(self, name)}: it should be above 0 and at most 1")
        if not 0 <= self.margin < 1:
            raise ValueError(f"margin={self.margin}: it should be at least 0 and below 1")

    def of(self, reason: Reason) -> float:
        """The score from which a pair is excluded for `reason`."""
        near = {"near-prompt": self.prompt, "near-code": self.code, "structure": self.structure}
        return near.get(reason, 1.0)

    def floor(self, reason: Reason) -> float:
        """The score from which a pair is looked at at all."""
        return max(0.01, round(self.of(reason) - self.margin, 9))


class Item(NamedTuple):
    """One task as the screen sees it."""

    id: str
    prompt: str  # canonical statement, numbers as 0
    exact_prompt: str  # canonical statement, numbers kept
    whole_prompt: str  # all its words, header lines, examples and asserts included
    sentences: frozenset[str]  # its short ones
    programs: tuple[tuple[str, str], ...]  # (language, source)
    codes: tuple[str, ...]  # canonical, one per program, numbers as 0
    exact_codes: tuple[str, ...]
    sha256: str


class Match(NamedTuple):
    """A training and an evaluation item, the strongest reason they match, and its score."""

    train: Item
    evaluation: Item
    reason: Reason
    score: float


def programs_of(task: Task) -> tuple[tuple[str, str], ...]:
    """Every reference program of a task with its language, each once."""
    own = [(task.programming_language, task.reference)] if task.reference.strip() else []
    return tuple(dict.fromkeys([*own, *task.references]))


def item_of(task: Task, headers: Headers) -> Item:
    """Return the canonical forms and the digest of one task."""
    stated, whole, programs = headers.remove(task.prompt), folded(task.prompt), programs_of(task)
    exact_prompt = canonical_prompt(stated, numbers=True)
    exact_codes = tuple(_exact_code(language, code) for language, code in programs)
    return Item(
        id=task.task_id,
        prompt=without_numbers(exact_prompt),
        exact_prompt=exact_prompt,
        whole_prompt=words_of(whole),
        sentences=short_sentences(whole),
        programs=programs,
        codes=tuple(canonical_code(code, language) for language, code in programs),
        exact_codes=exact_codes,
        sha256=digest([exact_prompt, *sorted(exact_codes)]),
    )


def _exact_code(language: str, code: str) -> str:
    canonical = canonical_code(code, language, numbers=True)
    return f"{language}: {canonical}" if canonical else ""


def items_of(tasks: Sequence[Task]) -> list[Item]:
    """Items of one side, its header lines told from the side itself."""
    headers = Headers(task.prompt for task in tasks)
    return [item_of(task, headers) for task in tasks]


class Screen:
    """The evaluation side, ready to be compared with training items as they stream by."""

    def __init__(self, evaluation: Sequence[Item], thresholds: Thresholds) -> None:
        self.evaluation, self.thresholds = evaluation, thresholds
        self._containment = Containment(evaluation)
        self._exact_prompts: dict[str, list[int]] = defaultdict(list)
        self._exact_codes: dict[str, list[int]] = defaultdict(list)
        for number, item in enumerate(evaluation):
            if item.exact_prompt:
                self._exact_prompts[item.exact_prompt].append(number)
            for code in filter(None, item.exact_codes):
                self._exact_codes[code].append(number)
        self._units = _Units(evaluation)
        self._indexes = {reason: self._index(reason, units) for reason, units in self._units.by_reason().items()}

    def matches(self, train: Iterable[Item]) -> Iterator[Match]:
        """Every pair that reaches a threshold less the margin, once, for its strongest reason."""
        stream = iter(train)
        while batch := list(itertools.islice(stream, ITEMS_AT_ONCE)):
            best: dict[tuple[int, int], tuple[Reason, float]] = {}
            for pair, reason, score in self._pairs(batch):
                if pair not in best or self._strength(reason, score) > self._strength(*best[pair]):
                    best[pair] = (reason, score)
            for (i, j), (reason, score) in best.items():
                yield Match(batch[i], self.evaluation[j], reason, score)

    def _strength(self, reason: Reason, score: float) -> tuple[float, int]:
        """Exact matches first, then by how far a score is above its threshold; ties by the order of
        reasons.
        """
        lead = 2.0 if reason.startswith("exact") else score - self.thresholds.of(reason)
        return lead, -REASONS.index(reason)

    def _pairs(self, batch: Sequence[Item]) -> Iterator[tuple[tuple[int, int], Reason, float]]:
        for i, item in enumerate(batch):
            yield from (((i, j), "contained-prompt", 1.0) for j in self._containment.matches(item))
            yield from (((i, j), "exact-prompt", 1.0) for j in self._exact_prompts.get(item.exact_prompt, ()))
            for code in item.exact_codes:
                yield from (((i, j), "exact-code", 1.0) for j in self._exact_codes.get(code, ()))
        units = _Units(batch)
        for reason, texts in units.by_reason().items():
            for start in range(0, len(texts), BATCH):
                grams = self._grams(reason, texts[start : start + BATCH])
                for u, v, score in zip(*self._indexes[reason].match(grams), strict=True):
                    pair = units.pair(reason, int(u) + start, self._units, int(v))
                    if pair and not (reason == "near-prompt" and self._only_wrapper(batch, *pair)):
                        yield pair, reason, float(score)

    def _only_wrapper(self, batch: Sequence[Item], mine: int, theirs: int) -> bool:
        return only_wrapper_shared(batch[mine].prompt, self.evaluation[theirs].prompt)

    def _index(self, reason: Reason, texts: Sequence[Any]) -> Index:
        parts = [self._grams(reason, texts[start : start + BATCH]).distinct() for start in range(0, len(texts), BATCH)]
        return Index(concatenate(parts), self.thresholds.floor(reason))

    def _grams(self, reason: Reason, texts: Sequence[Any]) -> Grams:
        if reason == "structure":
            return structure_sets(texts).at_least(SMALLEST_STRUCTURE).grams()
        return character_ngrams(texts, PROMPT_NGRAM if reason == "near-prompt" else CODE_NGRAM)


class _Units:
    """The texts of some items: a prompt an item, any number of programs an item."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        places = [(number, place) for number, item in enumerate(items) for place in range(len(item.programs))]
        self._owners = [number for number, _ in places]
        self._programs = [items[number].programs[place] for number, place in places]
        self._codes = [items[number].codes[place] for number, place in places]

    def by_reason(self) -> dict[Reason, Sequence[Any]]:
        """What each kind of comparison looks at, one entry an item."""
        return {
            "near-prompt": [item.prompt for item in self._items],
            "near-code": self._codes,
            "structure": self._programs,
        }

    def pair(self, reason: Reason, mine: int, other: "_Units", theirs: int) -> tuple[int, int] | None:
        """The items two texts belong to; None for programs in different languages."""
        if reason == "near-prompt":
            return mine, theirs
        if self._programs[mine][0] != other._programs[theirs][0]:
            return None
        return self._owners[mine], other._owners[theirs]
