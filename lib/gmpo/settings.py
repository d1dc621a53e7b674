"""What a GMPO run depends on, and the order in which it meets its prompts."""

import dataclasses
import random
from typing import Any, Literal, get_args

from lib.gmpo.statistics import Level
from lib.sft import precision

Normaliser = Literal["gmpo", "grpo", "dr_grpo", "batch", "rloo"]
Reward = Literal["binary", "fractional"]
Reference = Literal["base", "start"]
Weights = Literal["auto", "fp32"]
Row = dict[str, Any]
OPTIONS = {
    "advantage": get_args(Normaliser),
    "ratio": get_args(Level),
    "reward": get_args(Reward),
    "reference": get_args(Reference),
    "weights": get_args(Weights),
}


@dataclasses.dataclass(frozen=True)
class GmpoSettings:
    """Everything a run depends on. Raises ValueError for values that cannot work together."""

    advantage: Normaliser = "gmpo"
    ratio: Level = "sequence"
    group_size: int = 8  # G, completions a prompt
    prompts_per_batch: int = 4  # B, on each process
    steps: int = 4  # batches sampled; each is learnt from num_iterations times
    num_iterations: int = 2
    tau: float = 0.1
    top_k: int | None = None  # neighbours a prompt, itself included; 1 is GMPO without CGMN
    memory: int = 0  # past prompts pooled over; 0 is batch-local
    lam: float = 0.5  # 0 is GMPO without SBAM
    l_hat_clip: float | None = None  # bound on |L̂|
    epsilon: float = 0.2
    beta: float = 0.0  # weight of the KL to the reference
    beta_final: float | None = None  # the weight at the end of a linear annealing; None: constant
    reference: Reference = "base"  # without an adapter, or with the one the run starts from
    reward: Reward = "binary"  # every test passes, or the share that does
    learning_rate: float = 2e-5
    max_grad_norm: float = 1.0
    temperature: float = 0.8
    top_p: float = 1.0
    max_new_tokens: int = 64
    rows_per_pass: int = 8  # completions in memory at a time while training
    weights: Weights = "auto"  # auto: 16 bits where the device has them
    warn_after: int = 3  # batches in a row whose rewards are all equal
    seed: int = 0  # of sampling
    shuffle_seed: int = 0  # of the order of prompts

    def __post_init__(self) -> None:
        for name, options in OPTIONS.items():
            value = getattr(self, name)
            if value not in options:
                raise ValueError(f"{name}={value!r}: choose one of {', '.join(options)}")
        for name in ("prompts_per_batch", "steps", "num_iterations", "max_new_tokens", "rows_per_pass"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: should be at least 1")
        if self.group_size < 2:
            raise ValueError(f"group_size={self.group_size}: a group needs at least two completions")
        if self.advantage == "gmpo" and self.prompts_per_batch < 2 and not self.memory and self.top_k != 1:
            raise ValueError("prompts_per_batch=1: pooling needs two prompts, a memory, or top_k=1 to be off")
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature}: a policy to learn from is sampled above 0")
        if self.rows % self.rows_per_pass:
            raise ValueError(f"rows_per_pass={self.rows_per_pass} does not divide the batch of {self.rows}")

    @property
    def rows(self) -> int:
        """Completions a batch on each process, B·G."""
        return self.prompts_per_batch * self.group_size

    def beta_at(self, progress: float) -> float:
        """The KL's weight after `progress` (0 to 1) of the run."""
        return self.beta if self.beta_final is None else self.beta + (self.beta_final - self.beta) * progress


def prompt_order(count: int, steps: int, size: int, seed: int) -> list[int]:
    """`steps` batches of `size` indices below `count`: shuffled laps over all of them, none twice in a batch.

    Raises ValueError when there are fewer prompts than one batch takes.
    """
    if count < size:
        raise ValueError(f"{count} tasks are fewer than the {size} prompts of one batch")
    stream, order = random.Random(seed), list[int]()
    while len(order) < steps * size:
        lap = list(range(count))
        stream.shuffle(lap)
        order += lap[: count - count % size]
    return order[: steps * size]


def weights_precision(settings: GmpoSettings) -> str:
    """bf16, fp16 or fp32, for the frozen weights; the adapter is fp32.

    Rounding to bf16 alone moves ln s by about 0.2 over a dozen tokens, as much as one update at 2e-5 does, and so
    takes part in what is clipped from the second update on. fp32 is exact and two to three times as slow.
    """
    return "fp32" if settings.weights == "fp32" else precision()


def identity(settings: GmpoSettings) -> Row:
    """What two parts of one run must share: everything but the number of steps."""
    return {name: value for name, value in dataclasses.asdict(settings).items() if name != "steps"}
