"""Whatever is given to a public call: OSError with an errno, TypeError, or MemoryError; and nothing has changed."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import uzswap
from tests.conftest import EngineFactory
from tests.support.child import run
from uzswap import MemCgroup, Store, Zswap
from uzswap.cgroup.reclaim import parse


@dataclass
class World:
    """An engine with something in it, and what does not belong to it."""

    z: Zswap
    g: MemCgroup
    s: Store[Any, Any]
    array: Any
    values: dict[str, Any]


@pytest.fixture
def world(engine: EngineFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.chdir(tmp_path)  # relative paths are paths
    z, other = engine(), engine()
    g, gone = z.cgroup("/a"), z.cgroup("/gone")
    gone.remove()
    store: Store[Any, Any] = Store(g)
    store["key"] = "x" * 10_000
    array = uzswap.ones(1000, cgroup=g)
    values = {
        **{repr(value): value for value in (None, 1.5, -1, 1 << 70, "x", "\0", "\ud800", b"x", [], {})},
        "object": object(),
        "engine": z,
        "removed": gone,
        "foreign": other.cgroup("/h"),
        "array": array,
    }
    world = World(z, g, store, array, values)
    del array, values
    yield world
    store.close()
    world.values.clear()
    world.array = None


CALLS: dict[str, Callable[[World, Any], object]] = {
    "Store": lambda w, v: Store(v),
    "zeros": lambda w, v: uzswap.zeros(10, cgroup=v),
    "ones": lambda w, v: uzswap.ones(10, cgroup=v),
    "full": lambda w, v: uzswap.full(3, 1, cgroup=v),
    "array": lambda w, v: uzswap.array([1], cgroup=v),
    "asarray": lambda w, v: uzswap.asarray(w.array, cgroup=v),
    "from_file": lambda w, v: uzswap.from_file("/proc/self/statm", np.uint8, 0, cgroup=v),
    "from_file path": lambda w, v: uzswap.from_file(v, np.uint8, cgroup=w.g),
    "managed": lambda w, v: uzswap.managed(v),
    "managed min_bytes": lambda w, v: uzswap.managed(w.g, v),
    "info": lambda w, v: uzswap.info(v),
    "resident": lambda w, v: uzswap.resident(v),
    "advise": lambda w, v: uzswap.advise(v, "cold"),
    "advise what": lambda w, v: uzswap.advise(w.array, v),
    "cgroup": lambda w, v: w.z.cgroup(v),
    "lookup": lambda w, v: w.z.tree.lookup(v),
    "below": lambda w, v: w.g.cgroup(v),
    "read": lambda w, v: w.g.read(v),
    "open": lambda w, v: w.g.open(v),
    "write name": lambda w, v: w.g.write(v, "1"),
    **{
        f"write {name}": lambda w, v, name=name: w.g.write(name, v)  # type: ignore[misc]
        for name in ("memory.max", "memory.reclaim", "memory.oom.group", "cgroup.subtree_control", "memory.pressure")
    },
    "reclaim": lambda w, v: w.g.reclaim(v),
    "reclaim source": lambda w, v: w.g.reclaim(0, source=v),
    "reclaim swappiness": lambda w, v: w.g.reclaim(0, swappiness=v),
    "reclaim min_age": lambda w, v: w.g.reclaim(0, source="zswap", min_age=v),
    "Store.reclaim": lambda w, v: w.s.reclaim(v),
    "effective_protection": lambda w, v: w.g.effective_protection(v),
    "Zswap.reclaim": lambda w, v: w.z.reclaim(v, parse("0")),
    "Zswap.reclaim request": lambda w, v: w.z.reclaim(w.g, v),
    "swap_out": lambda w, v: w.z.swap_out(v, w.g),
    "swap_out cgroup": lambda w, v: w.z.swap_out(b"x", v),
    "swap_out node": lambda w, v: w.z.swap_out(b"x", w.g, v),
    "swap_out replace": lambda w, v: w.z.swap_out(b"x", w.g, replace=v),
    "swap_out_many": lambda w, v: w.z.swap_out_many(v, w.g),
    "swap_out_many cgroup": lambda w, v: w.z.swap_out_many(b"x", v),
    "swap_out_many page": lambda w, v: w.z.swap_out_many(b"x", w.g, v),
    "swap_out_many node": lambda w, v: w.z.swap_out_many(b"x", w.g, 4096, v),
    "swap_out_many folio": lambda w, v: w.z.swap_out_many(b"x", w.g, folio=v),
    "fault_in": lambda w, v: w.z.fault_in(v),
    "fault_in_many": lambda w, v: w.z.fault_in_many(v),
    "fault_in_many out": lambda w, v: w.z.fault_in_many([1], v),
    "fault_in_many page": lambda w, v: w.z.fault_in_many([1], None, v),
    "free": lambda w, v: w.z.free(v),
    "free_many": lambda w, v: w.z.free_many(v),
    "where": lambda w, v: w.z.where(v),
    "parameter": lambda w, v: w.z.parameters.get(v),
    "set": lambda w, v: w.z.parameters.set(v, "1"),
    **{
        f"set {name}": lambda w, v, name=name: w.z.parameters.set(name, v)  # type: ignore[misc]
        for name in ("max_pool_percent", "compressor", "enabled", "uzswap.walk")
    },
    "register": lambda w, v: w.z.register(v),
    "charge": lambda w, v: w.z.charge(v, 1),
    "charge bytes": lambda w, v: w.z.charge(w.g, v),
    "uncharge": lambda w, v: w.z.uncharge(v, 1),
    "uncharge bytes": lambda w, v: w.z.uncharge(w.g, v),
    "serve": lambda w, v: w.z.serve(v).close(),
    "serve port": lambda w, v: w.z.serve("s", port=v).close(),
    "Zswap swap": lambda w, v: Zswap(v, "4M").close(),
    "Zswap swap_size": lambda w, v: Zswap(swap_size=v),
    "Zswap max_pool": lambda w, v: Zswap(None, max_pool=v).close(),
    "Zswap accept": lambda w, v: Zswap(None, accept_threshold_percent=v),
    "Zswap compressor": lambda w, v: Zswap(None, compressor=v),
    "Zswap walk": lambda w, v: Zswap(None, walk=v),
    "Zswap nodes": lambda w, v: Zswap(None, nodes=v),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_cannot_be_is_refused_with_a_reason(
    world: World, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    current = world.g.read("memory.current")
    for name, value in world.values.items():
        try:
            made = CALLS[call](world, value)
        except OSError as error:
            assert error.errno, (name, error)
            assert error.strerror, (name, error)
        except (TypeError, MemoryError) as error:
            assert str(error), name
        else:
            if isinstance(made, Store):
                made.close()
            if isinstance(made, int) and call.startswith("swap_out"):
                world.z.free(made)
            if isinstance(made, np.ndarray) and made.dtype == np.uint64:
                world.z.free_many(made)
            del made
    if "reclaim" not in call and "write" not in call:  # some of it can be: a NUL ends a text that is 0 then
        assert world.g.read("memory.current") == current
    world.g.write("memory.max", "max")
    assert world.s["key"] == "x" * 10_000
    world.z.check()


def test_what_an_engine_is_asked_for_where_a_cgroup_is_wanted(world: World) -> None:
    """The engine's root is no stand-in for one: it has no limits."""
    with pytest.raises(TypeError, match=r"a cgroup is needed, not Zswap: give z.cgroup\('/name'\)"):
        Store(world.z)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a cgroup is needed, not str: give z.cgroup\('/a'\)"):
        uzswap.zeros(10, cgroup="/a")  # type: ignore[arg-type]


