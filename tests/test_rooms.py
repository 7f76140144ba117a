"""The house: which room may know which, read from every import of the code, those for types included."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

import uzswap

PACKAGE: Final = Path(uzswap.__file__).parent

#: beside all rooms: what anybody may use, and what uses no room
BESIDE: Final = frozenset(
    {"condition", "errors", "locks", "mountinfo", "process", "result", "signals", "threads", "units", "_version"}
)
#: room -> rooms, or single modules of them, that it may import from, beside itself.  Arrows point down only.
#: "uzswap" are the public names.
ARROWS: Final[Mapping[str, frozenset[str]]] = {
    "core": frozenset(),
    "cgroup": frozenset({"core"}),
    "devices": frozenset({"core"}),
    "reclaim": frozenset({"cgroup", "core"}),
    "engine": frozenset({"cgroup", "core", "devices", "reclaim"}),
    "store": frozenset({"cgroup", "core", "engine", "reclaim"}),
    "arrays": frozenset({"cgroup", "core", "engine", "reclaim"}),
    # Each is a mapping over a mapping, at the bottom a store.  Bounds are those of its cgroup, as the core counts them.
    "caches": frozenset({"cgroup.memcg", "core.boundary.engine", "engine.default", "engine.lifetime", "store"}),
    # For other libraries, in their own words.
    "zarr": frozenset({"caches", "cgroup.memcg", "store"}),
    "joblib": frozenset({"arrays", "caches", "cgroup.memcg", "devices.place", "engine.default", "store"}),
    "notebook": frozenset({"agent.settings", "uzswap"}),
    "files": frozenset({"cgroup", "core", "engine", "reclaim"}),
    # Where the memory of both front-ends is, and of the process.
    "reports": frozenset({"arrays", "cgroup", "core", "engine", "store"}),
    # They try each part by itself.
    "probes": frozenset({"arrays", "core", "devices"}),
    # The descriptor table of a mount's own, and what Python has of the threads of libfuse.
    "serve": frozenset(
        {"cgroup", "client", "core.boundary.relay", "core.boundary.thread_state", "engine", "files", "reports", "web"}
    ),
    "client": frozenset(),
    # A client alone: it shows engines of this process as it shows those of others.
    "web": frozenset({"client"}),
    # A client alone: it works on the kernel's cgroups as on an engine's.
    "agent": frozenset({"client"}),
    # It has an engine of its own for the agent to work on, and a front-end in it.
    "replay": frozenset({"agent", "cgroup.surroundings", "client", "core.boundary.engine", "uzswap"}),
    # A store, an engine and a client of their public names; what is told of a worker's engine is read from its tree.
    "dask": frozenset({"cgroup.reclaim", "client", "engine.worker", "serve.virtual_tree", "store.kinds", "uzswap"}),
    # The grammar of memory.reclaim is text, as the tables of files are.
    "cli": frozenset(
        {"agent", "cgroup.reclaim", "client", "files", "probes", "replay", "reports.words", "uzswap", "web"}
    ),
}
#: the composition root, and the public names: they know everybody, and no room knows the first
EVERYWHERE: Final = frozenset({"uzswap", "uzswap.engine.zswap"})


def modules() -> dict[str, list[Path]]:
    """Return the files of each module: a compiled one has up to three."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in (".py", ".pyi", ".pxd"):
            name = ".".join(("uzswap", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
            found.setdefault(name, []).append(path)
    return found


MODULES: Final = modules()


def imported(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports or cimports, those of this package."""
    if path.suffix == ".pxd":
        yield from re.findall(r"(?m)^\s*from (uzswap[\w.]*) cimport", path.read_text())
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "uzswap")
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import, which this test does not read"
            module = (node.module or "").removeprefix("cython.cimports.")
            if module.split(".")[0] == "uzswap":
                for alias in node.names:
                    name = f"{module}.{alias.name}"
                    yield name if name in MODULES else module


#: module -> what it imports
IMPORTS: Final = {
    name: {target for path in paths for target in imported(path)} - {name} for name, paths in MODULES.items()
}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def is_allowed(module: str, target: str) -> bool:
    here, there = room(module), room(target)
    if there == here or there in BESIDE:
        return True
    if target == "uzswap.engine.zswap":
        return False
    if here in BESIDE:
        # The lock that checks the order of locks is compiled, so that no signal tears it.
        return here in ("condition", "locks") and target == "uzswap.core.boundary.ordered"
    arrows = ARROWS[here]
    return there in arrows or target.removeprefix("uzswap.") in arrows


def wrong_arrows() -> set[str]:
    return {
        f"{module} -> {target}"
        for module, targets in IMPORTS.items()
        if module not in EVERYWHERE
        for target in targets
        if not is_allowed(module, target)
    }


def circles() -> set[str]:
    """Return the modules from which imports lead back to themselves."""
    reached = {module: set(targets) for module, targets in IMPORTS.items()}
    for via in reached:
        for targets in reached.values():
            if via in targets:
                targets |= reached[via]
    return {module for module, targets in reached.items() if module in targets}


def test_every_module_is_in_a_room() -> None:
    assert {room(module) for module in MODULES} - {"uzswap"} <= ARROWS.keys() | BESIDE


def test_arrows_point_down_only() -> None:
    assert sorted(wrong_arrows()) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert sorted(circles()) == []


def test_the_house_is_read_as_it_is_built() -> None:
    """An arrow each of a plain import, of one for types, of a cimport in .py and in .pxd, of a .pyi."""
    assert "uzswap.cgroup.memcg" in IMPORTS["uzswap.files.file"]
    assert "uzswap.cgroup.stat" in IMPORTS["uzswap.files.file"]
    assert "uzswap.core.store.state" in IMPORTS["uzswap.core.boundary.engine"]
    assert "uzswap.core.store.entries" in IMPORTS["uzswap.core.store.state"]
    assert "uzswap.core.boundary.engine" in IMPORTS["uzswap.core.boundary.memory"]


def test_the_plan_in_the_readme_leads_to_what_there_is() -> None:
    root = Path(__file__).parents[1]
    plan = (root / "README.md").read_text().partition("## Development")[2]
    links = re.findall(r"\]\((src/[^)]*)\)", plan)
    assert links
    assert [link for link in links if not (root / link).exists()] == []
    assert set(re.findall(r"(?<![/\w])(\w+)/  ", plan)) == ARROWS.keys()


def test_a_client_loads_neither_numpy_nor_the_compiled_core() -> None:
    """What looks after cgroups for months is small, and works where the core cannot be loaded."""
    code = (
        "import sys, uzswap.client.places, uzswap.agent.loop, uzswap.cli.main, uzswap.cli.agent;"
        "print(*[name for name in sys.modules if name.split('.')[0] == 'numpy' or name.startswith('uzswap.core')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_public_names_are_all_there_and_typed() -> None:
    """What comes when it is used is what type checkers are told."""
    table = uzswap._WHERE  # type: ignore[attr-defined]
    assert {*table, "__version__"} == set(uzswap.__all__)
    promised = {
        alias.name: node.module
        for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
        for alias in node.names
    }
    assert {name: promised[name] for name in table} == table
    assert all(getattr(uzswap, name) is not None for name in uzswap.__all__)
    assert set(uzswap.__all__) <= set(dir(uzswap))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        uzswap.nothing  # noqa: B018
