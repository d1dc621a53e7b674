"""Troopers' Tables 1 to 3 and Figures 1 to 3 with a run's numbers, and its published submission run again.

Differs from the paper in:
- every rate has an interval, ours for published rates too, computed from the printed counts;
- best-of-K is scored by all tests as well as by the visible ones that chose, averaged over all orders of the samples;
- Table 3 has a row per setting that the paper leaves to its released code, and says which of the two a value is from;
- Figure 3 has the paper's four types by the rules of data/failure_criteria.md, with what has no type apart.
"""

import csv
import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import pandas
from matplotlib.patches import FancyBboxPatch

from lib.figures.failures import TYPE_NAMES
from lib.figures.style import COLOURS, GREY, MARKS, Picture, bangla_font, legend_above, subplots
from lib.papers.parts import failure_picture, failure_rates, interval_marks, table_picture
from lib.papers.published import SUITES, Findings, Published, rows
from lib.stats.intervals import wilson_interval
from lib.stats.pass_at_k import best_of_k_per_task, pass_at_k_per_task
from lib.tasks import readers as corpora
from lib.tasks.task import Task

SUBMISSION = (
    "Troopers' published submission, run again: 500 programs, each the best of 100 by one visible assert. Trained on: "
    "tasks whose prompt stands word for word in the submission's training file. Grey: as printed. Bars: 95 % Wilson."
)

# --------------------------------------------------------------------------------------------------- tables 1 and 3


def splits(files: Sequence[Path]) -> Picture:
    """Draw Table 1: one row per file, counted from the file itself."""
    data = pandas.DataFrame([_split_row(path) for path in files])
    shown = data.assign(fields=data["fields"].where(data["fields"] != data["fields"].shift(), "as above"))
    return table_picture(shown, (22, 6, 6, 8, 11, 13, 50)), data


def _split_row(path: Path) -> dict[str, Any]:
    tasks = corpora.read(path)
    tests = [len(task.visible_tests) + len(task.hidden_tests) for task in tasks]
    few, many = min(tests), max(tests)
    return {
        "file": path.name,
        "split": tasks[0].split,
        "tasks": len(tasks),
        "tests per task": f"{few}" if few == many else f"{few} to {many}",
        "with a reference": sum(bool(task.reference) for task in tasks),
        "characters per prompt": f"{numpy.median([len(task.prompt) for task in tasks]):g}",
        "fields": ", ".join(_fields(path)),
    }


def _fields(path: Path) -> list[str]:
    """Return the columns of a CSV file; of JSON Lines, the names in the first row that hold something."""
    with path.open(encoding="utf-8", newline="") as lines:
        if path.suffix == ".csv":
            return list(csv.DictReader(lines).fieldnames or ())
        return [name for name, value in json.loads(next(lines)).items() if value]


def settings(ours: Mapping[str, Mapping[str, Any]], printed: Sequence[Mapping[str, str]]) -> Picture:
    """Draw Table 3: each setting as the paper prints it or the team's released code has it, beside this run's.

    `ours[stage][name]` are this run's parameters; `printed` the rows of data/published_settings.csv.
    """
    rows = [
        {"setting": row["setting"], "published": row["value"], "printed in": row["item"],
         "this run": _setting(row["setting"], ours)} for row in printed
    ]  # fmt: skip
    data = pandas.DataFrame(rows)
    return table_picture(data, (22, 30, 14, 30)), data


def _setting(name: str, ours: Mapping[str, Mapping[str, Any]]) -> str:
    """Return this run's value of a setting of Table 3; "not known" where its parameters do not hold it."""
    stage, _, parameter = _PARAMETERS[name].partition(".")
    return str(ours.get(stage, {}).get(parameter, "not known")) if parameter else stage


# Setting of Table 3 or of the released code: this run's stage and parameter, or what every run here does.
_PARAMETERS = {
    "tokens per row": "03_sft.max_length",
    "batch size": "03_sft.batch_size",
    "gradient accumulation": "03_sft.gradient_accumulation",
    "steps": "03_sft.steps",
    "learning rate": "03_sft.learning_rate",
    "weight decay": "03_sft.weight_decay",
    "warm-up": "03_sft.warmup_ratio",
    "schedule": "03_sft.scheduler",
    "optimiser": "AdamW in 8 bits",
    "precision": "bf16, fp16 or fp32 by the device",
    "seed": "3407 + the run's seed",
    "base model": "03_sft.model",
    "LoRA rank": "03_sft.lora_rank",
    "LoRA alpha": "03_sft.lora_alpha",
    "LoRA dropout": "03_sft.lora_dropout",
    "base weights": "03_sft.base_weights",
    "samples per prompt": "02_mining.draws",
    "temperature": "02_mining.temperature",
    "top-p": "02_mining.top_p",
    "new tokens": "02_mining.max_new_tokens",
    "winners per prompt": "02_mining.winners_per_task",
}


