"""Every public corpus reads as released, and every kind of broken file is refused by name."""

import ast
import base64
import gzip
import json
import pickle
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.tasks import readers as corpora
from lib.tasks.readers.files import Row
from lib.tasks.readers.literals import packed_json, string_list
from lib.tasks.task import Task, TaskError, read_tasks, write_tasks

EXTERNAL = Path(__file__).parent.parent / "data" / "external"
external = pytest.mark.skipif(not EXTERNAL.is_dir(), reason="data/external is absent: no public corpora to read")

BLP = "id,instruction,test_list\n"

# ---------------------------------------------------------------------- the released files

FILES = [
    # file, rows, id of one row, and what is checked of it
    ("blp/trial.csv", 74, "2", {"entry_point": "add_dict", "split": "trial"}),
    ("blp/dev_v2.csv", 400, "2", {"entry_point": "first_repeated_char", "split": "dev"}),
    ("blp/test_v1.csv", 500, "8", {"entry_point": "str_to_list", "split": "test"}),
    ("blp/test_full.csv", 500, "8", {"entry_point": "remove_dirty_chars", "split": "test"}),
    ("blp/troopers_rsft_ds.jsonl", 580, "1", {"entry_point": "parallelogram_area", "split": "train"}),
    ("mbpp/mbpp.jsonl", 974, "601", {"entry_point": "max_chain_length", "split": "train"}),
    ("humaneval/HumanEval.jsonl.gz", 164, "HumanEval/2", {"entry_point": "truncate_number"}),
    (
        "mhumaneval/mHumanEval-ben_Beng-python.json",
        164,
        "HumanEval/2",
        {"entry_point": "truncate_number", "natural_language": "bn"},
    ),
    (
        "mhumaneval/mHumanEval-ben_Beng-lua.json",
        161,
        "HumanEval_2",
        {"entry_point": "truncate_number", "programming_language": "lua"},
    ),
    (
        "mhumaneval/mHumanEval-ben_Beng-r.json",
        161,
        "HumanEval_2",
        {"entry_point": "truncate_number", "programming_language": "r"},
    ),
    (
        "multipl_e/humaneval-lua-reworded.jsonl",
        161,
        "HumanEval_2_truncate_number",
        {"entry_point": "truncate_number", "programming_language": "lua"},
    ),
    (
        "multipl_e/humaneval-jl-reworded.jsonl",
        159,
        "HumanEval_2_truncate_number",
        {"entry_point": "truncate_number", "programming_language": "julia"},
    ),
    (
        "multipl_e/humaneval-r-reworded.jsonl",
        161,
        "HumanEval_2_truncate_number",
        {"entry_point": "truncate_number", "programming_language": "r"},
    ),
    (
        "multipl_e/humaneval-ml-reworded.jsonl",
        155,
        "HumanEval_2_truncate_number",
        {"entry_point": "truncate_number", "programming_language": "ocaml"},
    ),
]


@external
@pytest.mark.parametrize(("name", "rows", "task_id", "expected"), FILES, ids=[file[0] for file in FILES])
def test_every_released_file_reads_whole(name: str, rows: int, task_id: str, expected: dict[str, str]) -> None:
    tasks = {task.task_id: task for task in corpora.read(EXTERNAL / name)}
    assert len(tasks) == rows
    assert {field: getattr(tasks[task_id], field) for field in expected} == expected


@external
def test_no_released_file_is_left_out_of_the_counts() -> None:
    found = {str(path.relative_to(EXTERNAL)) for path in EXTERNAL.rglob("*") if path.is_file()}
    data = {name for name in found if Path(name).stem not in ("LICENSE", "README")}
    assert data == {file[0] for file in FILES} | {"blp/troopers_submission.json"}


@external
def test_the_submission_answers_every_test_task() -> None:
    responses = corpora.read_submission(EXTERNAL / "blp/troopers_submission.json")
    assert responses.keys() == {task.task_id for task in corpora.read(EXTERNAL / "blp/test_v1.csv")}
    assert responses["4"] == ["```python\ndef find_Volume(l,b,h):\n    return l * b * h\n```"]


@external
def test_one_blp_assert_is_visible_and_two_are_hidden() -> None:
    shown = {task.task_id: task for task in corpora.read(EXTERNAL / "blp/test_v1.csv")}
    for task in corpora.read(EXTERNAL / "blp/test_full.csv"):
        assert (len(task.visible_tests), len(task.hidden_tests)) == (1, 2)
        renamed = task.visible_tests[0].replace(task.entry_point, shown[task.task_id].entry_point, 1)
        assert (renamed,) == shown[task.task_id].visible_tests


