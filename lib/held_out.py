"""pass@1 on held-out tasks of a model that is being trained: its own greedy answers, judged in the sandbox."""

import copy
from collections.abc import Sequence
from typing import Any

from lib.prompts import build_prompt
from lib.sampling import Request, Settings, stop_token_ids
from lib.sampling.hf import TransformersEngine
from lib.sandbox import Sandbox, SandboxError
from lib.sft import HeldOut
from lib.tasks import Task


class LoadedEngine(TransformersEngine):
    """An engine around a model that is in memory already; closing it leaves the model alone."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.tokenizer = copy.copy(tokenizer)
        self.tokenizer.padding_side = "left"
        self._model = model
        self._stop_ids = sorted(stop_token_ids(self.tokenizer))


def greedy_pass_at_1(tasks: Sequence[Task], sandbox: Sandbox, max_new_tokens: int) -> HeldOut:
    """A function (model, tokenizer, step) -> share of `tasks` whose greedy answer passes every test.

    It raises SandboxError when the sandbox could not judge an answer, and is itself refused (ValueError) without tasks.
    """
    if not tasks:
        raise ValueError("no held-out tasks: give at least one, or no held-out evaluation")
    settings = Settings(temperature=0.0, max_new_tokens=max_new_tokens)

    def held_out(model: Any, tokenizer: Any, step: int) -> float:
        engine = LoadedEngine(model, tokenizer)
        prompts = [build_prompt(task, tokenizer) for task in tasks]
        requests = [Request(place, prompt.text, prompt.stops, 0) for place, prompt in enumerate(prompts)]
        drawn = [(request.key, completion.text) for request, completion in engine.stream(requests, settings)]
        verdicts = sandbox.grade_many([(tasks[place], prompts[place].program(text)) for place, text in drawn])
        for (place, _), verdict in zip(drawn, verdicts, strict=True):
            if verdict.status == "sandbox-error":
                raise SandboxError(f"step {step}, {tasks[place].task_id}: the sandbox failed: {verdict.failure}")
        return sum(verdict.status == "success" for verdict in verdicts) / len(tasks)

    return held_out