# ------------------------------------------------------------------------------------------------------------ figure 1


def pipeline(prompt: str, mining: Mapping[str, int]) -> Picture:
    """Figure 1: from a Bangla prompt to an adapter, with the run's counts (notebook 02's mining.json)."""
    shown = prompt if bangla_font() else "(a prompt in Bangla; no font for it is installed)"
    boxes = {
        "prompt": f"{mining['tasks']} tasks, asked in Bangla\n{textwrap.fill(shown, 34)}",
        "model": f"language model\n{mining['draws']} programs per task",
        "sandbox": f"sandbox: every test, visible and hidden\n{mining['attempts']:,} programs run",
        "winners": f"winners: all tests passed\n{mining['winning']} programs, {mining['tasks_solved']} tasks",
        "tuning": f"fine-tuning on {mining['winners']} winners\nno two of one syntax tree",
        "evaluation": "evaluation\nheld-out tasks, hidden tests",
    }
    places = {"prompt": (0.24, 0.84), "model": (0.76, 0.84), "sandbox": (0.76, 0.5), "winners": (0.24, 0.5),
              "tuning": (0.24, 0.16), "evaluation": (0.76, 0.16)}  # fmt: skip
    figure, axes = subplots(figsize=(6.0, 3.1))
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for index, (name, (x, y)) in enumerate(places.items()):
        corner, colour = (x - 0.21, y - 0.12), COLOURS[index % 3]
        axes.add_patch(FancyBboxPatch(corner, 0.42, 0.24, boxstyle="round,pad=0.01", fc="white", ec=colour, lw=1.4))
        axes.text(x, y, boxes[name], ha="center", va="center", fontsize=7.5, linespacing=1.5)
    for start, end in _ARROWS:
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#444444", "lw": 1.2})
    data = pandas.DataFrame([{"box": name, "text": text.replace("\n", " ")} for name, text in boxes.items()])
    return figure, data


_ARROWS = (
    ((0.46, 0.84), (0.54, 0.84)),
    ((0.76, 0.71), (0.76, 0.63)),
    ((0.54, 0.5), (0.46, 0.5)),
    ((0.24, 0.37), (0.24, 0.29)),
    ((0.46, 0.16), (0.54, 0.16)),
)

# ---------------------------------------------------------------------------------------------- table 2 and figure 2


def best_of_k_rows(visible: Any, hidden: Any) -> Iterator[dict[str, Any]]:
    """Yield this run's part of Table 2 for K = 1, 2, 4, … n: chosen by visible tests, scored by these and all.

    `visible`, `hidden`: (tasks, n) bool of the same samples. Both rates are means over every order of the samples.
    """
    n_tasks, draws = visible.shape
    for k in [2**power for power in range(draws.bit_length()) if 2**power <= draws]:
        found = {"visible": pass_at_k_per_task(visible, k), "all": best_of_k_per_task(visible, hidden, k)}
        for tests, values in found.items():
            lo, hi = wilson_interval(round(float(values.sum()), 9), n_tasks)
            yield {"source": "this run", "K": k, "quantity": "best-of-K", "tests": tests,
                   "rate": float(values.mean()), "lo": lo, "hi": hi, "n_tasks": n_tasks}  # fmt: skip


def published_best_of_k(numbers: Sequence[Published], found: Findings | None) -> Iterator[dict[str, Any]]:
    """Yield the published part of Table 2, and the submission run again on the full suite, where it could be."""
    for number in numbers:
        if number.system == "Troopers RSFT" and number.protocol == "best-of-k":
            source = "published, leaderboard" if number.paper == "BLP-2025" else "published"
            yield {"source": source, "K": number.k, "quantity": "best-of-K", "tests": number.tests,
                   "rate": number.rate, "lo": number.interval[0], "hi": number.interval[1],
                   "n_tasks": number.n_tasks}  # fmt: skip
    if found:
        rate = found.wilson["all", "all"]
        yield {
            "source": "published programs, run again",
            "K": 100,
            "quantity": "best-of-K",
            "tests": "all",
            "rate": rate.rate,
            "lo": rate.lo,
            "hi": rate.hi,
            "n_tasks": rate.n_tasks,
        }


