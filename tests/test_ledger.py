"""The attempts file under kills, torn lines and two writers."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pandas
import pytest

from lib.ledger import Attempt, Ledger, LedgerError

ROW = Attempt(
    run_id="r", task_id="bn/ক", draw=0, seed=1, model="m", adapter="", sampler="openvino", temperature=0.8, top_p=0.95,
    max_new_tokens=96, prompt_hash="x", tests_hash="y", completion="c", program="p", finished=True, n_tokens=3, logprob_sum=None,
    status="success", passed=2, total=2, visible_ok=True, hidden_ok=True, failure="", cpu_s=0.0, wall_s=0.0,
    peak_rss_mb=1.0, sandbox_mode="A", created_at="2026-01-01T00:00:00+00:00",
)  # fmt: skip


def rows(count):
    return [dataclasses.replace(ROW, draw=draw, seed=draw) for draw in range(count)]


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


def test_pandas_opens_it_in_one_line(tmp_path):
    Ledger(tmp_path / "a.jsonl").append(rows(4))
    assert len(pandas.read_json(tmp_path / "a.jsonl", lines=True)) == 4


WRITER = """
import dataclasses, sys
sys.path.insert(0, {root!r})
from lib.ledger import Ledger
from tests.test_ledger import ROW
ledger = Ledger({path!r})
for draw in range({count}):
    ledger.append([dataclasses.replace(ROW, run_id={name!r}, draw=draw, seed=draw)])
    print(draw, flush=True)
"""


def writer(path, name, count, root):
    code = WRITER.format(root=root, path=str(path), name=name, count=count)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_two_processes_may_append_to_one_file(tmp_path, pytestconfig):
    path = tmp_path / "a.jsonl"
    pair = [writer(path, name, 50, str(pytestconfig.rootpath)) for name in ("one", "two")]
    assert [process.wait() for process in pair] == [0, 0] and all(p.communicate() for p in pair)
    names = [attempt.run_id for attempt in Ledger(path)]
    assert names.count("one") == names.count("two") == 50


def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path, pytestconfig):
    path = tmp_path / "a.jsonl"
    process = writer(path, "victim", 100_000, str(pytestconfig.rootpath))
    while not path.exists() or path.stat().st_size < 5000:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    acknowledged = process.communicate()[0].split()
    draws = [attempt.draw for attempt in Ledger(path)]
    assert draws == list(range(len(draws))) and len(draws) >= len(acknowledged)
