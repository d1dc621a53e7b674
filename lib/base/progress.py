"""Progress that suits the reader: a bar in JupyterLab, a plain line now and then in an unattended run."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
EVERY_S = 15.0


def track(items: Iterable[Item], total: int, what: str = "attempts") -> Iterator[Item]:
    """Pass items through, showing how many of `total` are done, the rate and the time left."""
    if os.environ.get("WORKBOOK_BATCH"):
        yield from _lines(items, total, what)
        return
    from tqdm.auto import tqdm

    yield from tqdm(items, total=total, unit=what)


def _lines(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    start = shown = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        if time.monotonic() - shown >= EVERY_S or done == total:
            shown = time.monotonic()
            rate = done / (shown - start)
            print(f"{done}/{total} {what}, {rate:.1f}/s, {(total - done) / rate:.0f} s left", flush=True)


class Standing:
    """Count attempts, prompts with a winner and winners of a mining run as they come; give speed and time left."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.winners = total, 0, 0
        self.prompts: set[str] = set()
        self.solved: set[str] = set()
        self.start = time.monotonic()

    def take(self, attempt: Any) -> None:
        """Count one attempt."""
        self.done += 1
        self.prompts.add(attempt.task_id)
        if attempt.solved:
            self.winners += 1
            self.solved.add(attempt.task_id)

    def row(self) -> dict[str, str]:
        """The live table's one row."""
        rate = self.done / max(time.monotonic() - self.start, 1e-9)
        return {
            "attempts": f"{self.done} of {self.total}",
            "prompts": f"{len(self.prompts)}",
            "prompts with a winner": f"{len(self.solved)}",
            "winners": f"{self.winners}",
            "attempts/s": f"{rate:.1f}",
            "time left": f"{(self.total - self.done) / rate:.0f} s" if rate else "",
        }


def watch(attempts: Iterable[Any], total: int) -> Iterator[Any]:
    """Pass attempts through beside a live table; in an unattended run a line now and then."""
    standing = Standing(total)
    show = _print_row if os.environ.get("WORKBOOK_BATCH") else _live_table()
    shown = standing.start
    every_s = EVERY_S if show is _print_row else 1.0
    for attempt in attempts:
        yield attempt
        standing.take(attempt)
        if time.monotonic() - shown >= every_s:
            shown = time.monotonic()
            show(standing.row())
    if standing.done:
        show(standing.row())


def _print_row(row: dict[str, str]) -> None:
    print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)


def _live_table() -> Callable[[dict[str, str]], None]:
    from IPython.display import HTML, display

    def html(row: dict[str, str]) -> HTML:
        cells = "".join(f"<td>{value}</td>" for value in row.values())
        return HTML(f"<table><tr>{''.join(f'<th>{name}</th>' for name in row)}</tr><tr>{cells}</tr></table>")

    shown = display(HTML(""), display_id=True)
    return lambda row: shown.update(html(row)) if shown is not None else None


class Log(list[dict[str, Any]]):
    """Rows as they come in: kept, and the named numbers of each printed on a line.

    `draw` makes a (figure, data) of the rows so far, shown live; in an unattended run nothing is drawn.
    """

    def __init__(self, *names: str, draw: Callable[[list[dict[str, Any]]], tuple[Any, Any]] | None = None) -> None:
        super().__init__()
        self.names, self.draw = names, draw
        self.shown: Any = None  # where the figure stands

    def __call__(self, row: dict[str, Any]) -> None:
        """Keep a row and show it."""
        self.append(row)
        print("  ".join(f"{name} {row[name]:.4g}" for name in self.names if row.get(name) is not None), flush=True)
        if self.draw is not None and not os.environ.get("WORKBOOK_BATCH"):
            self._plot(self.draw(self)[0])

    def _plot(self, figure: Any) -> None:
        import matplotlib.pyplot as plt
        from IPython.display import display

        if self.shown is None:
            self.shown = display(figure, display_id=True)
        else:
            self.shown.update(figure)
        plt.close(figure)
