"""Figures of notebook 02: what more samples per task give."""

from collections.abc import Sequence
from typing import Any

import numpy
import pandas
import seaborn

from lib.figures.style import COLOURS, Picture, subplots
from lib.mining.k_curve import Row
from lib.stats.pass_at_k import solved_curve


def solved_against_k(passed: numpy.ndarray) -> Picture:
    """Draw tasks solved within k samples, k = 1..n, from one pool of n per task, with a 95 % band over tasks.

    Beside it Σ 1 − (1 − p̂)^k, which treats every task's pass rate as known. `passed`: (tasks, n) bool.
    """
    n_tasks, curve = len(passed), solved_curve(passed)
    columns = ("solved", "lo", "hi", "theory")
    data = pandas.DataFrame({"k": curve.ks} | {name: n_tasks * getattr(curve, name) for name in columns})
    figure, axes = subplots()
    axes.plot(data["k"], data["solved"], "o-", markersize=3, label="solved within k samples (unbiased)")
    axes.fill_between(data["k"], data["lo"], data["hi"], alpha=0.15, linewidth=0, label="95 % over tasks")
    axes.plot(data["k"], data["theory"], "--", label="Σ 1 − (1 − p̂)^k")
    axes.set(xlabel="k, samples per task", ylabel=f"tasks solved, of {n_tasks}", ylim=(0, None))
    axes.legend()
    return figure, data


def k_ablation(rows: Sequence[Row]) -> Picture:
    """Draw best-of-K by visible tests beside its truth on all tests, repeated programs, and the cost of a passing one.

    `rows`: those of `lib.mining.k_curve`.
    """
    data = pandas.DataFrame([vars(row) for row in rows])
    figure, (shares, repeats, cost) = subplots(1, 3, figsize=(7.8, 2.9), width_ratios=(2, 1, 1))
    for quantity, tests, label, marker in (
        ("best-of-K", "visible", "best-of-K, by visible tests", "o"),
        ("solved", "all", "some sample passes every test", "^"),
        ("best-of-K", "hidden", "best-of-K, truth on all tests", "s"),
        ("draws that pass", "all", "mean of samples, every test", "D"),
    ):
        _band(shares, data[(data["quantity"] == quantity) & (data["tests"] == tests)], label, marker)
    for tests, line in (("visible", ":"), ("hidden", "--")):
        for value in data[(data["quantity"] == "greedy") & (data["tests"] == tests)]["value"]:
            shares.axhline(value, color="#555555", linestyle=line, linewidth=1, label=f"greedy, {tests} tests")
    shares.set(ylabel=f"share of {rows[0].n_tasks} tasks", ylim=(0, 1))
    _band(repeats, data[data["quantity"] == "repeated programs"], "", "o")
    repeats.set(title="programs seen before", ylabel="share of K samples", ylim=(0, 1))
    _band(cost, data[data["quantity"] == "draws a distinct winner"], "", "o")
    cost.set(title="cost", ylabel="samples per distinct pass", ylim=(0, None))
    ks = sorted(set(data["k"]))
    for axes in (shares, repeats, cost):
        axes.set(xscale="log", xlabel="K, samples per task")
        axes.set_xticks(ks, [str(k) if axes is shares or (len(ks) - 1 - n) % 2 == 0 else "" for n, k in enumerate(ks)])
        axes.minorticks_off()
        axes.title.set_size(9)
    figure.legend(*shares.get_legend_handles_labels(), ncols=3, loc="outside upper center", fontsize=7.5)
    return figure, data


def _band(axes: Any, data: pandas.DataFrame, label: str, marker: str) -> None:
    (line,) = axes.plot(data["k"], data["value"], marker=marker, markersize=4, label=label)
    axes.fill_between(data["k"], data["lo"], data["hi"], color=line.get_color(), alpha=0.13, linewidth=0)


def passes_per_task(passed: numpy.ndarray, tiers: Sequence[int]) -> Picture:
    """Draw how many of a task's n samples passed, by tier: the spread of the pass rate."""
    data = pandas.DataFrame({"tier": list(tiers), "passed": passed.sum(axis=1)})
    figure, axes = subplots()
    palette = list(COLOURS[: data["tier"].nunique()])
    seaborn.histplot(data, x="passed", hue="tier", multiple="stack", discrete=True, palette=palette, ax=axes)
    axes.set(xlabel=f"samples that passed, of {passed.shape[1]}", ylabel="tasks")
    axes.locator_params(integer=True)
    return figure, data
