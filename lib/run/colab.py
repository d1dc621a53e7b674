"""What the first cell of a notebook does on Colab: the pinned packages around Colab's own torch, and runs/ on Drive.

Imported before anything is installed, so from the standard library alone. What Colab's own kernel stands on (everything
that the package google-colab requires, directly or not) and torch with its companions keep the versions that Colab gave
them: replaced under a running kernel, they break it.
"""

import importlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from lib.base.errors import WorkbookError
from lib.base.files import ROOT

PYTHON = ((3, 11), (3, 12))  # first and last that pyproject.toml admits
TORCH = ((2, 4), (2, 15))  # from 2.4: transformers, bitsandbytes, unsloth; below 2.15: unsloth
TORCHES = ("torch", "torchvision", "torchaudio")
VLLM_TORCH = "2.13.0"  # the only one that the pinned vLLM accepts
LEFT_OUT = {"jupyterlab", "pytest", "hypothesis", "nbval", "playwright", "ruff", "mypy"}  # for a machine of one's own
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
Requires = Callable[[str], Iterable[str]]


class ColabError(WorkbookError):
    """A runtime that cannot be made ready; the message says why and what would be right."""


# ------------------------------------------------------------------------------------------------------ pure functions


def refused(python: tuple[int, int], torch: str) -> str:
    """Return why this Python or torch cannot be used, "" when both can; `torch` is "" where there is none."""
    if not PYTHON[0] <= python <= PYTHON[1]:
        wanted = " or ".join(".".join(map(str, version)) for version in PYTHON)
        return (
            f"Python {python[0]}.{python[1]}: this workbook needs {wanted}; Runtime > Change runtime type offers others"
        )
    if torch and not TORCH[0] <= release(torch) < TORCH[1]:
        low, high = (".".join(map(str, version)) for version in TORCH)
        return (
            f"torch {torch}: unsloth needs at least {low} and less than {high}; "
            "Runtime > Change runtime type offers others"
        )
    return ""


def release(version: str) -> tuple[int, int]:
    """(major, minor) of a version such as 2.9.0+cu126."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])  # type: ignore[return-value]


def name_of(requirement: str) -> str:
    """The package that a requirement line names, normalised; "" for a comment or an empty line."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def kept(installed: Mapping[str, str], requires: Requires) -> dict[str, str]:
    """Return {package: version} of what must stay: torch, its companions, and all that google-colab requires."""
    stays = {name: installed[name] for name in TORCHES if name in installed}
    waiting = ["google-colab"] if "google-colab" in installed else []
    while waiting:
        for line in requires(waiting.pop()):
            name = name_of(line)
            if "extra ==" not in line and name in installed and name not in stays:
                stays[name] = installed[name]
                waiting.append(name)
    return stays


def wanted(lines: Iterable[str], stays: Mapping[str, str]) -> list[str]:
    """Return the requirements of `lines` to install: without what stays as it is and what Colab has no use for."""
    names = {name_of(line): line.split("#")[0].strip() for line in lines}
    return [line for name, line in names.items() if name and name not in stays and name not in LEFT_OUT]


def missing(requirements: Iterable[str], installed: Mapping[str, str]) -> list[str]:
    """The "name==version" requirements that are not installed in that version."""
    return [line for line in requirements if installed.get(name_of(line)) != line.partition("==")[2]]


def constraints(lock: Iterable[str], stays: Mapping[str, str]) -> list[str]:
    """The tested versions, but for what stays, which is pinned to what it is."""
    return [f"{name}=={version}" for name, version in sorted(stays.items())] + wanted(lock, stays)


def without_vllm(torch: str) -> str:
    """Why vLLM is left out beside this torch; "" where it may come."""
    if torch.partition("+")[0] == VLLM_TORCH:
        return ""
    return (
        f"vLLM is left out: it needs torch {VLLM_TORCH} and here is {torch or 'none'}; "
        "sampling goes through transformers"
    )


# ---------------------------------------------------------------------------------------------------------- the runtime


def setup() -> None:
    """Install what is missing; where Drive is mounted, runs/ lies on it. Does nothing a second time.

    Raises ColabError for a Python or torch that cannot be used, a failed installation, a loaded package that was
    replaced, or a runs/ folder that is in the way.
    """
    before = installed_versions()
    torch = before.get("torch", "")
    reason = refused(sys.version_info[:2], torch)
    if reason:
        raise ColabError(reason)
    drive = ROOT.parent / "drive" / "MyDrive"
    if drive.is_dir():
        link_runs(ROOT, drive / "workbook" / "runs")
    elif "MyDrive" not in ROOT.parts:
        print("runs/ ends with this machine; to keep it, mount Drive (folder icon on the left) and run this cell again")
    stays = kept(before, _requires)
    print(f"kept as they are: torch {torch or '(none)'} and {len(stays)} packages that Colab's kernel needs")
    install(stays, before, torch)
    replaced = {name for name, version in installed_versions().items() if before.get(name, version) != version}
    owners = importlib.metadata.packages_distributions() if replaced else {}
    loaded = replaced & {name_of(owner) for module in owners.keys() & sys.modules.keys() for owner in owners[module]}
    if loaded:
        raise ColabError(
            f"{', '.join(sorted(loaded))}: replaced after being loaded; "
            "Runtime > Restart session, then run this cell again"
        )


