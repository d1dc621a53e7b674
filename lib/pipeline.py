"""Runs the notebooks in order, each as a stage that is repeated only when something it depends on has changed.

A stage's key is a digest of its parameters, of the content of its inputs, of its own code cells and of the `lib` rooms
they import. Its marker, stages/NN_name.json, is written when it has finished and holds that key and a digest of every
output; a stage whose marker still holds is skipped. Nothing else is remembered, so a run may be killed at any moment.
"""

import ast
import contextlib
import dataclasses
import datetime
import fcntl
import functools
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from lib import doctor

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
MIN_FREE_MB = 200
# Rooms that say when a stage runs and how it looks, never what it gives: they are no part of a key.
MACHINERY = {"pipeline", "report", "progress"}
PRESET_KEYS = ("shared", "to", "about", "needs_gpu_gb")  # beside the stages' own sections

Say = Callable[[str], None]
Values = dict[str, Any]


class PipelineError(RuntimeError):
    """A run that cannot start or must stop; the message says why and what would be right."""


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
    Stage("02_mining", (_TASKS,), ("winners.jsonl", "mining.json")),
    Stage("03_sft", (_TASKS, "winners.jsonl"), ("adapters/rsft/*", "sft.json")),
    Stage("04_gmpo", (_TASKS, _MINED, "adapters/rsft/*"), ("adapters/gmpo/*", "gmpo.json")),
    Stage("05_evaluation", (_TASKS, "adapters/*/*"), ("scores.csv", "evaluation.json")),
    Stage("06_failure_taxonomy", (_TASKS, _EVALUATED, "evaluation.json"), ("failures.csv",)),
    Stage(
        "07_paper_figures",
        (*(f"{name}.json" for name in _ALL), _TASKS, _MINED, "winners.jsonl", "scores.csv", "failures.csv"),
        ("figures/*",),
    ),
)


# ------------------------------------------------------------------------------------------------ notebooks and presets


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
        raise PipelineError(
            f"{path}: the parameters cell does not parse (line {error.lineno}: {error.msg})"
        ) from None
    values: Values = {}
    for node in body:
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
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
    """A preset's sections: stage names, `shared`, and optionally `to`, `about` and `needs_gpu_gb`."""
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
            raise PipelineError(
                f"{path}: no stage {section!r}; there are {', '.join([*known, *PRESET_KEYS])}"
            )
        if (section in known or section == "shared") and not isinstance(values, dict | None):
            raise PipelineError(f"{path}: {section} should be a mapping of parameter names to values")
    return preset


def parse_setting(text: str) -> tuple[str, Any]:
    """("key", value) of one `--set KEY=VALUE`; the value is YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise PipelineError(f"--set {text}: expected KEY=VALUE, or STAGE.KEY=VALUE")
    try:
        return key.strip(), yaml.load(value, _Loader)
    except yaml.YAMLError:
        raise PipelineError(f"--set {text}: the value is not YAML") from None


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
        _assign(values, notebooks, having, own, value, "--set")
    return values


def _assign(
    values: dict[str, Values],
    notebooks: Mapping[str, Notebook],
    stages: list[str],
    key: str,
    value: Any,
    where: str,
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
        if not _same_kind(defaults[key], value):
            kind = type(defaults[key]).__name__
            raise PipelineError(
                f"{where}: {stage}.{key} is {value!r}; like its default {defaults[key]!r}, a {kind} is expected"
            )
        values[stage][key] = value


def _same_kind(default: Any, value: Any) -> bool:
    """Whether a value can stand in a number's or a truth value's place; other kinds are the notebook's business."""
    if value is None or not isinstance(default, bool | int | float):
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, int | float)


# ------------------------------------------------------------------------------------------------------------ digests


