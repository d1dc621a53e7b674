"""The trainer behind lib.training.sft: Unsloth's LoRA model in TRL's SFTTrainer, with AdamW's state in 8 bits.

The optimiser is handed over as an object, because without a GPU Unsloth swaps an 8-bit optimiser that is only named for
a 32-bit one. Checkpoints, best adapter and early stop are transformers' own; what is evaluated is ours.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import unsloth  # noqa: F401  # before trl and transformers, which it patches

# isort: split
import bitsandbytes
import torch
from datasets import Dataset
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from transformers import DataCollatorForSeq2Seq, EarlyStoppingCallback, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer
from unsloth import FastLanguageModel

from lib.models.precision import precision, torch_dtype
from lib.models.resolve import resolve
from lib.training.resume import TrainingError
from lib.training.sft.rows import batch_order, within_length
from lib.training.sft.settings import EvalFn, OnLog, Row, SftSettings

METRIC = "eval_pass_at_1"


class NotFinite(RuntimeError):
    """A loss or gradient that is not a number."""

    def __init__(self, what: str, step: int, trainer: "Trainer") -> None:
        super().__init__(what)
        self.step, self.trainer = step, trainer


class Trainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer whose evaluation is pass@1 on held-out tasks."""

    control: Any
    eval_fn: EvalFn | None = None
    good: tuple[int, dict[str, torch.Tensor]] = (0, {})  # the last step whose loss was a number, and its weights

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """pass@1 of the adapter as it is; the stream of random numbers goes on as if nothing had been evaluated."""
        assert self.eval_fn is not None
        FastLanguageModel.for_inference(self.model)
        try:
            with torch.random.fork_rng(), torch.no_grad():
                score = self.eval_fn(self.model, self.state.global_step)
        finally:
            FastLanguageModel.for_training(self.model)
        metrics = {METRIC: score}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def tokens_seen(self) -> int:
        """Tokens in the rows learnt from so far, padding not counted."""
        rows = self.state.global_step * self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return sum(len(row) for row in self.train_dataset[:rows]["input_ids"])


class Watch(TrainerCallback):  # type: ignore[misc]
    """Forwards log rows, keeps the last good weights, stops at the first NaN or infinity."""

    def __init__(self, on_log: OnLog) -> None:
        self.report = on_log
        self.trainer: Trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A continued run first repeats what it logged; a new one is evaluated before its first step."""
        for row in state.log_history:
            self._hand_on(row)
        if self.trainer.eval_fn is not None and state.global_step == 0:
            self.trainer.evaluate()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Weights that gave finite gradients are good. In fp16 the loss scaler deals with those that overflow."""
        gradients = [weight.grad for weight in self.trainer.model.parameters() if weight.grad is not None]
        if not args.fp16 and not all(bool(gradient.isfinite().all()) for gradient in gradients):
            raise NotFinite("a gradient is not a number", state.global_step + 1, self.trainer)
        weights = get_peft_model_state_dict(self.trainer.model)
        copies = {name: weight.detach().to("cpu", copy=True) for name, weight in weights.items()}
        self.trainer.good = (state.global_step, copies)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The last step is evaluated even when it is no multiple of `checkpoint_every`."""
        if self.trainer.eval_fn is not None and state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Rows with a loss go on to the caller."""
        if logs and "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise NotFinite(f"the loss is {logs['loss']}", state.global_step, self.trainer)
            self._hand_on({"step": state.global_step, **logs})

    def _hand_on(self, row: dict[str, Any]) -> None:
        if "loss" in row:
            self.report({name: float(value) for name, value in row.items()})


