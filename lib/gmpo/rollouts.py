"""What TRL's trainer calls: completions from lib.sampling's engine, rewards from the sandbox, rows for the ledger."""

import contextlib
import dataclasses
import json
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, Literal

from lib.base.files import ROOT
from lib.gmpo.config import PolyCodeConfig
from lib.gmpo.policy import evaluating
from lib.mining.collect import judged_fields
from lib.mining.ledger import Attempt, Ledger, now
from lib.models.resolve import resolve
from lib.sampling import Completion, Engine, Request, SamplingParams, fastest_engine, open_engine, sample_seed
from lib.sampling.encoding import Encoder
from lib.sandbox import Sandbox, SandboxError, Status, Verdict
from lib.tasks.prompts import Prompt, build_prompt
from lib.tasks.task import Task, read_tasks
from lib.training.dev_eval import LoadedEngine

if TYPE_CHECKING:
    from lib.gmpo.trainer import PolyCodeTrainer, Rolled

Reward = Literal["binary", "fractional"]  # every test passes, or the share that does
Note = Callable[[str, float], None]
CANARIES = ROOT / "data" / "canaries.jsonl"
REMEMBERED = 10_000  # programs whose verdicts are kept, so that a refilled batch is graded once


def training_engine(name: str) -> str:
    """Return the engine that GMPO samples with, for the one that was asked for.

    On a GPU it is "transformers": the model in training draws its own completions, and no second copy of the base has
    to fit beside it. vLLM and servers, which would hold one, are replaced by it with a warning.
    """
    chosen = fastest_engine() if name == "auto" else name
    if chosen in ("openvino", "transformers"):
        return chosen
    if name != "auto":
        warnings.warn(
            f"engine {name}: GMPO draws with the model that it trains (engine transformers); another engine would hold "
            "a second copy of the base model, or need each step's adapter sent to it",
            stacklevel=2,
        )
    return "transformers"


@contextlib.contextmanager
def sampler(model: str, policy: Any, engine: str) -> Iterator[Engine]:
    """Open an engine that draws from `policy`, a PEFT model of base `model`, as it is now.

    Engine transformers is the policy itself, in place; any other gets its adapter as a folder.
    """
    if engine != "transformers":
        with tempfile.TemporaryDirectory() as folder:
            policy.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
            with contextlib.closing(open_engine(model, folder, engine)) as opened:
                yield opened
        return
    base = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
    attention = base.config._attn_implementation
    with evaluating(policy), contextlib.closing(LoadedEngine(policy, Encoder(resolve(model)))) as opened:
        if attention == "sdpa":
            base.set_attn_implementation("grouped_query")
        try:
            yield opened
        finally:
            base.set_attn_implementation(attention)


class Canaries:
    """Tasks whose tests contradict their statement, asked once per batch: what passes them has fooled the grader."""

    def __init__(self, sandbox: Sandbox, tasks: Sequence[Task], tokenizer: Any) -> None:
        languages = {task.programming_language for task in tasks if task.mode == "program"}
        known = read_tasks(CANARIES)
        self.tasks = [task for task in known if task.mode == "function" and any(t.mode == "function" for t in tasks)]
        self.tasks += [
            dataclasses.replace(task, task_id=f"{task.task_id}:{language}", programming_language=language)
            for task in known
            for language in sorted(languages)
            if task.mode == "program"
        ]
        self.sandbox, self.prompts = sandbox, [build_prompt(task, tokenizer) for task in self.tasks]

    def pass_rate(self, completions: Sequence[Completion]) -> float:
        """Return the share of completions, one per canary, whose programs pass."""
        jobs = [(t, p.program(c.text)) for t, p, c in zip(self.tasks, self.prompts, completions, strict=True)]
        return mean(verdict.reward for verdict in self.sandbox.grade_many(jobs, tests="all"))


