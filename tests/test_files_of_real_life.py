"""Task files and submissions as they come: what can be read without guessing is read, the rest is refused in words."""

# ruff: noqa: E501  a file a line

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from lib.tasks import readers
from lib.tasks.task import TaskError

MBPP: dict[str, Any] = {"task_id": 601, "text": "Double it.", "code": "def f(x):\n    return 2 * x\n", "test_list": ["assert f(1) == 2"],
                        "test_setup_code": "", "challenge_test_list": []}  # fmt: skip
BLP = "id,instruction,test_list\n"
BLP_ROW = "7,দ্বিগুণ করো।,\"['assert f(1) == 2']\"\n"
HUMANEVAL = {"task_id": "HumanEval/0", "prompt": "def f(x):\n    ", "entry_point": "f", "canonical_solution": "return 2 * x\n",
             "test": "def check(candidate):\n    assert candidate(1) == 2\n"}  # fmt: skip
LCB: dict[str, Any] = {"question_id": 7, "question_content": "Double it.", "starter_code": "", "metadata": "{}",
                       "public_test_cases": '[{"input": "1\\n", "output": "2\\n", "testtype": "stdin"}]', "private_test_cases": "[]"}  # fmt: skip


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def parquet(*rows: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), out)
    return out.getvalue()


def without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


