"""A process that has done much is as it was; one that is killed leaves nothing: see soak.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.child import run
from tests.support.soak import longer

if TYPE_CHECKING:
    from tests.conftest import Tally

CODE = "from tests.faults.soak import main; main()"


@pytest.mark.slow
def test_memory_descriptors_threads_mappings_and_files_are_where_they_were(tmp_path: Path, tally: Tally) -> None:
    """10**10 bytes in the long form."""
    done = run(
        CODE, ["stay", str(tmp_path), "1", str(longer(10**7, 10**10))], timeout=longer(600, 3000), fresh=True
    ).check()
    told = json.loads(done.stdout)
    tally("bytes compared", told["compared"])
    tally("forks", told["forks"])


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_nothing(tmp_path: Path, tally: Tally) -> None:
    """1000 times in the long form; a swap file with a name stays, and is empty for the next engine."""
    done = run(CODE, ["kill", str(tmp_path), "1", str(longer(15, 1000))], timeout=longer(600, 3000)).check()
    tally("kills", json.loads(done.stdout)["kills"])
