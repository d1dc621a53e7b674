"""Run the attack corpus in this process's own mode and print what came of it, as JSON.

    python tests/attack_runner.py [name…]

Each attack is followed by a right and a wrong program, whose verdicts must be what they always are.
"""

import concurrent.futures
import json
import os
import re
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.sandbox import (  # noqa: E402
    Sandbox,
    Verdict,
    probe,  # noqa: E402
)
from lib.tasks.task import Case, Task  # noqa: E402

FOLDER = Path(__file__).resolve().parent / "attacks"
DEFAULT_TESTS = ("assert f(2) == 4", "assert f(3) == 9")
LIMIT_S = 0.4


def function_task(tests: tuple[str, ...]) -> Task:
    """The task every attack is an answer to."""
    return Task(
        "attack",
        "attacks",
        "test",
        "f",
        "en",
        "python",
        "function",
        "f",
        tests,
        time_limit_s=LIMIT_S,
        memory_limit_mb=256,
    )


def header(source: str, key: str) -> list[str]:
    """The values of `# key: value` lines."""
    return re.findall(rf"^(?:#|--|!) {key}: (.*)$", source, re.MULTILINE)


def run(sandbox: Sandbox, name: str, secret: Path, port: int) -> dict[str, object]:
    """One attack, then the two programs that show the harness is well."""
    source = (FOLDER / f"{name}.attack").read_text()
    tests = tuple(line.replace("SECRET", repr(str(secret))) for line in header(source, "test"))
    source = source.replace("SECRET", str(secret)).replace("PORT", str(port))
    started = time.monotonic()
    if tests and tests[0].startswith("case:"):
        given, _, wanted = tests[0].removeprefix("case:").partition("->")
        language = header(source, "language")
        case = Case(given.strip() + "\n", wanted.strip() + "\n")
        verdict = sandbox.execute(language[0] if language else "python", source, [case], LIMIT_S, 256)
        right, wrong = (sandbox.execute("python", f"print(int(input()) * {k})", [case], 2.0, 256) for k in (2, 3))
        healthy = wanted.strip() != "6" or (right.status, wrong.status) == ("success", "wrong-output")
    else:
        verdict = sandbox.grade(function_task(tests or DEFAULT_TESTS), source)
        healthy = _healthy(sandbox, name)
    return {
        "status": verdict.status,
        "failure": verdict.failure,
        "healthy": healthy,
        "seconds": time.monotonic() - started,
    }


def run_all(names: list[str], secret: Path, port: int) -> dict[str, dict[str, object]]:
    """Run attacks one after another in one worker, so that each meets what the last one left."""
    with Sandbox(workers=1) as sandbox:
        return {name: run(sandbox, name, secret, port) for name in names}


def _healthy(sandbox: Sandbox, name: str) -> bool:
    """Fresh programs (the comment defeats the cache), one right, one wrong."""
    task = function_task(DEFAULT_TESTS)
    right: Verdict = sandbox.grade(task, f"def f(x):\n    print('hi')\n    return x * x  # after {name}")
    wrong: Verdict = sandbox.grade(task, f"def f(x):\n    return x + x  # after {name}")
    return (right.status, right.stdout_head, wrong.status, wrong.passed) == ("success", "hi\n" * 2, "wrong-output", 1)


def main() -> None:
    """Run the attacks named, or all."""
    names = sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.attack"))
    os.environ["SANDBOX_TEST_SECRET"] = "the secret"
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        os.chmod(folder, 0o755)
        secret = Path(folder) / "secret.txt"
        secret.write_text("the secret")
        secret.chmod(0o644)
        before = secret.stat()
        threading.Thread(target=_serve_secret, args=(server,), daemon=True).start()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            halves = pool.map(lambda half: run_all(half, secret, server.getsockname()[1]), (names[::2], names[1::2]))
            results = {name: result for half in halves for name, result in half.items()}
        mode = probe().mode
        after = secret.stat()
        untouched = (
            secret.read_text() == "the secret"
            and (before.st_mode, before.st_mtime) == (after.st_mode, after.st_mtime)
            and os.listdir(folder) == ["secret.txt"]
        )
    print(json.dumps({"mode": mode, "untouched": untouched, "results": results}))


def _serve_secret(server: socket.socket) -> None:
    while True:
        channel, _ = server.accept()
        channel.sendall(b"secret")
        channel.close()


if __name__ == "__main__":
    main()
