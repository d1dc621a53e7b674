"""Figures of notebook 06: failures by type, before and after, over steps; lengths."""

from collections.abc import Sequence
from typing import Any

import numpy
import pandas
from matplotlib.ticker import MaxNLocator

from lib.evaluation.failures.statistics import lengths as length_table
from lib.evaluation.failures.statistics import shares, verdict_steps
from lib.evaluation.failures.taxonomy import TROOPERS_TYPES
from lib.evaluation.scores import NO_TYPE
from lib.figures.style import COLOURS, MARKS, Picture, grouped_bars, legend_above, subplots
from lib.sandbox import Status

TYPE_NAMES = {str(number): f"{number} {name}" for number, name in TROOPERS_TYPES.items()} | {
    NO_TYPE: "no type: never starts"
}


def failure_shares(failures: pandas.DataFrame, column: str) -> Picture:
    """Draw failures by type and model: shares of the failed samples, intervals over tasks, counts at the bars."""
    data = shares(failures, column)
    return share_bars(data, column), data


def share_bars(data: pandas.DataFrame, column: str) -> Any:
    """Draw the rows of `lib.evaluation.failures.statistics.shares`."""
    kinds = sorted(data[column].unique(), key=str)
    figure, axes = subplots(figsize=(5.2, 0.9 + 0.65 * len(kinds)))
    bars = grouped_bars(axes, data, series="model", group=column, groups=kinds, value="share", scale=100)
    for place, end, row in bars:
        where = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 7}
        axes.annotate(f"{row['count']:.0f}", (end, place), **where)
    axes.set_yticks(range(len(kinds)), [TYPE_NAMES.get(str(kind), kind) for kind in kinds])
    axes.set(xlabel="% of failed samples (count at the bar)", xlim=(0, 109))
    legend_above(axes, data["model"].nunique())
    return figure


def failure_flows(tables: Sequence[pandas.DataFrame]) -> Picture:
    """Draw where greedy answers went: one heat map per pair of models.

    `tables`: those of `lib.evaluation.failures.statistics.flows`.
    """
    figure, panels = subplots(1, len(tables), figsize=(3.6 * len(tables), 3.2), squeeze=False)
    for axes, table in zip(panels[0], tables, strict=True):
        axes.imshow(table, cmap="Blues", vmin=0, vmax=max(1, max(other.to_numpy().max() for other in tables)))
        dark = table.to_numpy() > 0.6 * max(other.to_numpy().max() for other in tables)
        for (row, column), count in numpy.ndenumerate(table.to_numpy()):
            axes.text(column, row, count, ha="center", va="center", color="white" if dark[row, column] else "black")
        axes.set_xticks(range(len(table.columns)), table.columns, rotation=30 if len(str(table.columns[-1])) > 2 else 0)
        axes.set_yticks(range(len(table.index)), table.index)
        axes.set(xlabel=f"{table.columns.name}", ylabel=f"{table.index.name}")
        axes.grid(visible=False)
    long = [table.stack().rename("tasks").rename_axis(["before", "after"]).reset_index() for table in tables]
    pairs = [f"{table.index.name} to {table.columns.name}" for table in tables]
    return figure, pandas.concat([data.assign(pair=pair) for data, pair in zip(long, pairs, strict=True)])


def failure_steps(history: Sequence[dict[str, Any]]) -> Picture:
    """Draw GMPO's rollouts over its steps: shares of verdicts; L̂ of right and wrong ones."""
    data = verdict_steps(history)
    figure, (left, right) = subplots(1, 2, figsize=(7.6, 2.8))
    data.plot.bar(ax=left, stacked=True, width=0.9, color=COLOURS, alpha=0.85, rot=0)
    left.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    left.set(xlabel="step", ylabel="share of rollouts", ylim=(0, 1))
    left.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=3)
    steps = pandas.DataFrame(history)
    for column, name in (("l_hat_right", "right programs"), ("l_hat_wrong", "wrong programs")):
        values = steps[column].astype(float) if column in steps else pandas.Series(numpy.nan, steps.index)
        right.plot(steps["step"], values, "o-", label=name)
        data[column] = values.to_numpy()
    right.set(xlabel="step", ylabel="mean L̂")
    right.legend()
    return figure, data.reset_index()


def rollout_likelihoods(rows: pandas.DataFrame) -> Picture:
    """Draw how L̂ of right and of wrong rollouts is distributed, and L against length.

    `rows`: those of `lib.evaluation.failures.statistics.rollout_likelihoods`.
    """
    figure, (left, right) = subplots(1, 2, figsize=(7.6, 2.8))
    for index, (name, wanted) in enumerate((("right programs", True), ("wrong programs", False))):
        part = rows[rows["right"] == wanted]
        values = numpy.sort(part["l_hat"].to_numpy(dtype=float))
        shares = numpy.arange(1, len(values) + 1) / max(1, len(values))
        left.step(values, 100 * shares, where="post", color=COLOURS[index], label=f"{name} (n = {len(part)})")
        right.plot(part["n_tokens"], part["L"], MARKS[index], color=COLOURS[index], alpha=0.5, markersize=4)
    left.set(xlabel="L̂, within its prompt's group", ylabel="rollouts below, %", ylim=(0, 100))
    left.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=2)
    right.set(xlabel="completion tokens", ylabel="L, nats")
    return figure, rows


def lengths(rows: pandas.DataFrame) -> Picture:
    """Draw completion tokens of solved and failed samples: quartiles, whiskers at 5 % and 95 %."""
    groups = [(model, part, part["status"] == Status.SUCCESS) for model, part in rows.groupby("model", sort=False)]
    boxes = {
        f"{model}\n{name}": part.loc[chosen, "n_tokens"].to_numpy()
        for model, part, solved in groups
        for name, chosen in (("solved", solved), ("failed", ~solved))
    }
    figure, axes = subplots(figsize=(1.6 + 0.75 * len(boxes), 2.9))
    axes.boxplot(list(boxes.values()), tick_labels=list(boxes), whis=(5, 95), showfliers=False, widths=0.6)
    axes.set(ylabel="completion tokens", ylim=(0, None))
    return figure, length_table(rows)
