"""Greedy answers of two models to the same tasks side by side, and where the verdict flips: one HTML page, offline."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from lib.evaluation.comparison import Run
from lib.evaluation.failures.table import choice
from lib.evaluation.scores import failures
from lib.figures.report import document, escape
from lib.mining.ledger import Attempt
from lib.tasks.task import Task

SHOW = {
    "flips": "gained and lost", "gained": "gained: only the right side passes",
    "lost": "lost: only the left side passes", "all": "all tasks",
}  # fmt: skip
TYPES = ("troopers_type", "polycode_type")


def render(runs: Sequence[Run]) -> str:
    """Return the page: any two models of the runs on its sides, filters, and per task both programs and verdicts.

    A verdict is that of the hidden tests. Every value is escaped; without scripts all models' answers are shown.
    """
    sides = [(f"{run.name}, {model}", answers) for run in runs for model, answers in run.greedy.items()]
    models = list(runs[0].greedy)
    last = len(models) - 1  # two runs: their last models; one run: its first model and its last
    first, second = (last, last + len(models)) if len(runs) > 1 else (0, last)
    names = list(enumerate(name for name, _ in sides))
    tasks = runs[0].tasks
    types = [_types(tasks, answers) for _, answers in sides]
    parts = [
        _task(task, [_answer(n, sides[n][0], sides[n][1][place], types[n].get(task.task_id, ("", ""))) for n, _ in names])
        for place, task in enumerate(tasks)
    ]
    values = {"tier": {str(task.tier) for task in tasks}, "language": {task.programming_language for task in tasks}}
    values |= {name: {found[at] for of_side in types for found in of_side.values()} for at, name in enumerate(TYPES)}
    form = (
        f"<form>{_pick('left', names, first)}{_pick('right', names, second)}{_pick('show', SHOW.items(), 'flips')}"
        f"{''.join(choice(name, sorted(found)) for name, found in values.items())}<output></output></form>"
    )
    title = f"{sides[first][0]} beside {sides[second][0]}"
    head = f"<h1>Greedy answers to {len(tasks)} tasks, side by side</h1><p>Verdicts are those of the hidden tests.</p>"
    style, script = (Path(__file__).with_suffix(ending).read_text(encoding="utf-8") for ending in (".css", ".js"))
    return document(title, [head, form, *parts, f"<script>{script}</script>"], style)


def _types(tasks: Sequence[Task], answers: Sequence[Attempt]) -> dict[str, tuple[str, str]]:
    """Return {task id: the failure's type in both papers' taxonomies} of the answers that fail."""
    found = failures(answers, tasks, {answer.adapter: "" for answer in answers})
    return {row["task_id"]: (row["troopers_type"], row["polycode_type"]) for row in found}


def _pick(name: str, options: Iterable[tuple[object, str]], chosen: object) -> str:
    shown = "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(text)}</option>'
        for value, text in options
    )
    return f'<label>{name} <select name="{name}">{shown}</select></label>'


def _answer(side: int, name: str, answer: Attempt, types: tuple[str, str]) -> str:
    verdict = "passes" if answer.hidden_ok else f"{answer.status}, type {types[0]}, {types[1]}"
    marks = "".join(f' data-{kind.replace("_", "-")}="{escape(value)}"' for kind, value in zip(TYPES, types, strict=True))
    why = f"<p>{escape(answer.failure)}</p>" if answer.failure else ""
    return (
        f'<div data-side="{side}" data-right="{int(answer.hidden_ok)}"{marks}><h3>{escape(name)}: {escape(verdict)}</h3>'
        f'<pre tabindex="0">{escape(answer.program)}</pre>{why}</div>'
    )


def _task(task: Task, answers: Sequence[str]) -> str:
    about = f"tier {task.tier}, {task.programming_language}"
    return (
        f'<section data-tier="{task.tier}" data-language="{escape(task.programming_language)}">'
        f"<h2>{escape(task.task_id)} <small>{escape(about)}</small></h2><p>{escape(task.prompt)}</p>"
        f'<div class="sides">{"".join(answers)}</div></section>'
    )
