"""The engines: stops, seeds and adapters mean the same in each; the real embedded model throughout."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib.models import ModelError, resolve
from lib.prompts import build_prompt
from lib.sampling import Request, Settings, draw_seed, open_engine, stop_token_ids
from lib.sampling.hf import SeededDraw, nucleus
from lib.tasks import read_tasks

TASKS = {t.task_id: t for t in read_tasks(Path(__file__).parent.parent / "data/starter_bn.jsonl")}
EASY = [TASKS[name] for name in ("bn/add_numbers", "bn/square", "bn/to_uppercase", "bn/is_odd")]
SETTINGS = Settings(temperature=0.8, max_new_tokens=24)
GREEDY = Settings(temperature=0, max_new_tokens=24)


def requests(engine, draws=1):
    prompts = [build_prompt(task, engine.tokenizer) for task in EASY]
    return [
        Request((p.task_id, draw), p.text, p.stops, draw_seed(0, p.task_id, draw)) for draw in range(draws) for p in prompts
    ]


def texts(engine, settings, draws=1):
    return {request.key: completion.text for request, completion in engine.stream(requests(engine, draws), settings)}


@pytest.fixture(scope="module")
def openvino():
    engine = open_engine("embedded", engine="openvino")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def plain():
    engine = open_engine("embedded", engine="transformers")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A LoRA adapter with weights large enough to change every answer."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(resolve("embedded"), dtype=torch.bfloat16)
    targets = ["q_proj", "v_proj", "down_proj"]
    get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets)).save_pretrained(folder)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    noise = {name: torch.randn_like(t) if "lora_B" in name else t for name, t in tensors.items()}
    save_file(noise, path, metadata={"format": "pt"})
    return str(folder)


def test_the_tokenizer_gives_every_text_back(openvino):
    for text in ("def f(x):\n    return x  # বাংলা ১২৩", "a  b\tc\n\n  d", "1234 -5", TASKS["bn/square"].prompt):
        assert openvino.tokenizer.decode(openvino.tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_a_closing_fence_is_a_stop_token(openvino):
    ids = stop_token_ids(openvino.tokenizer)
    assert openvino.tokenizer("```", add_special_tokens=False)["input_ids"][0] in ids
    assert openvino.tokenizer.eos_token_id in ids


@pytest.mark.parametrize("name", ["openvino", "plain"])
def test_no_completion_holds_a_stop(name, request):
    engine = request.getfixturevalue(name)
    for asked, completion in engine.stream(requests(engine, 2), SETTINGS):
        assert not any(stop in completion.text for stop in asked.stops)
        assert len(completion.token_ids) <= SETTINGS.max_new_tokens


def test_every_request_is_answered_once(openvino):
    asked = requests(openvino, 40)  # more than are in flight at a time
    keys = [request.key for request, _ in openvino.stream(iter(asked), Settings(max_new_tokens=2))]
    assert sorted(keys) == sorted(request.key for request in asked)


def test_greedy_answers_agree_between_engines(openvino, plain):
    ours, theirs = texts(openvino, GREEDY), texts(plain, GREEDY)
    assert sum(ours[key].split("\n")[1] == theirs[key].split("\n")[1] for key in ours) >= len(EASY) - 1  # int8 against bf16


def test_draws_differ_by_seed(openvino):
    drawn = texts(openvino, Settings(temperature=1.0, max_new_tokens=24), draws=6)
    assert len({text for (task, _), text in drawn.items() if task == "bn/to_uppercase"}) > 1


def test_a_draw_depends_on_its_own_seed_alone(plain):
    whole = texts(plain, SETTINGS, draws=2)
    alone = requests(plain, 2)[5:6]
    ((request, completion),) = plain.stream(alone, SETTINGS)
    assert completion.text.split("\n")[1] == whole[request.key].split("\n")[1]


@pytest.mark.parametrize("name", ["openvino", "transformers"])
def test_an_adapter_really_changes_the_output(name, adapter, request):
    base = request.getfixturevalue("plain" if name == "transformers" else name)
    engine = open_engine("embedded", adapter, name)
    try:
        changed, before = texts(engine, GREEDY), texts(base, GREEDY)
    finally:
        engine.close()
    assert all(changed[key] != before[key] for key in before)


def test_a_folder_that_is_no_adapter_is_refused(tmp_path):
    with pytest.raises(ModelError, match="not a PEFT adapter folder"):
        open_engine("embedded", str(tmp_path), "openvino")


def test_a_model_that_cannot_be_found_says_what_was_looked_for(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="nobody/nothing.*folder, a Hugging Face id"):
        resolve("nobody/nothing")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve(str(tmp_path))


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.5}, {"max_new_tokens": 0}], ids=lambda w: next(iter(w))
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)


def test_draw_seeds_differ_by_run_task_and_draw():
    seeds = {draw_seed(s, t, d) for s in range(3) for t in ("a", "b") for d in range(3)}
    assert len(seeds) == 18 and all(0 <= seed < 2**63 for seed in seeds)


def test_the_nucleus_keeps_the_fewest_tokens_that_reach_top_p():
    kept = nucleus(torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])), 0.8)
    assert torch.isfinite(kept).tolist() == [[True, True, False, False]]


def test_seeded_draws_follow_the_tempered_distribution():
    p = torch.tensor([0.6, 0.3, 0.1])
    processor = SeededDraw(list(range(4000)), Settings(temperature=1.0, top_p=1.0))
    drawn = processor(torch.empty(4000, 0), p.log().expand(4000, 3)).argmax(dim=-1)
    shares = torch.bincount(drawn, minlength=3) / 4000
    assert torch.allclose(shares, p, atol=0.03)


