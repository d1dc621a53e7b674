"""Which checkpoint a training goes on from after a kill or a power cut."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib.models.adapters import copy_adapter
from lib.training.resume import is_whole, last_checkpoint


def checkpoint(folder: Path) -> Path:
    """What a trainer leaves of a small adapter."""
    folder.mkdir(parents=True)
    save_file({"lora_A": torch.ones(64)}, folder / "adapter_model.safetensors")
    for name in ("optimizer.pt", "gmpo.pt", "rng_state.pth", "training_args.bin"):
        torch.save({"state": torch.ones(64)}, folder / name)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 1}))
    return folder


FILES = (
    "adapter_model.safetensors",
    "optimizer.pt",
    "gmpo.pt",
    "rng_state.pth",
    "training_args.bin",
    "trainer_state.json",
)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_short_file_of_any_kind_sends_the_training_to_the_checkpoint_before(
    name: str, share: float, tmp_path: Path
) -> None:
    older, newer = checkpoint(tmp_path / "checkpoint-9"), checkpoint(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path) == newer
    content = (newer / name).read_bytes()
    (newer / name).write_bytes(content[: int(len(content) * share)])
    assert last_checkpoint(tmp_path) == older and not newer.exists()


def test_a_byte_that_changed_is_found(tmp_path: Path) -> None:
    whole = checkpoint(tmp_path / "checkpoint-1")
    spoilt = shutil.copytree(whole, tmp_path / "checkpoint-2")
    content = bytearray((spoilt / "optimizer.pt").read_bytes())
    place = content.index(torch.ones(8).numpy().tobytes())
    content[place] ^= 1
    (spoilt / "optimizer.pt").write_bytes(content)
    assert is_whole(whole) and not is_whole(spoilt)


def test_a_copied_adapter_is_as_new_as_the_copy(tmp_path: Path) -> None:
    """A stage that runs again drops outputs that are older than its start, also where training was skipped."""
    source, started = checkpoint(tmp_path / "round1"), time.time_ns()
    for path in source.iterdir():
        os.utime(path, ns=(started - 10**12, started - 10**12))
    copy_adapter(source, tmp_path / "rsft")
    assert all(path.stat().st_mtime_ns > started - 10**9 for path in (tmp_path / "rsft").iterdir())
