"""Programs that read stdin and write stdout are judged as tests/cases/programs.jsonl says, in every mode."""

import pytest

from tests.case_runner import names
from tests.cases_in_modes import MODES, result


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", names("programs"))
def test_case(request, mode, name):
    held, words = result(request, "programs", mode, name)
    assert held, words
