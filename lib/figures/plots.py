"""The workbook's pictures: functions from data to a matplotlib figure, one style, colour-blind safe, and `save`."""

import hashlib
import json
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use(os.environ.get("MPLBACKEND", "Agg"))  # a notebook asks for its own, which shows figures in it
import matplotlib.pyplot as plt
import numpy
import pandas
from matplotlib import font_manager
from matplotlib.ticker import MaxNLocator

from lib.sandbox import Status
from lib.mining.k_curve import Row
from lib.stats.pass_at_k import solved_curve
from lib.evaluation.failures.statistics import lengths as length_table
from lib.evaluation.failures.statistics import shares, verdict_steps

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe & Ito
TYPE_NAMES = {
    1: "1 no usable code",
    2: "2 wrong name or interface",
    3: "3 breaks while running",
    4: "4 runs, answers wrongly",
}
PROTOCOL_NAMES = {"greedy": "greedy", "draws": "mean of draws"}


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

_banner = ""  # set by `style`, like the next
_mark = ""


def style(*runs: str | Path) -> None:
    """One look for every figure: readable at a column's width, with a font that has Bangla where one is installed.

    The banner of a run whose training tasks overlap with its evaluation tasks (banners.txt) heads every figure, and
    the run's id and manifest hash stand in its corner.
    """
    global _banner, _mark
    found = [Path(run) / "banners.txt" for run in runs]
    _banner = "\n".join(path.read_text(encoding="utf-8").strip() for path in found if path.is_file())
    _mark = "\n".join(filter(None, map(manifest_mark, runs)))
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
    """The first font of BANGLA_FONTS that is installed."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in BANGLA_FONTS if name in installed), None)


def manifest_mark(run: str | Path) -> str:
    """ "run RUN_ID · manifest HASH"; empty where the run has no manifest.

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


def _subplots(*shape: int, **options: Any) -> tuple[Any, Any]:
    figure, axes = plt.subplots(*shape, layout="constrained", **options)
    if _banner:
        figure.suptitle("\n".join(textwrap.wrap(_banner, 90)), color="#8c1d18", fontsize=7, fontweight="bold")
    lines = _mark.count("\n") + 1
    height = (0.03 + 0.1 * lines) / figure.get_figheight()  # kept free for the mark and a note
    figure.get_layout_engine().set(rect=(0, height, 1, 1 - height))
    figure.text(0.995, 0.004, _mark, ha="right", va="bottom", fontsize=5, color="#666666")
    return figure, axes


