"""One run as one HTML file that opens offline: headline numbers with intervals, figures, parameters, versions, commit.

Everything is escaped, every picture is inside the file, and what the run has not made yet is named as missing.
"""

import base64
import csv
import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.base.files import read_json, write_text
from lib.evaluation.failures import table as failure_table
from lib.evaluation.failures.table import escape

Row = Mapping[str, str]
STYLE = Path(__file__).with_suffix(".css")
CAPTION_ROWS = 200  # of a figure's data, shown under it
ALT_ROWS = 8  # of a figure's data, in the text for those who do not see it
PROTOCOLS = ("greedy", "draws")  # what headlines are made of; best-of-k and pass@k answer other questions


def build(run_dir: str | Path) -> Path:
    """Write run_dir/report.html and return its path."""
    folder = Path(run_dir)
    page = folder / "report.html"
    write_text(page, render(folder))
    return page


def render(folder: Path) -> str:
    """Return the page of a run folder."""
    manifest = read_json(folder / "manifest.json")
    rows = _rows(folder / "scores.csv")
    title = f"Run {manifest.get('run_id') or folder.name}"
    compared = _rows(folder / "comparisons.csv")
    body = [
        banners(folder / "banners.txt"),
        f"<h1>{escape(title)}</h1>",
        *(f'<p class="opening">{escape(line).replace(" %", "&nbsp;%")}</p>' for line in (trained(folder), changed(rows), how_sure(rows, compared))),
        facts(manifest),
        section("Headline", headline(rows)),
        section(
            "All scores",
            _folded("every row of scores.csv", score_table(rows)) if rows else _missing("scores.csv"),
        ),
        section("Against the base", comparisons(compared)),
        section("Figures", figures(folder / "figures")),
        section("Failures, one per task and model", browsable(_rows(folder / "failures_browse.csv"))),
        section("Stages", stage_table(manifest)),
        section("Parameters", parameter_tables(manifest)),
        section("Versions", definitions(manifest.get("versions", {})) or _missing("manifest.json, versions")),
        section("Run it again", rerun(manifest)),
    ]
    return document(title, body)


def document(title: str, body: Iterable[str], style: str = "") -> str:
    """Return an HTML page of its own, which fetches nothing."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    looks = STYLE.read_text(encoding="utf-8") + style
    page = f"<head>{head}<style>{looks}</style></head><body><main>{''.join(body)}</main></body>"
    return f'<!doctype html>\n<html lang="en">{page}</html>\n'


# ------------------------------------------------------------------------------------------------------- three sentences


def trained(folder: Path) -> str:
    """Say what was trained, from the facts that notebooks 02 to 04 leave."""
    mined, tuned, gmpo = (read_json(folder / f"{name}.json") for name in ("mining", "sft", "gmpo"))
    model = read_json(folder / "environment.json").get("chosen_model", "(not named)")
    if not (mined.keys() >= {"attempts", "tasks"} and tuned.keys() >= {"steps", "examples"}):
        return "What was trained is not known: mining.json or sft.json is missing or of another version."
    words = (
        f"The model {model} wrote {mined['attempts']:,} programs for {_counted(mined['tasks'], 'training task')}, and "
        f"RSFT trained it for {_counted(tuned['steps'], 'step')} on {tuned['examples']} of those that passed every test"
    )
    if not gmpo.keys() >= {"tasks", "history"}:
        return f"{words}."
    tasks, steps = _counted(gmpo["tasks"], "task"), _counted(len(gmpo["history"]), "step")
    return f"{words}; GMPO then trained the result on {tasks} for {steps}."


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("s" if number != 1 else "")


def changed(rows: Sequence[Row]) -> str:
    """Say what share of programs passes, model by model: over samples where there are any, else over greedy answers."""
    shown = _quoted(rows)
    if not shown:
        return "What changed is not known: scores.csv is missing."
    rates = ", ".join(f"{percent(_number(row.get('rate')))} with {row.get('model')}" for row in shown)
    what = "samples" if shown[0].get("protocol") == "draws" else "greedy answers"
    tests = f"the {shown[0].get('tests')} tests of {shown[0].get('n_tasks')} held-out tasks"
    return f"The share of {what} that pass {tests} is {rates}."


def how_sure(rows: Sequence[Row], compared: Sequence[Row]) -> str:
    """Say between which limits each change lies, and whether chance alone could give it."""
    protocol = _quoted(rows)[0].get("protocol") if rows else ""
    parts = []
    for row in (row for row in compared if row.get("protocol") == protocol):
        low, high, p, adjusted = (
            _number(row.get(name)) for name in ("difference_lo", "difference_hi", "p_permutation", "p_holm")
        )
        p = p if math.isnan(adjusted) else adjusted
        verdict = "which chance alone seldom gives" if p < 0.05 else "which chance alone could give"
        limits = f"{100 * low:+.1f} and {100 * high:+.1f} points"
        parts.append(f"of {row.get('model')} lies between {limits} (95 % interval, p {p_text(p)}), {verdict}")
    return f"Against the base the change {'; that '.join(parts)}." if parts else "Nothing here says how sure this is."


def _quoted(rows: Sequence[Row]) -> list[Row]:
    """Return the headline rows of one protocol, samples before greedy answers."""
    shown = headline_rows(rows)
    return [row for row in shown if row.get("protocol") == "draws"] or shown


# ------------------------------------------------------------------------------------------------------------- numbers


def headline_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows a reader should see first: the test split's hidden tests, greedy and over draws; else all there are."""
    chosen = [row for row in rows if row.get("protocol") in PROTOCOLS]
    for column, wanted in (("split", "test"), ("tests", "hidden")):
        chosen = [row for row in chosen if row.get(column) == wanted] or chosen
    return chosen or list(rows)


