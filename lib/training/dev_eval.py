"""pass@1 on held-out tasks of a model that is being trained: its own greedy answers, judged in the sandbox."""

from collections.abc import Sequence
from typing import Any

from transformers import GenerationConfig

from lib.models.resolve import resolve
from lib.sampling import Request, SamplingParams
from lib.sampling.encoding import Encoder
from lib.sampling.hf import TransformersEngine
from lib.sandbox import Sandbox, SandboxError, Status
from lib.tasks.prompts import build_prompt
from lib.tasks.task import Task
from lib.training.sft import EvalFn


class LoadedEngine(TransformersEngine):
    """An engine around a model that is in memory already; closing it gives the model back as it was."""

    def __init__(self, model: Any, encoder: Encoder) -> None:
        self._encoder, self._model, self._own = encoder, model, model.generation_config
        self.tokenizer, self.context_length = encoder.tokenizer, encoder.context_length
        self.device = model.device.type
        model.generation_config = GenerationConfig()

    def close(self) -> None:
        """Give the model back."""
        self._model.generation_config = self._own


def greedy_pass_at_1(model: str, tasks: Sequence[Task], sandbox: Sandbox, max_new_tokens: int) -> EvalFn:
    """A function (loaded model, step) -> share of `tasks` whose greedy answer passes every test; `model` names the base.

    It raises SandboxError when the sandbox could not judge an answer, and is itself refused (ValueError) without tasks.
    """
    if not tasks:
        raise ValueError("no held-out tasks: give at least one, or no held-out evaluation")
    settings, encoder = SamplingParams(temperature=0.0, max_new_tokens=max_new_tokens), Encoder(resolve(model))
    prompts = [build_prompt(task, encoder.tokenizer) for task in tasks]
    requests = [Request(place, prompt.text, prompt.stops, 0) for place, prompt in enumerate(prompts)]

    def held_out(loaded: Any, step: int) -> float:
        engine = LoadedEngine(loaded, encoder)
        drawn = [(request.key, completion.text) for request, completion in engine.stream(requests, settings)]
        engine.close()
        verdicts = sandbox.grade_many([(tasks[place], prompts[place].program(text)) for place, text in drawn])
        for (place, _), verdict in zip(drawn, verdicts, strict=True):
            if verdict.status == Status.SANDBOX_ERROR:
                raise SandboxError(f"step {step}, {tasks[place].task_id}: the sandbox failed: {verdict.failure}")
        return sum(verdict.status == Status.SUCCESS for verdict in verdicts) / len(tasks)

    return held_out
