"""Put measured numbers into README.md and RESULTS.md, and say which ones differ from the files that they name.

    python tests/numbers_in_text.py            # prints what differs; exit status 1 if anything does
    python tests/numbers_in_text.py --write    # puts the numbers of the files into the text

A number in a sentence is a link. Its target names the file, the row, and the columns in the order of the numbers:

    [2.0 % to 5.6 %](figures/x.csv#model=rsft&show=before,after)

Percentages and points are 100 times what the file holds; decimals are kept as they are in the text.

A table stands between two comments. The first names the file and holds YAML: `where` (for all cells), `rows`
({label: where}) and `columns` ({header: template}, or {header: {where: …, show: template}}). A template is a format
string over the columns of the row that matches: `{rate:%}` is "28.3 %", `{lo:100}` is "18.5", `{difference:points}` is
"+2.3", `{p:p}` is "0.36". Several matching rows are joined by commas, or averaged with `mean: true`; no matching row
leaves the cell empty. A value of `where` may be a list.

A benchmark's JSON result is read as rows with the columns `name` and `value`.
"""

import argparse
import csv
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import yaml

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ("README.md", "RESULTS.md")
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(((?:figures|benchmarks|data)/[^)#\s]+)#([^)\s]+)\)")
TABLE = re.compile(r"(<!-- table (\S+)\n(.*?)-->\n)(.*?)(<!-- end of table -->)", re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?")
CODE = re.compile(r"^```.*?^```$|`[^`]*`", re.DOTALL | re.MULTILINE)
NAMES = re.compile(r"{(\w+)")
UNSOURCED = re.compile(r"[-+]?\d+(?:\.\d+)? ?(?:%|points?\b|times\b)|\bp = [\d.]+")
ALLOWED = ("95 %", "80 %")  # levels, which nobody measured

Row = dict[str, str]


class Measured(float):
    """A number that knows how texts print it."""

    def __format__(self, spec: str) -> str:
        if spec == "%":
            return f"{100 * self:.1f} %"
        if spec == "100":
            return f"{100 * self:.1f}"
        if spec == "points":
            return f"{100 * self:+.1f}"
        if spec == "p":
            return (
                f"{float(self):.4f}"
                if self < 0.001
                else f"{float(self):.2f}"
                if self >= 0.0995
                else f"{float(self):.3f}"
            )
        return format(float(self), spec)


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a CSV file, or of a benchmark's JSON result, ratios included. Values are text."""
    if path.suffix == ".json":
        found = json.loads(path.read_text(encoding="utf-8"))
        pairs = [(row["name"], row["value"]) for row in found["rows"]] + list(found.get("ratios", {}).items())
        return [{"name": name, "value": str(value)} for name, value in pairs]
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def matching(rows: Sequence[Row], where: Mapping[str, Any]) -> list[Row]:
    """Return the rows whose columns have the values of `where`. Raises KeyError for a column that does not exist."""
    wanted = {name: list(map(str, value if isinstance(value, list) else [value])) for name, value in where.items()}
    return [row for row in rows if all(row[name] in some for name, some in wanted.items())]


def values(row: Row) -> dict[str, Any]:
    """Return a row's cells, numbers as `Measured`."""

    def value(text: str) -> Any:
        try:
            return Measured(text)
        except ValueError:
            return text

    return {name: value(text) for name, text in row.items()}


def table(rows: Sequence[Row], spec: Mapping[str, Any]) -> str:
    """Return the Markdown table that a specification describes."""
    columns = {name: {"show": one} if isinstance(one, str) else one for name, one in spec["columns"].items()}
    lines = ["| " + " | ".join(("", *columns)) + " |", "|" + "---|" * (len(columns) + 1)]
    for label, where in spec["rows"].items():
        cells = []
        for column in columns.values():
            template = column["show"]
            found = matching(rows, {**spec.get("where", {}), **where, **column.get("where", {})})
            names = NAMES.findall(template)
            full = [values(row) for row in found if all(row[name] != "" for name in names)]
            if column.get("mean") and full:
                full = [{name: mean([row[name] for row in full]) for name in names}]
            cells.append(", ".join(template.format_map(row) for row in full))
        lines.append("| " + " | ".join((label, *cells)) + " |")
    return "\n".join(lines) + "\n"


def mean(numbers: Sequence[float]) -> Measured:
    """Return the mean of numbers."""
    return Measured(sum(numbers) / len(numbers))


def sentence(text: str, rows: Sequence[Row], target: str) -> str:
    """Return a link's text with the numbers of its source. Raises ValueError unless one row matches."""
    where = dict(parse_qsl(target, strict_parsing=True))
    names = where.pop("show").split(",")
    found = matching(rows, where)
    if len({tuple(row[name] for name in names) for row in found}) != 1:
        raise ValueError(f"{len(found)} rows match {where}; one should")
    if len(NUMBER.findall(text)) != len(names):
        raise ValueError(f"{text!r} does not hold {len(names)} numbers ({', '.join(names)})")
    scale = 100 if re.search(r"%|\bpoint", text) else 1
    given = iter(names)

    def printed(number: re.Match[str]) -> str:
        decimals = len(number[0].partition(".")[2])
        sign = "+" if number[0][0] == "+" else ""
        return format(scale * float(found[0][next(given)]), f"{sign},.{decimals}f")

    return NUMBER.sub(printed, text)


def filled(text: str, root: Path = ROOT) -> str:
    """Return a page with every sourced number and table as its file has it. Raises ValueError that names the place."""

    def rows_of(name: str) -> list[Row]:
        return read_rows(root / name)

    def one_table(found: re.Match[str]) -> str:
        try:
            return found[1] + table(rows_of(found[2]), yaml.safe_load(found[3])) + found[5]
        except (KeyError, OSError) as error:
            raise ValueError(f"table of {found[2]}: {error!r}") from error

    def one_link(found: re.Match[str]) -> str:
        try:
            return f"[{sentence(found[1], rows_of(found[2]), found[3])}]({found[2]}#{found[3]})"
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"{found[0]}: {error!r}") from error

    return LINK.sub(one_link, TABLE.sub(one_table, text))


def unsourced(text: str) -> list[str]:
    """Return the measured numbers of a page that name no file."""
    rest = CODE.sub("", re.sub(r"<!--.*?-->", "", LINK.sub("", TABLE.sub("", text)), flags=re.DOTALL))
    return [number for number in UNSOURCED.findall(rest) if number not in ALLOWED]


def problems(root: Path = ROOT) -> Iterator[str]:
    """Say what in the pages differs from the files."""
    for name in TEXTS:
        text = (root / name).read_text(encoding="utf-8")
        for old, new in zip(text.splitlines(), filled(text, root).splitlines(), strict=False):
            if old != new:
                yield f"{name}: has {old!r}, should have {new!r}"
        yield from (f"{name}: {number!r} names no file" for number in unsourced(text))


def main() -> None:
    """Print what differs, or write it."""
    parser = argparse.ArgumentParser(description="Compare the numbers of README.md and RESULTS.md with their files.")
    parser.add_argument("--write", action="store_true", help="put the files' numbers into the text")
    if parser.parse_args().write:
        for name in TEXTS:
            path = ROOT / name
            path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    found = list(problems())
    print(*found or ["every number is that of its file"], sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
