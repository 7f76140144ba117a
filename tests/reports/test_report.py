"""uzswap.report(): what a store could not give up and why, where pages are, and the RSS told apart."""

from __future__ import annotations

import errno
import itertools
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import EngineFactory
from tests.support.child import run

import uzswap
from uzswap import Store, Zswap
from uzswap.reports.process import Mapping, mappings_in
from uzswap.reports.report import report_of, why
from uzswap.reports.stores import find_key

PAGE = 4096


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


class Named:
    """A key with no other name than its repr."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        if self._name == "mistake":
            raise ValueError
        return f"<{self._name}>"


def lines(number: int) -> list[str]:
    return [f"{number}: line {i}" for i in range(50)]


def test_where_each_page_of_an_array_is(z: Zswap) -> None:
    group = z.cgroup("/arrays")
    x = uzswap.zeros(64 * PAGE // 8, cgroup=group)
    x[: 48 * PAGE // 8] = np.arange(48 * PAGE // 8)
    uzswap.advise(x[: 32 * PAGE // 8], "pageout")
    group.reclaim(1, source="zswap")
    y = uzswap.zeros(PAGE, np.uint8, cgroup=z.cgroup("/other"))
    y[0] = 1
    report = uzswap.report(z)
    found = report.arrays[0]
    info = uzswap.info(x)
    assert [one.cgroup for one in report.arrays] == ["/arrays", "/other"]
    assert (found.bytes, found.address) == (64 * PAGE, x.ctypes.data)
    assert (found.resident, found.zswap, found.disk) == (info.resident, info.zswap, info.disk)
    assert found.disk > 0
    text = found.strip.text()
    assert len(text) == 64
    assert set(text[:32]) == {"z", "d"}
    assert text[32:48] == "R" * 16
    # A fault brings what follows, too.
    assert text[48:].strip(".") in {"R" * n for n in range(16)}
    assert [text.count(letter) * PAGE for letter in "Rzd."] == [info.resident, info.zswap, info.disk, info.zero]
    assert [one.cgroup for one in report_of(z.cgroup("/other")).arrays] == ["/other"]
    assert found.faults == info.faults


def test_what_could_not_go_and_why(z: Zswap) -> None:
    with Store[Any, Any](z.cgroup("/jobs")) as store:
        store["held"] = held = lines(0) * 4
        store["generator"] = [(i for i in [1]), "x" * 3000]
        store["pinned"] = lines(1)
        store.pin("pinned")
        for i in range(20):
            store[i] = lines(i)
        store["large"] = [f"large {i}" for i in range(2000)]
        new = uzswap.report(z).stores[0]
        assert (new.stuck[0], len(new.stay)) == (1, 1)
        store.reclaim("1M")
        assert len(held) == 200
        found = uzswap.report(z).stores[0]
        told = {value.key: value.why for value in found.stay}
        assert told.keys() == {"'held'", "'generator'", "'pinned'"}
        assert "the variable held of test_what_could_not_go_and_why()" in told["'held'"]
        assert "can't be pickled: value[0], a generator" in told["'generator'"]
        assert "unpin()" in told["'pinned'"]
        assert found.stay[0].key == "'held'"
        assert found.stuck[0] == 3
        assert (found.referenced[0], found.unpicklable[0]) == (1, 1)
        assert (found.values, found.largest[0].key, found.largest[0].where) == (24, "'large'", "zswap")
        assert found.zswap_bytes == store.stats()["zswap_bytes"]
        assert found.coldest == []
        store[100], store[101] = lines(100), lines(101)
        assert store[3][0] == "3: line 0"
        assert [value.key for value in uzswap.report(z).stores[0].coldest][:2] == ["100", "101"]
        del held


def test_of_many_the_most(z: Zswap) -> None:
    with Store[int, Any](z.cgroup("/jobs")) as store:
        for i in range(300):
            store[i] = "x" * (100 + i * 7 % 300)
        ranking = store.rank(64)
        weights = sorted((store.info(key).weight for key in store), reverse=True)
        assert [store.info(key).weight for key in ranking.largest] == weights[:64]
        assert ranking.coldest == list(range(64))
        assert ranking.new[0] + ranking.hot[0] == 300
        assert ranking.new[1] + ranking.hot[1] + ranking.stuck[1] == store.resident_bytes
        assert store.rank(1000).largest == ranking.largest
        assert store.rank(0)[3:] == ([], [], [])
        assert len(report_of(z.root, most=3).stores[0].coldest) == 3


def test_the_collector_is_asked_about_so_many(z: Zswap) -> None:
    held = [lines(i) for i in range(8)]
    with Store[int, Any](z.cgroup("/a")) as first, Store[int, Any](z.cgroup("/b")) as second:
        for i, value in enumerate(held):
            (first, second)[i % 2][i] = value
        for store in (first, second):
            store.reclaim("1M")
        told = [value.why for store in report_of(z.root, most=3).stores for value in store.stay]
        assert ["is held by" in why for why in told] == [True] * 3 + [False] * 3
        assert set(told[3:]) == {"somebody else holds a part of it"}
        told = [value.why for store in report_of(z.root, most=6).stores for value in store.stay]
        assert ["is held by" in why for why in told] == [True] * 6 + [False] * 2


def test_keys_by_their_text(z: Zswap) -> None:
    group = z.cgroup("/jobs")
    with Store[Any, Any](group) as store:
        for key in ("day", 3, ("a", 1), Named("one"), Named("mistake"), "[1]"):
            store[key] = lines(1)
        assert find_key(store, "'day'") == find_key(store, "day") == "day"
        assert find_key(store, "3") == 3
        assert find_key(store, "('a', 1)") == ("a", 1)
        assert find_key(store, "[1]") == "[1]"
        assert repr(find_key(store, "<one>")) == "<one>"
        assert why(group, "('a', 1)")[0].why.startswith("nothing keeps it")
        with pytest.raises(FileNotFoundError, match="nobody"):
            why(group, "nobody")
        assert any("Named" in value.key for value in uzswap.report(z).stores[0].largest)


def test_it_can_be_shown(z: Zswap) -> None:
    with Store[str, Any](z.cgroup("/jobs/<b>")) as store:
        store["<i>[bold]"] = lines(1)
        x = uzswap.ones(1000, cgroup=z.cgroup("/jobs"))
        report = uzswap.report(z)
        assert "<i>[bold]" in str(report)
        assert "Python's own" in repr(report)
        shown = report._repr_html_()
        assert "&lt;b&gt;" in shown
        assert "<i>" not in shown
        assert "<svg" in shown
        assert json.loads(json.dumps(report.as_json()))["arrays"][0]["bytes"] == uzswap.info(x).bytes


def test_while_others_make_and_free(z: Zswap) -> None:
    """Arrays that come, go and change their places, and keys that do, spoil no report."""
    group = z.cgroup("/busy")
    over = threading.Event()
    with Store[int, Any](group) as store:

        def work() -> None:
            for i in itertools.count():
                if over.is_set():
                    return
                x = uzswap.zeros(PAGE * (1 + i * 37 % 3000), np.uint8, cgroup=group)
                x[:: 3 * PAGE] = 1
                uzswap.advise(x, "pageout")
                store[i] = lines(i)
                store.discard(i - 20)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            for _ in range(20):
                report = uzswap.report(z, most=64)
                assert all(one.strip.shares.sum() * PAGE <= one.bytes for one in report.arrays if one.faults == 0)
        finally:
            over.set()
            thread.join()


def test_inside_managed(z: Zswap) -> None:
    """What it needs itself is never paged memory: a fault there would wait for the locks that it holds."""
    group = z.cgroup("/arrays")
    x = uzswap.zeros(3000 * PAGE, np.uint8, cgroup=group)
    x[:] = 1
    with uzswap.managed(group, min_bytes=1):
        assert uzswap.report(z).arrays[0].strip.text()[0] == "R"


def test_wrong_arguments(z: Zswap) -> None:
    with Store[int, Any](z.cgroup("/jobs")) as store:
        store[1] = [1]
        with pytest.raises(uzswap.InvalidArgumentError, match="most=-1"):
            store.rank(-1)
    for arguments in ({"most": -1}, {"columns": 0}):
        with pytest.raises(uzswap.InvalidArgumentError):
            uzswap.report(z, **arguments)


def test_of_a_closed_engine(z: Zswap) -> None:
    z.close()
    with pytest.raises(OSError, match="closed") as caught:
        uzswap.report(z)
    assert caught.value.errno == errno.EBADF


def test_mappings_are_read() -> None:
    text = """\
