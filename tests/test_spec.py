"""docs/spec.md has what code, tests and pages cite of it, and the tests run the cases that it has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from uzswap.reclaim.walks import v5

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "spec.md"
TEXT = PAGE.read_text()
SECTIONS = frozenset(re.findall(r"^##+ (\d+(?:\.\d+)?)\.? ", TEXT, re.MULTILINE))
CASES = frozenset(re.findall(r"^\| ([A-I]\d+) \|", TEXT, re.MULTILINE))

#: cases that no test can run, and why
NOT_RUN = {
    "A21": "nodes of an engine are not a machine's: there is no node file",
    "A22": "there is no engine without source=zswap",
}

_NUMBER = r"\d+(?:\.\d+)?"
_CITATION = re.compile(rf"\bSPEC ({_NUMBER}(?:(?:, | and | to ){_NUMBER})*)")
# A line of a comment or a docstring goes on in the next one.
_LINE_END = re.compile(r"\s*\n\s*(?:#:? ?)?")


def files() -> Iterator[Path]:
    """Whatever may cite the page."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").glob("*.md"))
    for root in ("src", "tests", "benchmarks", "scripts"):
        for suffix in ("py", "pyi", "pxd"):
            yield from sorted((ROOT / root).rglob(f"*.{suffix}"))


def sections_cited(text: str) -> set[str]:
    return {n for numbers in _CITATION.findall(_LINE_END.sub(" ", text)) for n in re.findall(_NUMBER, numbers)}


def cases_cited() -> dict[str, str]:
    """Case -> a file that runs it, by the name of a test function or of a parameter."""
    cited = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        text = path.read_text()
        names = re.findall(r"def test_((?:[A-I]\d+_)+)", text)
        ids = [case for name in names for case in name.rstrip("_").split("_")]
        ids += re.findall(r'\bid="([A-I]\d+)\b', text)
        cited.update(dict.fromkeys(ids, str(path.relative_to(ROOT))))
    return cited


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("(SPEC 7.2).", {"7.2"}),
        ("SPEC 5.1 to\n5.4 and 6.4 describe it; 202 steps", {"5.1", "5.4", "6.4"}),
        ("# the rules (SPEC 3.3,\n# 3.5, 7.4)", {"3.3", "3.5", "7.4"}),
        ("SPEC 8, groups A, E and F", {"8"}),
        ('"""SPEC 10.1: 1 MiB from the first call on"""', {"10.1"}),
    ],
)
def test_citations_are_found(text: str, sections: set[str]) -> None:
    assert sections_cited(text) == sections


@pytest.mark.parametrize(
    "path",
    [path for path in files() if path != Path(__file__) and sections_cited(path.read_text())],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_section_that_is_cited_is_there(path: Path) -> None:
    assert sections_cited(path.read_text()) <= SECTIONS


def test_every_case_that_a_test_names_is_there() -> None:
    assert {case: path for case, path in cases_cited().items() if case not in CASES} == {}


def test_every_case_is_run_by_a_test_or_has_a_reason_why_not() -> None:
    assert CASES - cases_cited().keys() == NOT_RUN.keys()


@pytest.mark.parametrize("name", ["NR_ZSWAP_WB_BATCH", "MAX_RECLAIM_RETRIES"])
def test_the_constants_of_v5_are_those_of_its_walk(name: str) -> None:
    row = re.search(rf"^\| `{name}` \| (\d+) \|", TEXT, re.MULTILINE)
    assert row is not None
    assert int(row[1]) == getattr(v5, name)


@pytest.mark.parametrize("name", re.findall(r"`((?:\w+/)+\w+\.py)`", TEXT))
def test_the_modules_that_it_names_are_there(name: str) -> None:
    assert (ROOT / "src" / "uzswap" / name).is_file()
