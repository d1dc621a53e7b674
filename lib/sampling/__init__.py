"""One way to ask any model for completions: requests go in, completions come out as they finish.

    engine = open_engine(model, adapter=None)
    for request, completion in engine.stream(requests, settings): ...

Prompt text, stop strings and seeds mean the same in every engine; `completion.text` is cut at the first stop string, so an
engine may stop earlier or later than another without the program changing.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

ENGINES = ("auto", "openvino", "transformers")


class EngineError(RuntimeError):
    """An engine that cannot start, failed or stopped answering; the message carries its reason."""



@dataclasses.dataclass(frozen=True)
class Settings:
    """How to sample. temperature 0 is greedy decoding."""

    temperature: float = 0.8
    top_p: float = 0.95
    max_new_tokens: int = 96

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature}: should be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: should be above 0 and at most 1")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: should be at least 1")


@dataclasses.dataclass(frozen=True)
class Request:
    """One completion to draw: `key` comes back untouched, `seed` fixes this draw alone."""

    key: Any
    text: str
    stops: tuple[str, ...]
    seed: int


@dataclasses.dataclass(frozen=True)
class Completion:
    """`text` ends before the first stop; `finished` is False when max_new_tokens cut it off."""

    text: str
    token_ids: tuple[int, ...]
    finished: bool


class Engine(Protocol):
    """What every engine offers."""

    name: str
    tokenizer: Any

    def stream(self, requests: Iterable[Request], settings: Settings) -> Iterator[tuple[Request, Completion]]:
        """Completions in the order in which they finish."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


def open_engine(model: str, adapter: str | None = None, engine: str = "auto") -> Engine:
    """An engine by name, by the address of an OpenAI-compatible server, or "auto": the fastest that is here.

    "auto" is OpenVINO on a CPU and transformers elsewhere. Raises EngineError for a name that is none of these.
    """
    if engine.startswith(("http://", "https://")):
        from lib.sampling.server import ServerEngine

        return ServerEngine(engine, model, adapter)
    if engine not in ENGINES:
        raise EngineError(f"engine {engine!r}: choose one of {', '.join(ENGINES)}, or a server's http address")
    if engine == "openvino" or (engine == "auto" and not _cuda()):
        from lib.sampling.openvino import OpenVinoEngine

        return OpenVinoEngine(model, adapter)
    from lib.sampling.hf import TransformersEngine

    return TransformersEngine(model, adapter)


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def draw_seed(run_seed: int, task_id: str, draw: int) -> int:
    """The seed of draw `draw` of task `task_id` under run seed `run_seed`: 63 bits of SHA-256 of the three."""
    digest = hashlib.sha256(f"{run_seed}\x1f{task_id}\x1f{draw}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stop_token_ids(tokenizer: Any, fence: str = "```") -> set[int]:
    """The end token and every token that begins a closing fence, for engines that stop on tokens."""
    fences = {index for token, index in tokenizer.get_vocab().items() if token.startswith(fence)}
    return fences | {tokenizer.eos_token_id}
