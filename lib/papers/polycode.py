"""Pictures of what PolyCode measures: languages, gains, variance of advantages, surprise, failures.

Differs from the paper in: none of these is one of its figures; a published rate is grey and in a panel of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas

from lib.evaluation.failures.taxonomy import POLYCODE_TYPES
from lib.figures.style import COLOURS, GREY, MARKS, Picture, legend_above, subplots, whole_steps
from lib.papers.parts import failure_picture, failure_rates, interval_marks, table_picture
from lib.papers.published import Published

NORMALISERS = {
    "gmpo": "GMPO", "grpo": "GRPO, per prompt", "dr_grpo": "Dr. GRPO", "rloo": "RLOO", "batch": "whole batch",
    "group_batch": "prompt's mean, batch's deviation", "james_stein": "James–Stein",
}  # fmt: skip
TEMPLATE = ("Qwen3-8B, before and after", "other families, before and after")  # fill in what a larger GPU gives
COLUMNS = ["source", "language", "model", "rate", "lo", "hi", "n_tasks", "draws"]


def _printed(numbers: Sequence[Published]) -> pandas.DataFrame:
    """Return published rates by language, from PolyCode and from Agnostics, one row per system and language."""
    chosen = [number.row() for number in numbers if number.paper in ("PolyCode", "Agnostics")]
    data = pandas.DataFrame(chosen).rename(columns={"system": "model"})
    return data.assign(draws=None).rename(columns={"source": "printed_in"}).assign(source="published")


def languages(scores: pandas.DataFrame, numbers: Sequence[Published]) -> Picture:
    """Draw pass@1 by language: above, this run's models (rows of scores.csv) with intervals; below, published rates."""
    ours = scores[(scores["tests"] == "hidden") & (scores["protocol"] == "draws")].assign(source="this run")
    data = pandas.concat([ours, _printed(numbers)], ignore_index=True)[[*COLUMNS, "printed_in"]]
    size = f"this run: {ours['n_tasks'].max()} held-out tasks × {ours['draws'].max()} samples, hidden tests"
    figure, panels = _two_panels(data, size)
    for axes in panels:
        axes.set_xlim(0, None)
    panels[1].set_xlabel("pass@1, %")
    return figure, data


def systems(scores: pandas.DataFrame, numbers: Sequence[Published]) -> Picture:
    """Draw a table of pass@1 by system and language: this run's, published ones in grey, a template for the rest."""
    ours = scores[(scores["tests"] == "hidden") & (scores["protocol"] == "draws")].assign(printed_in="this run")
    data = pandas.concat([ours, _printed(numbers)], ignore_index=True)
    data["shown"] = [
        f"{100 * row.rate:.0f}" + (f" [{100 * row.lo:.0f}, {100 * row.hi:.0f}]" if row.lo == row.lo else "")
        for row in data.itertuples()
    ]
    table = data.pivot_table(
        index=["model", "printed_in"], columns="language", values="shown", aggfunc="first", sort=False
    )
    table = table.fillna("").reset_index().rename(columns={"printed_in": "from"})
    table["from"] = table["from"].str.split(",").str[0]
    missing = pandas.DataFrame([{"model": name, "from": "not run here"} for name in TEMPLATE])
    table = pandas.concat([table, missing]).fillna("").reset_index(drop=True)
    grey = [place for place, source in enumerate(table["from"]) if source != "this run"]
    return table_picture(table, (28, 13, *(12 for _ in table.columns[2:])), grey), table


def gains(rows: Sequence[Mapping[str, Any]], language: str, numbers: Sequence[Published]) -> Picture:
    """Draw gains over the model that training started from: this run's, paired over tasks, above published ones.

    `rows`: those of `lib.evaluation.comparison.pool_runs`.
    """
    ours = [
        {"source": "this run", "language": language, "model": row["model"], "rate": row["difference"],
         "lo": row["difference_lo"], "hi": row["difference_hi"], "n_tasks": row["n_tasks"], "draws": row["draws"]}
        for row in rows if row["protocol"] == "draws" and "difference" in row
    ]  # fmt: skip
    printed = _printed(numbers)
    before, after = (printed[printed["note"] == note] for note in ("before", "after"))
    start = {(row.language, row.printed_in.split(",")[0]): row.rate for row in before.itertuples()}
    origin = [start[row.language, row.printed_in.split(",")[0]] for row in after.itertuples()]
    after = after.assign(rate=(after["rate"] - origin).round(9))
    data = pandas.concat([pandas.DataFrame(ours), after], ignore_index=True)[[*COLUMNS, "printed_in"]]
    figure, panels = _two_panels(data, "this run: against the base, bars: 95 % over tasks")
    for axes in panels:
        axes.axvline(0, color="black", linewidth=0.8)
    panels[1].set_xlabel("gain in pass@1, points")
    return figure, data


