"""JupyterLab in a headless browser, as a reader uses it: open a notebook, Restart and Run All, read what it says."""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lib.models.resolve import cache_dir

ROOT = Path(__file__).parent.parent
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium: JupyterLab was not tried in a browser")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]
MINUTE = 60_000  # ms


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository: JupyterLab saves what it runs."""
    copy = tmp_path_factory.mktemp("lab")
    for name in ("lib", "notebooks", "data"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "external"))
    return copy


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[dict[str, Any]]:
    """What `make lab` starts, in the copy; its address and process."""
    where = folder / "server"
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--port=0",
        "--IdentityProvider.token=",
        f"--notebook-dir={folder}",
    ]
    environment = os.environ | {
        "JUPYTER_RUNTIME_DIR": str(where),
        "JUPYTERLAB_SETTINGS_DIR": str(where / "user"),
        "JUPYTERLAB_WORKSPACES_DIR": str(where / "spaces"),
        "WORKBOOK_CACHE": str(cache_dir()),
    }
    log, deadline = folder / "server.log", time.monotonic() + 60
    with log.open("w") as file:
        process = psutil.Popen(command, env=environment, stdout=file, stderr=file)
    while not (found := [path for path in where.glob("jpserver-*.json") if path.stat().st_size]):
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    yield json.loads(found[0].read_text()) | {"process": process}
    for left in [*process.children(recursive=True), process] if process.is_running() else []:
        left.kill()


@pytest.fixture(scope="module")
def page(server: dict[str, Any]) -> Iterator[Any]:
    """A tab of a new browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=QUIET)
        yield browser.new_page(viewport={"width": 1400, "height": 3000})
        browser.close()


def restart_and_run_all(page: Any, server: dict[str, Any], name: str, marker: str) -> list[str]:
    """Open a notebook, run it from a new kernel; the text of its outputs once one of them holds `marker`."""
    page.goto(f"{server['url']}lab/tree/notebooks/{name}?reset", timeout=MINUTE)
    page.locator(".jp-NotebookPanel:visible .jp-Cell").first.wait_for(timeout=MINUTE)
    page.get_by_text("| Idle").wait_for(timeout=MINUTE)  # its kernel; one that is starting cannot be restarted
    page.locator(
        '[data-command="notebook:restart-run-all"]:visible, [data-command="notebook:restart-and-run-all"]:visible'
    ).first.click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    outputs = page.locator(".jp-NotebookPanel:visible .jp-OutputArea-output")
    outputs.filter(has_text=marker).first.wait_for(timeout=4 * MINUTE)
    return list(outputs.all_inner_texts())


def test_a_notebook_runs_from_its_own_folder_and_says_what_the_machine_offers(
    page: Any, server: dict[str, Any]
) -> None:
    texts = restart_and_run_all(page, server, "00_environment.ipynb", "CPU export: ")
    assert texts and not any("Traceback" in text for text in texts)


def test_the_table_of_contents_lists_a_notebooks_steps(page: Any, server: dict[str, Any]) -> None:
    page.goto(f"{server['url']}lab/tree/notebooks/04_gmpo.ipynb?reset", timeout=MINUTE)
    page.locator(".jp-NotebookPanel:visible .jp-Cell").first.wait_for(timeout=MINUTE)
    page.locator('[data-id="table-of-contents"]').first.click()
    contents = page.locator(".jp-TableOfContents")
    contents.get_by_text("Algorithm 1, line by line").first.wait_for(timeout=MINUTE)
    listed = contents.first.inner_text()
    assert [
        step for step in ("Set-up", "3 · Embed and weigh", "Change one thing and watch") if step not in listed
    ] == []


def test_a_server_that_is_stopped_leaves_no_process(page: Any, server: dict[str, Any]) -> None:
    """As Ctrl-C in its terminal, twice: the second is the answer to its question."""
    started = server["process"].children(recursive=True)
    assert started, "no kernel was running"
    for _ in range(2):
        server["process"].send_signal(signal.SIGINT)
        time.sleep(1)
    _, alive = psutil.wait_procs([server["process"], *started], timeout=30)
    assert not alive