def library_files(source: str, root: Path = ROOT) -> list[Path]:
    """Files of `lib` a program depends on: the rooms it imports, directly or not, also inside functions.

    A room that is a folder counts whole, data files included, because some of its modules are started by name.
    """
    found: set[Path] = set()
    waiting = [source]
    while waiting:
        for room in _rooms(waiting.pop()):
            for path in [root / "lib" / f"{room}.py", *sorted((root / "lib" / room).rglob("*"))]:
                if path not in found and path.is_file() and "__pycache__" not in path.parts:
                    found.add(path)
                    waiting += [path.read_text(encoding="utf-8")] if path.suffix == ".py" else []
    return sorted(found)


def _rooms(source: str) -> set[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("lib.")} - MACHINERY


def code_digest(source: str, root: Path = ROOT) -> str:
    """Digest of a program and the `lib` files it depends on; comments and layout do not count."""
    parts = [ast.dump(ast.parse(source))]
    for path in library_files(source, root):
        python = path.suffix == ".py"
        content = ast.dump(ast.parse(path.read_bytes())) if python else file_digest(path)
        parts.append(f"{path.relative_to(root)} {content}")
    return _digest(parts)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file; read once as long as its size and times stay."""
    stat = path.stat()
    return _file_digest(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@functools.lru_cache(maxsize=10_000)
def _file_digest(path: Path, *stat: int) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def matching(folder: Path, patterns: Iterable[str], why: str) -> dict[str, str]:
    """{relative path: digest} of the files that glob patterns match; PipelineError for one that matches nothing."""
    digests: dict[str, str] = {}
    for pattern in patterns:
        files = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
        if not files:
            raise PipelineError(f"{why} {pattern}, and {folder} has none")
        digests |= {str(path.relative_to(folder)): file_digest(path) for path in files}
    return digests


def parameter_files(values: Values, root: Path = ROOT) -> dict[str, str]:
    """Digests of the files that parameters name, alone or in a list."""
    digests = {}
    for key, value in values.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, str) and os.path.isfile(root / item):
                digests[f"{key}={item}"] = file_digest(root / item)
    return digests


def key_parts(
    stage: Stage, notebook: Notebook, values: Values, run_dir: Path, root: Path = ROOT
) -> dict[str, str]:
    """Digests of what a stage depends on. Raises PipelineError when an input is missing."""
    every = {key: value for key, value in {**notebook.defaults, **values}.items() if key != "run_dir"}
    inputs = matching(run_dir, stage.inputs, f"{stage.name} needs")
    return {
        "parameters": _digest(every),
        "inputs": _digest([inputs, parameter_files(every, root)]),
        "code": code_digest(notebook.source, root),
    }


# ------------------------------------------------------------------------------------------------------------ markers


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that appears whole or not at all, also when the power goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as out:
            json.dump(value, out, ensure_ascii=False, indent=1, default=str)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is none to read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def marker_path(run_dir: Path, stage: Stage) -> Path:
    """Where a finished stage is noted."""
    return run_dir / "stages" / f"{stage.name}.json"


def why_run(marker: Mapping[str, Any], parts: Mapping[str, str], run_dir: Path) -> str:
    """Why a stage must run ("never finished", "its inputs changed", …); empty when it is finished as it stands."""
    if not marker.get("outputs") or not marker.get("parts"):
        return "not finished before"
    changed = [part for part in parts if marker["parts"].get(part) != parts[part]]
    if changed:
        return f"its {' and '.join(changed)} changed"
    for name, digest in marker["outputs"].items():
        if not (run_dir / name).is_file() or file_digest(run_dir / name) != digest:
            return f"its output {name} is gone or was changed"
    return ""


def drop_stale(run_dir: Path, before: Mapping[str, str], started_ns: int) -> None:
    """Remove outputs of a stage's earlier run that its new run did not write again."""
    for name, digest in before.items():
        path = run_dir / name
        if path.is_file() and path.stat().st_mtime_ns < started_ns and file_digest(path) == digest:
            path.unlink()


