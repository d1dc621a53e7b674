"""A group packed into one row gives what its completions give in rows of their own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig

from lib.gmpo.shared_prefix import can_pack, packed_inputs, packed_log_probs, packing_saves_compute
from lib.models.resolve import resolve
from lib.sampling.scoring import padded, token_log_probs

PROMPTS = [[5, 9, 4], [7, 7, 8, 21, 3, 30]]
COMPLETIONS = [[11, 12, 13], [14], [15, 16], [17, 18, 19, 20]]  # the first two answer the first prompt


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(resolve("embedded"), dtype=torch.float32).train()


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both prompts, each twice, and their completions, each side with padding that no row needs."""
    left, known = padded([prompt for prompt in PROMPTS for _ in range(2)], "left")
    right, mask = padded(COMPLETIONS, "right")
    left, known = (torch.nn.functional.pad(part, (2, 0)) for part in (left, known))
    right, mask = (torch.nn.functional.pad(part, (0, 1)) for part in (right, mask))
    return left, known, right, mask


def test_log_probabilities_are_those_of_separate_rows_and_so_are_gradients(model) -> None:
    one_each = [prompt for prompt in PROMPTS for _ in range(2)]
    packed = packed_log_probs(model, *batch(), 2, 0.8, entropy=False)[0]
    alone = torch.cat(
        [  # without any padding
            torch.nn.functional.pad(token_log_probs(model, [prompt], [tokens], 0.8)[0], (0, 5 - len(tokens)))
            for prompt, tokens in zip(one_each, COMPLETIONS, strict=True)
        ]
    )
    torch.testing.assert_close(packed, alone, atol=2e-4, rtol=0)
    weight = model.get_input_embeddings().weight
    ours, theirs = (torch.autograd.grad(each.sum(), weight, retain_graph=True)[0] for each in (packed, alone))
    torch.testing.assert_close(ours, theirs, atol=2e-3 * float(theirs.abs().max()), rtol=0)


def test_a_completion_does_not_depend_on_its_neighbours(model) -> None:
    left, known, right, mask = batch()
    with torch.no_grad():
        before = packed_log_probs(model, left, known, right, mask, 2, 1.0, entropy=False)[0]
        right[1] = 99
        after = packed_log_probs(model, left, known, right, mask, 2, 1.0, entropy=False)[0]
    torch.testing.assert_close(after[0], before[0])
    assert float((after[1] - before[1]).abs().max()) > 0.1


def test_entropy_is_that_of_the_next_token_and_padding_holds_zero(model) -> None:
    left, known, right, mask = batch()
    with torch.no_grad():
        log_probs, entropies = packed_log_probs(model, left, known, right, mask, 2, 1.0, entropy=True)
        first = model(torch.tensor([PROMPTS[1]])).logits[0, -1].log_softmax(0)
    assert entropies is not None and log_probs.shape == entropies.shape == right.shape
    assert float(entropies[2, 0]) == pytest.approx(float(-(first.exp() * first).sum()), abs=1e-3)
    assert not log_probs[~mask.bool()].any() and not entropies[~mask.bool()].any()


def test_positions_go_on_from_the_end_of_the_prompt() -> None:
    left, known, right, mask = batch()
    ids, positions, _ = packed_inputs(left, known, right, mask, 2)
    assert ids.shape == (2, 8 + 2 * 5)
    assert positions[0, 5:8].tolist() == [0, 1, 2] and positions[0, 8:].tolist() == [3, 4, 5, 6, 7] * 2


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.data())
def test_a_token_sees_its_prompt_and_what_is_before_it_in_its_own_completion(g: int, p: int, t: int, data) -> None:
    known = torch.zeros(g, p, dtype=torch.long)
    known[:, p - data.draw(st.integers(1, p)) :] = 1
    lengths = torch.tensor(data.draw(st.lists(st.integers(1, t), min_size=g, max_size=g)))
    mask = (torch.arange(t) < lengths[:, None]).long()
    seen = packed_inputs(torch.zeros_like(known), known, torch.zeros_like(mask), mask, g)[2][0, 0]
    for i in range(g):
        for place in range(int(lengths[i])):
            row = seen[p + i * t + place]
            assert row[:p].tolist() == known[0].bool().tolist()
            own = [k == i and n <= place for k in range(g) for n in range(t)]
            assert row[p:].tolist() == own


@given(st.integers(1, 5000), st.integers(1, 2000), st.integers(1, 2000), st.integers(2, 64))
def test_packing_pays_where_one_row_takes_fewer_operations(d: int, p: int, t: int, g: int) -> None:
    def operations(tokens: int) -> int:
        return 24 * d**2 * tokens + 4 * d * tokens**2

    assert packing_saves_compute(d, p, t, g) == (operations(p + g * t) < g * operations(p + t))


def test_models_with_windows_or_other_kernels_are_left_alone() -> None:
    small = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "vocab_size": 8,
    }
    small["num_key_value_heads"] = 1
    make = AutoModelForCausalLM.from_config
    assert can_pack(make(LlamaConfig(**small)))
    assert not can_pack(make(LlamaConfig(**small), attn_implementation="eager"))
    assert not can_pack(make(MistralConfig(**small, sliding_window=4)))
