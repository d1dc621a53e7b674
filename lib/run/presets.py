"""What there is to run: the stages, their notebooks' parameters, the presets and settings that fill them."""

import ast
import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lib.base.errors import WorkbookError
from lib.base.files import ROOT

NOTEBOOKS = ROOT / "notebooks"
PRESET_KEYS = ("shared", "to", "about", "minutes", "needs_gpu_gb")  # beside the stages' own sections

Say = Callable[[str], None]
Values = dict[str, Any]


class PipelineError(WorkbookError):
    """A run that cannot start or must stop; the message says why and what would be right."""

    several_lines = True  # a failing cell is shown with its first lines


@dataclasses.dataclass(frozen=True)
class Stage:
    """One notebook and the files it takes and gives: globs relative to the run folder, each matching at least one."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


_TASKS = "tasks/*.jsonl"
_MINED, _EVALUATED = (
    "attempts/mining.jsonl",
    "attempts/evaluation.jsonl",
)  # ledgers: kept and appended to by re-runs
_ALL = ("environment", "preprocessing", "mining", "sft", "gmpo", "evaluation")
STAGES = (
    Stage("00_environment", (), ("environment.json",)),
    Stage("01_preprocessing", (), (_TASKS, "preprocessing.json")),
    Stage("02_mining", (_TASKS,), ("winners.jsonl", "mining.json", "k_ablation.csv")),
    Stage("03_sft", (_TASKS, _MINED, "winners.jsonl"), ("adapters/rsft/*", "sft.json")),
    Stage("04_gmpo", (_TASKS, _MINED, "adapters/rsft/*"), ("adapters/gmpo/*", "gmpo.json")),
    Stage("05_evaluation", (_TASKS, "adapters/*/*"), ("scores.csv", "evaluation.json")),
    Stage("06_failure_taxonomy", (_TASKS, _EVALUATED, "evaluation.json", "gmpo.json"), ("failures.csv",)),
    Stage(
        "07_paper_figures",
        (*(f"{name}.json" for name in _ALL), _TASKS, _MINED, "winners.jsonl", "scores.csv", "failures.csv"),
        ("figures/*",),
    ),
)


@dataclasses.dataclass(frozen=True)
class Notebook:
    """A stage's notebook: its code and its parameters with their defaults."""

    path: Path
    source: str
    defaults: Values


def read_notebook(path: Path) -> Notebook:
    """Read a notebook; exactly one code cell tagged `parameters`, which assigns `run_dir`, is required."""
    import nbformat

    if not path.is_file():
        raise PipelineError(f"{path}: no such notebook")
    try:
        cells = nbformat.read(path, as_version=4).cells
    except Exception as error:  # nbformat raises its own, json's and jsonschema's kinds
        raise PipelineError(f"{path}: not a notebook ({str(error).splitlines()[0]:.120})") from None
    code = [cell for cell in cells if cell.cell_type == "code"]
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise PipelineError(f"{path}: {len(tagged)} cells are tagged `parameters`; exactly one is expected")
    defaults = _assignments(tagged[0].source, path)
    if "run_dir" not in defaults:
        raise PipelineError(f"{path}: its parameters lack run_dir")
    return Notebook(path, "\n".join(python_lines(cell.source) for cell in code), defaults)


def python_lines(source: str) -> str:
    """A cell's source with IPython's % and ! lines blanked, so that `ast` reads it."""
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)


def _assignments(source: str, path: Path) -> Values:
    """{name: value} of a parameters cell. A default that is not a literal stands as its source text."""
    try:
        body = ast.parse(python_lines(source)).body
    except SyntaxError as error:
        raise PipelineError(f"{path}: the parameters cell does not parse (line {error.lineno}: {error.msg})") from None
    values: Values = {}
    for node in body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value:
                values[target.id] = _literal(node.value)
    return values


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


class _Loader(yaml.SafeLoader):
    """YAML in which 5e-5 is a number: PyYAML's own rule wants 5.0e-5."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def preset_names(notebooks: Path = NOTEBOOKS) -> list[str]:
    """Presets there are."""
    return sorted(path.stem for path in (notebooks / "presets").glob("*.yaml"))


def load_preset(name: str, notebooks: Path = NOTEBOOKS, stages: Sequence[Stage] = STAGES) -> dict[str, Any]:
    """A preset's sections: stage names, `shared`, and optionally `to`, `about`, `minutes`, `needs_gpu_gb`."""
    if name not in preset_names(notebooks):
        raise PipelineError(f"no preset {name!r}; there are {', '.join(preset_names(notebooks)) or 'none'}")
    path = notebooks / "presets" / f"{name}.yaml"
    try:
        preset = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    known = [stage.name for stage in stages]
    if not isinstance(preset, dict):
        raise PipelineError(f"{path}: a mapping of stage names to parameters is expected")
    for section, values in preset.items():
        if section not in known and section not in PRESET_KEYS:
            raise PipelineError(f"{path}: no stage {section!r}; there are {', '.join([*known, *PRESET_KEYS])}")
        if (section in known or section == "shared") and not isinstance(values, dict | None):
            raise PipelineError(f"{path}: {section} should be a mapping of parameter names to values")
    return preset


