"""Task files and submissions in public formats: every row of the cases, through the `score` command."""

import json
from pathlib import Path

import pytest

from lib.__main__ import main
from lib.tasks import readers

ROWS = [json.loads(line) for line in (Path(__file__).parent / "cases/corpora.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['kind']}-{row['name']}")
def test_a_public_file_is_read_and_judged_as_its_corpus_does(row, tmp_path: Path, capsys) -> None:
    tasks, answers, out = tmp_path / row["file_name"], tmp_path / "answers.jsonl", tmp_path / "out.jsonl"
    tasks.write_bytes(row["content"].encode())
    answers.write_text(row["submission"], encoding="utf-8")
    expect = row["expect"]
    if "reference" in expect:
        assert readers.read(tasks)[0].reference.strip() == expect["reference"].strip()
        return
    files = ["--tasks", str(tasks), "--submission", str(answers), "--out", str(out), "--json"]
    status = main(["score", *files, *row.get("options", [])])
    said = capsys.readouterr()
    naming = expect.get("refused_naming") or (expect.get("or_refused_naming") if status else None)
    if naming:
        assert status != 0 and said.err.count("\n") == 1 and all(word in said.err for word in naming)
        assert not any(word in said.err for word in expect.get("not_saying", []))
        return
    assert status == 0, said.err
    payload = json.loads(said.out)
    verdicts = {line["task_id"]: line for line in map(json.loads, out.read_text("utf-8").splitlines())}
    for name, wanted in expect.get("verdicts", {}).items():
        accepted = [wanted, *expect.get("also_accepted", {}).get(name, [])]
        assert verdicts[name]["status"] in accepted, verdicts[name]["failure"]
    assert {k: round(payload["pass_at"][k], 4) for k in expect.get("pass_at", {})} == expect.get("pass_at", {})
    assert not set(payload.get("pass_at", {})) & set(map(str, expect.get("no_pass_at", [])))
    assert payload.get("left_out", 0) == expect.get("left_out", 0)
