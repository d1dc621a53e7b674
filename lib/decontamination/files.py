"""The screen's files: exclusions.csv, borderline.csv, duplicates.csv and summary.json.

A reviewer fills the `decision` column of borderline.csv with exclude or keep; the next run into the same
folder reads it, obeys it and carries it over. A decision belongs to the two texts, not to their ids.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.base.files import write_json, write_text
from lib.decontamination.outcome import Decision, Exclusion, Outcome
from lib.decontamination.screen import Thresholds
from lib.tasks.task import TaskError

EXCLUSIONS, BORDERLINE = "exclusions.csv", "borderline.csv"
DUPLICATES, SUMMARY = "duplicates.csv", "summary.json"
COLUMNS = ("decision", "train_id", "eval_id", "reason", "score", "threshold",
           "train_sha256", "eval_sha256", "train_prompt", "eval_prompt")  # fmt: skip


def read_review(out_dir: Path) -> list[dict[str, str]]:
    """Return the decided rows of an earlier borderline.csv; none when there is no such file.

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
    """Return the decisions by the digests of the pair."""
    decisions: dict[str, Decision] = {"exclude": "exclude", "keep": "keep"}
    return {(row["train_sha256"], row["eval_sha256"]): decisions[row["decision"]] for row in review}


def write(
    out_dir: Path,
    outcome: Outcome,
    *,
    review: Sequence[dict[str, str]],
    thresholds: Thresholds,
    prompts: tuple[dict[str, str], dict[str, str]],
    copies: Sequence[tuple[str, str, str]],
    summary: dict[str, Any],
) -> None:
    """Write all files, each whole or not at all; the exclusion list comes last: it is never older than the rest."""
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
            "train_prompt": prompts[0][match.train.id],
            "eval_prompt": prompts[1][match.evaluation.id],
        }
        for match in outcome.borderline
    ]
    exclusions = [{**row._asdict(), "score": f"{row.score:.6f}"} for row in outcome.exclusions()]
    columns = ("side", "id", "copy_id")
    write_text(out_dir / BORDERLINE, _csv(COLUMNS, [*review, *undecided]))
    write_text(out_dir / DUPLICATES, _csv(columns, [dict(zip(columns, row, strict=True)) for row in copies]))
    write_json(out_dir / SUMMARY, summary)
    write_text(out_dir / EXCLUSIONS, _csv(Exclusion._fields, exclusions))


def _csv(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
