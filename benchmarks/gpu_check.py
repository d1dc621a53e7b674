"""Does each piece that needs a GPU work on this one? A table with a line a piece; not a measurement of speed.

    python benchmarks/gpu_check.py [--model MODEL] [--only PIECE …] [--quick] [--json]

Each piece runs in a process of its own, so that one that dies or fills the memory spoils no other. Without a CUDA
device, or without a package that a piece needs, its line says "skipped" and why; a piece that fails makes the exit
code 1. --quick leaves out the engines, which take a minute each to start.
"""

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import show  # noqa: E402

LIMIT_S = 900.0
Row = dict[str, Any]


# ---------------------------------------------------------------------------------- the pieces: what was seen, in words
# Each takes the model and a scratch folder, and raises when something is not as it should be.


def device(model: str, folder: Path) -> str:
    """A product in the precision that training will use, against the same in fp64."""
    import torch

    from lib.models.precision import precision, torch_dtype

    a, b = torch.randn(2, 512, 512, device="cuda", dtype=torch.float64).unbind()
    dtype = torch_dtype()
    error = float(((a.to(dtype) @ b.to(dtype)).double() - a @ b).abs().max() / (a @ b).abs().max())
    check(error < 0.05, f"a product in {precision()} is off by {error:.2g}")
    gpu = torch.cuda.get_device_properties(0)
    return f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, compute capability {gpu.major}.{gpu.minor}, {precision()}"


def same_hash(model: str, folder: Path) -> str:
    """The seeded noise of sampling: its bits, and what is drawn with them, on the CPU and on the GPU."""
    import torch

    from lib.sampling import SamplingParams
    from lib.sampling.draw import draw, hash_words, seed_words

    seeds, steps, ids = seed_words([3**n for n in range(64)][:39]), torch.arange(39).int(), torch.arange(151_936)[None]
    on_gpu = hash_words(seeds.cuda(), steps.cuda(), ids.cuda()).cpu()
    check(torch.equal(hash_words(seeds, steps, ids), on_gpu), "the hash differs between CPU and GPU")
    logits = torch.randn(39, 151_936, generator=torch.Generator().manual_seed(0)) * 4
    for params in (SamplingParams(0.8, 0.95), SamplingParams(1.0, 1.0), SamplingParams(0.0)):
        here, _ = draw(logits, seeds, steps, params)
        there, _ = draw(logits.cuda(), seeds.cuda(), steps.cuda(), params)
        check(torch.equal(here, there.cpu()), f"{int((here != there.cpu()).sum())} of 39 draws differ at {params}")
        alone, _ = draw(logits[5:6].cuda(), seeds[5:6].cuda(), steps[5:6].cuda(), params)
        check(torch.equal(alone, there[5:6]), f"a row alone draws another token at {params}")
    return f"{on_gpu.numel()} words equal, 117 draws equal"


def sampling(model: str, folder: Path) -> str:
    """512 samples of up to 96 tokens by our engine and by plain `generate`, the same prompts, in tokens/s."""
    import torch
    from transformers import AutoModelForCausalLM

    from lib.models.resolve import resolve
    from lib.sampling import SamplingParams, open_engine, sample
    from lib.tasks.prompts import build_prompt
    from lib.tasks.task import read_tasks

    each, engine = 16, open_engine(model, engine="transformers")
    tasks = [task for task in read_tasks(ROOT / "data" / "starter_bn.jsonl") if task.mode == "function"][:32]
    prompts = [build_prompt(task, engine.tokenizer) for task in tasks]
    rates: dict[str, list[float]] = {"top-p 0.95": [], "top-p 1": [], "generate": []}
    for params in (SamplingParams(0.8, 0.95, 96), SamplingParams(0.8, 1.0, 96)):
        for seed in range(2):
            torch.cuda.synchronize()
            started = time.perf_counter()
            drawn = sample(engine, prompts, each, params, seed)
            tokens = sum(completion.n_tokens for row in drawn for completion in row)
            rates[f"top-p {params.top_p:g}"].append(tokens / (time.perf_counter() - started))
    engine.close()
    plain = AutoModelForCausalLM.from_pretrained(resolve(model), dtype=torch.bfloat16).cuda().eval()
    tokenizer = engine.tokenizer
    tokenizer.padding_side = "left"
    batch = tokenizer([p.text for p in prompts], add_special_tokens=False, padding=True, return_tensors="pt").to("cuda")
    pad = tokenizer.pad_token_id
    for _ in range(2):
        torch.cuda.synchronize()
        started = time.perf_counter()
        drawing = {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "top_k": 0, "num_return_sequences": each}
        output = plain.generate(**batch, **drawing, max_new_tokens=96, pad_token_id=pad)
        tokens = int((output[:, batch["input_ids"].shape[1] :] != pad).sum())
        rates["generate"].append(tokens / (time.perf_counter() - started))
    said = ", ".join(f"{name} {' and '.join(f'{rate:.0f}' for rate in some)}" for name, some in rates.items())
    check(max(rates["top-p 0.95"]) >= max(rates["generate"]), f"slower than generate: {said} tokens/s")
    return f"{len(prompts) * each} samples: {said} tokens/s"


