"""Task files: what is read back is what was written, and what is wrong is named by file and line."""

import json

import pytest

from lib.tasks.task import Case, Task, TaskError, by_split, read_tasks, write_tasks

GOOD = {
    "task_id": "t/1",
    "source": "here",
    "split": "train",
    "prompt": "লেখো",
    "natural_language": "bn",
    "programming_language": "python",
    "mode": "function",
    "visible_tests": ["assert f(1) == 1"],
}


def write(path, *rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_round_trip_keeps_every_field(tmp_path):
    task = Task(
        "io/1", "s", "dev", "p", "en", "lua", "program", cases=(Case("1\n", "2\n"),), references=(("lua", "print(2)"),)
    )
    write_tasks(tmp_path / "t.jsonl", [task])
    assert read_tasks(tmp_path / "t.jsonl") == [task]


def test_a_byte_order_mark_is_no_error(tmp_path):
    (tmp_path / "t.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
    assert read_tasks(tmp_path / "t.jsonl")[0].task_id == "t/1"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"visible_tests": []}, "has no tests"),
        ({"prompt": " "}, "empty prompt"),
        ({"mode": "essay"}, "'function' or 'program'"),
        ({"mode": "program"}, "has no cases"),
        ({"time_limit_s": 0}, "above 0"),
        ({"visible_tests": "assert f(1) == 1"}, "list of strings"),
        ({"colour": "red"}, "unknown field colour"),
        ({"cases": [{"input": "1"}]}, "cases should be"),
    ],
)
def test_an_unusable_task_is_named_by_file_and_line(tmp_path, change, says):
    path = write(tmp_path / "t.jsonl", GOOD, GOOD | {"task_id": "t/2"} | change)
    with pytest.raises(TaskError, match=says) as error:
        read_tasks(path)
    assert f"{path}:2" in str(error.value)


def test_a_malformed_line_is_named(tmp_path):
    path = write(tmp_path / "t.jsonl", GOOD, '{"task_id": "t/2",\n')
    with pytest.raises(TaskError, match=r"t\.jsonl:2: not JSON"):
        read_tasks(path)


def test_a_missing_field_is_named(tmp_path):
    row = {name: value for name, value in GOOD.items() if name != "split"}
    with pytest.raises(TaskError, match="missing split"):
        read_tasks(write(tmp_path / "t.jsonl", row))


def test_two_tasks_with_one_id_name_both_lines(tmp_path):
    with pytest.raises(TaskError, match=r":3: task id 't/1' was already used on line 1"):
        read_tasks(write(tmp_path / "t.jsonl", GOOD, "\n", GOOD))


def test_other_encodings_are_refused_by_line(tmp_path):
    (tmp_path / "t.jsonl").write_bytes(json.dumps(GOOD).encode() + b"\n\xff\xfe\n")
    with pytest.raises(TaskError, match=r":2: not UTF-8"):
        read_tasks(tmp_path / "t.jsonl")


def test_a_missing_or_empty_file_is_one_clear_error(tmp_path):
    with pytest.raises(TaskError, match="no such task file"):
        read_tasks(tmp_path / "absent.jsonl")
    with pytest.raises(TaskError, match="no tasks"):
        read_tasks(write(tmp_path / "empty.jsonl", "\n"))


def test_test_sets_are_kept_apart():
    task = Task("t", "s", "x", "p", "bn", "python", "function", visible_tests=("v",), hidden_tests=("h",))
    assert (task.tests("visible"), task.tests("hidden"), task.tests("all")) == (("v",), ("h",), ("v", "h"))
    with pytest.raises(ValueError, match="choose one of"):
        task.tests("secret")  # type: ignore[arg-type]


def test_by_split_keeps_order():
    tasks = [Task(str(i), "s", split, "p", "bn", "python", "function") for i, split in enumerate("abab")]
    assert [task.task_id for task in by_split(tasks, "a")] == ["0", "2"]
