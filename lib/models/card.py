"""What an adapter folder says about itself: training.json for programs, README.md (a model card) for people.

The tasks it was trained on are named, and their digest with them, so that anyone can check that none of them is in a
test.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.base.files import write_text
from lib.models.resolve import EMBEDDED

FACTS = "training.json"
PUBLIC_NAMES = {EMBEDDED: "HuggingFaceTB/SmolLM2-135M-Instruct"}  # the embedded file is a 4-bit rounding of it


def task_digest(task_ids: Iterable[str]) -> str:
    """SHA-256 over the sorted distinct ids, a line each."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(set(task_ids))).encode()).hexdigest()


def write_card(
    folder: Path,
    model: str,
    task_ids: Sequence[str],
    settings: Mapping[str, Any],
    summary: Mapping[str, Any],
    *,
    about: str = "",
) -> None:
    """Write training.json and README.md into an adapter folder.

    `task_ids`: one per row, repeats and all. `about`: how it was trained, where that was not by fine-tuning on
    programs.
    """
    facts = {
        "model": model,
        "about": about,
        "task_ids": sorted(set(task_ids)),
        "task_ids_sha256": task_digest(task_ids),
        "rows": len(task_ids),
        "settings": dict(settings),
        "summary": dict(summary),
        "scores": [],
    }
    _write(folder, facts)


def add_scores(folder: Path, scores: Mapping[str, Any]) -> None:
    """Put measured rates into the card, {what was measured: a lib.stats.intervals.Rate}; those of the same name are
    replaced.
    """
    facts = read_facts(folder)
    kept = [row for row in facts["scores"] if row["what"] not in scores]
    facts["scores"] = kept + [
        {"what": what, "rate": rate.rate, "lo": rate.lo, "hi": rate.hi, "in_words": str(rate)}
        for what, rate in scores.items()
    ]
    _write(folder, facts)


def read_facts(folder: Path) -> dict[str, Any]:
    """training.json, or {} where there is none."""
    path = folder / FACTS
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _write(folder: Path, facts: Mapping[str, Any]) -> None:
    texts = {FACTS: json.dumps(facts, ensure_ascii=False, indent=1), "README.md": card(facts)}
    for name, text in texts.items():
        write_text(folder / name, text + "\n")


def card(facts: Mapping[str, Any]) -> str:
    """The model card, Markdown with the front matter that model hubs read."""
    base = PUBLIC_NAMES.get(facts["model"], facts["model"])
    of_base = f"`{base}`" + (f" (here: `{facts['model']}`)" if base != facts["model"] else "")
    scores = [f"| {row['what']} | {row['in_words']} |" for row in facts["scores"]]
    settings = [f"| {name} | {_cell(value)} |" for name, value in facts["settings"].items()]
    by_rows = (
        f"trained on {facts['rows']} programs for {len(facts['task_ids'])} tasks; "
        "the loss covered the completion and its end token only"
    )
    shown = ("precision", "steps", "kept_step", "examples", "tokens", "first_loss", "last_loss")
    trained = [f"| {name} | {_cell(facts['summary'][name])} |" for name in shown if name in facts["summary"]]
    return "\n".join(
        [
            "---",
            f"base_model: {base}",
            "library_name: peft",
            "tags: [lora, code]",
            "---",
            "# LoRA adapter, fine-tuned on programs that ran",
            "",
            f"An adapter for {of_base}, {facts.get('about') or by_rows}. "
            "A prompt is the chat template around the task, followed by the opening of the answer: a code "
            "fence and, for Python functions, `def name(arguments):`.",
            "",
            "## Scores",
            *(["| measured | rate |", "|---|---|", *scores] if scores else ["None measured yet."]),
            "",
            "## Parameters",
            "| parameter | value |",
            "|---|---|",
            *settings,
            "",
            "## Training",
            "| | |",
            "|---|---|",
            *trained,
            "",
            "## Tasks trained on",
            f"SHA-256 of the sorted ids, a line each: `{facts['task_ids_sha256']}`",
            "",
            ", ".join(f"`{name}`" for name in facts["task_ids"]),
        ]
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