def best_of_k_table(data: pandas.DataFrame) -> Any:
    """Draw Table 2."""
    shown = pandas.DataFrame(
        {
            "source": data["source"],
            "K": data["K"],
            "chosen by": "visible tests",
            "scored by": [f"{tests} tests" for tests in data["tests"]],
            "rate [95 % Wilson]": [
                f"{100 * rate:.1f} % [{100 * lo:.1f}, {100 * hi:.1f}]"
                for rate, lo, hi in zip(data["rate"], data["lo"], data["hi"], strict=True)
            ],
            "tasks": data["n_tasks"],
        }
    )
    grey = [place for place, source in enumerate(data["source"]) if source != "this run"]
    return table_picture(shown, (29, 5, 14, 14, 21, 6), grey)


def best_of_k_figure(data: pandas.DataFrame) -> Any:
    """Draw Figure 2: rates against K, this run's in colour, published in grey; solid: visible, dashed: all tests."""
    figure, axes = subplots(figsize=(5.2, 3.4))
    for index, ((source, tests), part) in enumerate(data.groupby(["source", "tests"], sort=False)):
        ours, wide = source == "this run", tests == "visible"
        colour = COLOURS[0 if wide else 1] if ours else GREY
        label = f"{source}, {tests} tests (n = {part['n_tasks'].iloc[0]})"
        errors = 100 * numpy.array([part["rate"] - part["lo"], part["hi"] - part["rate"]])
        axes.errorbar(part["K"] * 1.08 ** (index % 3 - 1), 100 * part["rate"], yerr=errors, fmt="-" if wide else "--",
                      marker=MARKS[index], color=colour, capsize=2, elinewidth=0.9, label=label)  # fmt: skip
    ticks = sorted(set(data["K"]))
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="K, programs per task", ylabel="tasks solved, %", ylim=(0, None))
    figure.legend(ncols=2, loc="outside upper center", fontsize=7)
    return figure


# ------------------------------------------------------------------------------------- figure 3, and the submission


def failure_types(failures: pandas.DataFrame, sizes: Mapping[str, tuple[int, int]]) -> Picture:
    """Draw Figure 3: failed samples by the paper's four types, those without a type apart."""
    data = failure_rates(failures.astype({"troopers_type": str}), sizes, "troopers_type", list(TYPE_NAMES))
    return failure_picture(data, "troopers_type", TYPE_NAMES), data


def submission(found: Findings, numbers: Sequence[Published]) -> Picture:
    """Draw the submission run again, by suite and by whether its training file had the task; printed rates are grey."""
    data = pandas.DataFrame(rows(found)).assign(source="run again")
    printed = [number for number in numbers if number.system == "Troopers RSFT" and number.k == 100]
    suites = {SUITES[number.tests]: number.rate for number in printed}
    more = [
        {"group": "all tasks", "tests": suite, "rate": rate, "source": "published"} for suite, rate in suites.items()
    ]
    data = pandas.concat([data, pandas.DataFrame(more)], ignore_index=True)
    groups = list(dict.fromkeys(data["group"]))
    figure, axes = subplots(figsize=(5.6, 2.9))
    for index, suite in enumerate(SUITES.values()):
        chosen = data[(data["tests"] == suite) & (data["source"] == "run again")]
        y = [groups.index(group) + 0.18 * (2 * index - 1) for group in chosen["group"]]
        interval_marks(axes, chosen, y, colour=COLOURS[index], mark=MARKS[index], label=suite)
        for place, row in zip(y, chosen.itertuples(), strict=True):
            axes.text(100 * row.hi + 1, place, f"{row.passed:g} of {row.n_tasks:g}", va="center", fontsize=7)
    x = [100 * suites.get(suite, math.nan) for suite in SUITES.values()]
    axes.plot(x, (-0.36, 0.36), "|", color=GREY, markersize=9, markeredgewidth=2, label="published, all tasks")
    axes.set_yticks(range(len(groups)), groups)
    axes.grid(axis="y", visible=False)
    axes.set_xticks(range(0, 101, 20))
    axes.set(xlabel="tasks passed, % (bars: 95 % Wilson)", xlim=(0, 112), ylim=(len(groups) - 0.5, -0.6))
    legend_above(axes, 3)
    return figure, data


def example_prompt(tasks: Sequence[Task]) -> str:
    """Return the shortest prompt, for the diagram."""
    return min((task.prompt for task in tasks), key=len)
