"""The small form of benchmarks/bench_dask.py: joins and group-bys on more than the workers have room for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.soak import SOAK

pytest.importorskip("distributed", reason="pip install 'uzswap[dask]'")
pytest.importorskip("pandas", reason="pip install pandas")
pytest.importorskip("pyarrow", reason="pip install pyarrow")

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not SOAK, reason="takes a minute of two CPUs: make soak ALL=1")
def test_joins_and_group_bys_on_more_than_fits_are_exact_and_nobody_is_killed(tmp_path: Path) -> None:
    """It checks every sum itself."""
    to = tmp_path / "found.json"
    words = ["--gib", "0.3", "--limit", "448", "--only", "uzswap", "--json", str(to)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_dask", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/src"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [found] = json.loads(to.read_text())["uzswap WorkerMemory"]
    assert found["restarts"] == 0
    assert found["peak"] <= 1
    assert found["evicted"] > 0