def parse_setting(text: str) -> tuple[str, str]:
    """Return (key, value) of one `--set KEY=VALUE`, both as typed."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise PipelineError(f"--set {text}: expected KEY=VALUE, or STAGE.KEY=VALUE")
    return key.strip(), value


def resolve(
    notebooks: Mapping[str, Notebook], preset: Mapping[str, Any], name: str, settings: Iterable[str] = ()
) -> dict[str, Values]:
    """{stage: {parameter: value}} that differ from the notebooks' defaults; later sources win.

    Order: the preset's `shared`, its stage sections, then `--set`. Raises PipelineError for a name no notebook has.
    """
    values: dict[str, Values] = {stage: {} for stage in notebooks}
    for key, value in (preset.get("shared") or {}).items():
        _assign(values, notebooks, [stage for stage in notebooks if key in notebooks[stage].defaults], key, value,
                f"preset {name}, shared")  # fmt: skip
    for stage in notebooks:
        for key, value in (preset.get(stage) or {}).items():
            _assign(values, notebooks, [stage], key, value, f"preset {name}")
    for key, value in map(parse_setting, settings):
        stage, dot, own = key.rpartition(".")
        if dot and stage not in notebooks:
            raise PipelineError(f"--set {key}: no stage {stage!r}; there are {', '.join(notebooks)}")
        having = [stage] if dot else [stage for stage in notebooks if own in notebooks[stage].defaults]
        _assign(values, notebooks, having, own, value, "--set", typed=True)
    return values


def parameters(preset: str) -> dict[str, Values]:
    """Return {stage: all of its parameters}: the notebooks' defaults and what the preset changes in them."""
    books = {stage.name: read_notebook(NOTEBOOKS / f"{stage.name}.ipynb") for stage in STAGES}
    changed = resolve(books, load_preset(preset), preset)
    return {name: book.defaults | changed[name] for name, book in books.items()}


def _assign(
    values: dict[str, Values],
    notebooks: Mapping[str, Notebook],
    stages: list[str],
    key: str,
    value: Any,
    where: str,
    *,
    typed: bool = False,
) -> None:
    if key == "run_dir":
        raise PipelineError(f"{where}: run_dir is not a parameter to set; use --run-dir")
    if not stages:
        every = sorted({name for notebook in notebooks.values() for name in notebook.defaults} - {"run_dir"})
        raise PipelineError(f"{where}: no stage has a parameter {key!r}; there are {', '.join(every)}")
    for stage in stages:
        defaults = notebooks[stage].defaults
        if key not in defaults:
            own = ", ".join(name for name in defaults if name != "run_dir") or "none"
            raise PipelineError(f"{where}: {stage} has no parameter {key!r}; its parameters are {own}")
        try:
            values[stage][key] = usable(defaults[key], from_text(defaults[key], value) if typed else value)
        except ValueError as error:
            shown = value if typed else repr(value)
            raise PipelineError(f"{where}: {stage}.{key}={shown}: {error} (default {defaults[key]!r})") from None


KINDS: dict[type, str] = {
    bool: "true or false", int: "a whole number", float: "a number", type(None): "a number or null", str: "text",
    list: "a list", dict: "a mapping",
}  # fmt: skip


def from_text(default: Any, text: str) -> Any:
    """Return typed text as a value of its default's kind, or as it is where it cannot be one; text stays text."""
    if isinstance(default, str):
        return text
    if isinstance(default, bool) or (default is None and text == "null"):
        return {"true": True, "false": False, "null": None}.get(text, text)
    if isinstance(default, list | dict):
        try:
            return yaml.load(text, _Loader)
        except yaml.YAMLError:
            return text
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and not isinstance(default, float) else number


def usable(default: Any, value: Any) -> Any:
    """Return a parameter's value if it can stand where its default stands; else raise ValueError.

    Numbers are finite and not negative, whole where the default is whole; where the default names a file, a file is
    there.
    """
    kind, number = type(default), isinstance(value, int | float) and not isinstance(value, bool)
    if kind in (type(None), float):
        fits = number or (default is None and value is None)
    else:
        fits = type(value) is kind
    if not fits:
        raise ValueError(f"{KINDS[kind]} is expected")
    if number and not 0 <= value < math.inf:
        raise ValueError("a finite number of at least 0 is expected")
    if kind is str and (ROOT / default).is_file() and not (ROOT / value).is_file():
        raise ValueError("no such file")
    return value


def short(path: Path) -> str:
    """A path as shown and stored: relative to the repository where it is inside."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
