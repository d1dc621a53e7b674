"""The pipeline on tiny notebooks: what is refused, what is skipped, what survives a kill."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import write_notebook

from lib.base.code import code_digest, library_files
from lib.run import pipeline, presets
from lib.run.pipeline import ROOT, STAGES, Notebook, PipelineError, Stage
from lib.run.presets import NOTEBOOKS, read_notebook
from tests.processes import is_alive, wait_for

Make = Callable[..., Path]
ONE = (Stage("00_one", (), ("one.txt",)),)
TWO = (*ONE, Stage("01_two", ("one.txt",), ("two.txt",)))


def run(books: Path, run_dir: Path, *settings: str, stages: tuple[Stage, ...] = TWO) -> tuple[list[str], dict]:
    """Run tiny stages; the lines said and the result."""
    said: list[str] = []
    checked = pipeline.plan("p", settings, run_dir=run_dir, notebooks=books, stages=stages)
    return said, pipeline.run(checked, said.append)


def calls(run_dir: Path) -> list[str]:
    """Which tiny stages ran, in order."""
    return (run_dir / "calls.txt").read_text().split()


# ------------------------------------------------------------------------------------------- refused before it starts


def refused(books: Path, *settings: str, **how: str) -> str:
    """The message with which a plan is refused."""
    with pytest.raises(PipelineError) as error:
        pipeline.plan(how.pop("preset", "p"), settings, notebooks=books, **how)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_unknown_preset_is_answered_with_those_there_are(tiny: Make) -> None:
    assert refused(tiny(), preset="q") == "no preset 'q'; there are p"


def test_an_unknown_key_in_a_stage_section_is_refused_with_the_stage_s_keys(tiny: Make) -> None:
    message = refused(tiny(preset="02_mining: {drawz: 3}"))
    assert message == "preset p: 02_mining has no parameter 'drawz'; its parameters are seed, draws, rate, fast"


def test_a_shared_key_that_no_notebook_has_is_refused(tiny: Make) -> None:
    assert refused(tiny(preset="shared: {tau: 1}")).startswith("preset p, shared: no stage has a parameter 'tau'")


def test_an_unknown_section_is_refused_with_the_stages(tiny: Make) -> None:
    message = refused(tiny(preset="02_minning: {draws: 3}"))
    assert "no stage '02_minning'" in message and "02_mining" in message


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("drawz=1", "--set: no stage has a parameter 'drawz'"),
        ("02_mining.drawz=1", "--set: 02_mining has no parameter 'drawz'"),
        ("mine.draws=1", "--set mine.draws: no stage 'mine'"),
        ("draws", "--set draws: expected KEY=VALUE"),
        ("draws=many", "--set: 00_environment.draws=many: a whole number is expected (default 3)"),
        ("draws=1.5", "--set: 00_environment.draws=1.5: a whole number is expected"),
        ("draws=-3", "--set: 00_environment.draws=-3: a finite number of at least 0 is expected"),
        ("rate=inf", "--set: 00_environment.rate=inf: a finite number of at least 0 is expected"),
        ("rate=nan", "--set: 00_environment.rate=nan: a finite number of at least 0 is expected"),
        ("fast=1", "--set: 00_environment.fast=1: true or false is expected"),
        ("fast=on", "--set: 00_environment.fast=on: true or false is expected"),
        ("run_dir=x", "--set: run_dir is not a parameter to set"),
    ],
)
def test_a_setting_that_fits_nothing_is_refused(tiny: Make, setting: str, fault: str) -> None:
    assert refused(tiny(), setting).startswith(fault)


def test_an_unknown_stage_is_answered_with_the_stages(tiny: Make) -> None:
    assert refused(tiny(), first="sftt").startswith("no stage 'sftt'; there are 00_environment, ")


def test_from_after_to_is_refused(tiny: Make) -> None:
    assert refused(tiny(), first="sft", last="02") == "--from 03_sft comes after --to 02_mining"


def test_a_notebook_without_a_parameters_cell_is_refused(tiny: Make) -> None:
    books = tiny()
    book = json.loads((books / "02_mining.ipynb").read_text())
    book["cells"][0]["metadata"] = {}
    (books / "02_mining.ipynb").write_text(json.dumps(book))
    assert "0 cells are tagged `parameters`" in refused(books)


def test_a_missing_notebook_is_named(tiny: Make) -> None:
    books = tiny()
    (books / "04_gmpo.ipynb").unlink()
    assert refused(books).endswith("04_gmpo.ipynb: no such notebook")


def test_a_refused_run_leaves_no_folder(tiny: Make, tmp_path: Path) -> None:
    refused(tiny(), "drawz=1", run_dir=str(tmp_path / "r"))
    assert not (tmp_path / "r").exists()


# ---------------------------------------------------------------------------------------------------------- parameters


def test_later_sources_win_shared_then_section_then_set(tiny: Make) -> None:
    books = tiny(preset="shared: {seed: 1, draws: 1}\n02_mining: {draws: 2}\n03_sft: {draws: 2}")
    values = pipeline.plan("p", ["03_sft.draws=7"], notebooks=books).values
    assert [values[name]["draws"] for name in ("01_preprocessing", "02_mining", "03_sft")] == [1, 2, 7]


@pytest.mark.parametrize(
    ("default", "text", "value"),
    [
        (0.5, "5e-5", 5e-5),
        (3, "1E3", 1000),
        ("", "1e5", "1e5"),
        ("", "on", "on"),
        ("", "2024-01-01", "2024-01-01"),
        ("", "a=b", "a=b"),
        (None, "2", 2),
        (None, "null", None),
        (False, "true", True),
        (["a"], "[b, c]", ["b", "c"]),
    ],
)
def test_typed_text_becomes_its_default_s_kind(default: Any, text: str, value: Any) -> None:
    found = presets.usable(default, presets.from_text(default, text))
    assert found == value and type(found) is type(value)


def test_a_value_of_a_preset_that_yaml_made_something_else_is_refused(tiny: Make) -> None:
    books = tiny(preset="02_mining: {draws: 2024-01-01}")
    assert "02_mining.draws=datetime.date(2024, 1, 1): a whole number is expected" in refused(books)


def test_a_preset_may_end_early(tiny: Make) -> None:
    chosen = pipeline.plan("p", notebooks=tiny(preset="to: 02_mining")).stages
    assert [stage.name for stage in chosen] == ["00_environment", "01_preprocessing", "02_mining"]


def test_the_shipped_presets_fit_the_shipped_notebooks() -> None:
    faults = [row["error"] for row in map(pipeline.describe, pipeline.preset_names()) if "error" in row]
    assert not faults and {"smoke", "cpu", "colab", "paper"} <= set(pipeline.preset_names())


# ----------------------------------------------------------------------------------------------------------- the key


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A small lib: a imports b, c is a folder with a data file, d stands alone."""
    for name, text in {
        "a.py": "def f():\n    from lib.b import x\n    return x\n",
        "b.py": "x = 1  # one\n",
        "c/__init__.py": "",
        "c/table.yaml": "k: 1\n",
        "d.py": "y = 1\n",
        "pipeline.py": "from lib import d\n",
    }.items():
        path = tmp_path / "lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def parts(root: Path, source: str = "from lib import a, c", **values: object) -> dict[str, str]:
    """Key parts of a stage without declared inputs."""
    book = Notebook(root / "n.ipynb", source, {"run_dir": "r", "data": ""})
    return pipeline.key_parts(Stage("00_one", (), ()), book, values, root, root)


