"""What follows from the matches: an exclusion list for both sides, a borderline sample, and a summary.

Everything here is independent of the order of the rows and of the hashes used.
"""

import dataclasses
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from lib.decontamination.screen import CERTAIN, REASONS, Match, Thresholds

Side = Literal["train", "eval"]
Decision = Literal["exclude", "keep"]
Decisions = Mapping[tuple[str, str], Decision]  # by the digests of the training and the evaluation item


class Exclusion(NamedTuple):
    """One item to leave out, the item it matches best, why, and the digest of its canonical text."""

    side: Side
    id: str
    matched_id: str
    reason: str
    score: float
    sha256: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """`excluded` holds the pairs behind the exclusion list; `borderline` the undecided pairs near a
    threshold.
    """

    excluded: tuple[Match, ...]
    reviewed: frozenset[tuple[str, str]]  # digests of the pairs excluded by review alone
    kept: int  # pairs at or above a threshold that review keeps
    borderline: tuple[Match, ...]

    def exclusions(self) -> list[Exclusion]:
        """One row an excluded item: its best match, train before eval, by id."""
        best: dict[tuple[Side, str], Exclusion] = {}
        for match in self.excluded:
            reason = "reviewed" if digests(match) in self.reviewed else match.reason
            for row in (
                Exclusion("train", match.train.id, match.evaluation.id, reason, match.score, match.train.sha256),
                Exclusion("eval", match.evaluation.id, match.train.id, reason, match.score, match.evaluation.sha256),
            ):
                place = (row.side, row.id)
                if place not in best or _preferred(row) < _preferred(best[place]):
                    best[place] = row
        return sorted(best.values(), key=lambda row: (row.side != "train", natural(row.id)))

    def summary(self) -> list[dict[str, int | str]]:
        """Pairs and items a reason, and in all."""
        pairs: Counter[str] = Counter()
        items: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
        for match in self.excluded:
            for name in ("reviewed" if digests(match) in self.reviewed else match.reason, "all"):
                pairs[name] += 1
                items[name][0].add(match.train.id)
                items[name][1].add(match.evaluation.id)
        return [
            {"reason": name, "pairs": pairs[name], "train": len(items[name][0]), "eval": len(items[name][1])}
            for name in (*REASONS, "reviewed", "all")
        ]


def decide(matches: Iterable[Match], thresholds: Thresholds, decisions: Decisions, seed: int, sample: int) -> Outcome:
    """Sort matches into excluded, kept and borderline.

    An exact or contained match is always excluded; on any other a decision overrules the score. The borderline
    sample is drawn by hashing the seed with both digests, so neither row order nor other pairs change who is in it.
    """
    excluded: list[Match] = []
    borderline: list[Match] = []
    reviewed: set[tuple[str, str]] = set()
    kept = 0
    for match in matches:
        exact = match.reason in CERTAIN
        decision = None if exact else decisions.get(digests(match))
        above = exact or match.score >= thresholds.of(match.reason)
        if decision == "exclude" or (above and decision is None):
            excluded.append(match)
            if not above:
                reviewed.add(digests(match))
        elif above:
            kept += 1
        if (
            decision is None
            and not exact
            and abs(match.score - thresholds.of(match.reason)) <= thresholds.margin + 1e-12
        ):
            borderline.append(match)
    drawn = sorted(borderline, key=lambda match: _draw(match, seed))[:sample]
    return Outcome(
        excluded=tuple(sorted(excluded, key=_by_ids)),
        reviewed=frozenset(reviewed),
        kept=kept,
        borderline=tuple(sorted(drawn, key=lambda match: (-match.score, _by_ids(match)))),
    )


def digests(match: Match) -> tuple[str, str]:
    """What names a pair across runs, whatever its ids."""
    return match.train.sha256, match.evaluation.sha256


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A key that puts 9 before 10."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part)


def _preferred(row: Exclusion) -> tuple[bool, float, str, str]:
    return (not row.reason.startswith("exact"), -row.score, row.reason, row.matched_id)


def _by_ids(match: Match) -> tuple[object, object]:
    return natural(match.train.id), natural(match.evaluation.id)


def _draw(match: Match, seed: int) -> bytes:
    return hashlib.sha256("\t".join([str(seed), *digests(match)]).encode()).digest()