# ---------------------------------------------------------------------------------------------------------------- runs


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run that has been checked and may start."""

    preset: str
    settings: tuple[str, ...]
    run_dir: Path
    stages: tuple[Stage, ...]  # those to run
    notebooks: dict[str, Notebook]
    values: dict[str, Values]


def plan(
    preset: str,
    settings: Sequence[str] = (),
    first: str | None = None,
    last: str | None = None,
    run_dir: str | Path | None = None,
    notebooks: Path = NOTEBOOKS,
    stages: Sequence[Stage] = STAGES,
) -> Plan:
    """Check a run as a whole; nothing is written. Raises PipelineError for any name that does not exist."""
    sections = load_preset(preset, notebooks, stages)
    chosen = choose(stages, first, last or sections.get("to"))
    books = {stage.name: read_notebook(notebooks / f"{stage.name}.ipynb") for stage in stages}
    values = resolve(books, sections, preset, settings)
    folder = Path(run_dir) if run_dir else ROOT / "runs" / preset
    return Plan(preset, tuple(settings), Path(os.path.abspath(folder)), chosen, books, values)


def choose(stages: Sequence[Stage], first: str | None, last: str | None) -> tuple[Stage, ...]:
    """The stages from `first` to `last`, named in full ("02_mining"), by number ("02") or by word ("mining")."""
    names = [stage.name for stage in stages]

    def position(wanted: str | None, default: int) -> int:
        if wanted is None:
            return default
        found = [i for i, name in enumerate(names) if str(wanted) in (name, *name.split("_", 1))]
        if len(found) != 1:
            raise PipelineError(f"no stage {wanted!r}; there are {', '.join(names)}")
        return found[0]

    start, stop = position(first, 0), position(last, len(names) - 1)
    if start > stop:
        raise PipelineError(f"--from {names[start]} comes after --to {names[stop]}")
    return tuple(stages[start : stop + 1])


def describe(name: str, notebooks: Path = NOTEBOOKS, stages: Sequence[Stage] = STAGES) -> dict[str, Any]:
    """What a preset would do, for `doctor`; "error" says why it could not."""
    try:
        checked = plan(name, notebooks=notebooks, stages=stages)
    except PipelineError as error:
        return {"name": name, "error": str(error)}
    sections = load_preset(name, notebooks, stages)
    return {
        "name": name,
        "about": sections.get("about", ""),
        "needs_gpu_gb": sections.get("needs_gpu_gb"),
        "shared": sections.get("shared") or {},
        "stages": [stage.name for stage in checked.stages],
        "finished": [stage.name for stage in checked.stages if marker_path(checked.run_dir, stage).is_file()],
        "run_dir": short(checked.run_dir),
    }


def short(path: Path) -> str:
    """A path as shown and stored: relative to the repository where it is inside."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def run(checked: Plan, say: Say = print, verbose: bool = False) -> dict[str, Any]:
    """Run a plan's stages that are not finished; returns {"run_id", "run_dir", "preset", "stages", "report"}.

    Raises PipelineError for a failing stage, a folder in use or a full disk, KeyboardInterrupt once the kernel is gone.
    """
    from lib import report

    prepare(checked.run_dir)
    with locked(checked.run_dir, say):
        manifest = open_manifest(checked)
        done = []
        for stage in checked.stages:
            seconds = run_stage(checked, stage, say, verbose)
            done.append({"stage": stage.name, "skipped": seconds is None, "seconds": seconds or 0.0})
            write_manifest(checked.run_dir, manifest)
        page = report.build(checked.run_dir)
    return {
        "run_id": manifest["run_id"],
        "run_dir": short(checked.run_dir),
        "preset": checked.preset,
        "stages": done,
        "report": short(page),
    }


