"""One look for every figure, colour-blind safe; stamps and `save`."""

import hashlib
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas
from matplotlib import font_manager
from matplotlib.ticker import MaxNLocator

from lib.base.files import write_text

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe & Ito
GREY = "#7a7a7a"  # published numbers and nothing else
MARKS = ("o", "s", "^", "D", "v", "P", "X")
BANGLA_FONTS = (
    "Noto Sans Bengali",
    "Lohit Bengali",
    "Noto Serif Bengali",
    "Kalpurush",
    "SolaimanLipi",
    "Vrinda",
    "FreeSans",
)
LAST_STAGE = "07"  # draws the figures, so its own key cannot be in them
CORNER = {"y": 0.004, "va": "bottom", "fontsize": 5, "color": "#666666"}

Picture = tuple[Any, pandas.DataFrame]  # a matplotlib figure and the data behind it


def set_style() -> None:
    """Set one look for every figure: readable at a column's width, with a Bangla font where one is installed."""
    plt.rcParams.update(
        {
            "figure.figsize": (5.2, 3.2),
            "figure.dpi": 110,
            "savefig.dpi": 200,
            "font.size": 9,
            "font.family": ["DejaVu Sans", *filter(None, [bangla_font()])],
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "axes.prop_cycle": plt.cycler(color=COLOURS),
            "legend.frameon": False,
            "pdf.fonttype": 42,
        }
    )


def bangla_font() -> str | None:
    """Return the first font of BANGLA_FONTS that is installed."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in BANGLA_FONTS if name in installed), None)


def run_stamp(run: str | Path) -> str:
    """Return "run RUN_ID · manifest HASH", or "" where the run has no manifest.

    HASH: twelve digits of the SHA-256 of the run's id and the keys of its stages before the figures, as JSON with
    sorted names. A stage's key is itself a digest of parameters, inputs and code.
    """
    path = Path(run) / "manifest.json"
    if not path.is_file():
        return ""
    manifest = json.loads(path.read_text(encoding="utf-8"))
    keys = {name: stage["key"] for name, stage in manifest.get("stages", {}).items() if name < LAST_STAGE}
    content = json.dumps({"run_id": manifest.get("run_id"), "stages": keys}, sort_keys=True)
    return f"run {manifest.get('run_id')} · manifest {hashlib.sha256(content.encode()).hexdigest()[:12]}"


def subplots(*shape: int, **options: Any) -> tuple[Any, Any]:
    """Return matplotlib's figure and axes, laid out so that nothing overlaps."""
    return plt.subplots(*shape, layout="constrained", **options)


def stamp(figure: Any, *runs: str | Path) -> Any:
    """Mark a figure with the runs that it shows, and return it.

    Each run's id and manifest hash go to the lower right corner. The warning of a run whose training tasks overlap
    with its evaluation tasks (banners.txt) heads the figure.
    """
    found = [Path(run) / "banners.txt" for run in runs]
    banner = "\n".join(path.read_text(encoding="utf-8").strip() for path in found if path.is_file())
    if banner:
        figure.suptitle("\n".join(textwrap.wrap(banner, 90)), color="#8c1d18", fontsize=7, fontweight="bold")
    lines = list(filter(None, map(run_stamp, runs)))
    _keep_free_below(figure, len(lines))
    figure.text(0.995, s="\n".join(lines), ha="right", **CORNER)
    return figure


def _keep_free_below(figure: Any, lines: int) -> None:
    height = (0.03 + 0.1 * lines) / figure.get_figheight() if lines else 0.0
    engine = figure.get_layout_engine()
    height = max(height, engine.get()["rect"][1])
    engine.set(rect=(0, height, 1, 1 - height))


def whole_steps(axes: Any) -> None:
    """Show whole numbers on the x axis, also where there is one step only."""
    low, high = axes.dataLim.intervalx
    axes.set_xlim(low - 0.5, high + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def legend_above(axes: Any, columns: int) -> None:
    """Put the legend over the axes, where no mark can reach it."""
    axes.legend(ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1.0), title=None, fontsize=8)


def grouped_bars(
    axes: Any,
    data: pandas.DataFrame,
    *,
    series: str,
    group: str,
    groups: Sequence[Any],
    value: str,
    scale: float = 1,
    horizontal: bool = True,
) -> list[tuple[float, float, pandas.Series]]:
    """Draw one bar per row with its interval (`lo`, `hi`): a colour per `series`, side by side within each `group`.

    Return (place, end of the interval or of the bar, row) for each bar.
    """
    names, drawn = list(dict.fromkeys(data[series])), []
    width = 0.8 / max(3, len(names))
    for index, name in enumerate(names):
        rows = data[data[series] == name].set_index(group).loc[list(groups)]
        places = [place + (index - (len(names) - 1) / 2) * width for place in range(len(groups))]
        values, lo, hi = (scale * rows[column].to_numpy(dtype=float) for column in (value, "lo", "hi"))
        errors = [(values - lo).clip(0), (hi - values).clip(0)]
        look = {"label": name, "color": COLOURS[index], "alpha": 0.85}
        bars = {"fmt": "none", "ecolor": "black", "elinewidth": 0.9, "capsize": 2}
        if horizontal:
            axes.barh(places, values, height=0.9 * width, **look)
            axes.errorbar(values, places, xerr=errors, **bars)
        else:
            axes.bar(places, values, width=0.9 * width, **look)
            axes.errorbar(places, values, yerr=errors, **bars)
        ends = [float(max(value, end) if end == end else value) for value, end in zip(values, hi, strict=True)]
        drawn += list(zip(places, ends, [row for _, row in rows.iterrows()], strict=True))
    if horizontal:
        axes.invert_yaxis()
    axes.grid(axis="y" if horizontal else "x", visible=False)
    return drawn


def save(figure: Any, path: Path, data: pandas.DataFrame, caption: str) -> None:
    """Write `path`.png, .pdf, the data behind the picture as .csv, and the caption as .txt."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for ending in ("png", "pdf"):
        figure.savefig(path.with_suffix(f".{ending}"))
    data.to_csv(path.with_suffix(".csv"), index=False)
    write_text(path.with_suffix(".txt"), caption + "\n")
