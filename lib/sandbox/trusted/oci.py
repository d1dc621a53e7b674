"""Start the confined processes of the sandbox in containers, for those who have an engine: podman or docker.

    with Sandbox(container=True) as sandbox:
        sandbox.execute("julia", source, cases)

One image per language is built from its manifest, once: a base with a fixed digest, packages with fixed versions. That
is the only moment with a network. A worker or launcher then runs in a container with no network, no capabilities, no
new privileges, a read-only root, a user id of its own, scratch on a tmpfs, and limits on processes, memory and
processors. In it, it confines and measures programs as it does without one, so that verdicts are the same.
"""

import functools
import hashlib
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

from lib.sandbox import languages
from lib.sandbox.confine.confinement import SCRATCH_BYTES
from lib.sandbox.verdict import SandboxError, one_line

# Debian 12, whose packages have the versions that the manifests name.
BASE = "debian:12-slim@sha256:d5d3f9c23164ea16f31852f95bd5959aad1c5e854332fe00f7b3a20fcc9f635c"
ENGINES = ("podman", "docker")
SCRATCH = "/work"  # in a container
READABLE = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/opt", "/proc")
LIBRARY, PYTHON_PATH, CONTROL = "/opt/workbook/lib", "/opt/workbook/python", "/opt/workbook/control"
_OF_ENGINE = re.compile(r"PATH|HOME|TMPDIR|XDG_\w+|DOCKER_\w+|CONTAINERS?_\w+")  # variables that engines read
_BUILD_S = 1800
_building = threading.Lock()


@functools.cache
def engine() -> str | None:
    """The first engine that answers, None where there is none."""
    for name in ENGINES:
        if shutil.which(name) and _answers(name):
            return name
    return None


def _answers(name: str) -> bool:
    try:
        return subprocess.run([name, "info"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def describe() -> str:
    """What `doctor` says of container engines."""
    found = engine()
    if found:
        return f"{found} answers"
    installed = [name for name in ENGINES if shutil.which(name)]
    return f"{installed[0]} is installed but does not answer" if installed else "no podman, no docker"


def needed_engine() -> str:
    """The engine to use. Raises SandboxError where none answers."""
    found = engine()
    if found is None:
        raise SandboxError(f"no container engine: {describe()}")
    return found


def base() -> str:
    """The image that all others start from: BASE, or another one of the same release that WORKBOOK_BASE_IMAGE names."""
    return os.environ.get("WORKBOOK_BASE_IMAGE", BASE)


def containerfile(language: languages.Language) -> str:
    """What an image is made of: Python, which the launcher needs, and what the language's install lines name."""
    python = languages.load("python")
    lines = [*python.install.splitlines(), *language.install.splitlines()]
    versions = python.packages | language.packages
    install = " && ".join(dict.fromkeys(_with_versions(line, versions) for line in lines))
    return (
        f"FROM {base()}\n"
        "ENV DEBIAN_FRONTEND=noninteractive\n"
        "RUN echo 'APT::Install-Recommends false;' > /etc/apt/apt.conf.d/90-workbook\n"
        f"RUN apt-get update && {install} && rm -rf /var/lib/apt/lists/*\n"
    )


def _with_versions(line: str, versions: dict[str, str]) -> str:
    return re.sub(
        r"(?<=\s)[\w.+-]+(?=\s|$)", lambda word: "=".join([word[0], *filter(None, [versions.get(word[0])])]), line
    )


@functools.cache
def image(name: str) -> str:
    """The tag of a language's image, which is built where it is not there. Raises SandboxError when it cannot be."""
    command, text = needed_engine(), containerfile(languages.load(name))
    tag = f"workbook-{name}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    with _building:
        if subprocess.run([command, "image", "inspect", tag], capture_output=True).returncode == 0:
            return tag
        built = subprocess.run(
            [command, "build", "--tag", tag, "-"], input=text, text=True, capture_output=True, timeout=_BUILD_S
        )
    if built.returncode != 0:
        raise SandboxError(f"{command} cannot build the image for {name}: {one_line(built.stderr[-300:])}")
    return tag


def run_command(engine_name: str, uid: int, python_path: str) -> list[str]:
    """The words that start a container; its memory, its folder for the control socket, image and command follow."""
    return [
        engine_name,
        "run",
        "--rm",
        "--network=none",
        "--ipc=none",
        "--read-only",
        *(["--read-only-tmpfs=false"] if engine_name == "podman" else []),
        f"--tmpfs={SCRATCH}:rw,exec,nosuid,nodev,size={SCRATCH_BYTES},mode=1777",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--security-opt=label=disable",  # SELinux would keep the container from its control socket
        f"--user={uid}:{uid}",
        "--pids-limit=128",
        "--cpus=1",
        "--ulimit=core=0:0",
        "--ulimit=nofile=1024:1024",
        "--ulimit=nproc=1024:1024",
        f"--volume={Path(__file__).parents[2]}:{LIBRARY}:ro",
        f"--volume={python_path}:{PYTHON_PATH}:ro",
        f"--workdir={SCRATCH}",
    ]


def settings(uid: int, python_path: str) -> dict[str, object]:
    """What a grader needs to start containers whose processes are the user `uid`. Raises SandboxError."""
    return {
        "command": run_command(needed_engine(), uid, python_path),
        "environment": {name: value for name, value in os.environ.items() if _OF_ENGINE.fullmatch(name)},
        "lib": LIBRARY,
        "control": CONTROL,
    }
