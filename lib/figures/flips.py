"""Greedy answers of two models to the same tasks side by side, and where the verdict flips: one HTML page, offline."""

from collections.abc import Iterable, Sequence

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
    return document(title, [head, form, *parts, f"<script>{SCRIPT}</script>"], STYLE)


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


STYLE = """
form { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; position: sticky; top: 0; padding: .6rem 0;
  background: var(--paper); border-bottom: 1px solid var(--line); font: .875rem "Inter", Arial, "Noto Sans", sans-serif }
select { max-width: 100%; font: inherit } output { font-weight: 600 }
section > p { white-space: pre-line; margin: .25rem 0 } small { font-weight: 400; color: var(--faint) }
.sides { display: grid; gap: 0 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)) }
.sides > div { min-width: 0 } .sides p { font-size: .875rem; overflow-wrap: anywhere; margin: .25rem 0 }
[data-right="0"] h3 { color: light-dark(#a3231c, #f0918b) } [data-right="1"] h3 { color: light-dark(#1d6b32, #7fd197) }
[hidden] { display: none }
@media (max-width: 40rem) { form { position: static } }
"""
SCRIPT = """
const form = document.querySelector("form"), tasks = document.querySelectorAll("section");
const value = name => form.elements[name].value;
function update() {
  const count = { gained: 0, lost: 0, same: 0 };
  tasks.forEach(task => {
    const [left, right] = ["left", "right"].map(name => task.querySelector(`[data-side="${value(name)}"]`));
    task.querySelectorAll("[data-side]").forEach(one => {
      one.hidden = one !== left && one !== right;
      one.style.order = one === right ? 1 : 0;
    });
    const kind = ["lost", "same", "gained"][1 + (right.dataset.right - left.dataset.right)];
    const fits = ["tier", "language"].every(name => !value(name) || task.dataset[name] === value(name))
      && ["troopers_type", "polycode_type"].every(name => !value(name)
        || [left, right].some(one => one.getAttribute("data-" + name.replace("_", "-")) === value(name)));
    count[kind] += fits;
    task.hidden = !fits || !(["all", kind].includes(value("show")) || value("show") === "flips" && kind !== "same");
  });
  form.querySelector("output").textContent = `${count.gained} gained, ${count.lost} lost, ${count.same} the same`;
}
form.addEventListener("input", update);
form.addEventListener("submit", event => event.preventDefault());
update();
"""