def install(stays: Mapping[str, str], installed: Mapping[str, str], torch: str) -> None:
    """pip, for what is missing: requirements.txt with dependencies, then those that go without."""
    lists = ["requirements.txt"]
    if shutil.which("nvidia-smi"):
        lists.append("requirements-gpu.txt")
    lines = [line for name in lists for line in read(name)]
    reason = without_vllm(torch)
    if reason and "requirements-gpu.txt" in lists:
        print(reason)
        lines = [line for line in lines if name_of(line) != "vllm"]
    first = missing(wanted(lines, stays), installed)
    second = missing(wanted(read("requirements-nodeps.txt"), stays), installed)
    print(f"{len(first) + len(second)} packages to install" if first or second else "nothing to install")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
        pins.write("\n".join(constraints(read("requirements-lock.txt"), stays)) + "\n")
        pins.flush()
        if first:
            pip("--constraint", pins.name, *first)
    if second:
        pip("--no-deps", *second)


def pip(*arguments: str) -> None:
    """One pip install in this Python. Raises ColabError with pip's last error."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[
            -1:
        ]
        raise ColabError(f"pip: {errors[0] if errors else f'exit status {done.returncode}'}")


def link_runs(root: Path, target: Path) -> None:
    """Make root/runs a link to `target`, so that every run folder outlives the machine."""
    runs = root / "runs"
    target.mkdir(parents=True, exist_ok=True)
    if runs.is_symlink() and Path(os.readlink(runs)) == target:
        return
    if runs.is_symlink() or runs.exists():
        raise ColabError(f"{runs}: is there and not on Drive; move what it holds to {target} and delete it")
    runs.symlink_to(target, target_is_directory=True)
    print(f"runs/ is {target}: a finished stage is not repeated after a disconnect")


def addressed(text: str, address: str) -> str:
    """Return a notebook or page with `address`, the repository's, in the badge and in the command that clones it."""
    owner_and_name = address.removeprefix("https://github.com/")
    text = re.sub(r"(colab\.research\.google\.com/github/)[\w.-]+/[\w.-]+", rf"\g<1>{owner_and_name}", text)
    return re.sub(r"(git clone -q )https://[^\s`\"]+", rf"\g<1>{address}", text)


def address() -> str:
    """Return the repository's address, which CITATION.cff holds."""
    found = re.search(r'^repository-code: "(.+?)/?"', "\n".join(read("CITATION.cff")), re.MULTILINE)
    if found is None:
        raise ColabError("CITATION.cff: no repository-code; a line such as https://github.com/OWNER/NAME is expected")
    return found[1]


def read(name: str) -> list[str]:
    """The lines of one of the repository's own files."""
    return (ROOT / name).read_text(encoding="utf-8").splitlines()


def installed_versions() -> dict[str, str]:
    """{normalised name: version} of every installed package; of two copies, the one that is imported."""
    importlib.invalidate_caches()
    found: dict[str, str] = {}
    for package in importlib.metadata.distributions():
        found.setdefault(name_of(package.metadata["Name"] or ""), package.version)
    return found


def _requires(name: str) -> list[str]:
    try:
        return importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def with_badge(notebook: str, place: str, address: str) -> str:
    """Return a notebook's text with a badge that opens it, `place` in the repository, at the end of its first cell."""
    if BADGE in notebook:
        return notebook
    book = json.loads(notebook)
    link = f"https://colab.research.google.com/github/{address.removeprefix('https://github.com/')}/blob/main/{place}"
    book["cells"][0]["source"][-1] += "\n"
    book["cells"][0]["source"] += ["\n", f"[![Open in Colab]({BADGE})]({link})"]
    return json.dumps(book, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for page in [*sorted((ROOT / "notebooks").rglob("*.ipynb")), ROOT / "docs" / "colab.md"]:
        text = addressed(page.read_text(encoding="utf-8"), address())
        if page.suffix == ".ipynb":
            text = with_badge(text, page.relative_to(ROOT).as_posix(), address())
        page.write_text(text, encoding="utf-8")
