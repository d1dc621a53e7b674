"""pass@1 on development tasks of a model that is being trained: its greedy answers, graded in the sandbox."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

from transformers import GenerationConfig

from lib.mining.grading import grade_all
from lib.models.resolve import resolve
from lib.sampling import Request, SamplingParams
from lib.sampling.encoding import Encoder
from lib.sampling.hf import TransformersEngine
from lib.sandbox import Sandbox, Status
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
    """Return a function (loaded model, step) -> share of `tasks` whose greedy answer passes every test.

    `model` names the base. Tasks whose tests cannot be run count neither way. The function raises SandboxError when the
    sandbox could not grade an answer, ValueError when no task is left. Raises ValueError without tasks.
    """
    if not tasks:
        raise ValueError("no development tasks: give at least one, or no evaluation while training")
    params, encoder = SamplingParams(temperature=0.0, max_new_tokens=max_new_tokens), Encoder(resolve(model))
    prompts = [build_prompt(task, encoder.tokenizer) for task in tasks]
    requests = [Request(place, prompt.text, prompt.stops, 0, prompt.prefill) for place, prompt in enumerate(prompts)]

    def evaluate(loaded: Any, step: int) -> float:
        with closing(LoadedEngine(loaded, encoder)) as engine:
            answers = [(request.key, completion.text) for request, completion in engine.stream(requests, params)]
        verdicts = grade_all(sandbox, [(tasks[place], prompts[place].program(text)) for place, text in answers])
        counted = [verdict.reward for verdict in verdicts if verdict.status != Status.UNSUPPORTED_TEST]
        if not counted:
            raise ValueError(f"step {step}: no development task has tests that can be run here")
        return sum(counted) / len(counted)

    return evaluate
