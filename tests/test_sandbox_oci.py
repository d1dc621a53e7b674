"""The container backend: its commands everywhere, the real thing where an engine answers."""

import pytest

from lib.sandbox import SandboxError, languages
from lib.sandbox.trusted import oci
from lib.tasks.task import Case

DOUBLE = [Case("3\n", "6\n"), Case("-1\n", "-2\n")]


@pytest.fixture
def no_engine(monkeypatch):
    monkeypatch.setattr(oci, "engine", lambda: None)


def test_container_gets_no_network_no_rights_and_limits():
    command = oci.run_command("podman", "image", "name", "lua5.4 main.lua", 5, 256, "/folder")
    wanted = {
        "--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pids-limit=64",
        "--memory=256m", "--memory-swap=256m", "--cpus=1", "--user=65534:65534", "--ulimit=cpu=6:6",
    }  # fmt: skip
    assert wanted <= set(command) and command[-3:] == ["sh", "-c", "exec lua5.4 main.lua"]


@pytest.mark.parametrize("name", languages.names())
def test_image_holds_the_manifest_s_install_lines(name):
    language = languages.load(name)
    text = oci.containerfile(language)
    assert all(line.strip() in text for line in language.install.strip().splitlines()) and text.startswith("FROM ")


def test_missing_engine_is_said(no_engine):
    with pytest.raises(SandboxError, match="no container engine"):
        oci.ContainerSandbox()


@pytest.mark.skipif(oci.engine() is None, reason=f"no container engine: {oci.describe()}")
def test_programs_in_containers():
    with oci.ContainerSandbox() as sandbox:
        right = sandbox.execute("lua", "print(2 * io.read('n'))", DOUBLE, 2, 256)
        wrong = sandbox.execute("lua", "print(6)", DOUBLE, 2, 256)
        late = sandbox.execute("lua", "while true do end", DOUBLE, 1, 256)
        nosy = sandbox.execute("lua", "print(io.open('/etc/shadow'):read('a'))", DOUBLE, 2, 256)
        online = sandbox.execute("lua", "os.execute('getent hosts example.org && echo 6')", DOUBLE[:1], 2, 256)
    assert [v.status for v in (right, wrong, late, nosy)] == ["success", "wrong-output", "timeout", "runtime-error"]
    assert online.status != "success"