class Rollouts:
    """Sample for TRL (its `rollout_func`) through lib.sampling, with the weights as they are.

    Token ids come back as sampled, the end token or the stop included, with the engine's log-probability of each.
    """

    def __init__(
        self,
        model: str,
        prompts: Sequence[Prompt],
        config: PolyCodeConfig,
        engine: str = "auto",
        canaries: Canaries | None = None,
    ) -> None:
        self.model, self.config, self.engine, self.canaries = model, config, training_engine(engine), canaries
        self.prompts = {prompt.text: prompt for prompt in prompts}
        self._asked_in = -1  # the batch that canaries were last asked in

    def __call__(self, texts: list[str], trainer: "PolyCodeTrainer") -> dict[str, Any]:
        """Take prompt texts, each G times, and return tokens of prompts and completions and ln q, in the same order."""
        started, config, batch = time.perf_counter(), self.config, trainer.batches_done
        wanted = SamplingParams(config.temperature, config.top_p, config.max_completion_length, logprobs=True)
        asked = list(self.requests(texts, batch))
        canaries = self.canaries if batch != self._asked_in else None
        self._asked_in = batch
        for place, prompt in enumerate(canaries.prompts if canaries else ()):
            seed = sample_seed(config.seed, prompt.task_id, batch)
            asked.append(Request(len(texts) + place, prompt.text, prompt.stops, seed, prompt.prefill))
        with sampler(self.model, trainer.accelerator.unwrap_model(trainer.model), self.engine) as engine:
            drawn = {request.key: completion for request, completion in engine.stream(asked, wanted)}
            encode = partial(engine.tokenizer, add_special_tokens=False)
            ids = {text: encode(text)["input_ids"] for text in set(texts)}
        if canaries:
            trainer.note("canary", canaries.pass_rate([drawn[request.key] for request in asked[len(texts) :]]))
        completions = [drawn[key] for key in range(len(texts))]
        trainer.note("seconds_sampling", time.perf_counter() - started)
        trainer.note("truncated", mean(not completion.finished for completion in completions))
        return {
            "prompt_ids": [ids[text] for text in texts],
            "completion_ids": [list(completion.token_ids) for completion in completions],
            "logprobs": [list(completion.logprobs or ()) for completion in completions],
        }

    def requests(self, texts: list[str], batch: int) -> Iterator[Request]:
        """Yield one request per text, keyed by its place. A prompt's samples are numbered on from batch to batch."""
        seen: Counter[str] = Counter()
        for key, text in enumerate(texts):
            prompt, number = self.prompts[text], batch * self.config.num_generations + seen[text]
            seen[text] += 1
            seed = sample_seed(self.config.seed, prompt.task_id, number)
            yield Request(key, text, prompt.stops, seed, prompt.prefill)


class SandboxReward:
    """Reward completions for TRL: grade the program in each by all tests of its task."""

    def __init__(
        self, sandbox: Sandbox, tasks: Sequence[Task], prompts: Sequence[Prompt], kind: Reward = "binary"
    ) -> None:
        self.sandbox, self.kind = sandbox, kind
        self.verdicts: dict[tuple[str, str], Verdict] = {}  # of task and completion
        self.judged: list[tuple[str, str, Verdict]] = []  # task_id, completion and verdict of the last batch, in order
        self.known = {task.task_id: (task, prompt) for task, prompt in zip(tasks, prompts, strict=True)}

    def __call__(self, completions: list[str], task_id: list[str], log_metric: Note, **_: Any) -> list[float]:
        """Return one reward per completion.

        A completion whose tests cannot be run here gets the mean reward of its task's others, so that it says nothing.
        Raises SandboxError when the sandbox could not grade a completion, or none of a task's.
        """
        started = time.perf_counter()
        if len(self.verdicts) > REMEMBERED:
            self.verdicts.clear()
        asked = list(zip(task_id, completions, strict=True))
        fresh = [key for key in dict.fromkeys(asked) if key not in self.verdicts]
        jobs = [(self.known[name][0], self.known[name][1].program(text)) for name, text in fresh]
        found = dict(zip(fresh, self.sandbox.grade_many(jobs, tests="all"), strict=True))
        broken = [(name, verdict) for (name, _), verdict in found.items() if verdict.status == Status.SANDBOX_ERROR]
        if broken:
            raise SandboxError(
                f"{len(broken)} of {len(jobs)} programs could not be graded, the first for {broken[0][0]}: "
                f"{broken[0][1].failure}; training stopped, nothing was learnt from this batch"
            )
        self.verdicts |= found
        verdicts = [self.verdicts[key] for key in asked]
        self.judged = [(*key, verdict) for key, verdict in zip(asked, verdicts, strict=True)]
        for status, count in Counter(verdict.status for verdict in verdicts).items():
            log_metric(f"verdict/{status}", count / len(verdicts))
        log_metric("seconds_sandbox", time.perf_counter() - started)
        rewards = [verdict.reward if self.kind == "binary" else verdict.fraction for verdict in verdicts]
        return _without_unsupported(rewards, verdicts, task_id)


