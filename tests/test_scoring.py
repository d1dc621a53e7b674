"""How far the sampler is from the trainer: an engine in the trainer's own numbers agrees, a rounded one nearly does."""

from pathlib import Path

import pytest

from lib.sampling import open_engine
from lib.sampling.scoring import sampler_mismatch
from lib.tasks.prompts import build_prompt
from lib.tasks.task import read_tasks

TASKS = read_tasks(Path(__file__).parent.parent / "data/starter_bn.jsonl")[:4]


@pytest.mark.parametrize(("name", "least_kl", "most_kl"), [("transformers", 0.0, 1e-4), ("openvino", 1e-6, 0.05)])
def test_rounded_weights_show_in_the_mismatch(name, least_kl, most_kl):
    engine = open_engine("embedded", engine=name)
    try:
        prompts = [build_prompt(task, engine.tokenizer) for task in TASKS]
        found = sampler_mismatch(engine, "embedded", prompts, temperature=1.0, max_new_tokens=16)
    finally:
        engine.close()
    assert least_kl <= found["mismatch_kl"] <= most_kl
    assert 0.5 < found["mismatch_ess"] <= 1 + 1e-6 and found["mismatch_ratio_max"] >= 1
