"""The table of control files: every row tells adapters all they need, and tells the truth."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.conftest import EngineFactory

from uzswap import Zswap
from uzswap.files.cgroup import FILES
from uzswap.files.engine import ENGINE_FILES

KEYED = [name for name, row in FILES.items() if row.shape == "flat_keyed"]


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


@pytest.mark.parametrize("row", [*FILES.values(), *ENGINE_FILES.values()], ids=lambda row: row.name)
def test_every_row_tells_all_about_itself(z: Zswap, row: Any) -> None:
    g = z.cgroup("/job")
    assert row.help
    assert "\n" not in row.help
    assert row.mode == (0o200 if row.shape == "command" else 0o644 if row.writable else 0o444)
    assert (row.shape in ("value", "limit")) <= bool(row.unit)
    assert bool(row.keys) == (row.shape == "flat_keyed" or row.name in ("memory.numa_stat", "meminfo"))
    if row.shape == "command":
        return
    text = row.read(g, g) if row.name in FILES else row.read(z, z.root)
    shape = {
        "value": r"\d+\n",
        "limit": r"(\d+|max)\n",
        "flag": r"[01YN]\n",
        "word": r"\S+\n",
        "list": r"(\S+( \S+)*\n)?",
        "flat_keyed": r"(\S+ +\d+( kB)?\n)*",
        "nested_keyed": r"(\S+( \S+=\S+)+\n)*",
        "histogram": r"(\S+ sum=\d+( \d+=\d+)+ inf=\d+\n)+",
        "json": r"\{.*\}\n",
        "table": r"Filename.*\n(\S.*\n)?",
    }[row.shape]
    assert re.fullmatch(shape, text), text


@pytest.mark.parametrize("name", [name for name in KEYED if name != "uzswap.last_reclaim"])
def test_keys_are_what_is_read(z: Zswap, name: str) -> None:
    assert [line.split()[0] for line in z.cgroup("/job").read(name).splitlines()] == [
        stat.name for stat in FILES[name].keys
    ]
