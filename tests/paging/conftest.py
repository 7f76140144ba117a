"""Every test here runs once in each mode."""

import pytest
from tests.paging.rig import Mode


@pytest.fixture(params=list(Mode), ids=str)
def mode(request: pytest.FixtureRequest) -> Mode:
    chosen: Mode = request.param
    return chosen
