"""Figures of notebooks 03 and 04: fine-tuning and GMPO, step by step."""

from collections.abc import Sequence
from typing import Any

import pandas

from lib.figures.style import COLOURS, Picture, legend_above, subplots, whole_steps


def loss_curve(history: Sequence[dict[str, float]], held_out: Sequence[dict[str, float]] = ()) -> Picture:
    """Draw training loss and token accuracy over steps; beside them pass@1 on held-out tasks, where it was measured."""
    data = pandas.DataFrame(history)[["step", "loss", "mean_token_accuracy"]]
    panels = 2 if held_out else 1
    figure, rows = subplots(1, panels, squeeze=False, figsize=(3.6 + 1.8 * panels, 3.0))
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


def gmpo_curves(steps: Sequence[dict[str, Any]]) -> Picture:
    """Draw reward, the share of prompts with mixed outcomes, and the variance of two estimators' advantages."""
    data = pandas.DataFrame(steps)
    figure, (left, right) = subplots(1, 2, figsize=(7.2, 2.8))
    left.plot(data["step"], data["reward"], "o-", label="mean reward")
    left.plot(data["step"], data["mixed_outcome"], "s--", label="prompts with mixed outcomes")
    left.set(xlabel="step", ylabel="share", ylim=(0, 1.03))
    right.plot(data["step"], data["advantage_var"], "o-", label="this run's advantages")
    right.plot(data["step"], data["advantage_var_per_prompt"], "s--", label="per-prompt z-score")
    right.set(xlabel="step", ylabel="variance of advantages")
    for axes in (left, right):
        whole_steps(axes)
        legend_above(axes, 1)
    return figure, data