def test_the_visible_assert_is_the_one_the_sibling_shows(tmp_path: Path) -> None:
    """Wherever it stands in the full suite, and whatever the function is called there."""
    (tmp_path / "test_v1.csv").write_text(BLP + "1,Double it.,\"['assert helper(2) == 4']\"\n")
    suite = repr(["assert double(1) == 2", "assert double(2) == 4", "assert double(3) == 6"])
    (tmp_path / "test_full.csv").write_text(BLP + f'1,Double it.,"{suite}"\n')
    (task,) = corpora.read(tmp_path / "test_full.csv")
    assert task.visible_tests == ("assert double(2) == 4",)
    assert task.hidden_tests == ("assert double(1) == 2", "assert double(3) == 6")


@external
def test_mbpp_splits_have_their_published_sizes() -> None:
    splits = [task.split for task in corpora.read(EXTERNAL / "mbpp/mbpp.jsonl")]
    sizes = {name: splits.count(name) for name in ("prompt", "test", "validation", "train")}
    assert sizes == {"prompt": 10, "test": 500, "validation": 90, "train": 374}


@external
def test_mbpp_keeps_setup_code_and_challenge_tests() -> None:
    tasks = corpora.read(EXTERNAL / "mbpp/mbpp.jsonl")
    assert sum(bool(task.setup_code) for task in tasks) == 2
    assert sum(bool(task.hidden_tests) for task in tasks) == 11
    assert not any("\r" in task.reference for task in tasks)


@external
@pytest.mark.parametrize("name", ["humaneval/HumanEval.jsonl.gz", "mhumaneval/mHumanEval-ben_Beng-python.json"])
def test_python_references_of_humaneval_pass_their_tests(name: str) -> None:
    """Trusted code, run in a process of its own: tests, setup code and references fit together."""
    tasks = corpora.read(EXTERNAL / name)
    program = ["results = []"]
    for task in tasks:
        source = json.dumps("\n".join([task.setup_code, task.reference, *task.hidden_tests]))
        program.append(f"try: exec({source}, {{}}); results.append(True)\nexcept Exception: results.append(False)")
    program.append("print(results.count(True))")
    run = subprocess.run([sys.executable, "-"], input="\n".join(program), capture_output=True, text=True, timeout=60)
    passed = int(run.stdout.split()[-1])
    assert passed == len(tasks) if name.startswith("humaneval") else passed >= 150


@external
def test_a_split_keeps_its_tasks_only() -> None:
    assert {task.split for task in corpora.read(EXTERNAL / "mbpp/mbpp.jsonl", split="validation")} == {"validation"}
    with pytest.raises(TaskError, match="no tasks of split 'nowhere'"):
        corpora.read(EXTERNAL / "mbpp/mbpp.jsonl", split="nowhere")


# ---------------------------------------------------------------------- formats without a released file here


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def pack(value: Any) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


CASES = [{"input": "1\n", "output": "2\n", "testtype": "stdin"}]
ASKED = {"question_id": "q1", "question_content": "Double it."}


@pytest.mark.parametrize("private", [json.dumps(CASES), pack(json.dumps(CASES))], ids=["plain", "packed"])
def test_livecodebench_puts_public_cases_first(tmp_path: Path, private: str) -> None:
    public = json.dumps([{"input": "0\n", "output": "0\n", "testtype": "stdin"}])
    row = {**ASKED, "public_test_cases": public, "private_test_cases": private, "starter_code": ""}
    (task,) = corpora.read(write(tmp_path / "lcb.jsonl", row))
    assert [case.input for case in task.cases] == ["0\n", "1\n"]


def test_livecodebench_functional_cases_become_asserts(tmp_path: Path) -> None:
    case = {"input": '[1, null]\n"a"', "output": "true", "testtype": "functional"}
    row = {
        **ASKED,
        "public_test_cases": json.dumps([case]),
        "private_test_cases": pack(json.dumps([case, case])),
        "starter_code": "class Solution: ...",
        "metadata": json.dumps({"func_name": "solve"}),
    }
    (task,) = corpora.read(write(tmp_path / "lcb.jsonl", row))
    assert task.visible_tests == ("assert Solution().solve([1, None], 'a') == True",)
    assert (len(task.hidden_tests), task.entry_point) == (2, "Solution")


