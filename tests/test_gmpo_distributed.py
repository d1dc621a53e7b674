"""Two processes that exchange statistics of prompts learn what one process with all of them would."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from lib.gmpo.batch import shared_advantages  # noqa: E402
from lib.gmpo.settings import GmpoSettings  # noqa: E402
from lib.gmpo.statistics import Memory  # noqa: E402

PROMPTS, GROUP, BATCHES = 6, 4, 3
CASES = {
    "all prompts": GmpoSettings(),
    "nearest three": GmpoSettings(top_k=3),
    "half of the weight": GmpoSettings(mass=0.5),
    "with a memory": GmpoSettings(memory=8),
}


def batch(number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Binary rewards and log-probs (B, G), embeddings (B, 5)."""
    stream = torch.Generator().manual_seed(number)
    chance = torch.rand(PROMPTS, 1, generator=stream)
    rewards = (torch.rand(PROMPTS, GROUP, generator=stream) < chance).double()
    log_probs = -50 * torch.rand(PROMPTS, GROUP, generator=stream, dtype=torch.float64)
    return rewards, log_probs, torch.randn(PROMPTS, 5, generator=stream)


def learnt_from(settings: GmpoSettings, gather: object, rank: int, processes: int) -> list[dict[str, Tensor]]:
    """Every normaliser's advantages for one process's share of some batches in a row."""
    memory, found = Memory(settings.memory) if settings.memory else None, []
    for number in range(BATCHES):
        share = [part.chunk(processes)[rank] for part in batch(number)]
        found.append(shared_advantages(*share, settings, memory, gather, rank)[0])  # type: ignore[arg-type]
    return found


def one_of_two(folder: str) -> None:
    """What `accelerate` starts twice: its own gather over gloo, the result in a file."""
    from accelerate import Accelerator

    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    rank, processes = accelerator.process_index, accelerator.num_processes
    assert (processes, torch.distributed.get_backend()) == (2, "gloo")
    found = {name: learnt_from(settings, accelerator.gather, rank, 2) for name, settings in CASES.items()}
    torch.save(found, Path(folder) / f"{rank}.pt")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[dict[str, Tensor]]]]:
    folder = tmp_path_factory.mktemp("ranks")
    done = subprocess.run([sys.executable, __file__, str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one_on_the_union(two_processes: list[dict[str, list[dict[str, Tensor]]]], case: str) -> None:
    union = learnt_from(CASES[case], lambda tensor: tensor, 0, 1)
    for number, expected in enumerate(union):
        for name, advantages in expected.items():
            found = torch.cat([rank[case][number][name] for rank in two_processes])
            torch.testing.assert_close(found, advantages, atol=1e-6, rtol=0)


def test_another_process_changes_what_is_learnt(two_processes: list[dict[str, list[dict[str, Tensor]]]]) -> None:
    """Or the comparison above would hold for processes that do not talk."""
    alone = shared_advantages(*(part[:3] for part in batch(0)), GmpoSettings(), None, lambda tensor: tensor, 0)[0]
    together = two_processes[0]["all prompts"][0]
    for name in ("gmpo", "batch"):
        assert not torch.allclose(alone[name], together[name], atol=1e-3)
    for name in ("grpo", "dr_grpo", "rloo"):
        assert torch.equal(alone[name], together[name])


if __name__ == "__main__":
    from accelerate import debug_launcher

    debug_launcher(one_of_two, (sys.argv[1],), num_processes=2)