def whole_steps(axes: Any) -> None:
    """Whole numbers on the x axis, also where there is one step only."""
    low, high = axes.dataLim.intervalx
    axes.set_xlim(low - 0.5, high + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def note(figure: Any, words: str) -> None:
    """A line in the lower left corner, across from the run's mark."""
    figure.text(0.005, 0.004, words, ha="left", va="bottom", fontsize=5, color="#666666")


def save(figure: Any, path: Path, data: pandas.DataFrame, caption: str) -> None:
    """Write `path`.png, .pdf, the data behind the picture as .csv, and the caption as .txt."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for ending in ("png", "pdf"):
        figure.savefig(path.with_suffix(f".{ending}"))
    data.to_csv(path.with_suffix(".csv"), index=False)
    path.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")


def fertility(spent: pandas.DataFrame, unit: str = "word") -> tuple[Any, pandas.DataFrame]:
    """Tokens a unit by kind of text and tokenizer, with intervals over texts; rows of `lib.tasks.token_cost.Fertility`."""
    data = spent[spent["unit"] == unit].reset_index(drop=True)
    kinds, tokenizers = list(dict.fromkeys(data["texts"])), list(dict.fromkeys(data["tokenizer"]))
    figure, axes = _subplots(figsize=(6.4, 1.1 + 0.55 * len(kinds)))
    for index, name in enumerate(tokenizers):
        rows = data[data["tokenizer"] == name].set_index("texts").loc[kinds]
        y = numpy.arange(len(kinds)) + (index - (len(tokenizers) - 1) / 2) * 0.26
        errors = [rows["rate"] - rows["lo"], rows["hi"] - rows["rate"]]
        axes.barh(y, rows["rate"], height=0.24, label=name, color=COLOURS[index], alpha=0.85)
        axes.errorbar(rows["rate"], y, xerr=errors, fmt="none", ecolor="black", elinewidth=0.9, capsize=2)
    sizes = data.drop_duplicates("texts").set_index("texts")["n"]
    axes.set_yticks(range(len(kinds)), [f"{kind} (n = {sizes[kind]})" for kind in kinds])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlabel=f"tokens a {unit}", xlim=(0, None))
    figure.legend(ncols=2, loc="outside upper center", fontsize=8)
    return figure, data


def solved_against_k(passed: "numpy.ndarray") -> tuple[Any, pandas.DataFrame]:
    """Draw tasks solved within k samples, k = 1..n, from one pool of n per task, with a 95 % band over tasks.

    Beside it Σ 1 − (1 − p̂)^k, which treats every task's pass rate as known. `passed`: (tasks, n) bool.
    """
    n_tasks, curve = len(passed), solved_curve(passed)
    columns = ("solved", "lo", "hi", "theory")
    data = pandas.DataFrame({"k": curve.ks} | {name: n_tasks * getattr(curve, name) for name in columns})
    figure, axes = _subplots()
    axes.plot(data["k"], data["solved"], "o-", markersize=3, label="solved within k samples (unbiased)")
    axes.fill_between(data["k"], data["lo"], data["hi"], alpha=0.15, linewidth=0, label="95 % over tasks")
    axes.plot(data["k"], data["theory"], "--", label="Σ 1 − (1 − p̂)^k")
    axes.set(xlabel="k, samples per task", ylabel=f"tasks solved, of {n_tasks}", ylim=(0, None))
    axes.legend()
    return figure, data


def k_ablation(rows: Sequence[Row]) -> tuple[Any, pandas.DataFrame]:
    """Best-of-K by visible tests beside its truth on hidden ones, what repeats, and what a winner costs; rows of `lib.mining.k_curve`."""
    data = pandas.DataFrame([vars(row) for row in rows])
    figure, (shares, repeats, cost) = _subplots(1, 3, figsize=(7.8, 2.9), width_ratios=(2, 1, 1))
    for quantity, tests, label, marker in (
        ("best-of-K", "visible", "best-of-K, by visible tests", "o"),
        ("solved", "all", "some draw passes every test", "^"),
        ("best-of-K", "hidden", "best-of-K, truth on hidden tests", "s"),
        ("draws that pass", "all", "mean of draws, every test", "D"),
    ):
        _band(shares, data[(data["quantity"] == quantity) & (data["tests"] == tests)], label, marker)
    for tests, line in (("visible", ":"), ("hidden", "--")):
        for value in data[(data["quantity"] == "greedy") & (data["tests"] == tests)]["value"]:
            shares.axhline(value, color="#555555", linestyle=line, linewidth=1, label=f"greedy, {tests} tests")
    shares.set(ylabel=f"share of {rows[0].n_tasks} tasks", ylim=(0, 1))
    _band(repeats, data[data["quantity"] == "repeated programs"], "", "o")
    repeats.set(title="programs seen before", ylabel="share of K draws", ylim=(0, 1))
    _band(cost, data[data["quantity"] == "draws a distinct winner"], "", "o")
    cost.set(title="cost", ylabel="draws a distinct winner", ylim=(0, None))
    ks = sorted(set(data["k"]))
    for axes in (shares, repeats, cost):
        axes.set(xscale="log", xlabel="K, draws a task")
        axes.set_xticks(ks, [str(k) if axes is shares or (len(ks) - 1 - n) % 2 == 0 else "" for n, k in enumerate(ks)])
        axes.minorticks_off()
        axes.title.set_size(9)
    figure.legend(*shares.get_legend_handles_labels(), ncols=3, loc="outside upper center", fontsize=7.5)
    return figure, data


def _band(axes: Any, data: pandas.DataFrame, label: str, marker: str) -> None:
    (line,) = axes.plot(data["k"], data["value"], marker=marker, markersize=4, label=label)
    axes.fill_between(data["k"], data["lo"], data["hi"], color=line.get_color(), alpha=0.13, linewidth=0)


def winners_per_task(passed: "numpy.ndarray", tiers: Sequence[int]) -> tuple[Any, pandas.DataFrame]:
    """How many of a task's n draws passed, by tier: the spread of p_succ."""
    data = pandas.DataFrame({"tier": list(tiers), "passed": passed.sum(axis=1)})
    import seaborn

    figure, axes = _subplots()
    palette = list(COLOURS[: data["tier"].nunique()])
    seaborn.histplot(data, x="passed", hue="tier", multiple="stack", discrete=True, palette=palette, ax=axes)
    axes.set(xlabel=f"draws that passed, of {passed.shape[1]}", ylabel="tasks")
    axes.locator_params(integer=True)
    return figure, data


def loss_curve(
    history: Sequence[dict[str, float]], held_out: Sequence[dict[str, float]] = ()
) -> tuple[Any, pandas.DataFrame]:
    """Training loss and token accuracy over steps; beside them pass@1 on held-out tasks, where it was measured."""
    data = pandas.DataFrame(history)[["step", "loss", "mean_token_accuracy"]]
    panels = 2 if held_out else 1
    figure, rows = _subplots(1, panels, squeeze=False, figsize=(3.6 + 1.8 * panels, 3.0))
    axes = rows[0, 0]
    if held_out:
        measured = pandas.DataFrame(held_out)
        rows[0, 1].plot(measured["step"], 100 * measured["pass_at_1"], "o-")
        rows[0, 1].set(xlabel="step", ylabel="greedy pass@1 on held-out tasks, %", ylim=(0, None))
        data = data.merge(measured, on="step", how="outer")
    axes.plot(data["step"], data["loss"], label="loss")
    axes.set(xlabel="step", ylabel="loss on completion tokens")
    right = axes.twinx()
    right.plot(data["step"], data["mean_token_accuracy"], color=COLOURS[2], alpha=0.7)
    right.set_ylabel("token accuracy", color=COLOURS[2])
    right.grid(False)
    return figure, data


def gmpo_curves(steps: Sequence[dict[str, Any]]) -> tuple[Any, pandas.DataFrame]:
    """Reward and the share of prompts that are neither all right nor all wrong; advantage variance of two normalisers."""
    data = pandas.DataFrame(steps)
    figure, (left, right) = _subplots(1, 2, figsize=(7.2, 2.8))
    left.plot(data["step"], data["reward"], "o-", label="mean reward")
    left.plot(data["step"], data["decidable"], "s--", label="decidable prompts")
    left.set(xlabel="step", ylabel="share", ylim=(0, 1.03))
    left.legend()
    right.plot(data["step"], data["advantage_var"], "o-", label="this run's advantages")
    right.plot(data["step"], data["advantage_var_per_prompt"], "s--", label="per-prompt z-score")
    right.set(xlabel="step", ylabel="variance of advantages")
    right.legend()
    for axes in (left, right):
        whole_steps(axes)
    return figure, data


def score_bars(scores: pandas.DataFrame, tests: str = "hidden") -> tuple[Any, pandas.DataFrame]:
    """pass@1 by model and protocol with its interval; one group a protocol."""
    data = scores[(scores["tests"] == tests) & scores["protocol"].isin(PROTOCOL_NAMES)].reset_index(drop=True)
    figure, axes = _subplots()
    models = list(dict.fromkeys(data["model"]))
    for index, model in enumerate(models):
        rows = data[data["model"] == model].set_index("protocol").loc[list(PROTOCOL_NAMES)]
        x = numpy.arange(len(rows)) + (index - (len(models) - 1) / 2) * 0.25
        errors = numpy.clip([rows["rate"] - rows["lo"], rows["hi"] - rows["rate"]], 0, None) * 100
        axes.bar(x, rows["rate"] * 100, width=0.22, label=model, color=COLOURS[index], alpha=0.85)
        axes.errorbar(x, rows["rate"] * 100, yerr=errors, fmt="none", ecolor="black", elinewidth=0.9, capsize=2.5)
    names = [f"{name}\n{int(rows.loc[key, 'draws'])} a task" for key, name in PROTOCOL_NAMES.items()]
    axes.set_xticks(range(len(PROTOCOL_NAMES)), names)
    axes.set(ylabel=f"pass@1, % of {data['n_tasks'].iloc[0]} tasks, {tests} tests", ylim=(0, None))
    _legend_above(axes, len(models))
    return figure, data


def over_runs(rates: pandas.DataFrame) -> tuple[Any, pandas.DataFrame]:
    """pass@1 of every run as a point, runs of one model joined to their mean; rows of `lib.evaluation.comparison.rates_of_runs`."""
    models, runs = list(dict.fromkeys(rates["model"])), list(dict.fromkeys(rates["run"]))
    figure, panels = _subplots(1, len(PROTOCOL_NAMES), sharey=True, figsize=(6.4, 3.2))
    for axes, (protocol, name) in zip(panels, PROTOCOL_NAMES.items(), strict=True):
        table = rates[rates["protocol"] == protocol].pivot(index="model", columns="run", values="rate")
        table = table.loc[models, runs] * 100
        for index, run in enumerate(runs):
            axes.plot(range(len(models)), table[run], "o-", color=COLOURS[index], alpha=0.55, label=run)
        axes.plot(range(len(models)), table.mean(axis=1), "_", color="black", markersize=26, label="mean")
        axes.set_xticks(range(len(models)), models)
        axes.set(title=name, xlim=(-0.4, len(models) - 0.6), ylim=(0, 112 * rates["rate"].max() or None))
    panels[0].set_ylabel(f"pass@1, % of {rates['n_tasks'].iloc[0]} tasks, hidden tests")
    figure.legend(*panels[0].get_legend_handles_labels(), ncols=len(runs) + 1, loc="outside upper center")
    return figure, rates


def failure_shares(failures: pandas.DataFrame, column: str) -> tuple[Any, pandas.DataFrame]:
    """Failures by type and model: shares of the model's failed draws with intervals over tasks, counts beside them."""
    data = shares(failures, column)
    models, kinds = list(dict.fromkeys(data["model"])), sorted(data[column].unique())
    figure, axes = _subplots(figsize=(5.2, 0.9 + 0.65 * len(kinds)))
    for index, model in enumerate(models):
        rows = data[data["model"] == model].set_index(column).loc[kinds]
        y = numpy.arange(len(kinds)) + (index - (len(models) - 1) / 2) * 0.26
        errors = numpy.clip([rows["share"] - rows["lo"], rows["hi"] - rows["share"]], 0, None) * 100
        axes.barh(y, rows["share"] * 100, height=0.24, label=model, color=COLOURS[index], alpha=0.85)
        axes.errorbar(rows["share"] * 100, y, xerr=errors, fmt="none", ecolor="black", elinewidth=0.9, capsize=2)
        for place, (_, row) in zip(y, rows.iterrows(), strict=True):
            end = 100 * numpy.nanmax([row["share"], row["hi"]])
            where = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 7}
            axes.annotate(f"{row['count']:.0f}", (end, place), **where)
    axes.set_yticks(range(len(kinds)), [TYPE_NAMES.get(_whole(kind), kind) for kind in kinds])
    axes.set(xlabel="% of the model's failed draws (number of draws at the bar)", xlim=(0, 109))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    _legend_above(axes, len(models))
    return figure, data