def test_ag_livecodebench_has_private_cases_only(tmp_path: Path) -> None:
    (task,) = corpora.read(write(tmp_path / "ag.jsonl", {**ASKED, "private_test_cases": pack(json.dumps(CASES))}))
    assert (task.source, task.mode, len(task.cases)) == ("ag-livecodebench-x", "program", 1)


def test_agnostics_rows_carry_their_language(tmp_path: Path) -> None:
    row = {"idx": 3, "test_cases": CASES, "lang": "jl", "prompt": "Double it."}
    (task,) = corpora.read(write(tmp_path / "ag.jsonl", row))
    assert (task.task_id, task.programming_language) == ("3", "julia")


def test_ag_mbpp_shows_its_first_case(tmp_path: Path) -> None:
    row = {
        "original_task_id": 7,
        "description": "Double it.",
        "input_format": "One number.",
        "output_format": "One number.",
        "tests": [*CASES, {"input": "21\n", "output": "42\n"}],
    }
    (task,) = corpora.read(write(tmp_path / "ag.jsonl", row))
    assert "2" in task.prompt and "42" not in task.prompt
    assert len(task.cases) == 2


def codeforces_row(**changes: Any) -> dict[str, Any]:
    return {
        "id": "1/A",
        "title": "Double",
        "description": "Double it.",
        "input_format": "n",
        "output_format": "2n",
        "examples": CASES,
        "official_tests": [*CASES, {"input": "3\n", "output": "6\n"}],
        "time_limit": 1.0,
        "memory_limit": 256.0,
        **changes,
    }


def test_codeforces_counts_an_example_once_and_takes_its_limits(tmp_path: Path) -> None:
    (task,) = corpora.read(write(tmp_path / "cf.jsonl", codeforces_row()))
    assert [case.input for case in task.cases] == ["1\n", "3\n"]
    assert (task.time_limit_s, task.memory_limit_mb) == (1.0, 256)


@pytest.mark.parametrize("change", [{"interaction_format": "talk"}, {"generated_checker": "…"}, {"input_mode": "file"}])
def test_codeforces_rows_that_cases_cannot_judge_are_left_out_and_counted(
    tmp_path: Path, change: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "cf.jsonl", codeforces_row(), codeforces_row(id="1/B", **change))
    assert [task.task_id for task in corpora.read(path)] == ["1/A"]
    assert "left out 1 rows" in caplog.text


def test_sanitized_mbpp_brings_its_imports(tmp_path: Path) -> None:
    row = {
        "task_id": 11,
        "prompt": "Double it.",
        "code": "def f(x): return 2 * x",
        "test_imports": ["import math"],
        "test_list": ["assert math.isclose(f(2), 4)"],
        "source_file": "…",
    }
    (task,) = corpora.read(write(tmp_path / "mbpp.jsonl", row))
    assert (task.setup_code, task.entry_point, task.split) == ("import math", "f", "test")


def test_chat_messages_read_like_serialised_chats(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "Double it.\n# assert f(1) == 2"},
        {"role": "assistant", "content": "```python\ndef f(x): return 2 * x\n```"},
    ]
    (task,) = corpora.read(write(tmp_path / "chat.jsonl", {"messages": turns}))
    assert (task.visible_tests, task.entry_point) == (("assert f(1) == 2",), "f")
    assert task.reference == "def f(x): return 2 * x\n"


def test_parquet_reads_like_json_lines(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    rows = [{"idx": i, "test_cases": CASES, "lang": "lua", "prompt": f"Task {i}."} for i in range(200)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "ag.parquet")
    assert corpora.read(tmp_path / "ag.parquet") == corpora.read(write(tmp_path / "ag.jsonl", *rows))


def test_a_data_set_folder_loads_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "train.jsonl", {"idx": 1, "test_cases": CASES, "lang": "lua", "prompt": "Double it."})
    assert [task.task_id for task in corpora.read(folder)] == ["1"]
    with pytest.raises(TaskError, match="this data set has train"):
        corpora.read(folder, split="test")


def test_an_unreachable_data_set_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nmany more lines")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(TaskError, match=r"^owner/name: cannot be loaded \(no route\); .* download it") as caught:
        corpora.read("owner/name")
    assert "\n" not in str(caught.value)


def test_project_tasks_survive_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    write_tasks(
        path,
        [Task("a/1", "mine", "train", "Double it.", "en", "python", "function", "f", ("assert f(1) == 2",))],
    )
    assert corpora.read(path) == read_tasks(path)


# ---------------------------------------------------------------------- bad input
GOOD = "1,Double it.,\"['assert f(1) == 2']\"\n"


