"""The benchmarks run.  What they find is for people to read; that the data stay intact they check themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("blosc2", reason="the benchmarks' packages are missing: make bench installs them")


def test_every_array_candidate_does_every_operation(tmp_path: Path) -> None:
    from benchmarks.bench_arrays import OTHERS, PAGED, TARGETS, main

    to = tmp_path / "found.json"
    kind = "int64 counter"
    words = [
        "--only",
        kind,
        "--mib",
        "8",
        "--budget",
        "2",
        "--runs",
        "1",
        "--directory",
        str(tmp_path),
        "--json",
        str(to),
    ]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads(to.read_text())
    operations = found["arrays"][kind]
    assert set(operations) == {*TARGETS, "bytes"}
    assert all(set(operations[name]["factors"]) == {PAGED, *OTHERS} for name in TARGETS)
    assert operations["bytes"][PAGED]["resident"] <= 2 << 20
    assert found["faults"]
