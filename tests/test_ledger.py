"""The attempts file under kills, torn lines and two writers."""

import dataclasses
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.mining.ledger import FIELDS, LATER, Attempt, Ledger, LedgerError

ROW = Attempt(
    run_id="r",
    task_id="bn/ক",
    draw=0,
    seed=1,
    model="m",
    adapter="",
    sampler="openvino",
    temperature=0.8,
    top_p=0.95,
    max_new_tokens=96,
    prompt_hash="x",
    tests_hash="y",
    completion="c",
    program="p",
    finished=True,
    n_tokens=3,
    logprob_sum=None,
    status="success",
    passed=2,
    total=2,
    visible_ok=True,
    hidden_ok=True,
    failure="",
    cpu_s=0.0,
    wall_s=0.0,
    peak_rss_mb=1.0,
    sandbox_mode="A",
    created_at="2026-01-01T00:00:00+00:00",
)


def rows(count):
    return [dataclasses.replace(ROW, draw=draw, seed=draw) for draw in range(count)]


def test_how_a_program_ran_is_read_back(tmp_path):
    ledger = Ledger(tmp_path / "a.jsonl")
    ran = dataclasses.replace(
        ROW, exit_code=-9, commands=("lua5.4 main.lua",), stdout_head="7\n", stderr_head="x", step=3
    )
    ledger.append([ran, ROW])
    assert list(ledger) == [ran, ROW]
    assert ledger.table()["commands"].to_pylist() == [["lua5.4 main.lua"], []]


def test_rows_written_before_these_fields_were_there_are_read(tmp_path):
    old = {name: value for name, value in dataclasses.asdict(ROW).items() if name not in LATER}
    (tmp_path / "a.jsonl").write_text(json.dumps(old) + "\n")
    assert list(Ledger(tmp_path / "a.jsonl")) == [ROW]


def test_what_was_appended_is_read_back_in_order(tmp_path):
    ledger = Ledger(tmp_path / "a.jsonl")
    ledger.append(rows(3))
    ledger.append(rows(5)[3:])
    assert list(ledger) == rows(5)


def test_a_torn_last_line_is_skipped_then_cut_off(tmp_path):
    ledger = Ledger(tmp_path / "a.jsonl")
    ledger.append(rows(2))
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole + b'{"run_id": "r", "tas')
    assert list(ledger) == rows(2)
    ledger.append(rows(3)[2:])
    assert list(ledger) == rows(3)
    assert ledger.path.read_bytes().startswith(whole)


def test_a_file_that_is_all_one_torn_line_starts_over(tmp_path):
    ledger = Ledger(tmp_path / "a.jsonl")
    ledger.path.write_bytes(b"{" * 200_000)
    ledger.append(rows(1))
    assert list(ledger) == rows(1)


def test_a_line_that_is_no_attempt_is_named(tmp_path):
    ledger = Ledger(tmp_path / "a.jsonl")
    ledger.append(rows(1))
    with ledger.path.open("a") as file:
        file.write('{"run_id": 1}\n')
    with pytest.raises(LedgerError, match=r"a\.jsonl:2: not an attempt"):
        list(ledger)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"passed": 2', b'"passed": "two"', "passed"),
        (b'"passed": 2', b'"passed": 2, "x": 3', "unexpected field"),
        (b'"program": "p"', b'"program": null', "required field"),
        (b'"program": "p", ', b"", "required field"),
        (b'"program": "p"', b'"program": "\xff"', "UTF8"),
    ],
)
def test_a_line_with_a_wrong_value_is_named_even_far_down(tmp_path, old, new, said):
    ledger = Ledger(tmp_path / "a.jsonl")
    ledger.append(rows(30))
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    lines.append(lines[0].replace(old, new))
    ledger.path.write_bytes(b"".join(lines))
    ledger.append(rows(5))
    for read in (list, Ledger.keys, Ledger.table):
        with pytest.raises(LedgerError, match=rf"a\.jsonl:31: not an attempt \(.*{said}"):
            read(ledger)


def test_the_table_and_the_keys_are_those_of_the_rows(tmp_path):
    ledger = Ledger(tmp_path / "a.jsonl")
    assert len(ledger.table()) == 0 and ledger.keys() == set() and ledger.table().column_names == list(FIELDS)
    ledger.append([*rows(3), dataclasses.replace(ROW, logprob_sum=-1.5, seed=2**63 - 1)])
    with ledger.path.open("a") as file:
        file.write('{"run_id": "torn')
    as_rows = [dataclasses.asdict(attempt) | {"commands": list(attempt.commands)} for attempt in ledger]
    assert ledger.table().to_pylist() == as_rows
    assert ledger.keys() == {attempt.key for attempt in ledger} and len(ledger.keys()) == 4


def test_a_row_longer_than_a_megabyte_is_read(tmp_path):
    ledger = Ledger(tmp_path / "a.jsonl")
    ledger.append([dataclasses.replace(ROW, completion="ক" * 1_000_000), ROW])
    assert [len(attempt.completion) for attempt in ledger] == [1_000_000, 1]


TEXT = 'ক "quoted" \\ \n\r\u2028\x00 😀'
CUT = [dataclasses.replace(ROW, draw=draw, seed=draw, program=TEXT * draw) for draw in range(4)]
CUT_BYTES = "".join(json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in CUT).encode()


@settings(deadline=None)
@given(st.integers(0, len(CUT_BYTES)))
def test_a_file_cut_anywhere_holds_the_whole_rows_before_and_goes_on_after_them(position):
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "a.jsonl")
        ledger.path.write_bytes(CUT_BYTES[:position])
        whole = CUT_BYTES[:position].count(b"\n")
        assert list(ledger) == CUT[:whole] and ledger.keys() == {row.key for row in CUT[:whole]}
        ledger.append(CUT[whole:])
        assert ledger.path.read_bytes() == CUT_BYTES


