"""The engines: prompts, stops, seeds, log-probabilities and adapters mean the same in each; the real embedded model
throughout.
"""

import dataclasses
import importlib.util
import json
import math
import os
import statistics
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import chi2_contingency, chisquare, kstest, ncx2

from lib.models.lora_fit import Adapter, known_name, misfit
from lib.models.resolve import ModelError, resolve
from lib.sampling import EngineError, Request, SamplingParams, exceeds_context, hf, open_engine, sample, sample_seed
from lib.sampling.batches import rows_that_fit
from lib.sampling.draw import draw, gumbel, hash_words, mix, nucleus, seed_words
from lib.sampling.encoding import read_context_length, read_end_ids
from lib.sampling.openvino import processes_that_fit
from lib.sampling.openvino_process import Pipeline
from lib.tasks.prompts import build_prompt, stop_at
from lib.tasks.task import read_tasks

TASKS = {t.task_id: t for t in read_tasks(Path(__file__).parent.parent / "data/starter_bn.jsonl")}
EASY = [TASKS[name] for name in ("bn/add_numbers", "bn/square", "bn/subtract")]
SETTINGS = SamplingParams(temperature=0.8, max_new_tokens=24)
GREEDY = SamplingParams(temperature=0, max_new_tokens=24)
ONE = SamplingParams(temperature=0.8, top_p=0.95, max_new_tokens=1, logprobs=True)
SHORT = ("x = ", "def ", "    if n ", "numbers = [")  # cheap to draw from, with four likely first tokens at least
DRAWS = 400
HAS_VLLM = torch.cuda.is_available() and importlib.util.find_spec("vllm") is not None
needs_vllm = pytest.mark.skipif(not HAS_VLLM, reason="vLLM needs a CUDA device and the package vllm")


def prompts(engine, tasks=EASY):
    return [build_prompt(task, engine.tokenizer) for task in tasks]