def prepare(run_dir: Path) -> None:
    """Make the run folder; PipelineError when it cannot be written or the disk is nearly full."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe = run_dir / f".{os.getpid()}.partial"
        probe.write_bytes(b"")
        probe.unlink()
        free_mb = shutil.disk_usage(run_dir).free // 2**20
    except OSError as error:
        raise PipelineError(f"run folder {run_dir}: cannot be written ({error.strerror})") from None
    if free_mb < MIN_FREE_MB:
        raise PipelineError(
            f"run folder {run_dir}: {free_mb} MB free on its disk; a run needs {MIN_FREE_MB} MB at least"
        )


@contextlib.contextmanager
def locked(run_dir: Path, say: Say) -> Iterator[None]:
    """Hold the run folder; PipelineError when another run does. The lock goes with the process, however it ends."""
    with (run_dir / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise PipelineError(
                f"run folder {run_dir}: in use by another run (process {lock.read() or '?'})"
            ) from None
        except OSError as error:  # network file systems without locks
            say(f"run folder {run_dir}: not locked ({error.strerror}); start no second run on it")
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def open_manifest(checked: Plan) -> dict[str, Any]:
    """The run's manifest, written at once; a run that continues keeps its id and start."""
    before = read_json(checked.run_dir / "manifest.json")
    started = datetime.datetime.now(datetime.UTC)
    manifest = {
        "run_id": before.get("run_id") or f"{checked.preset}-{started:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        "started_at": before.get("started_at") or started.isoformat(timespec="seconds"),
        "preset": checked.preset,
        "settings": checked.settings,
        "run_dir": short(checked.run_dir),
        "parameters": {
            name: {
                key: value
                for key, value in {**book.defaults, **checked.values[name]}.items()
                if key != "run_dir"
            }
            for name, book in checked.notebooks.items()
        },
        "versions": doctor.versions(),
        "git": doctor.git_state(),
        "platform": doctor.platform_facts(),
    }
    write_manifest(checked.run_dir, manifest)
    return manifest


def write_manifest(run_dir: Path, manifest: dict[str, Any]) -> None:
    """Write manifest.json with the stages finished so far."""
    markers = [read_json(path) for path in sorted((run_dir / "stages").glob("*.json"))]
    kept = ("key", "seconds", "finished_at")
    stages = {
        marker["stage"]: {key: marker[key] for key in kept} for marker in markers if marker.get("stage")
    }
    write_json(run_dir / "manifest.json", {**manifest, "stages": stages})


def run_stage(checked: Plan, stage: Stage, say: Say, verbose: bool = False) -> float | None:
    """Run one stage unless it is finished; its seconds, or None when it was skipped."""
    run_dir, notebook, values = checked.run_dir, checked.notebooks[stage.name], checked.values[stage.name]
    parts = key_parts(stage, notebook, values, run_dir)
    marker = read_json(marker_path(run_dir, stage))
    reason = why_run(marker, parts, run_dir)
    if not reason:
        say(f"{stage.name} … finished before, skipped ({marker['seconds']:.0f} s)")
        return None
    say(f"{stage.name} … started" + (f" again: {reason}" if marker else ""))
    started, started_ns = time.monotonic(), time.time_ns()
    execute(stage.name, notebook.path, run_dir, {**values, "run_dir": short(run_dir)}, say, verbose)
    drop_stale(run_dir, marker.get("outputs", {}), started_ns)
    seconds = round(time.monotonic() - started, 2)
    done = {
        "stage": stage.name,
        "key": _digest(parts),
        "parts": parts,
        "seconds": seconds,
        "finished_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "outputs": matching(run_dir, stage.outputs, f"{stage.name} ended without writing"),
    }
    write_json(marker_path(run_dir, stage), done)
    say(f"{stage.name} … {seconds:.0f} s")
    return seconds


# ------------------------------------------------------------------------------------------------------- one notebook

# The kernel asks Linux to be killed when its parent ends, however it ends: an orphan would go on writing results.
_KERNEL = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(os.environ.get("JPY_PARENT_PID", os.getppid())):
    sys.exit(1)
