"""distributed's own tests of spilling pass on a worker's memory of ours, adapted by a fixture (adapted.py)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

distributed = pytest.importorskip("distributed", reason="pip install 'uzswap[dask]'")

#: of test_worker_memory.py, those that are about what a worker's data has to do
ABOUT_DATA = "spill or pickle or data or evict or release"
INI = "[pytest]\nmarkers =\n    slow\n    leaking\n    workerstate\n"
CONFTEST = "from distributed.utils_test import *\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("test_spill.py", ()),
        ("test_spill.py", ("--pool",)),
        ("test_worker_memory.py", ("-k", ABOUT_DATA)),
    ],
)
def test_distributeds_own_tests(tmp_path: Path, file: str, options: tuple[str, ...]) -> None:
    checkout = os.environ.get("UZSWAP_DISTRIBUTED")
    if not checkout:
        pytest.skip(
            f"git clone --branch {distributed.__version__} https://github.com/dask/distributed, and set "
            "UZSWAP_DISTRIBUTED to where it is: its wheel has no tests"
        )
    shutil.copy(Path(checkout) / "distributed" / "tests" / file, tmp_path)
    (tmp_path / "pytest.ini").write_text(INI)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.dask.adapted", file, *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