def sft(model: str, folder: Path, weights: str = "16bit") -> str:
    """Three steps through Unsloth on the starter tasks' references, the state of AdamW in 8 bits."""
    import unsloth  # noqa: F401, I001  # before transformers, which it patches
    from transformers import AutoTokenizer

    from lib.models.resolve import resolve
    from lib.sandbox import Sandbox
    from lib.training.sft import SftSettings, examples, train
    from lib.tasks.task import by_split, read_tasks
    from lib.training.training_set import references

    tasks = by_split(read_tasks(ROOT / "data" / "starter_bn.jsonl"), "train")[:16]
    tokenizer = AutoTokenizer.from_pretrained(resolve(model))
    with Sandbox() as sandbox:
        rows = examples(references(tasks, tokenizer, sandbox)[0], tasks, tokenizer)
    sizes = {"steps": 3, "batch_size": 4, "lora_rank": 8, "lora_alpha": 16}
    settings = SftSettings(**sizes, base_weights=weights)  # type: ignore[arg-type]
    done = train(model, rows, folder / "adapter", settings)
    check(done["optimizer_state"] == ["torch.uint8"], f"AdamW's state is {done['optimizer_state']}, not torch.uint8")
    check(0 < done["last_loss"] < 20, f"the loss is {done['last_loss']}")
    losses = f"loss {done['first_loss']:.2f} to {done['last_loss']:.2f}"
    return f"{done['precision']}, AdamW's state {done['optimizer_state'][0]}, {losses}"


def four_bits(model: str, folder: Path) -> str:
    """The same on base weights in 4 bits, and that they are."""
    from lib.training.sft import SftSettings
    from lib.training.sft.trainer import lora_model

    loaded, _ = lora_model(model, SftSettings(base_weights="4bit"))
    layers = sum(type(layer).__name__ == "Linear4bit" for layer in loaded.modules())
    check(layers > 0, "no layer has 4-bit weights")
    del loaded
    return f"{layers} layers in 4 bits; {sft(model, folder, '4bit')}"


def vllm(model: str, folder: Path) -> str:
    """vLLM in this process, without an adapter and with one that has just been trained."""
    from lib.sampling import open_engine

    adapter_from_another_process(model, folder)
    base = answers(open_engine(model, engine="vllm"), model)
    adapted = answers(open_engine(model, str(folder / "adapter"), "vllm"), model)
    check(base != adapted, "the adapter changes no answer")
    changed = sum(a != b for a, b in zip(base, adapted, strict=True))
    return f"{len(base)} greedy answers, {changed} of them changed by the adapter"


def fast_inference(model: str, folder: Path) -> str:
    """The vLLM that Unsloth starts beside its own weights, behind the same engine."""
    from unsloth import FastLanguageModel

    from lib.models.resolve import resolve
    from lib.sampling.vllm import VllmEngine

    loaded, _ = FastLanguageModel.from_pretrained(
        str(resolve(model)), max_seq_length=1024, fast_inference=True, gpu_memory_utilization=0.4
    )
    return f"{len(answers(VllmEngine(model, llm=loaded.vllm_engine), model))} greedy answers from Unsloth's engine"


def gmpo(model: str, folder: Path) -> str:
    """One batch of GMPO with two updates: sampled by the engine that is here, judged in the sandbox."""
    from lib.gmpo.run import run_config, train_gmpo
    from lib.tasks.task import by_split, read_tasks

    adapter_from_another_process(model, folder)
    tasks = by_split(read_tasks(ROOT / "data" / "starter_bn.jsonl"), "train")[:8]
    config = run_config(steps=1, prompts_per_batch=4, group_size=8, max_completion_length=48)
    done = train_gmpo(model, folder / "adapter", folder / "trained", tasks, config)
    check((folder / "trained" / "adapter_model.safetensors").is_file(), "no adapter was saved")
    updates = f"{done['updates']} updates in {done['precision']}"
    return f"{done['completions']} programs, {updates}, reward {done['rewards'][0]:.2f}"


