"""Programs written to please the tests fail, and honest ones beside them pass, in every mode."""

import pytest

from tests.case_runner import names
from tests.cases_in_modes import MODES, result


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", names("hacks"))
def test_case(request, mode, name):
    held, words = result(request, "hacks", mode, name)
    assert held, words