READ = {
    "json_lines.jsonl": lines(MBPP),
    "byte_order_mark.jsonl": b"\xef\xbb\xbf" + lines(MBPP),
    "carriage_returns.jsonl": lines(MBPP).replace(b"\n", b"\r\n"),
    "carriage_returns_in_code.jsonl": lines({**MBPP, "code": "def f(x):\r\n    return 2 * x\r\n"}),
    "blank_lines.jsonl": b"\n\n" + lines(MBPP) + b"\n   \n",
    "no_final_line_end.jsonl": lines(MBPP).rstrip(),
    "comma_after_the_line.jsonl": lines(MBPP).rstrip() + b",\n",
    "array_in_a_jsonl.jsonl": b"[\n" + lines(MBPP).rstrip() + b"\n]",
    "lines_in_a_json.json": lines(MBPP),
    "array_in_lines.json": json.dumps([MBPP], indent=2).encode(),
    "one_object_in_lines.json": json.dumps(MBPP, indent=2).encode(),
    "rows_below_a_key.json": json.dumps({"version": 1, "data": [MBPP]}, indent=2).encode(),
    "packed.jsonl.gz": gzip.compress(lines(MBPP)),
    "packed.json.gz": gzip.compress(json.dumps([MBPP]).encode()),
    "table.parquet": parquet(without(MBPP, "challenge_test_list")),
    "table_of_float_ids.parquet": parquet({**without(MBPP, "challenge_test_list"), "task_id": 601.0}),
    "id_as_text.jsonl": lines({**MBPP, "task_id": "601"}),
    "nothing_for_a_list.jsonl": lines({**MBPP, "challenge_test_list": None}),
    "nan_for_a_list.jsonl": lines(MBPP).replace(b'"challenge_test_list": []', b'"challenge_test_list": NaN'),
    "list_as_text.jsonl": lines({**MBPP, "test_list": "['assert f(1) == 2']"}),
    "unknown_column.jsonl": lines({**MBPP, "difficulty": "easy"}),
    "sanitized.jsonl": lines({"task_id": 601, "prompt": "Double it.", "code": "x = 1", "test_imports": [], "test_list": ["assert f(1) == 2"]}),
    "plus.jsonl": lines({"task_id": "Mbpp/601", "prompt": "Double it.", "code": "x = 1", "test_imports": [], "test_list": ["assert f(1) == 2"], "test": "assert f(3) == 6"}),
    "bangla.jsonl": lines({**MBPP, "prompt_bn": "দ্বিগুণ করো।"}),
    "bangla_instruction.jsonl": lines({"task_id": 601, "instruction": "দ্বিগুণ করো।", "test_list": ["assert f(1) == 2"], "response": "x = 1"}),
    "dev.csv": (BLP + BLP_ROW).encode(),
    "dev_mark_and_returns.csv": b"\xef\xbb\xbf" + (BLP + BLP_ROW).replace("\n", "\r\n").encode(),
    "dev_semicolons.csv": (BLP + BLP_ROW).replace(",", ";").encode(),
    "dev_tabs.tsv": (BLP + BLP_ROW).replace(",", "\t").encode(),
    "dev_capitals.csv": (BLP.title() + BLP_ROW).encode(),
    "dev_blanks_in_the_header.csv": (BLP.replace(",", ", ") + BLP_ROW).encode(),
    "dev_index_column.csv": (",".join(["", BLP]) + "0," + BLP_ROW).encode(),
    "dev_trailing_commas.csv": (BLP.replace("\n", ",,\n") + BLP_ROW.replace("\n", ",,\n") + ",,,,\n").encode(),
    "dev_blank_lines.csv": (BLP + "\n" + BLP_ROW + "\n").encode(),
    "dev_quoted_line_ends.csv": (BLP + '7,"দ্বিগুণ\nকরো, ""এখন""।","[\'assert f(1) == 2\']"\n').encode(),
    "humaneval.jsonl": lines(HUMANEVAL),
    "humaneval_plus.jsonl": lines({**HUMANEVAL, "contract": "", "base_input": [[1]], "plus_input": [[2]], "atol": 0}),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_file_that_says_what_it_means_is_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(READ[name])
    (task,) = readers.read(tmp_path / name)
    assert task.task_id in ("601", "Mbpp/601", "7", "HumanEval/0") and task.entry_point == "f"
    assert task.tests("all")[0] == "assert f(1) == 2" and "\r" not in task.reference + task.prompt
    assert (task.natural_language == "bn") == ("bangla" in name or name.startswith("dev"))


LIVE = {
    "one_language.jsonl": (LCB, "7", "python"),
    "no_private_cases.jsonl": (without(LCB, "private_test_cases"), "7", "python"),
    "language.jsonl": ({**LCB, "language": "Lua"}, "7:lua", "lua"),
    "plang.jsonl": ({**LCB, "plang": "jl", "starter_code": "class Solution: ..."}, "7:julia", "julia"),
    "inputs_and_outputs.jsonl": (
        {**LCB, "public_test_cases": {"inputs": ["1\n"], "outputs": ["2\n"]}}, "7", "python"),
    "functional_elsewhere.jsonl": (
        {**LCB, "lang": "r", "public_test_cases": LCB["public_test_cases"].replace("stdin", "functional")}, "7:r", "r"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIVE)
def test_livecodebench_and_its_kin_in_other_languages(name: str, tmp_path: Path) -> None:
    row, task_id, language = LIVE[name]
    (tmp_path / name).write_bytes(lines(row))
    (task,) = readers.read(tmp_path / name)
    assert (task.task_id, task.programming_language, task.mode, task.compare) == (task_id, language, "program", "lines")
    assert task.prompt == "Double it." and [case.output for case in task.cases] == ["2\n"]


REFUSED = {  # file -> (content, words of the one line)
    "missing_column.jsonl": (lines(without(MBPP, "test_list")), ":1: no known corpus has the columns task_id, text"),
    "number_for_text.jsonl": (lines(MBPP, {**MBPP, "text": 3}), ":2: column text is 3; it should be text"),
    "nothing_for_text.jsonl": (lines({**MBPP, "text": None}), ":1: column text is None; it should be text"),
    "number_for_code.jsonl": (lines({**MBPP, "code": 3}), ":1: column code is 3; it should be text"),
    "number_for_a_list.jsonl": (lines({**MBPP, "test_list": 3}), ":1: column test_list is 3; it should be a list of"),
    "number_in_a_list.jsonl": (lines({**MBPP, "test_list": [3]}), ":1: column test_list is [3]; it should be a list of"),
    "empty_list.jsonl": (lines({**MBPP, "test_list": []}), ":1: column test_list is empty; a task needs"),
    "no_assert.jsonl": (lines({**MBPP, "test_list": ["print(1)"]}), ":1: column test_list holds 'print(1)'; expected"),
    "two_of_one_id.jsonl": (lines(MBPP, MBPP), ":2: task id '601' was already used at "),
    "id_and_text_of_it.jsonl": (lines(MBPP, {**MBPP, "task_id": "601"}), ":2: task id '601' was already used at "),
    "truth_for_an_id.jsonl": (lines({**MBPP, "task_id": True}), ":1: column task_id is True; it should be an id"),
    "no_id.jsonl": (lines({**MBPP, "task_id": None}), ":1: the id is empty; column task_id should hold"),
    "word_for_a_number.jsonl": (lines({**MBPP, "task_id": "x"}), ":1: column task_id is 'x'; it should be MBPP's number"),
    "no_json.jsonl": (lines(MBPP) + b"{broken}\n", ":2: not JSON"),
    "cut_off.json": (b'[{"task_id": 1},\n', ":2: not JSON"),
    "no_object.jsonl": (b"[1]\n", "row 1: expected a JSON object, got int"),
    "latin.jsonl": (lines(MBPP) + b'{"text": "caf\xe9"}\n', ":2: not UTF-8 (byte 0xe9)"),
    "two_columns_of_one_name.csv": (b"id,ID,test_list\n1,2,3\n", ":1: a column name appears twice: id"),
    "too_few_fields.csv": ((BLP + BLP_ROW + "8,x\n").encode(), "row 2 (line 3): 2 fields, but the header has 3"),
    "no_check.jsonl": (lines({**HUMANEVAL, "test": "assert f(1)"}), ":1: column test is 'assert f(1)'; it should be Python"),
    "no_candidate.jsonl": (lines({"name": "x", "language": "lua", "prompt": "x", "tests": "x"}), ":1: column tests is 'x'; it"),
    "cases_of_numbers.jsonl": (lines({**LCB, "public_test_cases": [1]}), ":1: column public_test_cases is [1]; it should be"),
    "half_a_case.jsonl": (lines({**LCB, "public_test_cases": [{"input": "1"}]}), ":1: column public_test_cases is [{'input'"),
    "no_method.jsonl": (lines({**LCB, "public_test_cases": [{"input": "1", "output": "2", "testtype": "functional"}]}),
                        ":1: column metadata is '{}'; it should be an object whose func_name"),
    "no_cases.jsonl": (lines({**LCB, "public_test_cases": []}), ":1: task '7' has no cases"),
    "messages.jsonl": (lines({"messages": "x"}), ":1: column messages is 'x'; it should be a list of"),
    "limit.jsonl": (lines({"id": 1, "title": "x", "description": "x", "examples": [], "official_tests": [], "time_limit": "long"}),
                    ":1: column time_limit is 'long'; it should be a number above 0"),
    "sheet.xlsx": (b"PK", "unknown kind of file; .csv, .json, .jsonl"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_file_row_column_value_and_what_would_be_right(name: str, tmp_path: Path) -> None:
    content, words = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskError) as refusal:
        readers.read(tmp_path / name)
    assert str(refusal.value).startswith(str(tmp_path / name)) and words in str(refusal.value)
    assert "\n" not in str(refusal.value)


ANSWERS = {
    "rows.jsonl": (lines({"id": 1, "response": "x"}, {"task_id": "1", "completion": "y"}, {"id": 2, "solution": "z"})),
    "float_ids.jsonl": (lines({"id": 1.0, "response": "x"}, {"id": 1.0, "response": "y"}, {"id": 2.0, "response": "z"})),
    "lists.jsonl": lines({"task_id": "1", "completions": ["x", "y"]}, {"task_id": "2", "completion": "z"}),
    "generations.json": b'[["x", "y"], ["z"]]',
    "code_list.json": json.dumps([{"task_id": 1, "code_list": ["x", "y"]}, {"task_id": 2, "code_list": ["z"]}]).encode(),
    "by_id.json": b'{"1": ["x", "y"], "2": "z"}',
    "by_id_in_lines.json": json.dumps({"1": ["x", "y"], "2": "z"}, indent=1).encode(),
    "table.csv": b"id,response\n1,x\n1,y\n2,z\n",
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_submissions_of_several_samples_come_in_many_shapes(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(ANSWERS[name])
    assert readers.read_submission(tmp_path / name, ["1", "2"]) == {"1": ["x", "y"], "2": ["z"]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"id": 1, "response": 3}, ":1: response is 3; it should be text"),
        ({"id": 1, "response": None}, ":1: response is null; it should be text"),
        ({"id": None, "response": "x"}, ":1: the id is empty"),
        (
            {"answer": "x"},
            ":1: a submission row has id or task_id, and response, completion or solution; this has answer",
        ),
    ],
)
def test_a_broken_row_of_a_submission_is_named(content: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_bytes(lines(content))
    with pytest.raises(TaskError) as refusal:
        readers.read_submission(tmp_path / "answers.jsonl", ["1"])
    assert words in str(refusal.value)
