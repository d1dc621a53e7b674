"""What a fine-tuning depends on, and what its parts hand each other."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from lib.models.precision import precision

TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

Row = dict[str, str]
BaseWeights = Literal["16bit", "8bit", "4bit"]
EvalFn = Callable[[Any, int], float]  # (the model being trained, step) -> pass@1
OnLog = Callable[[dict[str, float]], None]


@dataclasses.dataclass(frozen=True)
class SftSettings:
    """Hold what fine-tuning depends on, named as in the paper's Table 3. Raises ValueError for values out of range.

    Every `checkpoint_every` steps (0: never) the run can be continued from and, if it is given a held-out evaluation,
    is evaluated; `patience` evaluations without improvement end it (0: none do). `report_to` names a tracker that
    transformers knows (tensorboard, wandb, mlflow, trackio); tensorboard's files go to `<adapter>.tensorboard`.
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


def device_in_words(settings: SftSettings) -> str:
    """What computes, in which precision and on which base weights, in a sentence."""
    import torch

    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"
    why = {
        "bf16": "which it computes in",
        "fp16": "because it has no bf16",
        "fp32": "because it has neither bf16 nor fp16",
    }
    weights = f"base weights {settings.base_weights}, AdamW in 8 bits"
    return f"Training on {where} in {precision()}, {why[precision()]}; {weights}."
