"""Every test here runs once in each mode."""

from collections.abc import Iterator

import pytest
from tests.core.paging.rig import Mode, Rig, zygote


@pytest.fixture(scope="session", params=list(Mode), ids=str)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with zygote(request.param) as parent:
        yield Rig(request.param, parent)
