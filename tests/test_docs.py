"""The pages that users read say what the code does."""

from __future__ import annotations

import doctest
import errno
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.child import run
from uzswap.files.cgroup import FILES
from uzswap.files.engine import ENGINE_FILES, engine_file

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

ROOT = Path(__file__).parent.parent
PAGES = sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/*.md"))


def load(name: str) -> ModuleType:
    path = ROOT / "scripts" / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load("control_files_md.py")


def test_the_settings_of_policies_are_what_the_policies_have() -> None:
    written = load("policies_md.py")
    assert written.PAGE.read_text() == written.page(), "run: python scripts/policies_md.py"


def test_the_page_of_control_files_is_what_the_table_says(script: ModuleType) -> None:
    assert script.PAGE.read_text() == script.page(), "run: python scripts/control_files_md.py"


def documented_errors(script: ModuleType, name: str) -> set[int]:
    return {getattr(errno, word) for word in re.findall(r"E[A-Z0-9]+", script.ERRORS.get(name, "EINVAL"))}


@pytest.mark.parametrize("name", [name for name, file in FILES.items() if file.writable and not name.endswith(".peak")])
@pytest.mark.parametrize("text", ["\x01", "99999999999999999999x", "-7", "+io"])
def test_a_bad_write_to_a_cgroup_file_gives_a_documented_error(
    engine: EngineFactory, script: ModuleType, name: str, text: str
) -> None:
    group = engine().cgroup("/a")
    with pytest.raises(OSError, match=r".") as caught:
        group.write(name, text)
    assert caught.value.errno in documented_errors(script, name)


@pytest.mark.parametrize("name", [name for name, file in ENGINE_FILES.items() if file.writable])
def test_a_bad_write_to_a_parameter_gives_a_documented_error(
    engine: EngineFactory, script: ModuleType, name: str
) -> None:
    z: Any = engine()
    with engine_file(name).open(z, z.root) as file, pytest.raises(OSError, match=r".") as caught:
        file.write("\x01")
    assert caught.value.errno in documented_errors(script, name)


@pytest.mark.parametrize("page", ["README.md", "docs/caches.md", "docs/report.md", "docs/semantics.md"])
def test_the_examples_run(page: str) -> None:
    failed, tried = doctest.testfile(str(ROOT / page), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert tried > 0
    assert failed == 0


@pytest.mark.slow
def test_the_examples_with_other_libraries_run() -> None:
    """In a process of its own: zarr has a thread of its own, and joblib processes."""
    wanted = ("cachetools", "cachey", "dask", "joblib", "zarr")
    if missing := [name for name in wanted if importlib.util.find_spec(name) is None]:
        pytest.skip(f"not installed: pip install {' '.join(missing)}")
    page = str(ROOT / "docs" / "neighbours.md")
    code = f"""
        import doctest
        failed, tried = doctest.testfile({page!r}, module_relative=False, optionflags=doctest.ELLIPSIS)
        assert tried > 0
        assert failed == 0
        """
    run(code).check()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def anchors(page: Path) -> set[str]:
    """What a link can end with, as the forges make them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_sections_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", page.read_text()):
        assert anchor in anchors(page.parent / target if target else page), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_make_targets_that_it_names_are_there(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([\w-]+)", page.read_text(), re.MULTILINE)) <= targets
