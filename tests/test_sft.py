"""Fine-tuning on a few real rows: what is learnt, what carries loss, the optimiser's state, stops and restarts."""

import dataclasses
import json
import os
import random
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from safetensors.torch import load_file

from lib.mining.collect import Source, local_runner
from lib.mining.ledger import Ledger
from lib.models.card import read_facts
from lib.models.precision import precision
from lib.models.resolve import resolve
from lib.run.presets import parameters
from lib.sampling import SamplingParams, open_engine
from lib.sandbox import Sandbox
from lib.tasks.prompts import build_prompt
from lib.tasks.task import read_tasks
from lib.training import tensorboard
from lib.training.dev_eval import greedy_pass_at_1
from lib.training.resume import TrainingError, continue_from, last_checkpoint
from lib.training.sft import (
    TARGET_MODULES,
    SftSettings,
    batch_order,
    encode,
    examples,
    out_of_memory,
    run_identity,
    train,
    train_once,
    within_length,
)
from tests.test_ledger import ROW

TASKS = {t.task_id: t for t in read_tasks(Path(__file__).parent.parent / "data/starter_bn.jsonl")}
PICKED = [TASKS[name] for name in ("bn/add_numbers", "bn/square", "bn/is_odd", "bn/subtract")]
SETTINGS = SftSettings(steps=3, batch_size=2, lora_rank=4, lora_alpha=8, learning_rate=1e-3, warmup_ratio=0.0)
STOPPABLE = dataclasses.replace(SETTINGS, steps=4, lora_dropout=0.2, checkpoint_every=2)
SCORES = {0: 0.25, 2: 0.75, 4: 0.5}


@pytest.fixture(scope="module")
def tokenizer():
    import unsloth  # noqa: F401, I001
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(resolve("embedded"))


@pytest.fixture(scope="module")
def rows(tokenizer):
    winners = [dataclasses.replace(ROW, task_id=task.task_id, program=task.reference) for task in PICKED]
    return examples(winners, PICKED, tokenizer)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, rows):
    """One short training run that the tests look at from several sides."""
    folder = tmp_path_factory.mktemp("sft") / "adapter"
    history = []
    return (
        folder,
        history,
        train("embedded", rows, folder, dataclasses.replace(SETTINGS, report_to="tensorboard"), on_log=history.append),
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory, rows):
    """The trainer of the `paper` preset, and the preset."""
    from lib.training.sft.trainer import build

    preset = parameters("paper")["03_sft"]
    names = {field.name for field in dataclasses.fields(SftSettings)} - {"seed", "report_to"}
    table_3 = SftSettings(**{name: value for name, value in preset.items() if name in names})
    return build("embedded", rows, tmp_path_factory.mktemp("paper"), table_3)[0]


def scored(model, step):
    return SCORES[step]


def a_weight(named):
    return next(weight.detach().clone() for name, weight in named if "layers.7.self_attn.q_proj.lora_B" in name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, rows):
    """A run with dropout, checkpoints and held-out scores that nothing interrupted, and a weight at each evaluation."""
    folder, seen = tmp_path_factory.mktemp("whole") / "adapter", {}

    def held_out(model, step):
        seen[step] = a_weight(model.named_parameters())
        return scored(model, step)

    return folder, train("embedded", rows, folder, STOPPABLE, eval_fn=held_out), seen


def losses(summary):
    return [row["loss"] for row in summary["log"]]


# ------------------------------------------------------------------------------------------------------------ rows


def test_a_row_continues_the_prompt_as_mined(rows):
    assert rows[0]["task_id"] == "bn/add_numbers" and rows[0]["prompt"].endswith("def add_numbers(a, b):")
    assert rows[0]["completion"] == "\n    return a + b\n```"


def test_a_winner_must_begin_with_its_prompts_prefill():
    class Chat:
        def apply_chat_template(self, messages, **_):
            return ""

    stray = dataclasses.replace(ROW, task_id="bn/square", program="import os\n")
    with pytest.raises(ValueError, match="bn/square"):
        examples([stray], PICKED, Chat())
    assert build_prompt(TASKS["bn/square"], Chat()).code_prefill == "def square(n):"


def test_prompt_tokens_are_those_the_sampler_started_from(rows, tokenizer):
    for row in rows:
        ids = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
        one = encode(row, tokenizer)
        assert one["input_ids"][: len(ids)] == ids and set(one["labels"][: len(ids)]) == {-100}


def test_no_prompt_token_carries_loss_and_the_end_is_learnt(built, rows, tokenizer):
    batch = next(iter(built.get_train_dataloader()))
    texts = {row["completion"] + tokenizer.eos_token for row in rows}
    assert len(batch["labels"]) == 16
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        assert tokenizer.decode(labels[labels != -100]) in texts
        assert torch.equal(ids[labels != -100], labels[labels != -100])