def test_integers_are_written_in_decimal_digits(world: World) -> None:
    assert world.g.write("memory.max", 64 << 20) == len(str(64 << 20))
    assert world.g.read("memory.max") == f"{64 << 20}\n"
    world.g.write("memory.max", np.int64(32 << 20))
    assert world.g.read("memory.max") == f"{32 << 20}\n"
    world.z.parameters.set("max_pool_percent", 7)
    assert world.z.parameters.get("max_pool_percent") == "7"


def test_a_store_takes_sizes_as_text(world: World) -> None:
    assert world.s.reclaim("16M").freed_bytes > 0


def test_charges_of_another_engines_cgroup_are_refused(world: World) -> None:
    with pytest.raises(OSError, match="another engine"):
        world.z.charge(world.values["foreign"], 4096)


@pytest.mark.parametrize("state", ["closed", "forked", "forked by C code"])
def test_flush_work_afterwards(state: str) -> None:
    code = """
        import os, sys, uzswap
        from tests.support.c_fork import c_fork
        z = uzswap.Zswap(swap=None)
        x = uzswap.zeros(1000, cgroup=z.cgroup("/a"))
        x[:] = 1
        if sys.argv[1] == "closed":
            del x
            z.close()
        elif not (os.fork() if sys.argv[1] == "forked" else c_fork()):
            try:
                z.flush_work()
                print("idle", flush=True)
            except RuntimeError as error:
                print(error, flush=True)
            os._exit(0)
        else:
            os.wait()
            sys.exit()
        z.flush_work()
        print("idle")
    """
    said = run(code, [state]).check().stdout
    assert said == "idle\n" if state != "forked by C code" else "belongs to the parent process" in said


def test_a_descriptor_is_no_path(world: World) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(TypeError):
        uzswap.from_file(fd, np.uint8, cgroup=world.g)  # type: ignore[arg-type]
    os.close(fd)  # still ours


def _reclaim(g: MemCgroup) -> None:
    g.reclaim("64K")


def _write_back(g: MemCgroup) -> None:
    g.reclaim("64K", source="zswap")


def _swap_out(g: MemCgroup) -> None:
    g.zswap.free(g.zswap.swap_out(b"x" * 4000, g))


def _read(g: MemCgroup) -> None:
    for name in ("memory.stat", "memory.numa_stat", "memory.current", "memory.pressure", "memory.events"):
        g.read(name)


def _limit(g: MemCgroup) -> None:
    for name in ("memory.high", "memory.zswap.max", "memory.min"):
        g.write(name, "4K")


def _charge(g: MemCgroup) -> None:
    g.zswap.charge(g, 4096)
    g.zswap.uncharge(g, 4096)


def _array(g: MemCgroup) -> None:
    array = uzswap.zeros(5000, cgroup=g)
    array[:] = 1
    uzswap.info(array)


def test_a_cgroup_that_goes_at_any_moment_is_an_oserror(engine: EngineFactory) -> None:
    z = engine()
    done = threading.Event()

    def remove() -> None:
        while not done.is_set():
            with contextlib.suppress(OSError):
                z.tree.lookup("/x").remove()

    def use(call: Callable[[MemCgroup], None]) -> None:
        for _ in range(300):
            with contextlib.suppress(OSError):
                call(z.cgroup("/x"))

    calls = (_reclaim, _write_back, _swap_out, _read, _limit, _charge, _array)
    with ThreadPoolExecutor(len(calls) + 1) as pool:
        removing = pool.submit(remove)
        try:
            for using in [pool.submit(use, call) for call in calls]:
                using.result()
        finally:
            done.set()
        removing.result()
