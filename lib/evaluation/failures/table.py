"""Failures to leaf through: HTML that filters offline, without libraries, and stays readable without scripts."""

import hashlib
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FILTERS = ("model", "troopers_type", "polycode_type", "rule", "status")
TEXTS = (
    ("prompt", "task"), ("program", "program"), ("test", "failing test"), ("got", "got"), ("expected", "expected"),
)  # fmt: skip


def render(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of `lib.evaluation.failures.statistics.browsable`, one fold each,
    with a choice for each of FILTERS and a search.

    Every value is escaped. Two tables on one page keep to themselves.
    """
    name = "failures-" + hashlib.sha256(repr([dict(row) for row in rows]).encode()).hexdigest()[:8]
    choices = "".join(choice(column, sorted({str(row[column]) for row in rows})) for column in FILTERS)
    search = '<input type="search" placeholder="search" aria-label="search">'
    folds = "".join(map(_fold, rows))
    count = f"<output>{len(rows)} of {len(rows)}</output>"
    style, script = (
        Path(__file__).with_suffix(ending).read_text(encoding="utf-8").replace("ID", name) for ending in (".css", ".js")
    )
    form = f"<form>{choices}{search}{count}</form>"
    return f'<style>{style}</style><div id="{name}">{form}{folds}</div><script>{script}</script>'


def choice(column: str, values: Sequence[str]) -> str:
    """Return a select with one of `values`, or with none of them chosen."""
    options = "".join(f'<option value="{escape(value)}">{escape(value)}</option>' for value in values)
    label = column.replace("_", " ")
    return f'<select name="{column}" aria-label="{label}"><option value="">{label}: all</option>{options}</select>'


def _fold(row: Mapping[str, Any]) -> str:
    data = "".join(f' data-{column.replace("_", "-")}="{escape(row[column])}"' for column in FILTERS)
    head = f"{row['task_id']} · {row['model']} · Type {row['troopers_type']}, {row['polycode_type']} · {row['rule']}"
    parts = (_part(column, label, str(row[column])) for column, label in TEXTS)
    return f"<details{data}><summary>{escape(head)}</summary><dl>{''.join(parts)}</dl></details>"


def _part(column: str, label: str, text: str) -> str:
    shown = f"<p>{escape(text)}</p>" if column == "prompt" else f"<pre>{escape(text)}</pre>"
    return f"<dt>{label}</dt><dd>{shown}</dd>" if text else ""


def escape(value: Any) -> str:
    """Return a value as text that cannot become markup."""
    return html.escape(str(value), quote=True)
