"""The benchmarks run.  What they find is for people to read; that the data stay intact they check themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("blosc2", reason="the benchmarks' packages are missing: make bench installs them")


def test_every_array_candidate_does_every_operation(tmp_path: Path) -> None:
    from benchmarks.bench_arrays import BY_INDEX, OTHERS, PAGED, TARGETS, main

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
    assert all(set(operations[name]["factors"]) == {PAGED, *OTHERS} for name in set(TARGETS) - set(BY_INDEX))
    assert all(set(operations[name]["factors"]) == {PAGED} for name in BY_INDEX)
    assert operations["bytes"][PAGED]["resident"] <= 2 << 20
    assert found["faults"]


@pytest.mark.slow
def test_every_candidate_takes_objects_through_all_its_places(tmp_path: Path) -> None:
    pytest.importorskip("lmdb", reason="the benchmarks' packages are missing: make bench installs them")
    from benchmarks.bench_objects import main
    from benchmarks.object_candidates import CANDIDATES, HAND, OURS

    to = tmp_path / "found.json"
    kind = "strings of 100 B"
    words = ["--only", kind, "--n", "300", "--runs", "1", "--directory", str(tmp_path), "--json", str(to)]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads(to.read_text())[kind]
    assert set(found["put"]) == set(CANDIDATES)
    for operation in ("hot get", "reclaim", "get from zswap", "get from disk", "RSS on disk", "bookkeeping"):
        assert {HAND, OURS} <= set(found[operation])


@pytest.mark.slow
def test_memory_of_many_objects_and_of_many_operations_is_told_on_the_way(tmp_path: Path) -> None:
    pytest.importorskip("lmdb", reason="the benchmarks' packages are missing: make bench installs them")
    from benchmarks.bench_objects import main

    to = tmp_path / "found.json"
    words = ["--million", "500", "--operations", "500", "--directory", str(tmp_path), "--json", str(to)]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads(to.read_text())
    assert found["million"][-1]["values"] == 500
    assert found["million"][-1]["peak"] > 0
    assert found["operations"][-1]["operations"] == 500