def _two_panels(data: pandas.DataFrame, title: str) -> tuple[Any, Any]:
    """Draw this run's languages above, the published ones below in grey, on one scale; one mark per model."""
    parts = [data[data["source"] == source] for source in ("this run", "published")]
    heights = [part["language"].nunique() + 0.6 for part in parts]
    shape = {"figsize": (5.4, 0.36 * sum(heights) + 1.5), "sharex": True, "height_ratios": heights}
    figure, panels = subplots(2, 1, **shape)
    titles = (title, "published: Ag-LiveCodeBench-X, no n given")
    for axes, part, name in zip(panels, parts, titles, strict=True):
        order = list(dict.fromkeys(part["language"]))
        models = list(dict.fromkeys(part["model"]))
        ours = name == title
        for index, model in enumerate(models):
            rows = part[part["model"] == model]
            y = [order.index(found) + (index - (len(models) - 1) / 2) * 0.18 for found in rows["language"]]
            colour = COLOURS[index] if ours else GREY
            interval_marks(axes, rows, y, colour=colour, mark=MARKS[index], label=model)
        axes.set_yticks(range(len(order)), order)
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_title(name, fontsize=8, loc="left", color="black" if ours else GREY)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7)
    return figure, panels


def advantage_variance(steps: Sequence[Mapping[str, Any]]) -> Picture:
    """Draw the variance of the advantages that each estimator makes of the same rewards, step by step."""
    known = [name for name in NORMALISERS if f"advantage_var_{name}" in steps[0]]
    rows = [{"step": step["step"], "normaliser": NORMALISERS[name], "variance": step[f"advantage_var_{name}"]}
            for step in steps for name in known]  # fmt: skip
    data = pandas.DataFrame(rows)
    figure, axes = subplots()
    for index, (name, part) in enumerate(data.groupby("normaliser", sort=False)):
        axes.plot(part["step"], part["variance"], color=COLOURS[index], marker=MARKS[index], label=name)
    axes.set(xlabel="step", ylabel="variance of advantages", ylim=(0, None))
    _steps_only(axes, columns=3)
    return figure, data


def surprise(steps: Sequence[Mapping[str, Any]]) -> Picture:
    """Draw surprise (SBAM): the standardised log-likelihood of right and wrong programs, and the share amplified."""
    names = ["step", "l_hat_right", "l_hat_wrong", "amplified"]
    data = pandas.DataFrame([{name: step.get(name) for name in names} for step in steps])
    figure, (left, right) = subplots(1, 2, figsize=(6.2, 2.8))
    left.plot(data["step"], data["l_hat_right"], "o-", color=COLOURS[0], label="right")
    left.plot(data["step"], data["l_hat_wrong"], "s--", color=COLOURS[1], label="wrong")
    left.axhline(0, color="black", linewidth=0.8)
    left.set(xlabel="step", ylabel="mean standardised ln-likelihood")
    right.plot(data["step"], 100 * data["amplified"].astype(float), "^-", color=COLOURS[2], label="amplified by SBAM")
    right.set(xlabel="step", ylabel="programs, %", ylim=(0, None))
    for axes in (left, right):
        _steps_only(axes, columns=2)
    return figure, data


def failure_kinds(failures: pandas.DataFrame, sizes: Mapping[str, tuple[int, int]]) -> Picture:
    """Draw failed samples by surface, format, semantic, performance."""
    data = failure_rates(failures, sizes, "polycode_type", POLYCODE_TYPES)
    return failure_picture(data, "polycode_type", {kind: kind for kind in POLYCODE_TYPES}), data


def _steps_only(axes: Any, columns: int) -> None:
    """Whole steps on the x axis, the legend above."""
    whole_steps(axes)
    legend_above(axes, columns)
