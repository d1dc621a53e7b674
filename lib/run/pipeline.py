"""Runs the notebooks in order, each as a stage that is repeated only when something it depends on has changed.

A stage's key is a digest of its parameters, of the content of its inputs, of its own code cells and of the `lib` rooms
they import. Its record, stages/NN_name.json, is written when it has finished and holds that key and a digest of every
output; a stage whose record is still valid is skipped. Nothing else is remembered, so a run may be killed at any
moment.
"""

import contextlib
import dataclasses
import datetime
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lib.base.files import digest, read_json, write_json
from lib.run import doctor
from lib.run.notebook import execute
from lib.run.presets import (
    NOTEBOOKS,
    ROOT,
    STAGES,
    Notebook,
    PipelineError,
    Say,
    Stage,
    Values,
    load_preset,
    parse_setting,
    preset_names,
    read_notebook,
    resolve,
    short,
)
from lib.run.stage_cache import drop_stale, key_parts, matching, stage_record_path, stale_reason

__all__ = [
    "NOTEBOOKS",
    "ROOT",
    "STAGES",
    "Notebook",
    "Plan",
    "PipelineError",
    "Stage",
    "describe",
    "key_parts",
    "parse_setting",
    "plan",
    "preset_names",
    "read_json",
    "run",
    "write_json",
]

MIN_FREE_MB = 200


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run that has been checked and may start."""

    preset: str
    settings: tuple[str, ...]
    run_dir: Path
    stages: tuple[Stage, ...]  # those to run
    notebooks: dict[str, Notebook]
    values: dict[str, Values]
    minutes: float | None = None  # that the preset takes on two cores with AVX2


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
    return Plan(preset, tuple(settings), Path(os.path.abspath(folder)), chosen, books, values, sections.get("minutes"))


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
        "minutes": checked.minutes,
        "needs_gpu_gb": sections.get("needs_gpu_gb"),
        "shared": sections.get("shared") or {},
        "stages": [stage.name for stage in checked.stages],
        "finished": [stage.name for stage in checked.stages if stage_record_path(checked.run_dir, stage).is_file()],
        "run_dir": short(checked.run_dir),
    }


def run(checked: Plan, say: Say = print, verbose: bool = False) -> dict[str, Any]:
    """Run a plan's stages that are not finished; returns {"run_id", "run_dir", "preset", "stages", "report"}.

    Raises PipelineError for a failing stage, a folder in use or a full disk, KeyboardInterrupt once the kernel is gone.
    """
    from lib.figures import report

    prepare(checked.run_dir)
    if checked.minutes:
        cores, widest = len(os.sched_getaffinity(0)), doctor.vectors()
        takes = f"{checked.minutes:g} minutes on two cores with AVX2"
        say(f"preset {checked.preset}, all of it: about {takes}; this machine has {cores} with {widest}")
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
            raise PipelineError(f"run folder {run_dir}: in use by another run (process {lock.read() or '?'})") from None
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
            name: {key: value for key, value in {**book.defaults, **checked.values[name]}.items() if key != "run_dir"}
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
    records = [read_json(path) for path in sorted((run_dir / "stages").glob("*.json"))]
    kept = ("key", "seconds", "finished_at")
    stages = {record["stage"]: {key: record[key] for key in kept} for record in records if record.get("stage")}
    write_json(run_dir / "manifest.json", {**manifest, "stages": stages})


def run_stage(checked: Plan, stage: Stage, say: Say, verbose: bool = False) -> float | None:
    """Run one stage unless it is finished; its seconds, or None when it was skipped."""
    run_dir, notebook, values = checked.run_dir, checked.notebooks[stage.name], checked.values[stage.name]
    parts = key_parts(stage, notebook, values, run_dir)
    stage_record = read_json(stage_record_path(run_dir, stage))
    reason = stale_reason(stage_record, parts, run_dir)
    if not reason:
        say(f"{stage.name} … finished before, skipped ({stage_record['seconds']:.0f} s)")
        return None
    say(f"{stage.name} … started" + (f" again: {reason}" if stage_record else ""))
    started, started_ns = time.monotonic(), time.time_ns()
    execute(stage.name, notebook.path, run_dir, {**values, "run_dir": short(run_dir)}, say, verbose)
    drop_stale(run_dir, stage_record.get("outputs", {}), started_ns)
    seconds = round(time.monotonic() - started, 2)
    done = {
        "stage": stage.name,
        "key": digest(parts),
        "parts": parts,
        "seconds": seconds,
        "finished_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "outputs": matching(run_dir, stage.outputs, f"{stage.name} ended without writing"),
    }
    write_json(stage_record_path(run_dir, stage), done)
    say(f"{stage.name} … {seconds:.0f} s")
    return seconds
