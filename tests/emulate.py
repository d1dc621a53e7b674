"""Run a Python command as if this machine were a weaker one.

    python tests/emulate.py B [no-landlock] -- script.py arguments…

B: container root. Root keeps what Docker leaves it and no CAP_SYS_ADMIN; unshare and setns are refused.
C: plain user. Another user id, no capabilities; unshare and setns are refused.
A: plain user whose kernel lets users make namespaces.
All need root here. The interpreter, its packages and the repository are bound to a folder every user may read.
"""

import os
import struct
import sys
import sysconfig
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from lib.sandbox.confine import linux as kernel  # noqa: E402
from lib.sandbox.confine import seccomp  # noqa: E402

DOCKER_CAPABILITIES = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)
PLAIN_USER = 65534


def main() -> None:
    """Become the weaker machine and exec the command there."""
    mode, command = sys.argv[1], sys.argv[sys.argv.index("--") + 1 :]
    home = _visible_copy()
    if mode in ("A", "C"):
        os.setgroups([])
        os.setresgid(PLAIN_USER, PLAIN_USER, PLAIN_USER)
        os.setresuid(PLAIN_USER, PLAIN_USER, PLAIN_USER)
        kernel.drop_capabilities()
    else:
        kernel.drop_capabilities(sum(1 << number for number in DOCKER_CAPABILITIES))
    if mode != "A":
        kernel.install_filter(seccomp.no_namespaces_filter())
    if "no-landlock" in sys.argv:
        kernel.install_filter(_no_landlock_filter())
    python = f"{home}/python/bin/{os.path.basename(os.path.realpath(sys.executable))}"
    path = f"{home}/repository:{home}/packages"
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    if sysconfig.get_config_var(
        "Py_ENABLE_SHARED"
    ):  # its libpython lies where the interpreter was built to look, behind /root perhaps
        environment["LD_LIBRARY_PATH"] = f"{home}/python/lib"
    os.chdir(f"{home}/repository")
    os.execve(python, [python, *command], environment)


def _visible_copy() -> str:
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    home = tempfile.gettempdir() + "/sandbox-emulation"
    os.makedirs(home, exist_ok=True)
    kernel.mount("tmpfs", home, "tmpfs", 0, "mode=755")
    sources = {"python": sys.base_prefix, "packages": sysconfig.get_path("purelib"), "repository": str(REPOSITORY)}
    for name, source in sources.items():
        os.mkdir(f"{home}/{name}")
        kernel.mount(source, f"{home}/{name}", None, kernel.MS_BIND | kernel.MS_REC)
    return home


def _no_landlock_filter() -> bytes:
    """Landlock's calls answer as on a kernel without it."""
    load, equal, give = 0x20, 0x15, 0x06
    steps = [struct.pack("HBBI", load, 0, 0, 0)]
    for number in (444, 445, 446):
        steps += [struct.pack("HBBI", equal, 0, 1, number), struct.pack("HBBI", give, 0, 0, 0x50000 | 38)]
    return b"".join([*steps, struct.pack("HBBI", give, 0, 0, 0x7FFF0000)])


if __name__ == "__main__":
    main()