def refused(path: Path, content: str | bytes, message: str) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(TaskError, match=message) as caught:
        corpora.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BLP + GOOD + '2,"Double" it.,x\n', r"row 2 \(line 3\): broken csv quoting"),
        (BLP + GOOD + '2,"Double it.', r"row 2 \(line 3\): broken csv quoting"),
        (BLP + GOOD + "2,Double it.\n", r"row 2 \(line 3\): 2 fields, but the header has 3"),
        (BLP + GOOD + "2,Double it.,[]\n", r"row 2 \(line 3\): column test_list is empty"),
        (
            BLP + GOOD + "2,Double it.,f(1)\n",
            r"row 2 \(line 3\): column test_list is 'f\(1\)'; it should be a list of strings",
        ),
        (BLP + GOOD + "2,Double it.,\"['print(1)']\"\n", r"row 2 \(line 3\): column test_list holds 'print\(1\)'"),
        (BLP + GOOD + GOOD, r"row 2 \(line 3\): task id '1' was already used at .*row 1 \(line 2\)"),
        (BLP + GOOD + ",Double it.,\"['assert f(1) == 2']\"\n", r"row 2 \(line 3\): the id is empty"),
        (BLP + GOOD + "2, ,\"['assert f(1) == 2']\"\n", r"row 2 \(line 3\): task '2' has an empty prompt"),
        (
            "id,text,label\n1,hello,0\n",
            "no known corpus has the columns id, label|columns id, text, label|no user turn",
        ),
        ("id,review,label\n1,hello,0\n", "no known corpus has the columns id, review, label"),
        ("id,id\n1,2\n", "a column name appears twice"),
        ("", "empty file"),
        (BLP, "no tasks in this corpus"),
    ],
)
def test_a_broken_csv_is_refused_by_file_and_row(tmp_path: Path, content: str, message: str) -> None:
    refused(tmp_path / "bad.csv", content, message)


def test_a_row_is_counted_by_lines_of_the_file_not_of_the_table(tmp_path: Path) -> None:
    refused(tmp_path / "bad.csv", BLP + '1,"Double\nit.","[\'assert f(1) == 2\']"\n2,x,[]\n', r"row 2 \(line 4\)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BLP.encode() + GOOD.encode() + b"2,caf\xe9,x\n", ":3: not UTF-8 .byte 0xe9"),
        (BLP.encode("utf-16"), ":1: UTF-16"),
    ],
)
def test_another_encoding_is_refused_by_line(tmp_path: Path, content: bytes, message: str) -> None:
    refused(tmp_path / "bad.csv", content, message)


@pytest.mark.parametrize("name", ["tasks.csv", "tasks.jsonl", "tasks.json"])
def test_a_byte_order_mark_changes_nothing(tmp_path: Path, name: str) -> None:
    row = json.dumps({"id": "1", "instruction": "Double it.", "test_list": "['assert f(1) == 2']"})
    content = {"tasks.csv": BLP + GOOD, "tasks.jsonl": row, "tasks.json": f"[{row}]"}[name]
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert corpora.read(tmp_path / name)[0].entry_point == "f"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.jsonl", '{"id": 1}\n{"id": \n', ":1: no known corpus has the columns id"),
        ("bad.jsonl", "{broken\n", ":1: not JSON"),
        ("bad.jsonl", "3\n", ":1: expected a JSON object, got int"),
        ("bad.json", '[{"text": "x"},\n{"text": }]', ":2: not JSON .*one whole JSON array is expected"),
        ("bad.json", '[{"id": 1, "instruction": "x", "test_list": ["assert f()"]}', ":1: not JSON"),
        ("bad.json", "[1]", "row 1: expected a JSON object, got int"),
        ("bad.txt", "x", "unknown kind of file"),
        ("bad.parquet", "x", "broken parquet"),
        ("bad.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 999, mtime=0)[:-9], "broken gzip|no user turn"),
        ("bad.csv.gz", b"plain", "broken gzip"),
    ],
)
def test_broken_json_and_archives_are_refused(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    refused(tmp_path / name, content, message)


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(TaskError, match="no such file"):
        corpora.read("nowhere/at/all.csv")


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("owned"),))


@pytest.mark.parametrize("value", [Attack(), ["text"], b"bytes", 3], ids=["call", "list", "bytes", "int"])
def test_a_pickle_of_anything_but_text_is_refused_and_never_run(
    tmp_path: Path, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "ag.jsonl", {**ASKED, "private_test_cases": pack(value)})
    with pytest.raises(TaskError, match="ag.jsonl:1: column private_test_cases .*only text is admitted"):
        corpora.read(path)
    assert not (tmp_path / "owned").exists()


