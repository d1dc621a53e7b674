"""What PolyCodeTrainer overrides in TRL is private there: names and signatures as in the pinned version."""

import inspect

import pytest
from trl import GRPOConfig, GRPOTrainer

from lib.gmpo.config import PolyCodeConfig
from lib.gmpo.trainer import PolyCodeTrainer

# name: the parameters in TRL, and what to look at when an upgrade changes them.
HOOKS = {
    "_calculate_rewards": (
        ("inputs", "prompts", "completions", "completion_ids_list"),
        "returns rewards of all processes, (rows, functions): `_advantages` takes this process's rows from them",
    ),
    "_generate_and_score_completions": (
        ("inputs",),
        "returns rows with groups side by side, and the keys prompt_ids, prompt_mask, completion_ids, completion_mask, "
        "advantages and sometimes old_per_token_logps, ref_per_token_logps; `_logs['advantages']` is filled in it",
    ),
    "_prepare_inputs": (
        ("generation_batch",),
        "shuffles rows and splits them into steps_per_generation passes (`_buffered_inputs`); `_step` counts passes",
    ),
    "_compute_loss": (("model", "inputs"), "the loss is divided by current_gradient_accumulation_steps"),
    "log": (("logs", "start_time"), "adds the means of `_metrics['train']` and empties it"),
    "_save_checkpoint": (("model", "trial"), "writes output_dir/checkpoint-STEP with trainer_state.json last"),
    "_load_optimizer_and_scheduler": (("checkpoint",), "is called once in a resumed training, with the folder"),
}
LOG_PROBS = ("model", "input_ids", "attention_mask", "logits_to_keep", "batch_size", "compute_entropy")


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_has_the_parameters_it_is_overridden_for(name: str) -> None:
    parameters, look_at = HOOKS[name]
    theirs = tuple(inspect.signature(getattr(GRPOTrainer, name)).parameters)[1:]
    assert theirs == parameters, f"TRL changed {name}: {look_at}"
    assert name in vars(PolyCodeTrainer)


def test_log_probabilities_are_asked_for_as_before() -> None:
    """The overridden method passes what it is given on to this one."""
    names = tuple(inspect.signature(GRPOTrainer._full_logits_logps).parameters)[1:]
    asked = inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters
    assert names[: len(LOG_PROBS)] == LOG_PROBS and {"model", "batch_size"} <= set(asked), (
        "TRL changed _get_per_token_logps_and_entropies, which returns (log-probabilities, entropies, aux loss)"
    )


def test_every_private_method_that_is_overridden_is_listed() -> None:
    theirs = {
        name for name in vars(PolyCodeTrainer) if callable(vars(PolyCodeTrainer)[name]) and hasattr(GRPOTrainer, name)
    }
    assert theirs - {"__init__", "__doc__"} == {*HOOKS, "_get_per_token_logps_and_entropies"}


def test_names_do_not_hide_trl_s() -> None:
    import trl.experimental.gmpo as theirs

    ours = {PolyCodeTrainer.__name__.lower(), PolyCodeConfig.__name__.lower()}
    assert not ours & {name.lower() for name in dir(theirs)}
    added = set(vars(PolyCodeConfig)["__annotations__"]) - {
        "num_iterations",
        "disable_dropout",
        "logging_steps",
        "logging_nan_inf_filter",
    }
    assert not added & set(GRPOConfig.__dataclass_fields__), "a field of ours means something else in TRL"
