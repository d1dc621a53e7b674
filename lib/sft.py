"""Fine-tuning LoRA adapters on programs that ran (RSFT paper, Algorithm 2), through Unsloth on CPU and CUDA.

Differs from the paper in: the loss is on the completion and its end token only; the completion continues the prompt's
prefill, as it did when it was sampled, and is tokenised apart from it, as it was then; rows longer than `max_length` are
left out, not cut; the order of rows is a function of the seed alone, so that a run which was cut off goes on as it would have.
"""

import dataclasses
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from lib.adapters import save_adapter as save_adapter
from lib.keys import digest
from lib.model_card import read_facts, write_card
from lib.prompts import build_prompt, winning_completion
from lib.sampling import token_ids
from lib.tasks import Task

TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CHUNK = 8  # batches among which rows are grouped by length

Row = dict[str, str]
BaseWeights = Literal["16bit", "8bit", "4bit"]
HeldOut = Callable[[Any, int], float]  # (the model being trained, step) -> pass@1
OnLog = Callable[[dict[str, float]], None]


class TrainingError(RuntimeError):
    """Training that cannot start or must stop; the message says why and what to change."""


class Solution(Protocol):
    """A program for a task: an attempt of the ledger, or a reference."""

    @property
    def task_id(self) -> str:
        """The task it solves."""

    @property
    def program(self) -> str:
        """Its source."""