def _whole(kind: Any) -> Any:
    return int(kind) if str(kind).isdigit() else kind


def failure_flows(tables: Sequence[pandas.DataFrame]) -> tuple[Any, pandas.DataFrame]:
    """Where greedy answers went: one heat map a pair of models; tables of `failure_statistics.flows`."""
    figure, panels = _subplots(1, len(tables), figsize=(3.6 * len(tables), 3.2), squeeze=False)
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


def failure_steps(history: Sequence[dict[str, Any]]) -> tuple[Any, pandas.DataFrame]:
    """GMPO's rollouts over its steps: shares of verdicts; L̂ of right and wrong ones."""
    data = verdict_steps(history)
    figure, (left, right) = _subplots(1, 2, figsize=(7.6, 2.8))
    data.plot.bar(ax=left, stacked=True, width=0.9, color=COLOURS, alpha=0.85, rot=0)
    left.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(8, integer=True))
    left.set(xlabel="step", ylabel="share of rollouts", ylim=(0, 1))
    left.legend(fontsize=7, loc="lower left", frameon=True)
    told = pandas.DataFrame(history)
    for column, name in (("l_hat_right", "right programs"), ("l_hat_wrong", "wrong programs")):
        values = told[column].astype(float) if column in told else pandas.Series(numpy.nan, told.index)
        right.plot(told["step"], values, "o-", label=name)
        data[column] = values.to_numpy()
    right.set(xlabel="step", ylabel="mean L̂")
    right.legend()
    return figure, data.reset_index()


def lengths(rows: pandas.DataFrame) -> tuple[Any, pandas.DataFrame]:
    """Completion tokens of solved and failed draws, a box of quartiles with 5 % and 95 % whiskers each."""
    groups = [(model, part, part["status"] == Status.SUCCESS) for model, part in rows.groupby("model", sort=False)]
    boxes = {
        f"{model}\n{name}": part.loc[chosen, "n_tokens"].to_numpy()
        for model, part, solved in groups
        for name, chosen in (("solved", solved), ("failed", ~solved))
    }
    figure, axes = _subplots(figsize=(1.6 + 0.75 * len(boxes), 2.9))
    axes.boxplot(list(boxes.values()), tick_labels=list(boxes), whis=(5, 95), showfliers=False, widths=0.6)
    axes.set(ylabel="completion tokens", ylim=(0, None))
    return figure, length_table(rows)


def _legend_above(axes: Any, columns: int) -> None:
    """The legend over the axes, where no bar can reach it."""
    axes.legend(ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1.0), title=None)