def test_rows_longer_than_the_context_are_left_out_and_named(rows, tokenizer):
    lengths = [len(encode(row, tokenizer)["input_ids"]) for row in rows]
    kept, longer = within_length(rows, tokenizer, max(lengths) - 1)
    assert longer == [place for place, length in enumerate(lengths) if length == max(lengths)]
    assert len(kept) + len(longer) == len(rows)


def test_only_rows_longer_than_the_context_train_nothing(rows, tmp_path):
    with pytest.raises(TrainingError, match="max_length=8: all 4 rows are longer"):
        train("embedded", rows, tmp_path / "adapter", dataclasses.replace(SETTINGS, max_length=8))
    assert not (tmp_path / "adapter").exists()


@settings(deadline=None)
@given(
    some.lists(some.integers(1, 50), min_size=1, max_size=40),
    some.integers(1, 9),
    some.integers(1, 30),
    some.integers(0, 99),
)
def test_every_row_is_learnt_from_equally_often(lengths, size, batches, seed):
    order = batch_order(lengths, size, batches, seed)
    counts = Counter({row: 0 for row in range(len(lengths))}) + Counter(order)
    assert len(order) == size * batches and set(order) <= set(range(len(lengths)))
    assert max(counts.values()) - min(counts[row] for row in range(len(lengths))) <= 1
    assert order == batch_order(lengths, size, batches, seed)


def test_rows_of_like_length_share_a_batch():
    lengths = random.Random(0).sample(range(1000), 64)
    order = batch_order(lengths, 8, 8, 0)
    batches = [sorted(lengths[row] for row in order[start : start + 8]) for start in range(0, 64, 8)]
    assert sorted(batches) == [sorted(lengths)[start : start + 8] for start in range(0, 64, 8)]
    assert batches != sorted(batches)


# -------------------------------------------------------------------------------------------------------- training


def test_the_loss_falls_and_the_weights_move(trained):
    folder, history, summary = trained
    assert summary["last_loss"] < summary["first_loss"] and len(history) == SETTINGS.steps
    moved = [t for name, t in load_file(folder / "adapter_model.safetensors").items() if "lora_B" in name]
    assert moved and all(t.abs().max() > 0 for t in moved)


def test_the_optimiser_state_is_8_bit(trained):
    assert trained[2]["optimizer_state"] == ["torch.uint8"]


