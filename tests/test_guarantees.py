"""docs/guarantees.md promises nothing that no test tries."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_each_named_test_exists(file: str, name: str) -> None:
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file} has no {name}"


def test_each_line_names_a_test() -> None:
    promises = [
        line
        for table in re.findall(r"^\| what happens .*\n(?:\|.*\n)+", PAGE, re.MULTILINE)
        for line in table.splitlines()[2:]
    ]
    assert len(promises) > 30
    assert [line for line in promises if "::test_" not in line] == []
