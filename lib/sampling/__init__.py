"""One way to ask any model for completions: requests go in, completions come out as they finish.

    engine = open_engine(model, adapter=None)
    for request, completion in engine.stream(requests, settings): ...
    drawn = sample(engine, prompts, 10, settings)

Prompt text, stop strings, end tokens and seeds mean the same in every engine; `completion.text` is cut at the first
stop string at which the answer is complete (`lib.tasks.prompts.cut_at_stops`), so an engine may stop later than
another without the program changing. A seed repeats a draw in
one engine; two engines draw differently from one distribution.
"""

import dataclasses
import hashlib
import importlib.util
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lib.base.errors import WorkbookError

if TYPE_CHECKING:
    from lib.tasks.prompts import Prompt

ENGINES = ("auto", "openvino", "vllm", "transformers")


class EngineError(WorkbookError):
    """An engine that cannot start, failed or stopped answering; the message carries its reason."""


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """How to sample. temperature 0 is greedy decoding; `logprobs` asks for `Completion.logprobs`."""

    temperature: float = 0.8
    top_p: float = 0.95
    max_new_tokens: int = 96
    logprobs: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature}: should be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: should be above 0 and at most 1")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: should be at least 1")


@dataclasses.dataclass(frozen=True)
class Request:
    """One completion to draw: `key` comes back untouched, `seed` fixes this draw alone.

    `prefill` is the end of `text` with which the answer begins; without one, every stop string ends the completion.
    """

    key: Any
    text: str
    stops: tuple[str, ...]
    seed: int
    prefill: str = ""

    def __post_init__(self) -> None:
        if not self.text:
            raise ValueError(f"request {self.label}: the prompt is empty; a model needs at least one token to continue")

    @property
    def label(self) -> str:
        """The key, short enough for a message."""
        return str(self.key)[:80]


@dataclasses.dataclass(frozen=True)
class Completion:
    """`text` ends before the stop that ends the answer; `finished` is False when max_new_tokens cut it off.

    `token_ids` holds what was drawn, the end token or the tokens of the stop included.

    `logprobs` holds ln q(y_t) per token, where q is what y_t was drawn from: softmax(z / T), within the nucleus and
    renormalised there. With top_p = 1 that is the model's own probability at the sampling temperature. Greedy draws
    are scored at T = 1 over the whole vocabulary. None unless `SamplingParams.logprobs` asked for it.
    """

    text: str
    token_ids: tuple[int, ...]
    finished: bool
    logprobs: tuple[float, ...] | None = None

    @property
    def n_tokens(self) -> int:
        """How many tokens were drawn."""
        return len(self.token_ids)

    @property
    def logprob_sum(self) -> float | None:
        """Σ_t ln q(y_t), where it was asked for."""
        return None if self.logprobs is None else sum(self.logprobs)


class Engine(Protocol):
    """What every engine offers; `context_length` is in tokens, prompt and completion together."""

    name: str
    tokenizer: Any
    context_length: int

    def stream(self, requests: Iterable[Request], settings: SamplingParams) -> Iterator[tuple[Request, Completion]]:
        """Completions in the order in which they finish.

        Raises ValueError for a prompt that leaves no room for the completion, EngineError when the engine fails.
        """
        ...

    def close(self) -> None:
        """Free the model."""
        ...


def open_engine(model: str, adapter: str | None = None, engine: str = "auto", *, deterministic: bool = False) -> Engine:
    """An engine by name, by the address of an OpenAI-compatible server, or "auto": the fastest that is here.

    "auto" is vLLM on CUDA and OpenVINO on a CPU where they are installed, and transformers elsewhere. A `deterministic`
    engine gives the same tokens on one machine, bit for bit, whatever else is drawn beside them, at several times the
    time. Raises EngineError for a name that is none of these, an engine that does not start or is not deterministic,
    ModelError for a model or an adapter that does not fit.
    """
    if deterministic and engine == "auto":
        engine = "transformers" if fastest_engine() == "vllm" else "auto"
    if deterministic and engine not in ("auto", "openvino", "transformers"):
        raise EngineError(f"engine {engine!r} cannot be deterministic; openvino and transformers can")
    if engine.startswith(("http://", "https://")):
        from lib.sampling.server import ServerEngine

        return ServerEngine(engine, model, adapter)
    if engine not in ENGINES:
        raise EngineError(f"engine {engine!r}: choose one of {', '.join(ENGINES)}, or a server's http address")
    chosen = fastest_engine() if engine == "auto" else engine
    if chosen == "openvino":
        from lib.sampling.openvino import OpenVinoEngine

        return OpenVinoEngine(model, adapter, deterministic=deterministic)
    if chosen == "vllm":
        from lib.sampling.vllm import VllmEngine

        return VllmEngine(model, adapter)
    from lib.sampling.hf import TransformersEngine

    return TransformersEngine(model, adapter, deterministic)


def fastest_engine() -> str:
    """Return the engine that "auto" stands for on this machine."""
    import torch

    name, package = ("vllm", "vllm") if torch.cuda.is_available() else ("openvino", "openvino_genai")
    return name if importlib.util.find_spec(package) else "transformers"


def sample(
    engine: Engine, prompts: Sequence["Prompt"], n: int, settings: SamplingParams, seed: int = 0
) -> list[list[Completion]]:
    """Return `n` completions per prompt, in the prompts' order; draw d has the seed sample_seed(seed, task_id, d).

    A prompt longer than the context is skipped and gets none; one warning counts and names them all.
    Raises ValueError for n < 1, greedy decoding with n > 1 or an empty prompt, EngineError when the engine fails.
    """
    if n < 1:
        raise ValueError(f"n={n}: should be at least 1")
    if settings.temperature == 0 and n > 1:
        raise ValueError(f"n={n} at temperature 0: greedy decoding has one answer; use n=1")
    skipped = {id(prompt) for prompt in exceeds_context(prompts, engine, settings)}
    if skipped:
        names = ", ".join(prompt.task_id for prompt in prompts if id(prompt) in skipped)
        warnings.warn(
            f"{len(skipped)} of {len(prompts)} prompts skipped, longer than the context of {engine.context_length} "
            f"tokens with {settings.max_new_tokens} new ones: {names}",
            stacklevel=2,
        )
    requests = (  # draw by draw, so that a prompt's prefill is in the cache from its second draw on
        Request((place, draw), prompt.text, prompt.stops, sample_seed(seed, prompt.task_id, draw), prompt.prefill)
        for draw in range(n)
        for place, prompt in enumerate(prompts)
        if id(prompt) not in skipped
    )
    drawn = {request.key: completion for request, completion in engine.stream(requests, settings)}
    return [[drawn[place, draw] for draw in range(n) if (place, draw) in drawn] for place in range(len(prompts))]


class HasText(Protocol):
    """A prompt or a request."""

    @property
    def text(self) -> str: ...


Asked = TypeVar("Asked", bound=HasText)


def exceeds_context(prompts: Iterable[Asked], engine: Engine, settings: SamplingParams) -> list[Asked]:
    """Those prompts or requests whose tokens and `max_new_tokens` more exceed the engine's context."""
    room = engine.context_length - settings.max_new_tokens
    return [prompt for prompt in prompts if len(token_ids(engine.tokenizer, prompt.text)) > room]


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """A prompt's tokens. The chat template has put every special token into the text, so none is added."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def sample_seed(run_seed: int, task_id: str, draw: int) -> int:
    """The seed of draw `draw` of task `task_id` under run seed `run_seed`: 63 bits of SHA-256 of the three."""
    digest = hashlib.sha256(f"{run_seed}\x1f{task_id}\x1f{draw}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
