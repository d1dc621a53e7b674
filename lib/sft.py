"""Fine-tuning LoRA adapters on winners (RSFT paper, Algorithm 2), through Unsloth's FastLanguageModel on CPU and CUDA.

Differs from the paper in: the loss is on the completion only; the completion continues the prompt's prefill, as it did
when it was sampled. The 8-bit AdamW is handed over as an object, because without a GPU Unsloth swaps an 8-bit optimiser
that is only named for a 32-bit one.
"""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lib.ledger import Attempt
from lib.models import resolve
from lib.prompts import build_prompt, winning_completion
from lib.tasks import Task

TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class TrainingError(RuntimeError):
    """Training that cannot start or must stop; the message says why and what to change."""


@dataclasses.dataclass(frozen=True)
class SftSettings:
    """Everything the fine-tuning depends on; the names are the paper's Table 3."""

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
    seed: int = 3407


def examples(winners: Sequence[Attempt], tasks: Sequence[Task], tokenizer: Any) -> list[dict[str, str]]:
    """One {"prompt", "completion"} row a winner: the prompt as mined, prefill included, then the rest and the fence."""
    by_id = {task.task_id: task for task in tasks}
    rows = []
    for winner in winners:
        prompt = build_prompt(by_id[winner.task_id], tokenizer)
        rows.append({"prompt": prompt.text, "completion": winning_completion(prompt, winner.program)})
    return rows


def precision() -> str:
    """bf16 where the device computes in it, else fp16 on a GPU, else fp32."""
    import torch

    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"


def train(
    model: str,
    rows: Sequence[dict[str, str]],
    adapter: Path,
    settings: SftSettings,
    on_log: Callable[[dict[str, float]], None] = lambda row: None,
) -> dict[str, Any]:
    """Train an adapter on prompt–completion rows and save it as a PEFT folder, whole or not at all.

    Returns {"precision", "steps", "tokens", "first_loss", "last_loss", "optimizer_state"}.
    Raises TrainingError when there is nothing to train on or the loss stops being a number.
    """
    if not rows:
        raise TrainingError(
            "no winners to train on: mine more draws, or a stronger model; nothing was trained"
        )
    import unsloth  # noqa: F401  # before trl and transformers, which it patches
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTTrainer

    lora, tokenizer = _lora_model(model, settings)
    history: list[dict[str, float]] = []

    class Log(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                row = {"step": state.global_step, **{name: float(value) for name, value in logs.items()}}
                history.append(row)
                on_log(row)
                if not math.isfinite(row["loss"]):
                    raise TrainingError(
                        f"step {state.global_step}: the loss is {row['loss']}; lower learning_rate"
                    )

    trainer = SFTTrainer(
        model=lora,
        args=_config(settings, adapter.parent / f"{adapter.name}.trainer"),
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=tokenizer,
        optimizers=(adamw_8bit(lora, settings), None),
        callbacks=[Log()],
    )
    trainer.remove_callback(PrinterCallback)  # on_log is the display
    trainer.train()
    save_adapter(lora, tokenizer, adapter)
    shutil.rmtree(trainer.args.output_dir, ignore_errors=True)
    return {
        "precision": precision(),
        "steps": trainer.state.global_step,
        "examples": len(rows),
        "first_loss": history[0]["loss"],
        "last_loss": history[-1]["loss"],
        "optimizer_state": sorted(state_dtypes(trainer.optimizer)),
    }


def _lora_model(model: str, settings: SftSettings) -> tuple[Any, Any]:
    import torch
    from unsloth import FastLanguageModel

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision()]
    base, tokenizer = FastLanguageModel.from_pretrained(
        str(resolve(model)), max_seq_length=settings.max_length, load_in_4bit=False, dtype=dtype
    )
    lora = FastLanguageModel.get_peft_model(
        base,
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(TARGET_MODULES),
        random_state=settings.seed,
        use_gradient_checkpointing="unsloth" if torch.cuda.is_available() else False,
    )
    return lora, tokenizer


def _config(settings: SftSettings, output_dir: Path) -> Any:
    import torch
    from trl import SFTConfig

    cuda = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(output_dir),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=round(settings.warmup_ratio * settings.steps),
        lr_scheduler_type=settings.scheduler,
        max_length=settings.max_length,
        completion_only_loss=True,
        gradient_checkpointing=cuda,  # on a CPU memory is not what is short
        train_sampling_strategy="group_by_length",  # a third less padding
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        seed=settings.seed,
        use_cpu=not cuda,
        bf16=cuda and precision() == "bf16",
        fp16=cuda and precision() == "fp16",
        disable_tqdm=True,
    )


def adamw_8bit(model: Any, settings: SftSettings) -> Any:
    """bitsandbytes' AdamW with 8-bit states for every tensor of at least 1,024 elements."""
    import bitsandbytes

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return bitsandbytes.optim.AdamW8bit(
        weights, lr=settings.learning_rate, weight_decay=settings.weight_decay, min_8bit_size=1024
    )


def state_dtypes(optimizer: Any) -> set[str]:
    """The dtypes of an optimiser's moment tensors."""
    states = optimizer.state.values()
    return {str(state[name].dtype) for state in states for name in ("state1", "state2") if name in state}


def save_adapter(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a PEFT folder; it appears whole or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """JSON Lines, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    partial.replace(path)