def requests(engine, draws=1):
    return [
        Request((p.task_id, draw), p.text, p.stops, sample_seed(0, p.task_id, draw), p.prefill)
        for draw in range(draws)
        for p in prompts(engine)
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
    """The transformers engine in fp32, so that its figures can be held against exact ones."""
    engine = open_engine("embedded", engine="transformers")
    engine._model.float()
    yield engine
    engine.close()


@pytest.fixture(params=["openvino", "plain"])
def engine(request):
    return request.getfixturevalue(request.param)


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


# ------------------------------------------------------------------------------------------- text, stops and seeds


def test_the_tokenizer_gives_every_text_back(openvino):
    for text in ("def f(x):\n    return x  # বাংলা ১২৩", "a  b\tc\n\n  d", "1234 -5", TASKS["bn/square"].prompt):
        assert openvino.tokenizer.decode(openvino.tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_no_completion_goes_on_after_its_answer_is_complete(engine):
    for asked, completion in engine.stream(requests(engine, 2), SETTINGS):
        assert stop_at(completion.text, asked.stops, asked.prefill) is None
        assert completion.n_tokens == len(completion.token_ids) <= SETTINGS.max_new_tokens


def test_an_answer_ends_with_the_token_that_completes_a_stop(engine):
    asked = [Request(0, "Count: 1, 2, 3, 4, 5,", (" 8",), 0)]
    ((_, completion),) = engine.stream(asked, GREEDY)
    whole = engine.tokenizer.decode(completion.token_ids)
    assert completion.finished and whole.endswith("8") and completion.text == whole[: whole.index(" 8")] == " 6, 7,"


def test_a_stop_string_inside_a_docstring_ends_nothing(engine):
    opened = '```python\ndef f(x):\n    """Count: 1, 2, 3, 4, 5,'
    asked = [Request(0, opened, (" 8",), 0, opened)]
    ((_, completion),) = engine.stream(asked, GREEDY)
    assert completion.text.startswith(" 6, 7, 8")


def test_a_fence_that_is_no_stop_ends_nothing(engine):
    asked = [Request(0, "```\n1\n```\n\n```\n2\n```\n\n```\n3\n", (), 0)]
    ((_, completion),) = engine.stream(asked, GREEDY)
    assert "```" in completion.text and not completion.text.endswith("```")


def test_end_tokens_are_all_those_the_model_s_folder_names(tmp_path):
    assert read_end_ids(tmp_path) == set()
    for named, found in ((2, {2}), ([5, 7], {5, 7}), (None, set())):
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": named}))
        assert read_end_ids(tmp_path) == found


def test_what_a_model_s_folder_recommends_changes_no_answer(plain, tmp_path):
    source = resolve("embedded")
    for path in source.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "generation_config.json").unlink()
    advice = {"repetition_penalty": 3.0, "top_k": 1, "eos_token_id": 2, "do_sample": True}
    (tmp_path / "generation_config.json").write_text(json.dumps(advice))
    advised = open_engine(str(tmp_path), engine="transformers")
    advised._model.float()
    assert texts(advised, GREEDY) == texts(plain, GREEDY)


def test_every_request_is_answered_once(openvino):
    asked = requests(openvino, 53)  # more than are in flight at a time
    keys = [request.key for request, _ in openvino.stream(iter(asked), SamplingParams(max_new_tokens=2))]
    assert sorted(keys) == sorted(request.key for request in asked)


def test_draws_differ_by_seed(openvino):
    drawn = texts(openvino, SamplingParams(temperature=1.0, max_new_tokens=24), draws=6)
    assert len(set(drawn.values())) > len(EASY)


def test_a_draw_depends_on_its_own_seed_alone(plain):
    whole = texts(plain, SETTINGS, draws=2)
    alone = requests(plain, 2)[5:6]
    ((request, completion),) = plain.stream(alone, SETTINGS)
    assert completion.text == whole[request.key]


def test_draw_seeds_differ_by_run_task_and_draw():
    seeds = {sample_seed(s, t, d) for s in range(3) for t in ("a", "b") for d in range(3)}
    assert len(seeds) == 18 and all(0 <= seed < 2**63 for seed in seeds)


# ------------------------------------------------------------------------------------------------------------ sample


def test_sample_gives_n_completions_of_every_prompt_in_order(engine):
    drawn = sample(engine, prompts(engine), 3, SETTINGS, seed=5)
    assert [len(row) for row in drawn] == [3] * len(EASY)
    again = sample(engine, prompts(engine)[1:2], 2, SETTINGS, seed=5)
    if engine.name == "transformers":  # the other's batches round differently from run to run
        assert again[0] == drawn[1][:2]


def test_sample_skips_counts_and_names_what_is_too_long(plain):
    short, long = prompts(plain, EASY[:2])
    endless = type(long)(long.task_id, "x " * 9000, "", ())
    assert exceeds_context([short, endless], plain, SETTINGS) == [endless]
    with pytest.warns(UserWarning, match="1 of 2 prompts skipped, longer than the context of 8192 .*: bn/square"):
        drawn = sample(plain, [endless, short], 1, SamplingParams(max_new_tokens=2))
    assert [len(row) for row in drawn] == [0, 1]


def test_a_prompt_may_fill_the_context_to_the_last_token(plain):
    class Room:
        tokenizer, context_length = plain.tokenizer, len(plain.tokenizer("a b c")["input_ids"]) + 5

    asked = Request(0, "a b c", (), 0)
    assert exceeds_context([asked], Room, SamplingParams(max_new_tokens=5)) == []
    assert exceeds_context([asked], Room, SamplingParams(max_new_tokens=6)) == [asked]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"n": 0}, "n=0: should be at least 1"),
        ({"n": 2, "settings": GREEDY}, "n=2 at temperature 0: greedy decoding has one answer; use n=1"),
        ({"empty": True}, r"request \(0, 0\): the prompt is empty"),
    ],
)
def test_bad_input_to_sample_is_one_line(plain, wrong, message):
    (prompt,) = prompts(plain, EASY[:1])
    if wrong.get("empty"):
        prompt = type(prompt)(prompt.task_id, "", "", ())
    with pytest.raises(ValueError, match=message) as caught:
        sample(plain, [prompt], wrong.get("n", 1), wrong.get("settings", SETTINGS))
    assert "\n" not in str(caught.value)


