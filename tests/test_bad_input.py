"""Each command with a typo, a missing file, a wrong adapter or a run folder of an older version: one clear line."""

import dataclasses
import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib.mining.ledger import Ledger
from lib.tasks.task import write_tasks
from tests.test_cli import RIGHT, refusal, task
from tests.test_ledger import ROW

Capture = pytest.CaptureFixture[str]
ASK = ["ask", "Add two numbers."]
SCORE = ["score", "--tasks", "tasks.jsonl", "--submission", "submission.json"]
EXECUTE = ["execute", "--language", "python", "--source", "submission.json", "--cases", "cases.jsonl"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in: tasks, a submission, cases, an adapter of another model, runs of an older version."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    write_tasks("tasks.jsonl", [task("a")])
    Path("submission.json").write_text(json.dumps([{"id": "a", "response": RIGHT}]))
    Path("cases.jsonl").write_text(json.dumps({"input": "1", "output": "2"}))
    Path("adapter").mkdir()
    save_file({"model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(4, 7)}, "adapter/adapter_model.safetensors")
    Path("adapter/adapter_config.json").write_text('{"r": 4, "lora_alpha": 8, "base_model_name_or_path": "other"}')
    Path("adapter/training.json").write_text('{"model": "embedded"}')
    for name in ("tasks/test.jsonl", "tasks/train.jsonl"):
        Path("old", name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("tasks.jsonl", Path("old", name))
    Ledger("old/attempts/evaluation.jsonl").append([ROW])
    Ledger("old/attempts/mining.jsonl").append([dataclasses.replace(ROW, task_id="a")])
    for name in ("manifest", "evaluation", "preprocessing", "mining", "sft", "gmpo"):
        Path("old", f"{name}.json").write_text('{"version": 0}')
    for name in ("scores", "failures"):
        Path("old", f"{name}.csv").write_text(
            "model,n_tasks,tests,protocol,rate,lo,hi,troopers_type\nbase,1,hidden,draws,0,0,1,1\n"
        )
    return tmp_path


TYPOS: list[tuple[list[str], str]] = [
    (["scroe"], "invalid choice: 'scroe'"),
    (["run"], "required: --preset"),
    (["run", "--preset", "smok"], "no preset 'smok'; there are "),
    (["run", "--preset", "smoke", "--set", "drwas=1"], "no stage has a parameter 'drwas'; there are "),
    (["run", "--preset", "smoke", "--set", "draws=many"], "02_mining.draws=many: a whole number is expected"),
    (["run", "--preset", "smoke", "--from", "minning"], "no stage 'minning'; there are 00_environment"),
    (["sweep", "--preset", "smoke", "--seeds", "0-2"], "--seeds 0-2: whole numbers with commas"),
    (["sweep", "--preset", "smok"], "no preset 'smok'"),
    (["doctor", "--jsn"], "unrecognized arguments: --jsn"),
    (["prompt", "--tasks", "tasks.jsonl", "--id", "b"], "no task 'b'; the first of 1 is 'a'"),
    ([*SCORE, "--tests", "hiden"], "invalid choice: 'hiden'"),
    ([*EXECUTE[:2], "pyhton", *EXECUTE[3:]], "no language 'pyhton'; there are "),
    ([*ASK, "--language", "pyhton"], "no language 'pyhton'; there are "),
    ([*ASK, "--model", "embeded"], "model 'embeded': not a folder"),
    ([*ASK, "--test", "assert add(1, 2 == 3"], "no python that calls a function"),
    ([*ASK, "--repair", "-1"], "--repair -1: turns after a failure"),
    (["ask", " "], "the instruction is empty"),
]
MISSING: list[tuple[list[str], str]] = [
    ([*SCORE[:2], "no.jsonl", *SCORE[3:]], "no.jsonl"),
    ([*SCORE[:4], "no.json"], "no.json"),
    ([*EXECUTE[:4], "no.py", *EXECUTE[5:]], "no.py: No such file"),
    ([*EXECUTE[:6], "no.jsonl"], "no.jsonl: No such file"),
    (["prompt", "--tasks", "no.jsonl", "--id", "a"], "no.jsonl"),
    (["decontaminate", "--train", "no.jsonl", "--eval", "tasks.jsonl", "--out", "out"], "no.jsonl"),
    (["report", "no"], "no: no run here"),
    (["figures", "no"], "no: tasks/train.jsonl is missing"),
    (["compare", "no"], "no: not an evaluated run, manifest.json is missing"),
    (["replay", "no", "a", "0"], "no: no ledger in no/attempts"),
    (["published", "--data", "no"], "not found; data/README.md says where"),
    (["export", "no", "--out", "out"], "no: neither an adapter's folder (adapter_config.json) nor a run"),
    (["export", "adapter", "--out", "out", "--llama-cpp", "no"], "no: no such file; --llama-cpp takes a folder"),
    ([*ASK, "--adapter", "no"], "no: neither an adapter's folder (adapter_config.json) nor a run"),
    (["run", "--preset", "smoke", "--set", "tasks=no.jsonl"], "01_preprocessing.tasks=no.jsonl: no such file"),
]
WRONG_ADAPTER: list[tuple[list[str], str]] = [
    ([*ASK, "--adapter", "adapter"], "adapter: an adapter for other, not for embedded"),
    (["export", "adapter", "--out", "out"], "adapter: an adapter for other, not for embedded"),
]
OLDER: list[tuple[list[str], str]] = [
    (["compare", "old"], "manifest.json has no seed of 05_evaluation; another version wrote it"),
    (["figures", "old"], "another version wrote them: run the notebooks again"),
    (["replay", "old", "a", "0"], "old: the tests of task 'a' are no longer those that judged it"),
    (["export", "old", "--out", "out"], "old: neither an adapter's folder"),
]


@pytest.mark.parametrize(
    ("arguments", "said"),
    TYPOS + MISSING + WRONG_ADAPTER + OLDER,
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_one_clear_line(arguments: list[str], said: str, capsys: Capture) -> None:
    assert said in refusal(capsys, *arguments)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("module", "arguments", "said"),
    [
        ("lib.models.download", ["codr"], "model 'codr': not a folder"),
        ("lib.run.executed", ["no", "x"], "no: no executed"),
    ],
)
def test_what_make_calls_refuses_in_one_line(
    module: str, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert str(ended.value.code).startswith(said) and "\n" not in str(ended.value.code)


def test_every_command_is_tried_with_bad_input() -> None:
    from tests.test_cli import COMMANDS

    assert {arguments[0] for arguments, _ in TYPOS + MISSING + OLDER} >= set(COMMANDS)


def test_an_older_run_s_report_names_what_is_missing(capsys: Capture) -> None:
    from lib.__main__ import main

    assert main(["report", "old"]) == 0
    assert "another version" in Path("old/report.html").read_text()


def test_a_ledger_without_the_answers_that_scores_are_made_of_is_named(capsys: Capture) -> None:
    settings = {"seed": 0, "temperature": 0.2, "draws": 2, "max_new_tokens": 8}
    Path("old/manifest.json").write_text(json.dumps({"parameters": {"05_evaluation": settings}}))
    Path("old/evaluation.json").write_text('{"adapters": {"base": ""}}')
    assert "old: answers are missing" in refusal(capsys, "compare", "old")
