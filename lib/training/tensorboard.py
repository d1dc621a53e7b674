"""Where TensorBoard's files of a training go."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "TENSORBOARD_LOGGING_DIR"  # read by transformers


@contextlib.contextmanager
def tensorboard_in(folder: Path) -> Iterator[None]:
    """Let transformers write TensorBoard's files to `folder`; the environment is afterwards as it was before."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before