def test_a_stream_refuses_a_prompt_too_long_by_its_key(engine):
    endless = Request("bn/long", "x " * 9000, (), 0)
    with pytest.raises(
        ValueError, match=r"request bn/long: a prompt of \d+ tokens and 24 new ones are more than .* 8192"
    ):
        list(engine.stream([endless], SETTINGS))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"temperature": math.nan},
        {"top_p": 0},
        {"top_p": 1.5},
        {"top_p": math.nan},
        {"max_new_tokens": 0},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamplingParams(**wrong)


def test_context_lengths_are_read_where_models_keep_them(tmp_path):
    for config in ({"max_position_embeddings": 7}, {"n_positions": 7}, {"text_config": {"max_position_embeddings": 7}}):
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert read_context_length(tmp_path) == 7
    (tmp_path / "config.json").write_text("{}")
    assert read_context_length(tmp_path) > 10**9


def test_a_model_that_cannot_be_found_says_what_was_looked_for(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="nobody/nothing.*folder, a Hugging Face id"):
        resolve("nobody/nothing")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve(str(tmp_path))


# ----------------------------------------------------------------------------------- distributions and probabilities


def test_the_nucleus_keeps_the_fewest_tokens_that_reach_top_p():
    kept, ids = nucleus(torch.log(torch.tensor([[0.3, 0.5, 0.05, 0.15]])), 0.8)
    assert ids[torch.isfinite(kept)].tolist() == [1, 0]


@pytest.mark.parametrize("top_p", [1.0, 0.95])
def test_seeded_draws_follow_the_tempered_distribution(top_p):
    p = torch.tensor([0.6, 0.3, 0.06, 0.04])
    rows = 40_000
    steps = torch.full((rows,), 3, dtype=torch.int32)
    drawn, _ = draw(p.log().expand(rows, 4), seed_words(range(rows)), steps, SamplingParams(1.0, top_p))
    counts = torch.bincount(drawn, minlength=4).double()
    kept = p.double() * (torch.arange(4) < (4 if top_p == 1 else 3))
    assert chisquare(counts[kept > 0], rows * kept[kept > 0] / kept.sum()).pvalue > 0.001
    assert counts.sum() == counts[kept > 0].sum()


@pytest.mark.parametrize("params", [SamplingParams(0.8, 0.95), SamplingParams(1.0, 1.0), GREEDY], ids=str)
def test_a_row_draws_the_same_bit_for_bit_wherever_it_lies(params):
    logits, seeds = torch.randn(12, 5000, generator=torch.Generator().manual_seed(0)) * 3, seed_words(range(7, 19))
    steps = torch.arange(12, dtype=torch.int32)
    tokens, log_probs = draw(logits, seeds, steps, params)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    shuffled = draw(logits[order], seeds[order], steps[order], params)
    assert torch.equal(shuffled[0], tokens[order]) and torch.equal(shuffled[1], log_probs[order])
    for row in range(12):
        one = slice(row, row + 1)
        alone = draw(logits[one], seeds[one], steps[one], params)
        assert torch.equal(alone[0], tokens[one]) and torch.equal(alone[1], log_probs[one])


def test_the_hash_is_murmur3_s_finaliser_and_differs_by_seed_step_and_token():
    assert mix(torch.tensor([1, 2], dtype=torch.int32)).tolist() == [0x514E28B7, 0x30F4C306]
    seeds = seed_words([0, 1, 2**40, 2**63 - 1])
    words = {
        word
        for step in range(5)
        for word in hash_words(seeds, torch.full((4,), step, dtype=torch.int32), torch.arange(100)[None])
        .flatten()
        .tolist()
    }
    assert len(words) == 4 * 5 * 100


def test_noise_is_finite_at_both_ends_and_gumbel_in_between():
    ends = torch.tensor([0, -1, 0x7FFFFFFF, -(2**31)], dtype=torch.int32)
    assert torch.isfinite(gumbel(ends)).all()
    words = hash_words(seed_words([5]), torch.zeros(1, dtype=torch.int32), torch.arange(100_000)[None])
    assert kstest(gumbel(words)[0].numpy(), "gumbel_r").pvalue > 0.001


