"""Parts that the figures of both papers share: a table as a picture, failures as rates, marks with intervals."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pandas

from lib.figures.style import COLOURS, GREY, MARKS, legend_above, subplots
from lib.stats.intervals import wilson_interval


def table_picture(data: pandas.DataFrame, widths: Sequence[int], grey_rows: Sequence[int] = ()) -> Any:
    """Draw a table: `widths` are columns in characters, longer cells wrap; published rows are grey."""
    cells = [[textwrap.fill(str(cell), width) for cell, width in zip(row, widths, strict=True)]
             for row in [list(data.columns), *data.to_numpy().tolist()]]  # fmt: skip
    lines = [max(cell.count("\n") + 1 for cell in row) for row in cells]
    figure, axes = subplots(figsize=(0.072 * sum(widths) + 0.2, 0.17 * sum(lines) + 0.07 * len(lines) + 0.25))
    axes.axis("off")
    shares = [width / sum(widths) for width in widths]
    drawn = axes.table(cells, colWidths=shares, cellLoc="left", bbox=(0, 0, 1, 1))
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(8)
    heights = [count + 0.45 for count in lines]
    for (row, column), cell in drawn.get_celld().items():
        cell.set(height=heights[row] / sum(heights), linewidth=0.4, edgecolor="#bbbbbb")
        cell.visible_edges = "B"
        cell.PAD = 0.5 / widths[column]  # half a character
        cell.get_text().set_color(GREY if row - 1 in grey_rows else "black")
        cell.get_text().set_fontweight("bold" if row == 0 else "normal")
    return figure


def failure_rates(
    failures: pandas.DataFrame, sizes: Mapping[str, tuple[int, int]], column: str, kinds: Sequence[Any]
) -> pandas.DataFrame:
    """Return the share of samples that fail in each way, one row per model and kind, with Wilson's interval over tasks.

    `failures` has one row per failed sample (model, `column`); `sizes[model]` is (tasks, samples per task), passing
    samples included.
    """
    counts = failures.groupby(["model", column]).size()
    rows = []
    for model, (n_tasks, draws) in sizes.items():
        for kind in kinds:
            failed = int(counts.get((model, kind), 0))
            lo, hi = wilson_interval(failed / draws, n_tasks)
            rate = failed / (n_tasks * draws)
            rows.append({"model": model, column: kind, "failed": failed, "rate": rate, "lo": lo, "hi": hi,
                         "n_tasks": n_tasks, "draws": draws})  # fmt: skip
    return pandas.DataFrame(rows)


def failure_picture(data: pandas.DataFrame, column: str, names: Mapping[Any, str]) -> Any:
    """Draw `failure_rates` as marks with intervals, one group per kind."""
    figure, axes = subplots()
    models = list(dict.fromkeys(data["model"]))
    for index, model in enumerate(models):
        rows = data[data["model"] == model].set_index(column).loc[list(names)]
        y = [place + (index - (len(models) - 1) / 2) * 0.2 for place in range(len(names))]
        interval_marks(axes, rows, y, colour=COLOURS[index], mark=MARKS[index], label=model)
    axes.set_yticks(range(len(names)), list(names.values()))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    draws = int(data["draws"].iloc[0])
    size = f"{data['n_tasks'].iloc[0]} tasks × {draws} sample{'s' * (draws > 1)}"
    axes.set(xlabel=f"share of samples, %\n{size}; bars: 95 % over tasks", xlim=(0, None))
    legend_above(axes, len(models))
    return figure


def interval_marks(
    axes: Any, rows: pandas.DataFrame, y: Sequence[float], *, colour: str, mark: str, label: str | None = None
) -> None:
    """Draw rates in percent at heights y with their intervals; a row without one (NaN) is a mark alone."""
    x, lo, hi = (100 * rows[name].to_numpy(dtype=float) for name in ("rate", "lo", "hi"))
    known = lo == lo
    axes.hlines([at for at, is_known in zip(y, known, strict=True) if is_known], lo[known], hi[known], color=colour)
    axes.plot(x, y, mark, color=colour, label=label, markersize=5, clip_on=False)
