"""Programs and tests of tests/cases/sandbox are judged as each file says, in every mode."""

import pytest

from tests.case_runner import names
from tests.cases_in_modes import MODES, result

pytestmark = pytest.mark.serial  # some cases bound the wall time of a verdict


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", names("sandbox"))
def test_case(request, mode, name):
    held, words = result(request, "sandbox", mode, name)
    assert held, words