@settings(deadline=None, max_examples=50)
@given(st.text(), st.text())
def test_any_text_comes_back_as_it_was(completion, failure):
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "a.jsonl")
        row = dataclasses.replace(ROW, completion=completion, failure=failure)
        ledger.append([row])
        assert list(ledger) == [row]


def test_half_a_surrogate_pair_in_an_error_message_is_written_as_a_question_mark(tmp_path):
    ledger = Ledger(tmp_path / "a.jsonl")
    ledger.append([dataclasses.replace(ROW, failure="ValueError: \ud800")])
    assert [attempt.failure for attempt in ledger] == ["ValueError: ?"]


def test_pandas_opens_it_in_one_line(tmp_path):
    Ledger(tmp_path / "a.jsonl").append([*rows(3), dataclasses.replace(ROW, seed=2**63 - 1)])
    frame = pandas.read_json(tmp_path / "a.jsonl", lines=True)
    assert list(frame.columns) == list(FIELDS) and list(frame.seed) == [0, 1, 2, 2**63 - 1]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS])
@pytest.mark.parametrize("module, name", [(fcntl, "flock"), (os, "fsync")])
def test_rows_are_written_where_the_file_system_has_no_locks_or_no_sync(tmp_path, monkeypatch, module, name, code):
    refused = []

    def refuse(*arguments):
        refused.append(arguments)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module, name, refuse)
    ledger = Ledger(tmp_path / "a.jsonl")
    ledger.append(rows(2))
    ledger.path.write_bytes(ledger.path.read_bytes() + b"{torn")
    ledger.append(rows(3)[2:])
    assert list(ledger) == rows(3) and len(refused) == 2


@pytest.mark.parametrize("module, name", [(fcntl, "flock"), (os, "fsync")])
def test_a_failing_disk_is_no_missing_feature(tmp_path, monkeypatch, module, name):
    def fail(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(module, name, fail)
    with pytest.raises(LedgerError, match=r"a\.jsonl: cannot append \(Input/output error\)"):
        Ledger(tmp_path / "a.jsonl").append(rows(1))


def test_a_full_disk_is_told_and_costs_no_row_written_before():
    ledger = Ledger("/dev/full")
    with pytest.raises(LedgerError, match="/dev/full: cannot append"):
        ledger.append(rows(1))


WRITER = """
import dataclasses, json, sys
root, path, row, name, batches, size, length = json.loads(sys.argv[1])
sys.path.insert(0, root)
from lib.mining.ledger import Attempt, Ledger
row = dataclasses.replace(Attempt(**row), run_id=name, completion="c" * length)
for batch in range(batches):
    draws = range(batch * size, (batch + 1) * size)
    Ledger(path).append([dataclasses.replace(row, draw=draw, seed=draw) for draw in draws])
    print((batch + 1) * size, flush=True)
"""


@pytest.fixture
def write(pytestconfig):
    """Start a process that appends `batches` batches of `size` rows and prints how many were acknowledged."""
    started = []

    def start(path, name, batches, size=1, length=1):
        told = json.dumps([str(pytestconfig.rootpath), str(path), dataclasses.asdict(ROW), name, batches, size, length])
        command = [sys.executable, "-c", WRITER, told]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        with process:
            process.kill()


def wait_for_bytes(path, count):
    while not path.exists() or path.stat().st_size < count:
        time.sleep(0.001)


def draws_of(path, name):
    return [attempt.draw for attempt in Ledger(path) if attempt.run_id == name]


def test_two_processes_may_append_to_one_file(tmp_path, write):
    path = tmp_path / "a.jsonl"
    pair = [write(path, "one", 200, size=10), write(path, "two", 300, size=7)]
    assert [process.communicate()[0] != "" and process.returncode for process in pair] == [0, 0]
    assert draws_of(path, "one") == list(range(2000)) and draws_of(path, "two") == list(range(2100))


def test_a_kill_of_one_writer_costs_the_other_nothing(tmp_path, write):
    path = tmp_path / "a.jsonl"
    stays, victim = write(path, "stays", 200, size=10), write(path, "victim", 100_000, size=10)
    assert victim.stdout.readline() == "10\n"
    wait_for_bytes(path, 100_000)
    victim.send_signal(signal.SIGKILL)
    acknowledged = ["10", *victim.communicate()[0].split()]
    assert stays.wait() == 0
    assert draws_of(path, "stays") == list(range(2000))
    draws = draws_of(path, "victim")
    assert draws == list(range(len(draws))) and len(draws) >= int(acknowledged[-1])


def test_a_kill_in_the_middle_of_a_write_tears_one_line_and_no_more(tmp_path, write):
    torn = 0
    for attempt in range(20):
        path = tmp_path / f"{attempt}.jsonl"
        process = write(path, "victim", 1000, size=100, length=100_000)
        assert process.stdout.readline() == "100\n"
        acknowledged = path.read_bytes()
        wait_for_bytes(path, len(acknowledged) + 1)
        process.send_signal(signal.SIGKILL)
        last = ["100", *process.communicate()[0].split()][-1]
        data = path.read_bytes()
        torn += not data.endswith(b"\n")
        draws = draws_of(path, "victim")
        assert draws == list(range(data.count(b"\n"))) and len(draws) >= int(last)
        Ledger(path).append([ROW])
        assert path.read_bytes().startswith(data[: data.rfind(b"\n") + 1]) and len(list(Ledger(path))) == len(draws) + 1
        path.unlink()
        if torn:
            return
    pytest.skip("this file system finishes every write before a kill takes effect")