@pytest.mark.parametrize(
    "temperature, top_p, q",
    [
        (1.0, 0.75, [0.625, 0.375, 0.0, 0.0]),  # 0.5 and 0.3 of 0.8
        (0.5, 1.0, [0.684932, 0.246575, 0.061644, 0.006849]),  # p² over its sum, 0.365
        (0.0, 0.5, [0.5, 0.3, 0.15, 0.05]),  # greedy: temperature 1, the whole vocabulary
    ],
)
def test_log_probabilities_are_those_of_what_is_drawn_from(temperature, top_p, q):
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(50, 4) + 3
    steps = torch.zeros(50, dtype=torch.int32)
    drawn, log_probs = draw(logits, seed_words(range(50)), steps, SamplingParams(temperature, top_p))
    assert torch.allclose(log_probs.exp(), torch.tensor(q)[drawn], atol=1e-5)
    assert (len(set(drawn.tolist())) == 1) == (temperature == 0)


def exact_log_probs(model, prompt_ids, ids, settings):
    """ln q of each token, from one pass over the whole sequence."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt_ids + list(ids)])).logits[0, len(prompt_ids) - 1 : -1].float()
    if settings.temperature:
        kept, order = nucleus(logits / settings.temperature, settings.top_p)
        logits = torch.full_like(logits, -torch.inf).scatter(1, order.expand_as(kept), kept)
    return logits.log_softmax(dim=-1)[range(len(ids)), list(ids)]


@pytest.mark.parametrize("temperature, top_p", [(0.8, 1.0), (0.8, 0.9), (0.0, 1.0)])
def test_transformers_sums_are_those_of_one_pass(plain, temperature, top_p):
    settings = SamplingParams(temperature, top_p, max_new_tokens=16, logprobs=True)
    ended = 0
    for request, completion in plain.stream(requests(plain), settings):
        ids = plain.tokenizer(request.text, add_special_tokens=False)["input_ids"]
        expected = exact_log_probs(plain._model, ids, completion.token_ids, settings).sum()
        assert completion.logprob_sum == pytest.approx(float(expected), abs=2e-3)
        ended += completion.finished
    assert ended  # rows that end early are summed to their end, not to that of their batch


@cache
def first_draws(engine, prompt, settings=ONE, draws=DRAWS):
    """(token, ln q) of the first token of `draws` draws."""
    asked = [Request(n, prompt, (), sample_seed(1, prompt, n)) for n in range(draws)]
    return [(c.token_ids[0], c.logprob_sum) for _, c in engine.stream(asked, settings)]


@pytest.mark.parametrize("prompt", SHORT)
def test_first_tokens_are_drawn_as_often_as_their_probabilities_say(engine, prompt):
    """Chi-square of an engine's draws against its own q, rare tokens pooled."""
    drawn = first_draws(engine, prompt)
    q = {token: math.exp(log_prob) for token, log_prob in drawn}
    counts = Counter(token for token, _ in drawn)
    common = [token for token in q if q[token] * DRAWS >= 5]
    expected = [q[token] * DRAWS for token in common]
    observed = [counts[token] for token in common]
    if DRAWS - sum(expected) >= 5:
        expected.append(DRAWS - sum(expected))
        observed.append(DRAWS - sum(observed))
    assert len(expected) >= 4
    scale = sum(observed) / sum(expected)
    assert scale == pytest.approx(1, abs=0.05)  # q adds up to 1 in the nucleus
    assert chisquare(observed, [count * scale for count in expected]).pvalue > 0.001


def mean_log_prob(drawn):
    """{token: its mean ln q}, of tokens drawn five times; int8 arithmetic moves it a little with the batch."""
    by_token = {}
    for token, log_prob in drawn:
        by_token.setdefault(token, []).append(log_prob)
    return {token: statistics.mean(values) for token, values in by_token.items() if len(values) >= 5}


def test_log_probabilities_are_tempered_by_the_sampling_temperature(engine):
    """ln q_T(a) − ln q_T(b) is proportional to 1 / T, whatever nucleus is cut out."""
    steps, colder = [], []
    for prompt in SHORT:
        before = mean_log_prob(first_draws(engine, prompt))
        after = mean_log_prob(first_draws(engine, prompt, SamplingParams(0.5, 0.9, 1, True), 150))
        top, *rest = sorted(set(before) & set(after), key=before.__getitem__, reverse=True)
        steps += [before[top] - before[token] for token in rest]
        colder += [after[top] - after[token] for token in rest]
    assert len(steps) >= 5
    assert sum(colder) / sum(steps) == pytest.approx(ONE.temperature / 0.5, rel=0.15)


