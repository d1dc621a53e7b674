"""Copy a run's executed notebooks for readers on the web: `python -m lib.run.executed RUN FOLDER`.

Outputs stay. Progress bars and warnings (stderr), times of execution and this machine's paths go, and pictures are
made small, so that all copies together stay below `MAX_BYTES`.
"""

import base64
import io
import sys
from pathlib import Path

import nbformat
from PIL import Image

from lib.base.errors import WorkbookError
from lib.base.files import ROOT, read_json, write_text

MAX_BYTES = 4 << 20  # of all copies together
WIDTH, COLOURS = 760, 64  # of a picture, in pixels and in palette entries


def small_png(encoded: str) -> str:
    """Return a PNG, in base64, at most WIDTH pixels wide and with COLOURS colours."""
    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.quantize(COLOURS).save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def reader_copy(text: str, origin: str) -> str:
    """Return an executed notebook, as JSON: `origin` on top, what a reader needs, nothing of the machine it ran on."""
    notebook = nbformat.reads(text.replace(str(ROOT), "."), as_version=4)
    notebook.metadata.pop("papermill", None)
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell(origin, id="origin"))
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = small_png(output.data["image/png"])
    return nbformat.writes(notebook) + "\n"


def publish(run: Path, folder: Path) -> int:
    """Write reader copies of all notebooks of a run into a folder; return their bytes.

    Raises WorkbookError, and writes nothing, when the run has no notebooks or the copies are larger than MAX_BYTES.
    """
    made = read_json(run / "manifest.json")
    which = f"preset `{made.get('preset')}`, run `{made.get('run_id')}`"
    origin = f"*Executed copy: {which}. The notebook to run is in `notebooks/`.*"
    books = sorted(run.glob("notebooks/*.ipynb"))
    copies = {path.name: reader_copy(path.read_text(encoding="utf-8"), origin) for path in books}
    sizes = {name: len(text.encode()) for name, text in copies.items()}
    if not copies:
        raise WorkbookError(f"{run}: no executed notebooks; run it first with python -m lib run")
    if sum(sizes.values()) > MAX_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        total = f"{sum(sizes.values()):,} bytes"
        raise WorkbookError(f"{run}: copies of {total}, at most {MAX_BYTES:,}; the largest is {largest}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in copies.items():
        write_text(folder / name, text)
    return sum(sizes.values())


if __name__ == "__main__":
    try:
        print(f"{publish(Path(sys.argv[1]), Path(sys.argv[2])):,} bytes")
    except WorkbookError as error:
        sys.exit(str(error))