def headline(rows: Sequence[Row]) -> str:
    """Return the headline rows, each with its interval drawn."""
    if not rows:
        return _missing("scores.csv, so there are no numbers")
    lines = []
    for row in headline_rows(rows):
        rate, low, high = (_number(row.get(name)) for name in ("rate", "lo", "hi"))
        cells = [row.get("model", ""), question(row), percent(rate), f"{percent(low)} – {percent(high)}"]
        lines.append([*map(escape, cells), interval(rate, low, high), escape(versus(row))])
    names = ("model", "measured on", "rate", "95 % interval", "0 – 100 %", "against")
    return table(names, lines, "headline")


def question(row: Row) -> str:
    """Describe what a score row measured: split, language, tests, protocol, tasks and draws."""
    draws = f" × {row['draws']} samples" if row.get("draws") not in (None, "", "1") else ""
    seed = f", seed {row['seed']}" if row.get("seed") else ""
    return (
        f"{row.get('protocol', '?')}, {row.get('split', '?')} split, {row.get('language', '?')}, "
        f"{row.get('tests', '?')} tests, {row.get('n_tasks', '?')} tasks{draws}{seed}"
    )


def versus(row: Row) -> str:
    """Describe the paired comparison of a row; "" where there is none."""
    if not row.get("vs"):
        return ""
    values = (("McNemar", row.get("p_mcnemar")), ("permutation", row.get("p_permutation")))
    shown = [f"{name} p {p_text(number)}" for name, text in values if not math.isnan(number := _number(text))]
    return f"{row['vs']}: {', '.join(shown)}" if shown else str(row["vs"])


def comparisons(rows: Sequence[Row]) -> str:
    """Return the paired comparisons: difference with interval, p, p adjusted over the declared family, least detectable."""
    if not rows:
        return _missing("comparisons.csv")
    lines = []
    for row in rows:
        names = ("difference", "difference_lo", "difference_hi", "mde", "p_permutation", "p_holm")
        difference, low, high, least, p, adjusted = (_number(row.get(name)) for name in names)
        shown = ["—" if math.isnan(value) else f"p {p_text(value)}" for value in (p, adjusted)]
        points = [f"{100 * value:+.1f}" for value in (difference, low, high)]
        cells = [row.get("model", ""), row.get("protocol", ""), f"{points[0]} [{points[1]}, {points[2]}]", *shown]
        lines.append([*map(escape, cells), escape(f"{100 * least:.1f}" if math.isfinite(least) else "—")])
    names = ("model", "answers", "points [95 %]", "p", "p, Holm over the declared family", "least detectable, points")
    return table(names, lines)


