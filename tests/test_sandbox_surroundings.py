"""A program finds around it what this list allows, and nothing else: in every language, in every mode."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lib.sandbox import languages, probe

HERE = Path(__file__).parent
ENVIRONMENT = {"PATH", "LANG", "LC_ALL", "TZ", "PYTHONHASHSEED", "PYTHONUTF8", "OPENBLAS_NUM_THREADS", "HOME", "TMPDIR"}
FUNCTION_ENVIRONMENT = {"PATH", "LC_ALL", "TZ", "PYTHONHASHSEED", "PYTHONUTF8", "LD_BIND_NOW"}
STREAMS = [0, 1, 2]
DESCRIPTORS = {
    "lua/program": [],  # it asks for those from 3 on only
    "r/program": [*STREAMS, 3],  # its own source, which R opens itself
    "python/function": [*STREAMS, 3],  # the channel on which it answers
}
OWN = ("LD_LIBRARY_PATH", "LC_CTYPE")  # what a loader or an interpreter sets itself
SHELL = ("PWD", "SHLVL", "EDITOR", "PAGER", "SED", "TAR", "MAKE", "LN_S")  # what R's start script sets


@pytest.fixture(scope="module", params=["A", "B", "C"])
def found(request):
    if request.param == "A" and probe().mode != "A" or request.param != "A" and os.geteuid() != 0:
        pytest.skip(f"mode {request.param} needs namespaces, or root to be emulated")
    prefix = [str(HERE / "emulate.py"), request.param, "--"] if request.param != "A" else []
    command = [sys.executable, *prefix, str(HERE / "surroundings.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=HERE.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    assert answer["mode"] == request.param
    return answer["found"]


def test_every_installed_language_was_asked(found):
    installed = {name for name in languages.names() if languages.version(name)} - {"julia"}
    assert {f"{name}/program" for name in installed} | {"python/function"} == set(found)


def test_descriptors(found):
    assert {name: each["descriptors"] for name, each in found.items()} == {
        name: DESCRIPTORS.get(name, STREAMS) for name in found
    }


def test_environment(found):
    for name, each in found.items():
        allowed = FUNCTION_ENVIRONMENT if name.endswith("function") else ENVIRONMENT
        more = [key for key in each.get("environment", ()) if key not in allowed and key not in OWN]
        if name.startswith("r/"):
            more = [key for key in more if not key.startswith("R_") and key not in SHELL]
        assert more == [], name


@pytest.mark.parametrize("what", ["mounts", "maps", "readable"])
def test_nothing_of_the_system_can_be_read(found, what):
    assert [name for name, each in found.items() if each.get(what)] == []


def test_no_socket_but_the_channel_of_function_mode(found):
    assert {name: each["sockets"] for name, each in found.items() if each.get("sockets")} == {"python/function": [3]}