def build(
    model: str,
    rows: Sequence[Row],
    folder: Path,
    settings: SftSettings,
    *,
    on_log: OnLog = lambda row: None,
    eval_fn: EvalFn | None = None,
) -> tuple[Trainer, list[int]]:
    """Return a trainer that is ready to run, and the indices of rows that were too long.

    Raises TrainingError if all rows are.
    """
    eval_fn = eval_fn if settings.checkpoint_every else None
    lora, tokenizer = lora_model(model, settings)
    encoded, longer = within_length(rows, tokenizer, settings.max_length)
    if not encoded:
        raise TrainingError(
            f"max_length={settings.max_length}: all {len(rows)} rows are longer; raise it. Nothing was trained"
        )
    lengths = [len(row["input_ids"]) for row in encoded]
    batches = settings.steps * settings.gradient_accumulation
    order = batch_order(lengths, settings.batch_size, batches, settings.seed)
    data = Dataset.from_list([encoded[row] for row in order])
    watch = Watch(on_log)
    trainer = Trainer(
        model=lora,
        args=config(settings, folder, eval_fn is not None),
        train_dataset=data,
        eval_dataset=data.select([0]) if eval_fn else None,  # has to be there; `evaluate` calls `eval_fn`
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        optimizers=(adamw_8bit(lora, settings), None),
        callbacks=[watch, *([EarlyStoppingCallback(settings.patience)] if settings.patience and eval_fn else [])],
    )
    trainer.eval_fn, watch.trainer = eval_fn, trainer
    trainer.remove_callback(PrinterCallback)  # on_log is the display
    return trainer, longer


def lora_model(model: str, settings: SftSettings) -> tuple[Any, Any]:
    """The base model with an untrained adapter, and its tokenizer."""
    base, tokenizer = FastLanguageModel.from_pretrained(
        str(resolve(model)),
        max_seq_length=settings.max_length,
        load_in_4bit=settings.base_weights == "4bit",
        load_in_8bit=settings.base_weights == "8bit",
        dtype=torch_dtype(),
    )
    lora = FastLanguageModel.get_peft_model(
        base,
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.target_modules),
        random_state=settings.seed,
        use_gradient_checkpointing="unsloth" if torch.cuda.is_available() else False,
    )
    return lora, tokenizer


def config(settings: SftSettings, folder: Path, evaluating: bool = False) -> Any:
    """TRL's side of the settings. The rows come in the order in which they are learnt from."""
    cuda, saving = torch.cuda.is_available(), settings.checkpoint_every > 0
    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=round(settings.warmup_ratio * settings.steps),
        lr_scheduler_type=settings.scheduler,
        max_length=settings.max_length,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="sequential",
        gradient_checkpointing=cuda,  # on a CPU memory is not what is short
        logging_steps=1,
        logging_nan_inf_filter=False,  # or a loss that is not a number is logged as the one before it
        save_strategy="steps" if saving else "no",
        save_steps=settings.checkpoint_every or settings.steps,
        save_total_limit=2,
        eval_strategy="steps" if evaluating else "no",
        eval_steps=settings.checkpoint_every or None,
        load_best_model_at_end=evaluating,
        metric_for_best_model=METRIC if evaluating else None,
        greater_is_better=True if evaluating else None,
        restore_callback_states_from_checkpoint=True,
        report_to=settings.report_to,
        seed=settings.seed,
        use_cpu=not cuda,
        bf16=cuda and precision() == "bf16",
        fp16=cuda and precision() == "fp16",
        disable_tqdm=True,
    )


def adamw_8bit(model: Any, settings: SftSettings) -> Any:
    """bitsandbytes' AdamW with 8-bit states for every tensor, the small ones too."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return bitsandbytes.optim.AdamW8bit(
        weights, lr=settings.learning_rate, weight_decay=settings.weight_decay, min_8bit_size=1
    )


def state_dtypes(optimizer: Any) -> set[str]:
    """The dtypes of an optimiser's moment tensors."""
    states = optimizer.state.values()
    return {str(state[name].dtype) for state in states for name in ("state1", "state2") if name in state}


def eval_curve(trainer: Trainer) -> list[dict[str, float]]:
    """[{"step", "pass_at_1"}], one a held-out evaluation, step 0 first."""
    rows = [row for row in trainer.state.log_history if METRIC in row]
    return [{"step": row["step"], "pass_at_1": row[METRIC]} for row in rows]


def restore(trainer: Trainer) -> int:
    """Restore the best evaluated weights, else the last good ones; return their step (0: untrained)."""
    if trainer.state.best_model_checkpoint:
        trainer._load_best_model()
        return int(trainer.state.best_global_step)
    step, weights = trainer.good
    set_peft_model_state_dict(trainer.model, weights)
    return step