def adapter_from_another_process(model: str, folder: Path) -> None:
    """Train an adapter in a process of its own: Unsloth patches what it is imported beside, and memory comes back."""
    code = f"import sys; sys.path[:0] = {sys.path!r}; import gpu_check, pathlib as p; "
    code += f"gpu_check.sft({model!r}, p.Path({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, cwd=Path(__file__).parent)


def answers(engine: Any, model: str) -> list[str]:
    """Greedy answers to eight starter tasks; none may be empty, and the engine is closed."""
    from lib.sampling import SamplingParams, sample
    from lib.tasks.prompts import build_prompt
    from lib.tasks.task import read_tasks

    try:
        prompts = [build_prompt(task, engine.tokenizer) for task in read_tasks(ROOT / "data" / "starter_bn.jsonl")[:8]]
        texts = [
            drawn[0].text for drawn in sample(engine, prompts, 1, SamplingParams(temperature=0.0, max_new_tokens=48))
        ]
    finally:
        engine.close()
    check(all(texts), "an answer is empty")
    return texts


def check(holds: bool, otherwise: str) -> None:
    """Raise RuntimeError unless something holds."""
    if not holds:
        raise RuntimeError(otherwise)


# ------------------------------------------------------------------------------------------------------------ the table

PIECES: dict[str, tuple[Callable[[str, Path], str], str]] = {  # what checks it, and the package it needs
    "CUDA device and precision": (device, "torch"),
    "seeded noise, CPU and GPU": (same_hash, "torch"),
    "sampling beside generate": (sampling, "transformers"),
    "Unsloth LoRA SFT, AdamW in 8 bits": (sft, "unsloth"),
    "base weights in 4 bits": (four_bits, "bitsandbytes"),
    "GMPO trainer, one batch": (gmpo, "trl"),
    "vLLM engine, base and adapter": (vllm, "vllm"),
    "Unsloth fast inference": (fast_inference, "vllm"),
}
ENGINES = ("vLLM engine, base and adapter", "Unsloth fast inference")


def line(name: str, model: str, cuda: bool, quick: bool) -> Row:
    """One piece's row: the seconds it took and what was seen, or why it was skipped or failed (then 0)."""
    package = PIECES[name][1]
    if not cuda:
        return {"name": name, "value": 0.0, "unit": "skipped: no CUDA device"}
    if importlib.util.find_spec(package) is None:
        return {"name": name, "value": 0.0, "unit": f"skipped: {package} is not installed (requirements-gpu.txt)"}
    if quick and name in ENGINES:
        return {"name": name, "value": 0.0, "unit": "skipped: --quick"}
    started = time.perf_counter()
    command = [sys.executable, __file__, "--piece", name, "--model", model]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
        said = (done.stdout.strip().splitlines() or ["no word"])[-1]
        problem = (
            "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it died without a word"])[-1][:200]
        )
    except subprocess.TimeoutExpired:
        problem = f"not done after {LIMIT_S:.0f} s"
    if problem:
        return {"name": name, "value": 0.0, "unit": f"failed: {problem}"}
    return {"name": name, "value": round(time.perf_counter() - started, 1), "unit": f"s, ok: {said}"}


def has_cuda() -> bool:
    """Whether there is a driver and torch sees a CUDA device; asked in another process, which then lets go of it."""
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return (
        bool(shutil.which("nvidia-smi"))
        and subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
    )


def main() -> None:
    """Print a table, or with --json one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="a model that the GPU can hold (default: embedded)")
    parser.add_argument("--quick", action="store_true", help="without the engines")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else on stdout")
    parser.add_argument(
        "--only", nargs="+", metavar="PIECE", default=list(PIECES), help="pieces whose names hold these words"
    )
    parser.add_argument("--piece", choices=PIECES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.piece:
        with tempfile.TemporaryDirectory() as folder:
            print(PIECES[options.piece][0](options.model, Path(folder)))
        return
    cuda = has_cuda()
    rows = []
    for name in (name for name in PIECES if any(part in name for part in options.only)):
        rows.append(line(name, options.model, cuda, options.quick))
        if not options.json:
            value = f"{rows[-1]['value']:>7.1f} " if rows[-1]["value"] else ""
            print(f"{name:<36} {value}{rows[-1]['unit']}", flush=True)
    if options.json:
        show({"benchmark": "gpu_check", "rows": rows, "ratios": {}}, as_json=True)
    sys.exit(any(row["unit"].startswith("failed") for row in rows))


if __name__ == "__main__":
    main()