def test_greedy_answers_are_those_of_plain_generate(plain):
    for request, completion in plain.stream(requests(plain), GREEDY):
        ids = plain.tokenizer(request.text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        mask = torch.ones_like(ids)
        output = plain._model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=24, eos_token_id=2)
        assert list(completion.token_ids) == output[0, ids.shape[1] :][: completion.n_tokens].tolist()
        assert completion.finished or completion.n_tokens == 24


# ---------------------------------------------------------------------------------------------- engine against engine


def test_greedy_answers_agree_between_engines(openvino, plain):
    ours, theirs = texts(openvino, GREEDY), texts(plain, GREEDY)
    assert (
        sum(ours[key].split("\n")[1] == theirs[key].split("\n")[1] for key in ours) >= len(EASY) - 1
    )  # int8 against fp32


@pytest.mark.parametrize("prompt", SHORT)
def test_first_tokens_of_two_engines_differ_by_their_arithmetic_alone(openvino, plain, prompt):
    """Chi-square of two engines' draws, rare tokens pooled, against what the distance between their q explains.

    int8 and fp32 arithmetic move q, by a total variation of 0.03 to 0.15 on these prompts and more or less on other
    processors. With n draws from each of q and r, Pearson's homogeneity statistic is noncentral: λ ≈ n Σ (q − r)² / (q
    + r).
    """
    drawn = [first_draws(engine, prompt) for engine in (openvino, plain)]
    counts = [Counter(token for token, _ in draws) for draws in drawn]
    common = [token for token in counts[0] | counts[1] if counts[0][token] + counts[1][token] >= 10]
    q, r = ({token: math.exp(log_prob) for token, log_prob in draws} for draws in drawn)
    assert sum(abs(q.get(token, 0) - r.get(token, 0)) for token in q | r) / 2 < 0.2
    table = [[count[token] for token in common] for count in counts]
    shares = [(q.get(token, 0), r.get(token, 0)) for token in common]
    if 2 * DRAWS - sum(map(sum, table)) >= 10:
        table = [[*row, DRAWS - sum(row)] for row in table]
        shares.append((1 - sum(a for a, _ in shares), 1 - sum(b for _, b in shares)))
    found = chi2_contingency(table)
    noncentrality = DRAWS * sum((a - b) ** 2 / (a + b) for a, b in shares)
    assert len(table[0]) >= 4 and ncx2.sf(found.statistic, found.dof, noncentrality) > 0.001


# ------------------------------------------------------------------------------------------------------------ memory


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A function (config changes) -> engine around a random model of two layers with the embedded tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

    def make(**changes):
        folder = tmp_path_factory.mktemp("tiny")
        kind, of = (
            (MistralForCausalLM, MistralConfig) if "sliding_window" in changes else (LlamaForCausalLM, LlamaConfig)
        )
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        torch.manual_seed(0)
        config = of(
            vocab_size=49152, num_key_value_heads=2, max_position_embeddings=2048, eos_token_id=2, **sizes, **changes
        )
        model = kind(config)
        model.lm_head.weight.data *= 20  # draws that are far from uniform
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(resolve("embedded")).save_pretrained(folder)
        engine = open_engine(str(folder), engine="transformers")
        engine._model.float()
        return engine

    return make


