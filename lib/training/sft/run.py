"""One fine-tuning from rows to an adapter folder: whole or not at all, and continued where a kill left it."""

import dataclasses
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.models.adapters import save_adapter
from lib.models.card import write_card
from lib.models.precision import precision
from lib.training.resume import Identity, TrainingError, continue_from, finished, identity_of
from lib.training.sft.settings import EvalFn, OnLog, Row, SftSettings
from lib.training.tensorboard import tensorboard_in


def train(
    model: str,
    rows: Sequence[Row],
    adapter: Path,
    settings: SftSettings,
    *,
    on_log: OnLog = lambda row: None,
    eval_fn: EvalFn | None = None,
) -> dict[str, Any]:
    """Train an adapter on prompt–completion rows and save it as a PEFT folder, whole or not at all.

    With `checkpoint_every`, the same call after a kill goes on from the last whole checkpoint; `on_log` then gets the
    earlier steps again. With `eval_fn`, too, the adapter kept is the one that did best (the earliest of equals), else
    the last.

    Returns {"precision", "steps", "examples", "tokens", "first_loss", "last_loss", "optimizer_state", "too_long",
    "held_out", "kept_step", "resumed_from", "seconds", "log", "identity"}. Raises TrainingError when there is nothing
    to train on, when the loss stops being a number (the last good adapter is saved first), and when the GPU's memory is
    too small.
    """
    import torch

    if not rows:
        raise TrainingError("no winners to train on: mine more draws, or a stronger model; nothing was trained")
    if settings.base_weights != "16bit" and not torch.cuda.is_available():
        raise TrainingError(f"base_weights={settings.base_weights!r}: needs a CUDA GPU; use '16bit' here")
    from lib.training.sft import trainer as unsloth_trainer  # only now: its imports take seconds

    started = time.perf_counter()
    folder, identity = adapter.with_name(f"{adapter.name}.trainer"), run_identity(model, rows, settings)
    checkpoint = continue_from(folder, identity)
    try:
        with tensorboard_in(adapter.with_name(f"{adapter.name}.tensorboard")):
            trainer, longer = unsloth_trainer.build(model, rows, folder, settings, on_log=on_log, eval_fn=eval_fn)
            trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    except torch.OutOfMemoryError:
        raise TrainingError(out_of_memory(settings)) from None
    except unsloth_trainer.NotFinite as error:
        kept = unsloth_trainer.restore(error.trainer)
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
        "optimizer_state": sorted(unsloth_trainer.state_dtypes(trainer.optimizer)),
        "too_long": [rows[place]["task_id"] for place in longer],
        "held_out": unsloth_trainer.eval_curve(trainer),
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
    *,
    on_log: OnLog = lambda row: None,
    eval_fn: EvalFn | None = None,
) -> dict[str, Any]:
    """Call `train`, or return the summary of a finished adapter with the same model, rows and settings.

    `on_log` then receives the log of the finished training.
    """
    summary = finished(adapter, run_identity(model, rows, settings)) if rows else {}
    if not summary:
        return train(model, rows, adapter, settings, on_log=on_log, eval_fn=eval_fn)
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


def run_identity(model: str, rows: Sequence[Row], settings: SftSettings) -> Identity:
    """Return the identity of a fine-tuning; where its numbers are reported is no part of it."""
    learnt_with = {name: value for name, value in dataclasses.asdict(settings).items() if name != "report_to"}
    return identity_of("lib.training.sft.trainer", model, rows, learnt_with)
