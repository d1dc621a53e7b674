"""Figures of notebook 05 and of several runs: pass@1 by model and protocol."""

import pandas

from lib.figures.style import COLOURS, Picture, grouped_bars, legend_above, subplots

PROTOCOL_NAMES = {"greedy": "greedy", "draws": "mean of samples"}


def score_bars(scores: pandas.DataFrame, tests: str = "hidden") -> Picture:
    """Draw pass@1 by model and protocol with its interval over tasks."""
    data = scores[(scores["tests"] == tests) & scores["protocol"].isin(PROTOCOL_NAMES)].reset_index(drop=True)
    figure, axes = subplots()
    protocols = list(PROTOCOL_NAMES)
    grouped_bars(
        axes, data, series="model", group="protocol", groups=protocols, value="rate", scale=100, horizontal=False
    )
    per_task = data.drop_duplicates("protocol").set_index("protocol")["draws"]
    axes.set_xticks(range(len(protocols)), [f"{PROTOCOL_NAMES[name]}\n{per_task[name]} per task" for name in protocols])
    axes.set(ylabel=f"pass@1, % of {data['n_tasks'].iloc[0]} tasks, {tests} tests", ylim=(0, None))
    legend_above(axes, data["model"].nunique())
    return figure, data


def over_runs(rates: pandas.DataFrame) -> Picture:
    """Draw pass@1 of every run as a point, runs joined over models, with the mean over runs.

    `rates`: rows of `lib.evaluation.comparison.rates_of_runs`.
    """
    models, runs = list(dict.fromkeys(rates["model"])), list(dict.fromkeys(rates["run"]))
    figure, panels = subplots(1, len(PROTOCOL_NAMES), sharey=True, figsize=(6.4, 3.2))
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