def _without_unsupported(rewards: list[float], verdicts: Sequence[Verdict], task_id: Sequence[str]) -> list[float]:
    """Return the rewards, those of unsupported tests replaced by the mean of their task's others."""
    counted: dict[str, list[float]] = {name: [] for name in task_id}
    for name, verdict, reward in zip(task_id, verdicts, rewards, strict=True):
        if verdict.status != Status.UNSUPPORTED_TEST:
            counted[name].append(reward)
    never = {name: verdict.failure for name, verdict in zip(task_id, verdicts, strict=True) if not counted[name]}
    if never:
        raise SandboxError(
            f"the tests of {', '.join(never)} cannot be run here ({next(iter(never.values()))}); leave such tasks out "
            "of the training; nothing was learnt from this batch"
        )
    return [
        mean(counted[name]) if verdict.status == Status.UNSUPPORTED_TEST else reward
        for name, verdict, reward in zip(task_id, verdicts, rewards, strict=True)
    ]


class RolloutLedger:
    """Append every completion of a training as an attempt with its step, and write per-prompt statistics.

    Called with each batch before it is learnt from. `adapter` names the adapter that the training started from;
    `visible_ok` and `hidden_ok` of these rows both say whether all tests passed, which are graded together. The
    statistics are one JSON line per prompt and step: mean and population variance of reward and log-probability, and
    the advantages. Rows of steps that are learnt again after a restart are not repeated.
    """

    def __init__(
        self,
        ledger: Ledger,
        judge: SandboxReward,
        config: PolyCodeConfig,
        *,
        model: str,
        adapter: str,
        statistics: Path,
    ) -> None:
        self.ledger, self.judge, self.config, self.model, self.adapter = ledger, judge, config, model, adapter
        self.statistics, self.known = statistics, ledger.keys()

    def __call__(self, rolled: "Rolled") -> None:
        """Write one batch. The reward function has judged it in the same order."""
        group, rows = rolled.rewards.shape[1], []
        for place, (task_id, text, verdict) in enumerate(self.judge.judged):
            prompt, number = place // group, place % group
            l_sum, tokens = float(rolled.log_probs[prompt, number]), int(rolled.lengths[prompt, number])
            rows.append(
                self._attempt(task_id, text, verdict, (rolled.step - 1) * group + number, rolled.step, tokens, l_sum)
            )
        self.ledger.append(row for row in rows if row.key not in self.known)
        names = [task_id for task_id, _, _ in self.judge.judged[::group]]
        with self.statistics.open("a", encoding="utf-8") as lines:
            for prompt, task_id in enumerate(names):
                lines.write(json.dumps({"step": rolled.step, "task_id": task_id} | _of_prompt(rolled, prompt)) + "\n")

    def _attempt(
        self, task_id: str, text: str, verdict: Verdict, draw: int, step: int, tokens: int, l_sum: float
    ) -> Attempt:
        task, prompt = self.judge.known[task_id]
        passed = verdict.status == Status.SUCCESS
        return Attempt(
            run_id=self.ledger.path.parent.parent.name,
            task_id=task_id,
            draw=draw,
            seed=sample_seed(self.config.seed, task_id, draw),
            model=self.model,
            adapter=self.adapter,
            sampler="rollout",
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            max_new_tokens=self.config.max_completion_length,
            prompt_hash=prompt.digest,
            tests_hash=task.tests_digest,
            completion=text,
            program=prompt.program(text),
            finished=tokens < self.config.max_completion_length,
            n_tokens=tokens,
            logprob_sum=l_sum,
            status=verdict.status,
            passed=verdict.passed,
            total=verdict.total,
            visible_ok=passed,
            hidden_ok=passed,
            failure=verdict.failure,
            cpu_s=verdict.cpu_s,
            wall_s=verdict.wall_s,
            peak_rss_mb=verdict.peak_rss_mb,
            sandbox_mode=verdict.sandbox_mode,
            created_at=now(),
            **judged_fields(verdict),
            step=step,
        )


def _of_prompt(rolled: "Rolled", prompt: int) -> dict[str, Any]:
    """Return one prompt's statistics over its G completions."""
    rewards, log_probs = rolled.rewards[prompt].double(), rolled.log_probs[prompt].double()
    return {
        "n": len(rewards),
        "mean_r": float(rewards.mean()),
        "var_r": float(rewards.var(correction=0)),
        "mean_l": float(log_probs.mean()),
        "var_l": float(log_probs.var(correction=0)),
        "advantages": [round(value, 6) for value in rolled.advantages[prompt].tolist()],
    }