7f0000000000-7f0000002000 rw-p 00000000 00:00 0      [heap]
Size:                  8 kB
Rss:                   8 kB
Anonymous:             4 kB
AnonHugePages:         0 kB
7f0000002000-7f0000003000 r--p 00000000 00:00 1      /x Rss: 5
Rss:                   4 kB
Anonymous:             0 kB
"""
    assert list(mappings_in(text.splitlines())) == [
        Mapping(0x7F0000000000, 0x7F0000002000, 8192, 4096),
        Mapping(0x7F0000002000, 0x7F0000003000, 4096, 0),
    ]


@pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux 4.14 with CONFIG_PROC_PAGE_MONITOR"
)
def test_the_parts_are_the_rss() -> None:
    """24 MiB of an array, 8 MiB in zswap that do not compress, 16 MiB in a store, 20 MiB of Python's own."""
    code = """
    import json, mmap, uzswap, numpy as np
    from uzswap.reports.process import rolled_up
    with uzswap.Zswap() as z:
        before = uzswap.report(z).process
        noise = np.random.default_rng(1)
        x = uzswap.zeros(40 << 20, np.uint8, cgroup=z.cgroup("/arrays"))
        x[: 24 << 20] = 1
        x[24 << 20 : 32 << 20] = noise.integers(0, 256, 8 << 20, np.uint8)
        uzswap.advise(x[24 << 20 : 32 << 20], "pageout")
        store = uzswap.Store(z.cgroup("/jobs"))
        for i in range(64):
            store[i] = noise.bytes(256 << 10)
        own = bytearray(b"x") * (20 << 20)
        after = uzswap.report(z)
        rss = rolled_up()
        print(json.dumps([before._asdict(), after.process._asdict(), after.rss, rss, z.core.pool_pages() * 4096,
                          uzswap.info(x).resident, store.resident_bytes]))
        del x
        store.close()
    """
    before, after, first, last, pool, resident, charged = json.loads(run(code, fresh=True).check().stdout)
    assert abs(sum(after.values()) - first) <= first * 0.05
    assert abs(sum(after.values()) - last) <= last * 0.05
    assert after["arrays"] == resident
    assert 24 << 20 <= resident < 26 << 20
    assert after["objects"] == charged
    assert 16 << 20 <= charged < 17 << 20
    # Whole slabs, of which the ends were never touched.
    assert pool * 0.9 <= after["pool"] <= pool
    assert pool >= 8 << 20
    assert after["python"] - before["python"] >= 20 << 20
    assert after["python"] - before["python"] < 32 << 20
    assert abs(after["files"] - before["files"]) < 8 << 20
    assert 0 < after["tables"] < 4 << 20
