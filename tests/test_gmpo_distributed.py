"""Two processes that exchange statistics of prompts learn what one process with all of them would."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


from lib.gmpo.batch import Gather, shared_advantages  # noqa: E402
from lib.gmpo.neighbourhoods import PromptBank  # noqa: E402
from lib.gmpo.run import make_trainer, run_config  # noqa: E402
from lib.models.resolve import resolve  # noqa: E402
from lib.tasks.prompts import build_prompt  # noqa: E402
from lib.tasks.task import Task  # noqa: E402

PROMPTS, GROUP, BATCHES = 6, 4, 3
ALL = {"tau": 0.1, "lam": 0.5}
CASES = {
    "all prompts": (ALL, 0),
    "nearest three": (ALL | {"top_k": 3}, 0),
    "with a bank": (ALL, 8),
}  # pooling, bank size


def batch(number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Binary rewards and log-probs (B, G), embeddings (B, 5)."""
    stream = torch.Generator().manual_seed(number)
    chance = torch.rand(PROMPTS, 1, generator=stream)
    rewards = (torch.rand(PROMPTS, GROUP, generator=stream) < chance).double()
    log_probs = -50 * torch.rand(PROMPTS, GROUP, generator=stream, dtype=torch.float64)
    return rewards, log_probs, torch.randn(PROMPTS, 5, generator=stream)


def learnt_from(case: str, gather: Gather, rank: int, processes: int) -> list[dict[str, Tensor]]:
    """Return every estimator's advantages for one process's share of some batches in a row."""
    pooling, size = CASES[case]
    bank, found = PromptBank(size) if size else None, []
    for number in range(BATCHES):
        rewards, log_probs, h = (part.chunk(processes)[rank] for part in batch(number))
        found.append(shared_advantages(rewards, log_probs, h, pooling=pooling, bank=bank, gather=gather, rank=rank)[0])
    return found


def one_of_two(folder: Path) -> None:
    """What is launched twice: accelerate's own gather over gloo, then a step of training; results in files."""
    from accelerate import Accelerator

    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    rank, processes = accelerator.process_index, accelerator.num_processes
    assert (processes, torch.distributed.get_backend()) == (2, "gloo")
    found = {case: learnt_from(case, accelerator.gather, rank, 2) for case in CASES}
    torch.save(found, folder / f"{rank}.pt")
    train_a_step(folder, rank)


def train_a_step(folder: Path, rank: int) -> None:
    """Two prompts a process, one of each group right."""
    from transformers import AutoTokenizer

    tokenizer, rows = AutoTokenizer.from_pretrained(resolve("embedded")), list[dict[str, Any]]()
    names = ("double", "triple", "is_even", "is_odd")
    asked = [
        Task(n, "test", "train", f"Write `{n}(n)`.", "en", "python", "function", n, visible_tests=("assert True",))
        for n in names
    ]
    prompts = [build_prompt(task, tokenizer) for task in asked]
    config = run_config(
        steps=1, prompts_per_batch=2, group_size=2, rows_per_pass=2, num_iterations=1, max_completion_length=8,
        learning_rate=1e-3, temperature=0.8, output_dir=str(folder / "work"),
    )  # fmt: skip

    def reward(task_id: list[str], **_: Any) -> list[float]:
        return [float(row % 2 == name.startswith("is")) for row, name in enumerate(task_id)]

    trainer = make_trainer("embedded", folder / "start", prompts, config, reward, rows.append)
    trainer.train()
    learnt = {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    torch.save(
        {name.removeprefix("module."): weight.detach() for name, weight in learnt.items()}, folder / f"weights{rank}.pt"
    )
    (folder / f"rows{rank}.json").write_text(json.dumps(rows))


def save_start(folder: Path) -> None:
    """A small adapter that does nothing yet."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(resolve("embedded"), dtype=torch.bfloat16)
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(folder)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two launched processes have filled."""
    folder = tmp_path_factory.mktemp("ranks")
    save_start(folder / "start")
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--local-addr",
        "127.0.0.1",
        "--nproc-per-node",
        "2",
    ]
    done = subprocess.run([*launch, __file__, str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def two_processes(launched: Path) -> list[dict[str, list[dict[str, Tensor]]]]:
    return [torch.load(launched / f"{rank}.pt") for rank in (0, 1)]


def test_a_launched_step_leaves_both_processes_with_the_same_new_weights_and_is_reported_once(launched: Path) -> None:
    weights, rows = ([load(rank) for rank in (0, 1)] for load in (
        lambda rank: torch.load(launched / f"weights{rank}.pt"),
        lambda rank: json.loads((launched / f"rows{rank}.json").read_text()),
    ))  # fmt: skip
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(bool(weight.any()) for name, weight in weights[0].items() if "lora_B" in name)  # it began at 0
    assert [row["step"] for row in rows[0]] == [1] and not rows[1]
    assert rows[0][0]["reward"] == 0.5 and rows[0][0]["mixed_outcome"] == 1.0  # of all four prompts


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one_on_the_union(
    two_processes: list[dict[str, list[dict[str, Tensor]]]], case: str
) -> None:
    union = learnt_from(case, lambda tensor: tensor, 0, 1)
    for number, expected in enumerate(union):
        for name, advantages in expected.items():
            found = torch.cat([rank[case][number][name] for rank in two_processes])
            torch.testing.assert_close(found, advantages, atol=1e-6, rtol=0)


def test_another_process_changes_what_is_learnt(two_processes: list[dict[str, list[dict[str, Tensor]]]]) -> None:
    """Or the comparison above would hold for processes that exchange nothing."""
    alone = shared_advantages(*(part[:3] for part in batch(0)), pooling=ALL)[0]
    together = two_processes[0]["all prompts"][0]
    for name in ("gmpo", "batch"):
        assert not torch.allclose(alone[name], together[name], atol=1e-3)
    for name in ("grpo", "dr_grpo", "rloo"):
        assert torch.equal(alone[name], together[name])


if __name__ == "__main__":
    one_of_two(Path(sys.argv[1]))