@dataclasses.dataclass(frozen=True)
class SftSettings:
    """Everything the fine-tuning depends on; the names are the paper's Table 3. Raises ValueError for values out of range.

    Every `checkpoint_every` steps (0: never) the run can be continued from and, if it is given a held-out evaluation, is
    evaluated; `patience` evaluations without improvement end it (0: none do). `report_to` names a tracker that transformers
    knows (tensorboard, wandb, mlflow, trackio); tensorboard's files go to `<adapter>.tensorboard`.
    """

    max_length: int = 1024
    batch_size: int = 8
    gradient_accumulation: int = 1
    steps: int = 60
    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    warmup_ratio: float = 0.1
    scheduler: str = "cosine"
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    target_modules: tuple[str, ...] = TARGET_MODULES
    base_weights: BaseWeights = "16bit"
    seed: int = 3407
    checkpoint_every: int = 0
    patience: int = 0
    report_to: str = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "target_modules", tuple(self.target_modules))
        for name in ("max_length", "batch_size", "gradient_accumulation", "steps", "lora_rank"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: should be at least 1")
        for name in ("checkpoint_every", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: should be 0 (off) or more")
        if not self.target_modules:
            raise ValueError("target_modules is empty: name the layers that get an adapter")
        if self.base_weights not in ("16bit", "8bit", "4bit"):
            raise ValueError(f"base_weights={self.base_weights!r}: choose one of 16bit, 8bit, 4bit")
        if self.patience and not self.checkpoint_every:
            raise ValueError(f"patience={self.patience}: needs checkpoint_every, the steps between evaluations")


# ------------------------------------------------------------------------------------------------------------- rows


def examples(solutions: Iterable[Solution], tasks: Sequence[Task], tokenizer: Any) -> list[Row]:
    """One {"task_id", "prompt", "completion"} row a program: the prompt as mined, prefill included, the rest and the fence."""
    by_id = {task.task_id: task for task in tasks}
    rows = []
    for solution in solutions:
        prompt = build_prompt(by_id[solution.task_id], tokenizer)
        completion = winning_completion(prompt, solution.program)
        rows.append({"task_id": solution.task_id, "prompt": prompt.text, "completion": completion})
    return rows


def encode(row: Mapping[str, str], tokenizer: Any) -> dict[str, list[int]]:
    """{"input_ids", "labels"}: labels are −100 over the prompt, and the token over the completion and its end.

    Prompt and completion are tokenised apart: a sampler starts after the prompt's tokens, and no token of what it writes
    reaches back over that border (":" and a newline may be one token, but not here).
    """
    prompt, completion = (token_ids(tokenizer, row[part]) for part in ("prompt", "completion"))
    written = [*completion, tokenizer.eos_token_id]
    return {"input_ids": [*prompt, *written], "labels": [-100] * len(prompt) + written}


def fitting(
    rows: Sequence[Row], tokenizer: Any, max_length: int
) -> tuple[list[dict[str, list[int]]], list[int]]:
    """Encoded rows of at most `max_length` tokens, and the places in `rows` of those that are longer.

    A row that is cut teaches never to stop, and one cut before its completion teaches nothing.
    """
    encoded = [encode(row, tokenizer) for row in rows]
    longer = [place for place, row in enumerate(encoded) if len(row["input_ids"]) > max_length]
    left_out = set(longer)
    return [row for place, row in enumerate(encoded) if place not in left_out], longer


def batch_order(lengths: Sequence[int], batch_size: int, batches: int, seed: int) -> list[int]:
    """Rows for `batches` batches, one after the other: shuffled laps over all rows, rows of like length in one batch.

    Rows are sorted by length only within CHUNK batches (or a lap, if that is shorter), and these batches are shuffled.
    """
    stream, order = random.Random(seed), list[int]()
    while len(order) < batches * batch_size:
        lap = list(range(len(lengths)))
        stream.shuffle(lap)
        order += lap
    order = order[: batches * batch_size]
    size = batch_size * max(1, min(CHUNK, len(lengths) // batch_size))
    grouped = list[int]()
    for start in range(0, len(order), size):
        chunk = sorted(order[start : start + size], key=lambda row: lengths[row])
        pieces = [chunk[at : at + batch_size] for at in range(0, len(chunk), batch_size)]
        stream.shuffle(pieces)
        grouped += [row for piece in pieces for row in piece]
    return grouped


# --------------------------------------------------------------------------------------------------------- training


def precision() -> str:
    """bf16 where the device computes in it, else fp16 on a GPU, else fp32."""
    import torch

    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"


def device_in_words(settings: SftSettings) -> str:
    """What computes, in which precision and on which base weights, in a sentence."""
    import torch

    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"
    why = {
        "bf16": "which it computes in",
        "fp16": "because it has no bf16",
        "fp32": "because it has neither bf16 nor fp16",
    }
    return f"Training on {where} in {precision()}, {why[precision()]}; base weights {settings.base_weights}, AdamW in 8 bits."


def train(
    model: str,
    rows: Sequence[Row],
    adapter: Path,
    settings: SftSettings,
    on_log: OnLog = lambda row: None,
    held_out: HeldOut | None = None,
) -> dict[str, Any]:
    """Train an adapter on prompt–completion rows and save it as a PEFT folder, whole or not at all.

    With `checkpoint_every`, the same call after a kill goes on from the last whole checkpoint; `on_log` then gets the earlier
    steps again. With `held_out`, too, the adapter kept is the one that did best (the earliest of equals), else the last.

    Returns {"precision", "steps", "examples", "tokens", "first_loss", "last_loss", "optimizer_state", "too_long", "held_out",
    "kept_step", "resumed_from", "seconds", "log", "identity"}.
    Raises TrainingError when there is nothing to train on, when the loss stops being a number (the last good adapter is saved
    first), and when the GPU's memory is too small.
    """
    import torch

    if not rows:
        raise TrainingError(
            "no winners to train on: mine more draws, or a stronger model; nothing was trained"
        )
    if settings.base_weights != "16bit" and not torch.cuda.is_available():
        raise TrainingError(f"base_weights={settings.base_weights!r}: needs a CUDA GPU; use '16bit' here")
    from lib import sft_trainer

    started = time.perf_counter()
    folder, identity = adapter.with_name(f"{adapter.name}.trainer"), run_identity(model, rows, settings)
    checkpoint = continue_from(folder, identity)
    os.environ["TENSORBOARD_LOGGING_DIR"] = f"{adapter}.tensorboard"
    try:
        trainer, longer = sft_trainer.build(model, rows, folder, settings, on_log, held_out)
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    except torch.OutOfMemoryError:
        raise TrainingError(out_of_memory(settings)) from None
    except sft_trainer.NotFinite as error:
        kept = sft_trainer.restore(error.trainer)
        what = f"the adapter of step {kept} is kept in {adapter}" if kept else "no adapter was saved"
        message = f"step {error.step}: {error}; {what}; lower learning_rate"
        shutil.rmtree(folder)  # its checkpoints lead here again
        if kept:
            _save(error.trainer, adapter, model, rows, settings, {"kept_step": kept, "stopped": message})
        raise TrainingError(message) from None
    log = [row for row in trainer.state.log_history if "loss" in row]
    summary = {
        "precision": precision(),
        "steps": trainer.state.global_step,
        "examples": len(rows) - len(longer),
        "tokens": trainer.tokens_seen(),
        "first_loss": log[0]["loss"],
        "last_loss": log[-1]["loss"],
        "optimizer_state": sorted(sft_trainer.state_dtypes(trainer.optimizer)),
        "too_long": [rows[place]["task_id"] for place in longer],
        "held_out": sft_trainer.held_out_curve(trainer),
        "kept_step": trainer.state.best_global_step or trainer.state.global_step,
        "resumed_from": int(checkpoint.name.split("-")[1]) if checkpoint else 0,
        "seconds": round(time.perf_counter() - started, 1),
        "log": log,
        "identity": identity,
    }
    _save(trainer, adapter, model, rows, settings, summary)
    shutil.rmtree(folder, ignore_errors=True)
    return summary


def train_once(
    model: str,
    rows: Sequence[Row],
    adapter: Path,
    settings: SftSettings,
    on_log: OnLog = lambda row: None,
    held_out: HeldOut | None = None,
) -> dict[str, Any]:
    """`train`, unless this very adapter is there: the same model, rows and settings. Then its log and summary as they were."""
    summary = dict(read_facts(adapter).get("summary", {}))
    if not rows or summary.get("identity") != run_identity(model, rows, settings):
        return train(model, rows, adapter, settings, on_log, held_out)
    for row in summary["log"]:
        on_log(row)
    return summary


def _save(
    trainer: Any, adapter: Path, model: str, rows: Sequence[Row], settings: SftSettings, summary: dict[str, Any]
) -> None:
    """The adapter with its card."""
    save_adapter(trainer.model, trainer.processing_class, adapter)
    write_card(adapter, model, [row["task_id"] for row in rows], dataclasses.asdict(settings), summary)


def out_of_memory(settings: SftSettings) -> str:
    """What to change when the GPU's memory is too small, the cheapest change first."""
    if settings.batch_size > 1:
        smaller = -(-settings.batch_size // 2)
        change = (
            f"set batch_size={smaller} and gradient_accumulation={2 * settings.gradient_accumulation}, "
            "which learns from as many rows a step"
        )
    elif settings.base_weights != "4bit":
        change = "set base_weights='4bit'"
    else:
        change = f"set max_length={settings.max_length // 2} (longer rows are left out), or choose a smaller model"
    return f"the GPU ran out of memory at batch_size={settings.batch_size}, max_length={settings.max_length}: {change}"


# ----------------------------------------------------------------------------------------------------- continuing


def run_identity(model: str, rows: Sequence[Row], settings: SftSettings) -> dict[str, str]:
    """What two parts of one run must share: everything but who is told about it."""
    learnt_with = {name: value for name, value in dataclasses.asdict(settings).items() if name != "report_to"}
    return {"model": model, "rows": digest(list(rows)), "settings": digest(learnt_with)}


def continue_from(folder: Path, identity: dict[str, str]) -> Path | None:
    """The newest whole checkpoint of this very run; anything else in `folder` is removed."""
    note = folder / "run.json"
    if not note.is_file() or json.loads(note.read_text(encoding="utf-8")) != identity:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_rows(note, [identity])
        return None
    return last_checkpoint(folder)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in a trainer's folder, None without one.

    The trainer's state is written last, so a checkpoint that a kill left half written has none that parses; it is removed.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    while found:
        newest = found.pop()
        try:
            json.loads((newest / "trainer_state.json").read_text(encoding="utf-8"))
            return newest
        except (OSError, ValueError):
            shutil.rmtree(newest)
    return None


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """JSON Lines, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    partial.replace(path)
