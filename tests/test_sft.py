"""Fine-tuning on a few real rows: what is learnt, what carries loss, what the optimiser holds."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib.prompts import build_prompt
from lib.sft import SftSettings, TrainingError, examples, precision, train
from lib.tasks import read_tasks
from tests.test_ledger import ROW

TASKS = {t.task_id: t for t in read_tasks(Path(__file__).parent.parent / "data/starter_bn.jsonl")}
PICKED = [TASKS[name] for name in ("bn/add_numbers", "bn/square", "bn/is_odd", "bn/subtract")]
SETTINGS = SftSettings(steps=3, batch_size=2, lora_rank=4, lora_alpha=8, learning_rate=1e-3, warmup_ratio=0.0)


def winners():
    return [dataclasses.replace(ROW, task_id=task.task_id, program=task.reference) for task in PICKED]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One short training run that the tests look at from several sides."""
    from transformers import AutoTokenizer

    from lib.models import resolve

    folder = tmp_path_factory.mktemp("sft") / "adapter"
    rows = examples(winners(), PICKED, AutoTokenizer.from_pretrained(resolve("embedded")))
    history = []
    return folder, rows, history, train("embedded", rows, folder, SETTINGS, history.append)


def test_a_row_continues_the_prompt_as_mined(trained):
    _, rows, _, _ = trained
    assert rows[0]["prompt"].endswith("def add_numbers(a, b):")
    assert rows[0]["completion"] == "\n    return a + b\n```"


def test_the_loss_falls_and_the_weights_move(trained):
    folder, _, history, summary = trained
    assert summary["last_loss"] < summary["first_loss"] and len(history) == SETTINGS.steps
    moved = [t for name, t in load_file(folder / "adapter_model.safetensors").items() if "lora_B" in name]
    assert moved and all(t.abs().max() > 0 for t in moved)


def test_the_optimiser_state_is_8_bit(trained):
    assert "torch.uint8" in trained[3]["optimizer_state"]


def test_the_adapter_folder_is_whole_and_nothing_is_left_beside_it(trained):
    folder = trained[0]
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in folder.iterdir()}
    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]


def test_the_loss_covers_the_completion_and_its_end_only(trained):
    import unsloth  # noqa: F401
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTTrainer

    from lib.models import resolve
    from lib.sft import _config

    tokenizer = AutoTokenizer.from_pretrained(resolve("embedded"))
    model = AutoModelForCausalLM.from_pretrained(resolve("embedded"), dtype=torch.bfloat16)
    trainer = SFTTrainer(
        model=model, args=_config(SETTINGS, trained[0].parent / "look"),
        train_dataset=Dataset.from_list(trained[1]), processing_class=tokenizer,
    )  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    texts = {row["completion"] + tokenizer.eos_token for row in trained[1]}
    for labels in batch["labels"]:
        assert tokenizer.decode(labels[labels != -100]) in texts


def test_no_winners_trains_nothing(tmp_path):
    with pytest.raises(TrainingError, match="no winners"):
        train("embedded", [], tmp_path / "adapter", SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_a_winner_must_begin_with_its_prompts_prefill():
    class Chat:
        def apply_chat_template(self, messages, **_):
            return ""

    stray = dataclasses.replace(ROW, task_id="bn/square", program="import os\n")
    with pytest.raises(ValueError, match="bn/square"):
        examples([stray], PICKED, Chat())
    assert build_prompt(TASKS["bn/square"], Chat()).code_prefill == "def square(n):"


def test_precision_is_one_the_device_computes_in():
    assert precision() in ("bf16", "fp16", "fp32")