def percent(value: float) -> str:
    """A rate in percent with one decimal; a dash when it is not known."""
    return "—" if math.isnan(value) else f"{100 * value:.1f} %"


def p_text(value: float) -> str:
    """A p-value as papers print it."""
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def interval(rate: float, low: float, high: float) -> str:
    """Draw a line from lo to hi with a dot at the rate, on a scale from 0 to 1, as inline SVG."""
    if any(math.isnan(value) for value in (rate, low, high)):
        return ""
    x1, x, x2 = (2 + 156 * min(max(value, 0.0), 1.0) for value in (low, rate, high))
    return (
        '<svg width="160" height="14" aria-hidden="true"><line x1="2" x2="158" y1="7" y2="7" class="axis"/>'
        f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="7" y2="7" class="range"/><circle cx="{x:.1f}" cy="7" r="3.5"/></svg>'
    )


def score_table(rows: Sequence[Row]) -> str:
    """scores.csv as it is."""
    names = list(rows[0]) if rows else []
    return table(names, [[escape(row.get(name) or "") for name in names] for row in rows])


# ------------------------------------------------------------------------------------------------------------- figures


def figures(folder: Path) -> str:
    """Show every picture with its caption, from a .txt or .md of the same name, and its data, from a .csv."""
    pictures = sorted(folder.glob("*.png"))
    if not pictures:
        return _missing("figures/*.png")
    return "".join(figure(path) for path in pictures)


def figure(path: Path) -> str:
    """Show one picture, its caption and its data."""
    caption_file = path.with_suffix(".txt")
    name = path.stem.replace("_", " ")
    caption = caption_file.read_text(encoding="utf-8", errors="replace").strip() if caption_file.is_file() else name
    picture = base64.b64encode(path.read_bytes()).decode()
    words = alt_text(caption, _rows(path.with_suffix(".csv")))
    return (
        f'<h3>{escape(name)}</h3><figure><img alt="{escape(words)}" src="data:image/png;base64,{picture}">'
        f"<figcaption>{escape(caption)}</figcaption>{figure_data(path.with_suffix('.csv'))}</figure>"
    )


def alt_text(caption: str, rows: Sequence[Row]) -> str:
    """Return the caption and the numbers of the figure's first rows, without what all rows share."""
    told = [name for name in (rows[0] if rows else ()) if len(rows) == 1 or len({row.get(name) for row in rows}) > 1]
    numbers = [", ".join(f"{name} {_short(row[name])}" for name in told if row.get(name)) for row in rows[:ALT_ROWS]]
    more = [f"and {len(rows) - ALT_ROWS} more rows, below"] if len(rows) > ALT_ROWS else []
    return f"{caption} {'; '.join([*numbers, *more])}".strip()


def figure_data(path: Path) -> str:
    """Show the first rows of a figure's data, folded away; nothing where there is no file."""
    rows = _rows(path)
    if not rows:
        return ""
    more = f", the first {CAPTION_ROWS} of {len(rows)} rows" if len(rows) > CAPTION_ROWS else ""
    return _folded(f"data: {path.name}{more}", score_table(rows[:CAPTION_ROWS]))


def browsable(rows: Sequence[Row]) -> str:
    """Return the table of failures."""
    return failure_table.render(rows) if rows else _missing("failures_browse.csv")


# ---------------------------------------------------------------------------------------------------------- the run


def banners(path: Path) -> str:
    """Return the warnings of banners.txt, one per line."""
    if not path.is_file():
        return ""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "".join(f'<p class="banner" role="alert">{escape(line)}</p>' for line in lines if line.strip())


