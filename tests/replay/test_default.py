"""The default policy with its defaults, on workloads made here: little is lost, and most of what can be saved is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from uzswap.replay.run import Case, replay

ACCESSES, HOURS = 12_000, 4
Rng = np.random.Generator


def zipf(rng: Rng) -> NDArray[Any]:
    """Few pages are popular, and most are not."""
    return rng.permutation(3000)[np.minimum(rng.zipf(1.2, ACCESSES), 3000) - 1]


def scans(rng: Rng) -> NDArray[Any]:
    """All pages in turn, every hour or so."""
    return np.arange(ACCESSES) % 3000


def phases(rng: Rng) -> NDArray[Any]:
    """A working set that is another one every hour."""
    return np.arange(ACCESSES) // (ACCESSES // HOURS) * 500 + rng.integers(0, 500, ACCESSES)


def growing(rng: Rng) -> NDArray[Any]:
    """A log that is written, and of which mostly the end is read."""
    return np.maximum(0, np.arange(ACCESSES) // 5 - rng.geometric(0.01, ACCESSES))


@pytest.mark.slow
@pytest.mark.parametrize("workload", [zipf, scans, phases, growing])
def test_it_saves_most_of_the_best_possible(workload: Callable[[Rng], NDArray[Any]], tmp_path: Path) -> None:
    pages = workload(np.random.default_rng(1))
    times = np.linspace(0, HOURS * 3600, ACCESSES)
    path = tmp_path / "made.trace"
    path.write_text(
        "# uzswap trace\n" + "".join(f"{when:.3f} {page}\n" for when, page in zip(times, pages.tolist(), strict=True))
    )
    outcome = replay(Case(str(path), "twostage"))
    assert outcome.lost_share <= 0.01
    assert outcome.saved_share >= 0.8 * outcome.best