def many(count, engine):
    """Requests with prompts of 1 to 300 tokens, every other one repeated."""
    lengths = [1 + (index // 2 * 37) % 300 for index in range(count)]
    texts = [engine.tokenizer.decode([500 + length] * length) for length in lengths]
    return [Request(key, text, (), sample_seed(0, "t", key)) for key, text in enumerate(texts)]


def answers(engine, asked, params=SamplingParams(1.0, 0.9, 12, logprobs=True)):  # noqa: B008  # frozen
    return {request.key: (c.token_ids, round(c.logprob_sum, 3)) for request, c in engine.stream(iter(asked), params)}


def test_rows_follow_one_another_and_every_request_is_answered_once_as_if_alone(tiny):
    engine = tiny()
    asked = many(41, engine)  # more than there are rows, and some longer than the first of them
    together = answers(engine, asked)
    assert sorted(together) == list(range(41))
    assert {key: together[key] for key in range(0, 41, 5)} == answers(engine, asked[::5])


def test_a_model_with_a_sliding_window_draws_through_generate_and_agrees(tiny):
    engine = tiny(sliding_window=4096)  # wider than any of the prompts
    assert not hf._decodes_in_rows(engine._model)
    through_generate = answers(engine, many(20, engine))
    plain = tiny(sliding_window=None)
    assert hf._decodes_in_rows(plain._model) and answers(plain, many(20, plain)) == through_generate


def test_out_of_memory_halves_the_rows_and_answers_all(tiny, monkeypatch):
    engine, tried = tiny(), []
    asked = many(20, engine)
    expected = answers(engine, asked)
    block = hf.Decoder.block

    def short_of_memory(decoder):
        tried.append(len(decoder.token))
        if len(decoder.token) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return block(decoder)

    monkeypatch.setattr(hf.Decoder, "block", short_of_memory)
    assert answers(engine, asked) == expected
    assert list(dict.fromkeys(tried))[:3] == [16, 8, 4] and max(tried[3:]) <= 2  # what was too much is not tried again


def test_one_sequence_too_many_is_one_clear_error(tiny, monkeypatch):
    def short_of_memory(decoder):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    engine = tiny()
    monkeypatch.setattr(hf.Decoder, "block", short_of_memory)
    with pytest.raises(EngineError, match="out of memory with a single sequence: CUDA out of memory.*GiB$"):
        answers(engine, many(4, engine))


def test_other_faults_are_not_taken_for_a_lack_of_memory(tiny, monkeypatch):
    def broken(decoder):
        raise RuntimeError("shapes cannot be multiplied")

    engine = tiny()
    monkeypatch.setattr(hf.Decoder, "block", broken)
    with pytest.raises(RuntimeError, match="multiplied"):
        answers(engine, many(4, engine))


@pytest.mark.parametrize("block", [1, 4, 8])
def test_looking_for_stops_every_few_steps_changes_no_answer(tiny, monkeypatch, block):
    engine = tiny()
    asked = [Request(key, "x = ", ("a", "er"), sample_seed(0, "s", key)) for key in range(24)]
    expected = answers(engine, asked)
    monkeypatch.setitem(hf.BLOCK, "cpu", block)
    assert answers(engine, asked) == expected
    assert len({len(tokens) for tokens, _ in expected.values()}) > 3


def test_heads_that_share_keys_attend_as_in_transformers_own_attention(tiny):
    engine = tiny()
    grouped = answers(engine, many(6, engine))
    engine._model.set_attn_implementation("sdpa")
    assert answers(engine, many(6, engine)) == grouped


def test_rows_that_fit_by_hand():
    config = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32, "num_hidden_layers": 3,
              "intermediate_size": 64, "vocab_size": 100}  # fmt: skip
    # a token: (2·3·2·8 + 8·32 + 4·64) · 2 = 1216 bytes; a row of ten: 12160 + 6·4·100 = 14560
    assert rows_that_fit(14560 / 0.8 * 7 + 1, 10, config) == 7
    assert rows_that_fit(1, 10, config) == 1


@pytest.mark.slow
def test_a_sampling_process_that_is_killed_is_followed_by_a_smaller_one():
    engine = open_engine("embedded", engine="openvino")
    engine._most = 2  # also where there is a single core
    asked = requests(engine, 16)
    try:
        with pytest.warns(
            UserWarning, match="exit code -9 .*; going on in one process with (256|128) requests at a time"
        ) as told:
            stream = engine.stream(iter(asked), SamplingParams(max_new_tokens=16))
            keys = [next(stream)[0].key]
            for _ in range(2):
                killed = engine._workers[-1]
                killed.process.kill()
                while killed in engine._workers:
                    keys.append(next(stream)[0].key)
            keys += [request.key for request, _ in stream]
    finally:
        engine.close()
    assert [size in str(one.message) for one, size in zip(told, ("256 requests", "128 requests"), strict=True)] == [
        True,
        True,
    ]
    assert sorted(keys) == sorted(request.key for request in asked)


def test_many_requests_are_shared_out_among_processes():
    engine = open_engine("embedded", engine="openvino")
    engine._most = 2
    try:
        stream = engine.stream(iter(requests(engine, 27)), SamplingParams(max_new_tokens=16))
        next(stream)
        assert len(engine._workers) == 2 and all(len(worker.flying) >= 10 for worker in engine._workers)
        for worker in engine._workers:  # none keeps to one core, where it would wait for the other
            assert os.sched_getaffinity(worker.process.pid) == os.sched_getaffinity(0)
    finally:
        engine.close()


@pytest.mark.parametrize("name", ["openvino", "transformers"])
def test_a_deterministic_engine_draws_the_same_bits_in_any_batch(name):
    settings = SamplingParams(max_new_tokens=8, logprobs=True)
    drawn = []
    for chosen in (slice(None), slice(None, None, -3)):  # all, and some of them the other way round by another engine
        engine = open_engine("embedded", engine=name, deterministic=True)
        try:
            asked = requests(engine, 2)[:8][chosen]
            answers = engine.stream(asked, settings)
            drawn.append({request.key: (one.token_ids, one.logprobs) for request, one in answers})
        finally:
            engine.close()
    assert drawn[1] and all(drawn[0][key] == answer for key, answer in drawn[1].items())


def test_an_engine_that_cannot_be_deterministic_says_so():
    with pytest.raises(EngineError, match="openvino and transformers can"):
        open_engine("embedded", engine="http://127.0.0.1:1", deterministic=True)


def test_a_prompt_s_draws_wait_until_it_has_been_read_once(openvino):
    pipeline = Pipeline(dataclasses.replace(openvino._config, threads=1))
    for number in range(6):
        pipeline.add(number, [number % 2 + 1] * 600, ((), ""), number, SamplingParams(max_new_tokens=4))
    assert len(pipeline.flying) == 2  # one of each prompt
    ended = pipeline.step()
    while pipeline.held:
        assert not ended
        ended = pipeline.step()
    assert len(pipeline.flying) == 6
    while pipeline.flying:
        ended += pipeline.step()
    assert sorted(number for number, *_ in ended) == list(range(6))


def test_few_requests_take_one_process(openvino):
    openvino.close()
    assert len(list(openvino.stream(requests(openvino, 2), SETTINGS))) == 2 * len(EASY) and len(openvino._workers) == 1


def test_processes_that_fit(tmp_path):
    (tmp_path / "openvino_model.bin").write_bytes(bytes(1000))
    assert [processes_that_fit(tmp_path, cores, free) for cores, free in ((2, 10**10), (16, 10**10), (4, 10**8))] == [
        2,
        4,
        1,
    ]


# ---------------------------------------------------------------------------------------------------------- adapters


@pytest.mark.parametrize("name", ["openvino", "transformers"])
def test_an_adapter_really_changes_the_output(name, adapter, request):
    base = request.getfixturevalue("plain" if name == "transformers" else name)
    engine = open_engine("embedded", adapter, name)
    try:
        changed, before = texts(engine, GREEDY), texts(base, GREEDY)
    finally:
        engine.close()
    assert all(changed[key] != before[key] for key in before)


def write_adapter(folder, width=896, base="Qwen/Qwen2.5-Coder-0.5B-Instruct", module="model.layers.0.self_attn.q_proj"):
    folder.mkdir(exist_ok=True)
    prefix = f"base_model.model.{module}"
    tensors = {f"{prefix}.lora_A.weight": torch.zeros(4, width), f"{prefix}.lora_B.weight": torch.zeros(width, 4)}
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "base_model_name_or_path": base,
        "r": 4,
        "lora_alpha": 8,
        "peft_type": "LORA",
        "target_modules": ["q_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize("engine", ["openvino", "transformers", "vllm", "http://127.0.0.1:9/v1"])
def test_an_adapter_for_another_base_model_is_refused_before_anything_starts(engine, tmp_path):
    with pytest.raises(ModelError) as caught:
        open_engine("embedded", write_adapter(tmp_path / "other"), engine)
    told = str(caught.value)
    assert "an adapter for Qwen/Qwen2.5-Coder-0.5B-Instruct, not for embedded" in told and "\n" not in told
    assert "model.layers.0.self_attn.q_proj takes 576 numbers in the model and 896 in the adapter" in told


def test_an_adapter_of_the_right_shape_but_another_name_is_refused(tmp_path):
    with pytest.raises(ModelError, match="not for embedded: adapter_config.json's base_model_name_or_path says so"):
        open_engine("embedded", write_adapter(tmp_path / "a", 576), "openvino")


def test_a_folder_that_is_no_adapter_is_refused(tmp_path):
    with pytest.raises(ModelError, match="not a PEFT adapter folder"):
        open_engine("embedded", str(tmp_path), "openvino")


def test_an_adapter_that_cannot_be_read_is_refused(tmp_path):
    folder = Path(write_adapter(tmp_path / "torn"))
    (folder / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="torn: an adapter that cannot be read"):
        open_engine("embedded", str(folder), "openvino")


def test_what_openvino_would_leave_out_of_an_adapter_is_refused(tmp_path):
    folder = Path(write_adapter(tmp_path / "dora", 576, "HuggingFaceTB/SmolLM2-135M-Instruct"))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(ModelError, match="dora: has use_dora, which OpenVINO does not apply"):
        open_engine("embedded", str(folder), "openvino")


def test_misfits_by_hand():
    base = {"m.q.weight": (6, 4)}
    assert (
        misfit({"base_model.model.m.q.lora_A.weight": (2, 4), "base_model.model.m.q.lora_B.weight": (6, 2)}, base)
        is None
    )
    assert (
        misfit({"base_model.model.m.q.lora_A.weight": (2, 6)}, base)
        == "m.q takes 4 numbers in the model and 6 in the adapter"
    )
    assert (
        misfit({"base_model.model.m.q.lora_B.weight": (4, 2)}, base)
        == "m.q gives 6 numbers in the model and 4 in the adapter"
    )
    assert misfit({"base_model.model.m.k.lora_A.weight": (2, 4)}, base) == "the model has no m.k"
    assert misfit({"other": (1, 1)}, base) == "it holds no LoRA matrices"


@pytest.mark.parametrize(
    "model, name",
    [
        ("Qwen/Qwen2.5-Coder-0.5B-Instruct", "qwen2.5-coder-0.5b-instruct"),
        ("unsloth/Qwen2.5-Coder-0.5B-Instruct-unsloth-bnb-4bit", "qwen2.5-coder-0.5b-instruct"),
        ("/x/hub/models--Qwen--Qwen3-4B/snapshots/0a1b", "qwen3-4b"),
        ("/x/.cache/models/smollm2-135m-instruct.q4_1", "smollm2-135m-instruct"),
        ("/home/me/models/finetuned", None),
    ],
)
def test_a_model_s_name_where_it_is_known(model, name):
    assert known_name(model) == name


def test_rank_and_scale_of_an_adapter(tmp_path):
    plain = Adapter(tmp_path, tmp_path, {"r": 16, "lora_alpha": 32})
    stable = Adapter(tmp_path, tmp_path, {"r": 16, "lora_alpha": 32, "use_rslora": True, "rank_pattern": {"q": 64}})
    assert (plain.rank, plain.scale, stable.rank, stable.scale) == (16, 2.0, 64, 8.0)


# -------------------------------------------------------------------------------------------------------------- vLLM


@pytest.mark.skipif(HAS_VLLM, reason="vLLM can run here")
def test_vllm_where_it_cannot_run_is_one_clear_error():
    with pytest.raises(EngineError, match="engine vllm: (not installed|there is no CUDA device)"):
        open_engine("embedded", engine="vllm")


@needs_vllm
def test_vllm_draws_stops_and_scores_as_transformers_does(plain, adapter):
    engine = open_engine("embedded", engine="auto")
    try:
        assert engine.name == "vllm" and engine.context_length == plain.context_length
        ours, theirs = texts(engine, GREEDY), texts(plain, GREEDY)
        assert sum(ours[key] == theirs[key] for key in ours) >= len(EASY) - 1
        for prompt in SHORT:
            q = dict(first_draws(engine, prompt))
            reference = dict(first_draws(plain, prompt))
            assert all(q[token] == pytest.approx(reference[token], abs=0.1) for token in set(q) & set(reference))
    finally:
        engine.close()
    changed = open_engine("embedded", adapter, "vllm")
    try:
        assert all(text != ours[key] for key, text in texts(changed, GREEDY).items())
    finally:
        changed.close()
