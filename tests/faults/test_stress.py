"""Everything at once: see stress.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.child import run
from tests.support.soak import longer

if TYPE_CHECKING:
    from tests.conftest import Tally


@pytest.mark.slow
@pytest.mark.parametrize("seed", longer([1, 2, 5], list(range(1, 161))))
def test_threads_forks_and_interrupts(tmp_path: Path, tally: Tally, seed: int) -> None:
    """A failure says its seed: ``python -m tests.faults.stress SEED STEPS``."""
    done = run(
        "from tests.faults.stress import main; main()",
        [str(seed), str(longer(80, 150))],
        env={"TMPDIR": str(tmp_path), "UZSWAP_CHECK_LOCKS": "1"},
        timeout=longer(500, 900),
    ).check()
    told = json.loads(done.stdout.splitlines()[-1])
    tally("interrupts", told["interrupts"])
    tally("forks", told["children"])
    tally("bytes compared", told["compared"])
    assert list(tmp_path.iterdir()) == []
