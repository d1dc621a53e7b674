"""Run programs in containers, for those who have an engine: podman or docker.

    with ContainerSandbox() as sandbox:
        sandbox.execute("julia", source, cases)

One image a language is built from its manifest's install lines, once; building is the only moment with a network. A
program then gets a container with no network, a read-only root, a small tmpfs, no capabilities, no new privileges, a
user of its own, and limits on processes, memory and CPU. It starts in a few tenths of a second: where a toolchain is
installed, the sandbox without an engine is faster and no weaker.
"""

import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.sandbox import languages
from lib.sandbox.confine.limits import wall_limit
from lib.sandbox.trusted.outputs import same_output
from lib.sandbox.trusted.programs import OUTPUT_BYTES
from lib.sandbox.verdict import SandboxError, Status, Verdict, head, one_line
from lib.tasks.task import Case

BASE = "docker.io/library/debian:12-slim"
ENGINES = ("podman", "docker")
_BUILD_S = 1800
_USER = "65534:65534"


@functools.cache
def engine() -> str | None:
    """The first engine that answers, None where there is none."""
    for name in ENGINES:
        if shutil.which(name) and _answers(name):
            return name
    return None


def _answers(name: str) -> bool:
    try:
        return subprocess.run([name, "info"], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def describe() -> str:
    """What `doctor` says of container engines."""
    found = engine()
    if found:
        return f"{found} answers"
    installed = [name for name in ENGINES if shutil.which(name)]
    return f"{installed[0]} is installed but does not answer" if installed else "no podman, no docker"


def containerfile(language: languages.Language) -> str:
    """The image of a language: its install lines on Debian, and nothing else."""
    install = " && ".join(line for line in language.install.strip().splitlines() if line.strip())
    return (
        f"FROM {BASE}\n"
        f"RUN apt-get update && {install} && rm -rf /var/lib/apt/lists/*\n"
        "ENV LANG=C.UTF-8 LC_ALL=C.UTF-8 TZ=UTC PYTHONHASHSEED=0 HOME=/work TMPDIR=/work\n"
        "WORKDIR /work\n"
    )


def run_command(
    engine_name: str, image: str, name: str, command: str, cpu_s: float, memory_mb: int, folder: str
) -> list[str]:
    """The argument list that runs one command in a fresh container, `folder` being its only writable place."""
    seconds = int(cpu_s) + 1
    return [
        engine_name,
        "run",
        "--rm",
        "--interactive",
        f"--name={name}",
        "--network=none",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        f"--user={_USER}",
        "--pids-limit=64",
        f"--memory={memory_mb}m",
        f"--memory-swap={memory_mb}m",
        "--cpus=1",
        f"--ulimit=cpu={seconds}:{seconds}",
        f"--ulimit=fsize={OUTPUT_BYTES}:{OUTPUT_BYTES}",
        "--ulimit=core=0:0",
        "--ulimit=nofile=1024:1024",
        "--tmpfs=/tmp:size=64m",
        f"--volume={folder}:/work:rw",
        image,
        "sh",
        "-c",
        f"exec {command}",
    ]


class ContainerSandbox:
    """Program mode over a container engine. Raises SandboxError where none answers."""

    def __init__(self, compare: str = "exact") -> None:
        found = engine()
        if found is None:
            raise SandboxError(f"no container engine: {describe()}")
        self.engine, self.compare = found, compare
        self._folder = tempfile.TemporaryDirectory(prefix="sandbox-oci-")
        self._count = 0

    def __enter__(self) -> "ContainerSandbox":
        return self

    def __exit__(self, *details: object) -> None:
        self._folder.cleanup()

    def image(self, language: languages.Language) -> str:
        """The image of a language, built when its install lines have changed or it is not there."""
        text = containerfile(language)
        tag = f"workbook-{language.name}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        if subprocess.run([self.engine, "image", "inspect", tag], capture_output=True).returncode != 0:
            built = subprocess.run(
                [self.engine, "build", "--tag", tag, "-"], input=text, text=True, capture_output=True, timeout=_BUILD_S
            )
            if built.returncode != 0:
                raise SandboxError(
                    f"{self.engine} cannot build the image for {language.name}: {one_line(built.stderr[-300:])}"
                )
        return tag

    def execute(
        self, language: str, source: str, cases: Sequence[Case], time_limit_s: float = 5.0, memory_limit_mb: int = 512
    ) -> Verdict:
        """Compile once, run every case, compare; as `Sandbox.execute`."""
        manifest = languages.load(language)
        image = self.image(manifest)
        folder = tempfile.mkdtemp(dir=self._folder.name)
        os.chmod(folder, 0o777)
        Path(folder, f"main.{manifest.file_ext}").write_text(source, encoding="utf-8", errors="surrogatepass")
        commands = [line for line in (manifest.compile, manifest.run) if line]
        row: dict[str, Any] = {"status": Status.SUCCESS, "passed": 0, "failure": "", "commands": commands}
        if manifest.compile:
            built = self._run(image, manifest.compile, "", 30.0, 2048, folder)
            if built["status"] != Status.SUCCESS:
                row |= built | {"status": Status.COMPILE_ERROR}
                return self._verdict(row, len(cases))
        for case in cases:
            ran = self._run(
                image, manifest.run, case.input, time_limit_s, memory_limit_mb + manifest.reserve_mb, folder
            )
            self._judge(row, ran, case)
        return self._verdict(row, len(cases))

    def _judge(self, row: dict[str, Any], ran: dict[str, Any], case: Case) -> None:
        if ran["status"] == Status.SUCCESS and not same_output(ran["out"], case.output.encode(), self.compare):
            ran |= {
                "status": Status.WRONG_OUTPUT,
                "failure": one_line(f"got {ran['stdout_head']!r}, expected {case.output!r}"),
            }
        if ran["status"] == Status.SUCCESS:
            row["passed"] += 1
        elif row["status"] == Status.SUCCESS:
            row.update(ran)

    def _run(self, image: str, command: str, stdin: str, cpu_s: float, memory_mb: int, folder: str) -> dict[str, Any]:
        self._count += 1
        name = f"workbook-{os.getpid()}-{self._count}"
        arguments = run_command(self.engine, image, name, shlex.join(shlex.split(command)), cpu_s, memory_mb, folder)
        try:
            done = subprocess.run(arguments, input=stdin.encode(), capture_output=True, timeout=wall_limit(cpu_s))
        except subprocess.TimeoutExpired:
            subprocess.run([self.engine, "kill", name], capture_output=True)
            return {"status": Status.TIMEOUT, "failure": f"took {wall_limit(cpu_s):g} s of wall time", "out": b""}
        status = _STATUS_OF_EXIT.get(done.returncode, Status.RUNTIME_ERROR) if done.returncode else Status.SUCCESS
        return {
            "status": status,
            "failure": ""
            if status == Status.SUCCESS
            else f"exit code {done.returncode}: {one_line(done.stderr[-200:].decode('utf-8', 'replace'))}",
            "exit_code": done.returncode,
            "stdout_head": head(done.stdout),
            "stderr_head": head(done.stderr),
            "out": done.stdout,
        }

    def _verdict(self, row: dict[str, Any], total: int) -> Verdict:
        row.pop("out", None)
        return Verdict.from_row({**row, "total": total, "sandbox_mode": self.engine})


_STATUS_OF_EXIT = {
    128 + 24: Status.TIMEOUT,
    128 + 25: Status.OUTPUT_LIMIT,
    128 + 9: Status.MEMORY,
}  # SIGXCPU, SIGXFSZ, SIGKILL
