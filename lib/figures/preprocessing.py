"""The figure of notebook 01: what text costs in tokens."""

import pandas

from lib.figures.style import Picture, grouped_bars, subplots


def tokens_per_unit(spent: pandas.DataFrame, unit: str = "word") -> Picture:
    """Draw tokens per unit by kind of text and tokenizer, with intervals over texts.

    `spent`: rows of `lib.tasks.token_cost.Fertility`.
    """
    data = spent[spent["unit"] == unit].reset_index(drop=True)
    kinds = list(dict.fromkeys(data["texts"]))
    figure, axes = subplots(figsize=(6.4, 1.1 + 0.55 * len(kinds)))
    grouped_bars(axes, data, series="tokenizer", group="texts", groups=kinds, value="rate")
    sizes = data.drop_duplicates("texts").set_index("texts")["n"]
    axes.set_yticks(range(len(kinds)), [f"{kind} (n = {sizes[kind]})" for kind in kinds])
    axes.set(xlabel=f"tokens per {unit}", xlim=(0, None))
    figure.legend(ncols=2, loc="outside upper center", fontsize=8)
    return figure, data
