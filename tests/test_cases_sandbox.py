"""Programs and tests of tests/cases/sandbox are judged as each file says, in every mode."""

import pytest

from tests.case_runner import FOLDER, names
from tests.cases_in_modes import MODES, result


def is_timed(name: str) -> bool:
    """Whether a case bounds the wall time of a verdict or waits for something."""
    text = (FOLDER / "sandbox" / f"{name}.py").read_text(encoding="utf-8")
    return "SECONDS" in text or "time." in text


CASES = [pytest.param(name, marks=pytest.mark.serial if is_timed(name) else ()) for name in names("sandbox")]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_case(request, mode, name):
    held, words = result(request, "sandbox", mode, name)
    assert held, words