@pytest.mark.parametrize(("name", "text"), [("b.py", "x = 2\n"), ("c/table.yaml", "k: 2\n")])
def test_a_change_in_an_imported_module_changes_the_code(library: Path, name: str, text: str) -> None:
    before = parts(library)
    (library / "lib" / name).write_text(text)
    assert parts(library)["code"] != before["code"]


@pytest.mark.parametrize(
    ("name", "text"), [("d.py", "y = 2\n"), ("b.py", "x   =  1  # uno\n"), ("pipeline.py", "z = 1\n")]
)
def test_other_modules_comments_and_the_pipeline_itself_do_not(library: Path, name: str, text: str) -> None:
    source = "from lib.base.files import write_json\nfrom lib import a, c"
    before = parts(library, source)
    (library / "lib" / name).write_text(text)
    assert parts(library, source) == before


NOTEBOOK_STAGES = [stage for stage in STAGES if stage.name != "07_paper_figures"]  # its outputs are the figures


@pytest.mark.parametrize(
    ("name", "old", "new", "stages"),
    [
        ("figures/style.py", '"#0072B2"', '"#0072B3"', ()),
        ("figures/report.py", "CAPTION_ROWS = 200", "CAPTION_ROWS = 201", ()),
        ("base/progress.py", "EVERY_S = 15.0", "EVERY_S = 16.0", ()),
        ("run/pipeline.py", "MIN_FREE_MB = 200", "MIN_FREE_MB = 201", ()),
        ("gmpo/objective.py", "MAX_LOG_RATIO = 80.0", "MAX_LOG_RATIO = 79.0", ("04_gmpo",)),
        ("training/sft/trainer.py", "eval_pass_at_1", "eval_pass_at_one", ("03_sft",)),
        ("evaluation/failures/statistics.py", "import", "import os\nimport", ("06_failure_taxonomy",)),
    ],
)
def test_a_change_reruns_the_stages_that_compute_with_it_and_no_other(
    tmp_path: Path, name: str, old: str, new: str, stages: tuple[str, ...]
) -> None:
    """What depends on their outputs then follows by its inputs, as another test shows."""
    shutil.copytree(ROOT / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    books = {stage.name: read_notebook(NOTEBOOKS / f"{stage.name}.ipynb").source for stage in NOTEBOOK_STAGES}
    before = {stage: code_digest(source, tmp_path) for stage, source in books.items()}
    path = tmp_path / "lib" / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    changed = tuple(stage for stage, source in books.items() if code_digest(source, tmp_path) != before[stage])
    closures = {
        stage: [str(file.relative_to(tmp_path)) for file in library_files(books[stage], tmp_path)] for stage in changed
    }
    assert changed == stages, closures


def test_a_name_that_a_package_passes_on_counts_as_the_module_that_defines_it(library: Path) -> None:
    (library / "lib" / "c" / "__init__.py").write_text("from lib.b import x as z\nfrom lib.d import y\n")
    assert [path.name for path in library_files("from lib.c import z", library)] == ["b.py"]
    assert {path.name for path in library_files("from lib import c", library)} == {
        "__init__.py",
        "b.py",
        "d.py",
        "table.yaml",
    }


def test_a_named_file_counts_by_content_not_by_time(library: Path) -> None:
    (library / "t.jsonl").write_text("one")
    first = parts(library, data="t.jsonl")
    (library / "t.jsonl").touch()
    assert parts(library, data="t.jsonl") == first
    (library / "t.jsonl").write_text("two")
    assert parts(library, data="t.jsonl")["inputs"] != first["inputs"]


def test_run_dir_is_no_part_of_the_key(library: Path) -> None:
    assert parts(library, run_dir="elsewhere") == parts(library)


# ------------------------------------------------------------------------------------------------------------- running


def test_all_stages_run_once_and_the_second_run_skips_them(tiny: Make, tmp_path: Path) -> None:
    books, folder = tiny(), tmp_path / "r"
    run(books, folder, stages=STAGES)
    said, result = run(books, folder, stages=STAGES)
    assert calls(folder) == [stage.name for stage in STAGES]
    assert all(row["skipped"] for row in result["stages"]) and all("skipped" in line for line in said)


def test_stage_records_manifest_and_report_describe_the_run(tiny: Make, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    _, result = run(tiny(TWO), folder, "draws=5")
    stage_record = json.loads((folder / "stages" / "00_one.json").read_text())
    manifest = json.loads((folder / "manifest.json").read_text())
    assert stage_record["outputs"].keys() == {"one.txt"} and (folder / "one.txt").read_text() == "5 1"
    assert manifest["stages"]["00_one"]["key"] == stage_record["key"]
    assert manifest["parameters"]["01_two"] == {"seed": 1, "draws": 5, "rate": 0.5, "fast": True}
    assert Path(result["report"]) == folder / "report.html" and (folder / "notebooks" / "01_two.ipynb").is_file()


def test_a_changed_parameter_reruns_its_stage_and_what_depends_on_it(tiny: Make, tmp_path: Path) -> None:
    books, folder = tiny(TWO), tmp_path / "r"
    run(books, folder)
    said, _ = run(books, folder, "00_one.draws=9")
    assert said[0] == "00_one … started again: its parameters changed"
    assert said[2] == "01_two … started again: its inputs changed"


def test_a_changed_output_reruns_its_stage(tiny: Make, tmp_path: Path) -> None:
    books, folder = tiny(ONE), tmp_path / "r"
    run(books, folder, stages=ONE)
    (folder / "one.txt").unlink()
    said, _ = run(books, folder, stages=ONE)
    assert said[0] == "00_one … started again: its output one.txt is gone or was changed"


def test_outputs_of_an_earlier_run_that_are_not_written_again_go(tiny: Make, tmp_path: Path) -> None:
    stages = (Stage("00_one", (), ("figures/*",)),)
    books, folder = tiny(stages), tmp_path / "r"
    write_notebook(
        books,
        "00_one",
        'run_dir = ""\nseed = 0\nname = "a"',
        "from pathlib import Path\n(Path(run_dir) / 'figures').mkdir(exist_ok=True)",
        "(Path(run_dir) / 'figures' / name).touch()",
    )
    run(books, folder, stages=stages)
    run(books, folder, "name=b", stages=stages)
    assert [path.name for path in (folder / "figures").iterdir()] == ["b"]


def test_a_stage_without_its_input_says_what_is_missing(tiny: Make, tmp_path: Path) -> None:
    checked = pipeline.plan("p", first="01_two", run_dir=tmp_path / "r", notebooks=tiny(TWO), stages=TWO)
    with pytest.raises(PipelineError, match=r"01_two needs one\.txt, and .* has none"):
        pipeline.run(checked, lambda line: None)


def test_a_stage_that_does_not_write_its_output_is_no_success(tiny: Make, tmp_path: Path) -> None:
    books = tiny(TWO)
    write_notebook(books, "00_one", 'run_dir = ""\nseed = 0', "pass")
    with pytest.raises(PipelineError, match="00_one ended without writing one.txt"):
        run(books, tmp_path / "r")
    assert not (tmp_path / "r" / "stages" / "00_one.json").exists()


def test_a_failing_cell_is_told_with_cell_error_and_executed_notebook(tiny: Make, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with pytest.raises(PipelineError) as error:
        run(tiny(ONE, s00="x = 1\nraise ValueError('draws ran out')\n"), folder, stages=ONE)
    assert str(error.value).splitlines() == [
        "00_one failed in cell In [3]",
        "    x = 1",
        "    raise ValueError('draws ran out')",
        "    ",
        "    from pathlib import Path",
        "    folder = Path(run_dir)",
        "  ValueError: draws ran out",
        f"  executed notebook: {folder}/notebooks/00_one.ipynb",
    ]
    assert "draws ran out" in (folder / "notebooks" / "00_one.ipynb").read_text()
    assert not (folder / "stages").exists()


def test_a_dead_kernel_is_told_with_its_cell(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"00_one failed in cell In \[3\]\n    import os, signal\n[^•]*kernel died"):
        run(tiny(TWO, s00="import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"), tmp_path / "r")


def test_progress_lines_of_a_notebook_are_passed_on_and_other_output_is_not(tiny: Make, tmp_path: Path) -> None:
    prints = "print('12/40 attempts, 3.1/s')\nprint('step 3/40 loss 0.2')\nprint('some table')\n"
    said, _ = run(tiny(ONE, s00=prints), tmp_path / "r", stages=ONE)
    assert said[1:-1] == ["00_one   12/40 attempts, 3.1/s", "00_one   step 3/40 loss 0.2"]


def test_a_folder_that_cannot_be_written_is_one_line(tiny: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PipelineError, match=r"^run folder .*/file/r: cannot be written \(Not a directory\)$"):
        run(tiny(TWO), tmp_path / "file" / "r")


def test_a_nearly_full_disk_is_one_line(tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=2**20))
    with pytest.raises(PipelineError, match="1 MB free on its disk; a run needs 200 MB at least"):
        run(tiny(TWO), tmp_path / "r")
    assert not (tmp_path / "r" / "stages").exists()


def test_two_runs_on_one_folder_are_refused(tiny: Make, tmp_path: Path) -> None:
    books, folder = tiny(TWO), tmp_path / "r"
    folder.mkdir()
    with (
        pipeline.locked(folder, print),
        pytest.raises(PipelineError, match=rf"in use by another run \(process {os.getpid()}\)"),
    ):
        run(books, folder)


# ------------------------------------------------------------------------------------------------------------ endings

WAITING = """
import os, time
from pathlib import Path
folder = Path(run_dir)
with open(folder / "ledger.txt", "a") as ledger:
    ledger.write("attempt\\n")
(folder / "pid.txt").write_text(str(os.getpid()))
while not (folder / "go").exists():
    time.sleep(0.05)
"""


@pytest.fixture
def started(tiny: Make, tmp_path: Path) -> Iterator[tuple[list[str], subprocess.Popen, int]]:
    """A run whose 01_preprocessing waits in its kernel: its command, its process and the kernel's process id."""
    folder = tmp_path / "r"
    books = tiny(s01=WAITING)
    line = [sys.executable, "-m", "lib", "run", "--preset", "p", "--to", "01", "--json"]
    line += ["--notebooks", str(books), "--run-dir", str(folder)]
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a job in the background ignores Ctrl-C
    process = subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    )
    try:
        wait_for(lambda: (folder / "pid.txt").exists() and bool((folder / "pid.txt").read_text()))
        yield line, process, int((folder / "pid.txt").read_text())
    finally:
        process.kill()
        process.communicate()


def test_after_kill_9_the_same_command_continues_and_repeats_no_finished_stage(
    started: tuple[list[str], subprocess.Popen, int], tmp_path: Path
) -> None:
    line, process, kernel = started
    folder = tmp_path / "r"
    process.kill()
    process.communicate()
    wait_for(lambda: not is_alive(kernel), 10)
    assert not (folder / "stages" / "01_preprocessing.json").exists()
    run_id = json.loads((folder / "manifest.json").read_text())["run_id"]
    (folder / "go").touch()
    result = json.loads(subprocess.run(line, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert [row["skipped"] for row in result["stages"]] == [True, False] and result["run_id"] == run_id
    assert calls(folder) == ["00_environment", "01_preprocessing"]
    assert (folder / "ledger.txt").read_text().split() == ["attempt", "attempt"]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_kernel_with_exit_130(
    started: tuple[list[str], subprocess.Popen, int], ending: signal.Signals
) -> None:
    _, process, kernel = started
    process.send_signal(ending)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert said.splitlines()[-1] == "interrupted; the same command continues" and "Traceback" not in said
    assert not is_alive(kernel)