def test_the_adapter_folder_is_whole_and_nothing_is_left_beside_it(trained):
    folder = trained[0]
    there = {path.name for path in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md", "training.json"} <= there
    assert {path.name for path in folder.parent.iterdir()} == {"adapter", "adapter.tensorboard"}


@pytest.mark.parametrize("before", [None, "elsewhere"])
def test_the_environment_is_afterwards_as_it_was_also_when_training_fails(tmp_path, monkeypatch, before):
    monkeypatch.delenv(tensorboard.VARIABLE, raising=False)
    if before is not None:
        monkeypatch.setenv(tensorboard.VARIABLE, before)
    with pytest.raises(KeyboardInterrupt), tensorboard.tensorboard_in(tmp_path):
        assert os.environ[tensorboard.VARIABLE] == str(tmp_path)
        raise KeyboardInterrupt
    assert os.environ.get(tensorboard.VARIABLE) == before


def test_tensorboard_gets_the_loss_of_every_step(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = EventAccumulator(f"{trained[0]}.tensorboard").Reload()
    told = [event.value for event in curves.Scalars("train/loss")]
    assert told == pytest.approx(losses(trained[2]))


def test_the_folder_holds_what_vllm_serves(trained):
    """Plain LoRA of the layers it knows: no bias, no DoRA, no whole modules, PEFT's own tensor names."""
    config = json.loads((trained[0] / "adapter_config.json").read_text())
    plain = {
        "peft_type": "LORA",
        "bias": "none",
        "use_dora": False,
        "use_rslora": False,
        "modules_to_save": None,
        "r": 4,
    }
    assert {name: config[name] for name in plain} == plain
    layer = r"base_model\.model\.model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj\.lora_[AB]\.weight"
    assert all(re.fullmatch(layer, name) for name in load_file(trained[0] / "adapter_model.safetensors"))


def test_tokens_are_counted_without_padding(trained, rows, tokenizer):
    each = [len(encode(row, tokenizer)["input_ids"]) for row in rows]
    assert trained[2]["tokens"] == sum(each[row] for row in batch_order(each, 2, 3, SETTINGS.seed))


def test_the_paper_preset_builds_table_3(built):
    args, lora = built.args, built.model.peft_config["default"]
    told = (args.max_length, args.per_device_train_batch_size, args.gradient_accumulation_steps, args.max_steps)
    assert told == (1024, 16, 4, 60)
    assert (args.learning_rate, args.weight_decay, args.warmup_steps) == (5e-5, 0.04, 6)
    assert (args.lr_scheduler_type.value, args.seed) == ("cosine", 3407)
    assert (lora.r, lora.lora_alpha, lora.lora_dropout) == (32, 64, 0.05)
    assert set(lora.target_modules) == set(TARGET_MODULES) and len(TARGET_MODULES) == 7
    group = built.optimizer.param_groups[0]
    assert (type(built.optimizer).__name__, group["lr"], group["weight_decay"]) == ("AdamW8bit", 5e-5, 0.04)


def test_the_base_computes_in_the_precision_that_is_said(built):
    named = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
    frozen = {named[weight.dtype] for weight in built.model.parameters() if not weight.requires_grad}
    assert frozen == {precision()}


def test_the_best_adapter_is_kept_and_the_curve_begins_before_training(whole):
    _, summary, _ = whole
    assert summary["held_out"] == [{"step": step, "pass_at_1": score} for step, score in SCORES.items()]
    assert (summary["kept_step"], summary["steps"]) == (2, 4)


def test_what_is_kept_is_what_was_evaluated(whole):
    folder, _, seen = whole
    kept = a_weight(load_file(folder / "adapter_model.safetensors").items())
    assert torch.equal(kept, seen[2]) and not torch.equal(kept, seen[4])


@pytest.mark.slow
def test_training_ends_when_held_out_scores_stop_rising(rows, tmp_path):
    changed = dataclasses.replace(SETTINGS, steps=6, checkpoint_every=1, patience=2)
    summary = train("embedded", rows, tmp_path / "adapter", changed, eval_fn=lambda model, step: 1 / (1 + step))
    assert (summary["steps"], summary["kept_step"]) == (3, 1)


# ------------------------------------------------------------------------------------------------ stopped and continued


def test_a_run_that_was_cut_off_goes_on_as_if_nothing_had_happened(whole, rows, tmp_path):
    """Losses agree to 1e-6: one thread count, one machine, CPU kernels without atomics.

    The half-written checkpoint is skipped.
    """
    folder = tmp_path / "adapter"

    def pull_the_plug(row):
        if row["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("embedded", rows, folder, STOPPABLE, on_log=pull_the_plug, eval_fn=scored)
    assert not folder.exists()
    shutil.copytree(tmp_path / "adapter.trainer/checkpoint-2", tmp_path / "adapter.trainer/checkpoint-3")
    (tmp_path / "adapter.trainer/checkpoint-3/trainer_state.json").write_text('{"best_metric": 0.')
    seen = []
    summary = train("embedded", rows, folder, STOPPABLE, on_log=seen.append, eval_fn=scored)
    assert summary["resumed_from"] == 2 and summary["optimizer_state"] == ["torch.uint8"]
    assert [row["step"] for row in seen] == [1, 2, 3, 4]
    assert losses(summary) == pytest.approx(losses(whole[1]), abs=1e-6)
    assert (summary["held_out"], summary["kept_step"]) == (whole[1]["held_out"], whole[1]["kept_step"])
    ours, theirs = (load_file(path / "adapter_model.safetensors") for path in (folder, whole[0]))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)


def test_a_checkpoint_of_another_run_is_not_continued(rows, tmp_path):
    ours, theirs = (run_identity("embedded", some, SETTINGS) for some in (rows, rows[:1]))
    assert continue_from(tmp_path / "adapter.trainer", theirs) is None
    checkpoint = tmp_path / "adapter.trainer/checkpoint-1"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text('{"log_history": []}')
    assert continue_from(tmp_path / "adapter.trainer", theirs) == checkpoint
    assert continue_from(tmp_path / "adapter.trainer", ours) is None and not checkpoint.exists()


def test_the_newest_whole_checkpoint_is_found(tmp_path):
    for step, text in ((2, '{"best_metric": 0}'), (10, '{"log_history": []}'), (12, '{"log_his')):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}/trainer_state.json").write_text(text)
    (tmp_path / "checkpoint-14").mkdir()
    assert last_checkpoint(tmp_path).name == "checkpoint-10"
    assert last_checkpoint(tmp_path / "none") is None


def test_an_adapter_that_is_there_is_not_trained_again(trained, rows):
    folder, history, summary = trained
    before, seen = (folder / "adapter_model.safetensors").stat().st_mtime_ns, []
    assert losses(train_once("embedded", rows, folder, SETTINGS, on_log=seen.append)) == losses(summary)
    assert (folder / "adapter_model.safetensors").stat().st_mtime_ns == before
    assert [row["loss"] for row in seen] == [row["loss"] for row in history]


# --------------------------------------------------------------------------------------------------------- bad input


def test_no_winners_trains_nothing(tmp_path):
    with pytest.raises(TrainingError, match="no winners"):
        train("embedded", [], tmp_path / "adapter", SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_one_winner_is_enough(rows, tmp_path):
    summary = train("embedded", rows[:1], tmp_path / "adapter", dataclasses.replace(SETTINGS, steps=2))
    assert summary["examples"] == 1 and summary["last_loss"] < summary["first_loss"]


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_and_the_best_adapter_is_kept(rows, tmp_path):
    """Weights are made useless after step 2; what is kept is what was evaluated best, at step 1."""

    def poison(model, step):
        if step == 2:
            next(weight for name, weight in model.named_parameters() if "lora_B" in name).data.fill_(float("nan"))
        return 1.0 if step == 1 else 0.0

    changed = dataclasses.replace(SETTINGS, checkpoint_every=1)
    with pytest.raises(TrainingError, match=r"step 3: a gradient is not a number; the adapter of step 1 is kept"):
        train("embedded", rows, tmp_path / "adapter", changed, eval_fn=poison)
    kept = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert all(weight.isfinite().all() for weight in kept.values())
    assert read_facts(tmp_path / "adapter")["summary"]["kept_step"] == 1


@pytest.mark.slow
def test_a_learning_rate_that_blows_up_keeps_weights_that_still_worked(rows, tmp_path):
    """Warm-up: nothing at step 1, 5e37 at step 2, so step 3 overflows.

    The weights after step 1 are those of the last finite loss.
    """
    changed = dataclasses.replace(SETTINGS, steps=4, learning_rate=1e38, warmup_ratio=0.5)
    with pytest.raises(TrainingError, match="step 3: .* the adapter of step 1 is kept .* lower learning_rate"):
        train("embedded", rows, tmp_path / "adapter", changed)
    kept = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert all(weight.isfinite().all() and weight.abs().max() < 1 for weight in kept.values())


def test_running_out_of_memory_names_the_setting_to_change(rows, tmp_path):
    def hungry(model, step):
        raise torch.OutOfMemoryError("CUDA out of memory")

    changed = dataclasses.replace(SETTINGS, checkpoint_every=1)
    with pytest.raises(TrainingError, match="at batch_size=2.*set batch_size=1 and gradient_accumulation=2"):
        train("embedded", rows, tmp_path / "adapter", changed, eval_fn=hungry)


def test_the_advice_on_memory_ends_where_nothing_is_left_to_halve():
    tight = dataclasses.replace(SETTINGS, batch_size=1)
    assert "base_weights='4bit'" in out_of_memory(tight)
    assert "max_length=512" in out_of_memory(dataclasses.replace(tight, base_weights="4bit"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here, which can do this")
def test_quantised_base_weights_need_a_gpu(rows, tmp_path):
    with pytest.raises(TrainingError, match="base_weights='4bit': needs a CUDA GPU"):
        train("embedded", rows, tmp_path / "adapter", dataclasses.replace(SETTINGS, base_weights="4bit"))


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"steps": 0}, "steps=0"),
        ({"patience": 2}, "checkpoint_every"),
        ({"base_weights": "2bit"}, "16bit, 8bit, 4bit"),
        ({"target_modules": ()}, "target_modules"),
    ],
)
def test_settings_out_of_range_are_refused(values, fault):
    with pytest.raises(ValueError, match=fault):
        SftSettings(**values)


# ---------------------------------------------------------------------------------------------- held-out evaluation


@pytest.mark.slow
def test_held_out_pass_at_1_is_that_of_a_run_of_the_transformers_engine(tmp_path):
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(resolve("embedded"), dtype=torch.bfloat16)
    own, sampler = loaded.generation_config, open_engine("embedded", engine="transformers")
    with Sandbox() as sandbox:
        score = greedy_pass_at_1("embedded", PICKED, sandbox, 16)(loaded, 0)
        ledger, how = Ledger(tmp_path / "a.jsonl"), SamplingParams(temperature=0.0, max_new_tokens=16)
        attempts = local_runner(sampler, sandbox)(
            PICKED, 1, ledger, params=how, source=Source("test", "embedded", "", 0)
        )
    assert score == sum(attempt.solved for attempt in attempts) / 4 > 0
    assert loaded.generation_config is own


def test_no_held_out_tasks_are_refused():
    with pytest.raises(ValueError, match="no development tasks"):
        greedy_pass_at_1("embedded", [], None, 16)