os.environ["WORKBOOK_BATCH"] = "1"  # progress as plain lines
from ipykernel import kernelapp
kernelapp.launch_new_instance()
"""


class _Relay:
    """Passes a notebook's output on line by line: all of it, or those that say how far it is ("12/40 …")."""

    def __init__(self, stage: str, say: Say, verbose: bool) -> None:
        self.stage, self.say, self.verbose, self.held = stage, say, verbose, ""

    def write(self, text: str) -> None:
        """Take some output; whole lines are passed on."""
        *lines, self.held = (self.held + text).split("\n")
        for line in lines:
            if self.verbose or re.match(r"(\w+ )?\d+/\d+ ", line):
                self.say(f"{self.stage}   {line}")

    def flush(self) -> None:
        """Nothing is held back but an unfinished line."""


def execute(
    stage: str, notebook: Path, run_dir: Path, values: Values, say: Say = print, verbose: bool = False
) -> None:
    """Run a notebook in a kernel of this Python at the repository root; its executed copy is saved as it goes.

    Raises PipelineError for a failing cell or a dead kernel. On Ctrl-C the kernel is killed first.
    """
    import papermill

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # errors are told below, once
    executed = run_dir / "notebooks" / notebook.name
    executed.parent.mkdir(exist_ok=True)
    kernel, failures = _kernel_class(), []

    def work() -> None:
        try:
            papermill.execute_notebook(
                notebook,
                executed,
                values,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                cwd=ROOT,
                kernel_manager_class=kernel,
                stdout_file=_Relay(stage, say, verbose),
                stderr_file=_Relay(stage, say, verbose),
            )
        except BaseException as error:
            failures.append(error)

    # A thread of its own: on the main one, the notebook client would swallow Ctrl-C.
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        worker.join()
    except KeyboardInterrupt:
        kernel.kill_all()
        worker.join(5)
        raise
    if failures:
        raise _explained(stage, executed, failures[0]) from None


def _kernel_class() -> Any:
    import zmq
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    class Kernel(AsyncKernelManager):
        """A kernel of this very interpreter, whatever kernels are installed on the machine."""

        started: ClassVar[list[AsyncKernelManager]] = []

        @default("transport_encryption")
        def _encrypted(self) -> str:
            return "auto" if zmq.has("curve") else "disabled"

        def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
            self.started.append(self)
            return [
                sys.executable,
                "-c",
                _KERNEL,
                "-f",
                os.path.realpath(self.connection_file),
                *(extra_arguments or []),
            ]

        @classmethod
        def kill_all(cls) -> None:
            """Kill the kernels and what they started."""
            for manager in cls.started:
                pid = getattr(manager.provisioner, "pid", None)
                if pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)

    return Kernel


def _explained(stage: str, executed: Path, error: BaseException) -> BaseException:
    """A PipelineError with the cell, its first lines, the error and the notebook; other errors as they are."""
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    if isinstance(error, PapermillExecutionError):
        number, source, said = error.exec_count, error.source, f"{error.ename}: {error.evalue}".strip()
    elif isinstance(error, DeadKernelError):
        number, source = _last_cell(executed)
        said = "the kernel died; when memory ran out, the preset's batch sizes are the place to save"
    elif isinstance(error, OSError):
        return PipelineError(
            f"{stage} stopped: {error.strerror or error}, in {short(executed.parent.parent)}"
        )
    else:
        return error
    head = source.strip().splitlines()[:5]
    lines = [
        f"{stage} failed in cell In [{number}]",
        *(f"    {line}" for line in head),
        *(f"  {line}" for line in said.splitlines()[:20]),
        f"  executed notebook: {short(executed)}",
    ]
    return PipelineError("\n".join(lines))


def _last_cell(executed: Path) -> tuple[int, str]:
    """Number and source of the last code cell that was started when a notebook was saved."""
    code = [cell for cell in read_json(executed).get("cells", []) if cell["cell_type"] == "code"]
    states = [cell["metadata"].get("papermill", {}).get("status") for cell in code]
    number = max((n for n, state in enumerate(states, 1) if state in ("running", "completed")), default=0)
    return number, "".join(code[number - 1]["source"]) if number else ""
