"""The screen's files: exclusions.csv, borderline.csv and summary.json, written whole or not at all.

A reviewer fills the `decision` column of borderline.csv with exclude or keep; the next run into the same
folder reads it, obeys it and carries it over. A decision belongs to the two texts, not to their ids.
"""

import csv
import dataclasses
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.decontamination.outcome import Decision, Exclusion, Outcome
from lib.decontamination.screen import Thresholds
from lib.tasks.task import Task, TaskError

EXCLUSIONS, BORDERLINE, SUMMARY = "exclusions.csv", "borderline.csv", "summary.json"
COLUMNS = (
    "decision",
    "train_id",
    "eval_id",
    "reason",
    "score",
    "threshold",
    "train_sha256",
    "eval_sha256",
    "train_prompt",
    "eval_prompt",
)


def read_review(out_dir: Path) -> list[dict[str, str]]:
    """The decided rows of an earlier borderline.csv; none when there is no such file.

    Raises TaskError naming the row whose decision is neither exclude nor keep, or a file that lost its
    columns.
    """
    path = out_dir / BORDERLINE
    if not path.is_file():
        return []
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.DictReader(stream)
        if not set(COLUMNS) <= set(rows.fieldnames or ()):
            raise TaskError(f"{path}: the columns should be {', '.join(COLUMNS)}")
        decided = []
        for number, row in enumerate(rows, 1):
            decision = (row["decision"] or "").strip().lower()
            if decision not in ("", "exclude", "keep"):
                raise TaskError(
                    f"{path}: row {number}: decision is {row['decision']!r}; write exclude, keep or nothing"
                )
            if decision:
                decided.append({**row, "decision": decision})
    return decided


def decisions_of(review: Sequence[dict[str, str]]) -> dict[tuple[str, str], Decision]:
    """Decisions by the digests of the pair."""
    decisions: dict[str, Decision] = {"exclude": "exclude", "keep": "keep"}
    return {(row["train_sha256"], row["eval_sha256"]): decisions[row["decision"]] for row in review}


def write(
    out_dir: Path,
    outcome: Outcome,
    review: Sequence[dict[str, str]],
    thresholds: Thresholds,
    prompts: tuple[dict[str, Task], dict[str, Task]],
    summary: dict[str, Any],
) -> None:
    """All three files, or none: each is complete beside its target before the first is put in place."""
    undecided = [
        {
            "decision": "",
            "train_id": match.train.id,
            "eval_id": match.evaluation.id,
            "reason": match.reason,
            "score": f"{match.score:.6f}",
            "threshold": f"{thresholds.of(match.reason):.6f}",
            "train_sha256": match.train.sha256,
            "eval_sha256": match.evaluation.sha256,
            "train_prompt": prompts[0][match.train.id].prompt,
            "eval_prompt": prompts[1][match.evaluation.id].prompt,
        }
        for match in outcome.borderline
    ]
    exclusions = [{**row._asdict(), "score": f"{row.score:.6f}"} for row in outcome.exclusions()]
    place(
        out_dir,
        {
            EXCLUSIONS: _csv(Exclusion._fields, exclusions),
            BORDERLINE: _csv(COLUMNS, [*review, *undecided]),
            SUMMARY: json.dumps(summary, indent=2, ensure_ascii=False) + "\n",
        },
    )


def place(out_dir: Path, texts: dict[str, str]) -> None:
    """Write files into a folder so that a failure on the way leaves what was there before."""
    out_dir.mkdir(parents=True, exist_ok=True)
    partials = {out_dir / name: out_dir / f".{name}.partial" for name in texts}
    try:
        for (_, partial), text in zip(partials.items(), texts.values(), strict=True):
            with partial.open("w", encoding="utf-8", newline="") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
        for target, partial in partials.items():
            partial.replace(target)
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)


def _csv(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_exclusions(out_dir: str | Path) -> list[Exclusion]:
    """The exclusion list of an earlier run. Raises TaskError when there is none."""
    path = Path(out_dir) / EXCLUSIONS
    if not path.is_file():
        raise TaskError(f"{path}: no exclusion list; run the screen first")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [Exclusion(**{**row, "score": float(row["score"])}) for row in rows]  # type: ignore[arg-type]


def read_summary(out_dir: str | Path) -> dict[str, Any]:
    """summary.json of an earlier run; empty when there is none or it is not whole."""
    try:
        loaded = json.loads((Path(out_dir) / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def settings(thresholds: Thresholds, seed: int, sample: int) -> dict[str, Any]:
    """What of a run's settings decides its files."""
    return {**dataclasses.asdict(thresholds), "seed": seed, "sample": sample}
