"""Progress that suits the reader: a bar in JupyterLab, a plain line now and then in an unattended run."""

import os
import time
from collections.abc import Iterable, Iterator
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


class Log(list[dict[str, Any]]):
    """Rows as they come in: kept, and the named numbers of each printed on a line."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names

    def __call__(self, row: dict[str, Any]) -> None:
        """Keep a row and show it."""
        self.append(row)
        print("  ".join(f"{name} {row[name]:.4g}" for name in self.names if row.get(name) is not None), flush=True)