def facts(manifest: Mapping[str, Any]) -> str:
    """State when, where and from which code."""
    if not manifest:
        return _missing("manifest.json: when, where and with which code this ran is not known")
    git, machine = manifest.get("git") or {}, manifest.get("platform") or {}
    commit = f"commit {git['commit']}" if git.get("commit") else "no git commit known"
    if git.get("dirty"):
        commit += ", with changes that are not committed"
    cores = f"{machine.get('cores', '?')} cores, {machine.get('memory_gb', '?')} GB"
    where = f"{machine.get('processor', '?')}, {cores}, {machine.get('system', '?')}"
    started = f"preset {manifest.get('preset', '?')}, started {manifest.get('started_at', '?')}"
    return "".join(f'<p class="facts">{escape(line)}</p>' for line in (started, commit, where))


def stage_table(manifest: Mapping[str, Any]) -> str:
    """List finished stages with their seconds; those without a record are named."""
    finished = manifest.get("stages") or {}
    names = list(dict.fromkeys([*manifest.get("parameters", {}), *finished]))
    if not names:
        return _missing("manifest.json, stages")
    rows = []
    for name in names:
        stage = finished.get(name) or {}
        seconds = f"{_number(stage['seconds']):,.0f} s" if "seconds" in stage else "not finished"
        rows.append(
            [
                escape(name),
                escape(seconds),
                escape(stage.get("finished_at", "")),
                f"<code>{escape(stage.get('key', '')[:12])}</code>",
            ]
        )
    return table(("stage", "time", "finished", "key"), rows)


def parameter_tables(manifest: Mapping[str, Any]) -> str:
    """List each stage's parameters."""
    stages = manifest.get("parameters") or {}
    if not stages:
        return _missing("manifest.json, parameters")
    blocks = (
        f"<div><h3>{escape(name)}</h3>{definitions(values) or '<p>none</p>'}</div>" for name, values in stages.items()
    )
    return f'<div class="columns">{"".join(blocks)}</div>'


def definitions(values: Mapping[str, Any]) -> str:
    """Names and values in two columns."""
    rows = [[f"<code>{escape(name)}</code>", escape(_value(value))] for name, value in values.items()]
    return table((), rows, "pairs") if rows else ""


def rerun(manifest: Mapping[str, Any]) -> str:
    """Return the command that makes this run again."""
    if not manifest:
        return _missing("manifest.json, so the command is not known")
    words = ["python", "-m", "lib", "run", "--preset", str(manifest.get("preset", "?"))]
    for setting in manifest.get("settings") or ():
        words += ["--set", str(setting)]
    words += ["--run-dir", str(manifest.get("run_dir", "?"))]
    commit = (manifest.get("git") or {}).get("commit")
    lines = ([f"git checkout {commit}"] if commit else []) + ["make install", shlex.join(words)]
    return f"<pre>{escape(chr(10).join(lines))}</pre><p>Finished stages are skipped; another --run-dir starts afresh.</p>"


# ------------------------------------------------------------------------------------------------------------ markup


def section(title: str, content: str) -> str:
    """A titled part of the page."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def table(names: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table from cells that are HTML already."""
    heads = "".join(f'<th role="columnheader" scope="col">{escape(name)}</th>' for name in names)
    head = f'<thead><tr role="row">{heads}</tr></thead>' if names else ""
    titles = [f' data-name="{escape(name)}"' for name in names] or ["", ""]
    lines = ""
    for row in rows:
        cells = (f'<td role="cell"{title}>{cell}</td>' for title, cell in zip(titles, row, strict=False))
        lines += f'<tr role="row">{"".join(cells)}</tr>'
    body = f'<table role="table" class="{kind or "rows"}">{head}<tbody>{lines}</tbody></table>'
    return f'<div class="scroll" tabindex="0">{body}</div>'


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def _missing(what: str) -> str:
    return f'<p class="missing">Missing: {escape(what)}</p>'


def _short(value: str) -> str:
    """Return a number with three digits, any other text as it is."""
    return value if math.isnan(number := _number(value)) or value.isdigit() else f"{number:.3g}"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        return [{name: value for name, value in row.items() if name} for row in csv.DictReader(lines)]