@given(st.binary(max_size=200))
def test_no_bytes_make_the_pickle_loader_raise_anything_else(raw: bytes) -> None:
    text = base64.b64encode(zlib.compress(raw)).decode()
    try:
        packed_json(text, "cases", "here")
    except TaskError as error:
        assert str(error).startswith("here: column cases")


def test_a_packing_that_unpacks_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.tasks.readers.literals.MAX_UNPACKED", 1 << 20)
    with pytest.raises(TaskError, match="more than 1 MiB"):
        packed_json(pack("[" + " " * (2 << 20) + "]"), "cases", "here")


@given(st.lists(st.text(), min_size=1), st.integers(0, 3))
def test_a_test_list_wrapped_any_number_of_times_is_unwrapped(tests: list[str], times: int) -> None:
    value: Any = tests
    for _ in range(times):
        value = repr(value)
    assert string_list(Row({"test_list": value}, "here", 1), "test_list") == tests


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"id": 1}]', "row 1: a submission row has id or task_id, and response, completion or solution"),
        ('[["x"], ["y"]]', "2 answers without ids for 0 tasks"),
        ('[{"id": 1, "response": null}]', "row 1: response is null"),
        ("[]", "no answers"),
    ],
)
def test_a_broken_submission_is_refused_by_row(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "answers.json").write_text(content)
    with pytest.raises(TaskError, match=message):
        corpora.read_submission(tmp_path / "answers.json")


# ---------------------------------------------------------------------- streaming


def test_tasks_come_before_a_later_row_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "late.csv").write_text(BLP + GOOD + "2,Double it.,[]\n")
    tasks = corpora.iter_tasks(tmp_path / "late.csv")
    assert next(tasks).task_id == "1"
    with pytest.raises(TaskError):
        next(tasks)


MEASURE = """
import resource, sys
from lib.tasks import readers as corpora
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(1 for _ in corpora.iter_tasks(sys.argv[1]))
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("name", ["large.jsonl", "large.csv"])
def test_a_large_file_takes_little_memory(tmp_path: Path, name: str) -> None:
    """48 MB of rows; the growth of the reader's peak memory, in MiB, stays far below."""
    row = {"id": 0, "instruction": "x" * 1_000_000, "test_list": ["assert f(1) == 2"]}
    with (tmp_path / name).open("w") as out:
        out.write({"large.jsonl": "", "large.csv": BLP}[name])
        for i in range(48):
            line = json.dumps({**row, "id": i})
            if name == "large.csv":
                line = f"{i},{row['instruction']},\"['assert f(1) == 2']\""
            out.write(line + "\n")
    command = [sys.executable, "-c", MEASURE, str(tmp_path / name)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=True)
    count, grown = map(int, run.stdout.split())
    assert count == 48
    assert grown < 24


def test_every_hidden_python_assert_calls_its_entry_point() -> None:
    """The readers' rule for an entry point, on asserts that hide the call."""
    from lib.tasks.readers.functions import called_name

    for test, name in [
        ("assert set(f(1)) == set([2])", "f"),
        ("assert not f(1)", "f"),
        ("assert math.isclose(area(2), 4)", "area"),
        ("assert f([Pair(1, 2)]) == 3", "f"),
        ("assert sum(10, 15) == 6", "sum"),
        ("assert (f(1)) == g_unused", "f"),
    ]:
        assert isinstance(ast.parse(test).body[0], ast.Assert)
        assert called_name(test) == name


@pytest.mark.parametrize(
    "content",
    [
        '[["x", "y"], ["z"]]',
        '[{"task_id": 1, "completion": "x"}, {"id": 2, "solution": "z"}, {"id": 1, "response": "y"}]',
    ],
)
def test_rows_of_one_id_are_samples_and_lists_answer_tasks_in_order(tmp_path: Path, content: str) -> None:
    (tmp_path / "generations.json").write_text(content)
    assert corpora.read_submission(tmp_path / "generations.json", ["1", "2"]) == {"1": ["x", "y"], "2": ["z"]}


def test_the_column_that_is_wrong_is_named(tmp_path: Path) -> None:
    row = {"task_id": 1, "text": "Add.", "code": "x", "test_list": ["assert f(1) == 2"], "challenge_test_list": 3}
    with pytest.raises(
        TaskError, match=r"mbpp.jsonl:1: column challenge_test_list is 3; it should be a list of strings"
    ):
        corpora.read(write(tmp_path / "mbpp.jsonl", row))
