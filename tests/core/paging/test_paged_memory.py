"""Paged memory alone: contents under limits, whoever touches what, and everything given back."""

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.support import child

from uzswap.core.boundary import engine as core
from uzswap.core.boundary import memory as paged

MIB = 1 << 20
PAGE = 4096


@pytest.fixture
def memory(engine: core.Engine) -> Iterator[paged.Memory]:
    try:
        memory = paged.Memory(engine)
    except OSError as refused:
        pytest.skip(f"userfaultfd is refused here ({refused}): run where a seccomp filter does not forbid it")
    yield memory
    memory.close()


def array(memory: paged.Memory, memcg: int, n: int, dtype: type = np.uint64) -> tuple[int, np.ndarray]:
    nbytes = n * np.dtype(dtype).itemsize
    area, address = memory.alloc(nbytes, memcg, np.dtype(dtype).itemsize)
    return area, np.frombuffer((ctypes.c_char * nbytes).from_address(address), dtype)


def counters(engine: core.Engine, memcg: int) -> dict[str, int]:
    return dict(zip(core.COUNTERS, engine.counters(memcg), strict=True))


def test_an_array_larger_than_its_limit_keeps_its_contents(engine: core.Engine, memory: paged.Memory) -> None:
    memcg = engine.memcg_new(0)
    engine.set_limit(memcg, core.MEMORY_MAX, 4 * MIB)
    area, x = array(memory, memcg, 2 * MIB)
    expected = np.arange(len(x), dtype=np.uint64) * 0x9E3779B97F4A7C15 >> 32
    x[:] = expected
    assert counters(engine, memcg)["resident"] <= 4 * MIB
    assert (x == expected).all()
    rng = np.random.default_rng(1)
    for _ in range(40):
        chosen = rng.integers(0, len(x), 200)
        expected[chosen] ^= 0xFF
        x[chosen] = expected[chosen]
    assert (x == expected).all()
    info = memory.area(area)
    assert info.resident + info.zswap + info.disk + info.zero == info.pages
    assert info.lost == 0
    del x
    memory.free(area)
    assert [counters(engine, memcg)[k] for k in ("resident", "zswap", "swap", "disk")] == [0, 0, 0, 0]


def test_threads_that_touch_the_same_pages(engine: core.Engine, memory: paged.Memory) -> None:
    memcg = engine.memcg_new(0)
    engine.set_limit(memcg, core.MEMORY_MAX, 2 * MIB)
    area, x = array(memory, memcg, 512 * 1024)
    x[:] = np.arange(len(x))
    wrong = []

    def read(seed: int, x: np.ndarray) -> None:
        for i in np.random.default_rng(seed).integers(0, len(x) // 512, 3000):
            if int(x[512 * i : 512 * i + 512].sum()) != 512 * (1024 * int(i) + 511) // 2:
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(seed, x)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    threads.clear()
    del x
    memory.free(area)


def test_areas_of_several_memcgs_are_evicted_where_the_limit_is(engine: core.Engine, memory: paged.Memory) -> None:
    parent = engine.memcg_new(0)
    children = [engine.memcg_new(parent) for _ in range(2)]
    outside = engine.memcg_new(0)
    arrays = [array(memory, memcg, 128 * 1024) for memcg in (*children, outside)]
    for _, values in arrays:
        values[:] = np.arange(len(values))
    engine.set_limit(parent, core.MEMORY_MAX, MIB)
    assert memory.reclaim(parent, 100) == 100
    assert counters(engine, outside)["resident"] == MIB
    arrays[0][1][:] += 1
    assert counters(engine, parent)["resident"] <= MIB
    assert counters(engine, outside)["resident"] == MIB
    assert (arrays[0][1] == np.arange(128 * 1024) + 1).all()
    areas = [area for area, _ in arrays]
    del arrays, values
    for area in areas:
        memory.free(area)


def test_system_calls_reach_pages_that_are_not_resident(
    engine: core.Engine, memory: paged.Memory, tmp_path: Path
) -> None:
    if memory.info().user_mode_only:
        pytest.skip("user mode only: root, CAP_SYS_PTRACE or access to /dev/userfaultfd lets the kernel fault too")
    area, x = array(memory, engine.memcg_new(0), 64 * 1024)
    x[:] = np.arange(len(x))
    memory.evict(area, 0, 128)
    path = tmp_path / "x"
    path.write_bytes(x.data)
    assert memory.evict(area, 0, 128) > 0
    with path.open("rb", buffering=0) as file:
        assert file.readinto(x.data) == x.nbytes
    assert (x == np.arange(len(x))).all()
    del x
    memory.free(area)


def test_kept_pages_stay_until_they_are_let_go(engine: core.Engine, memory: paged.Memory) -> None:
    area, x = array(memory, engine.memcg_new(0), 64 * 1024)
    x[:] = np.arange(len(x))
    assert memory.bring(area, 0, 16, keep=True) == 0
    assert memory.evict(area, 0, 128) == 112
    assert memory.area(area).resident == 16
    memory.unkeep(area, 0, 16)
    assert memory.evict(area, 0, 128) == 16
    assert (x == np.arange(len(x))).all()
    del x
    memory.free(area)


def test_dropped_pages_read_as_zero_and_cost_nothing(engine: core.Engine, memory: paged.Memory) -> None:
    memcg = engine.memcg_new(0)
    area, x = array(memory, memcg, 64 * 1024)
    x[:] = np.arange(len(x)) + 1
    memory.evict(area, 0, 64)
    memory.drop(area, 0, 128)
    assert counters(engine, memcg)["resident"] == counters(engine, memcg)["swap"] == 0
    assert not x.any()
    del x
    memory.free(area)


def test_memory_that_is_locked_by_default_is_not_made_present_at_once() -> None:
    """mlockall(MCL_FUTURE) makes every new mapping present, and address space is reserved for 16 times the memory."""
    done = child.run(
        """
        import ctypes, resource
        assert ctypes.CDLL(None).mlockall(2) == 0
        from uzswap.core.boundary import engine
        from uzswap.core.boundary import memory
        plane = engine.Engine()
        m = memory.Memory(plane)
        memcg = plane.memcg_new(0)
        area, address = m.alloc(1 << 20, memcg)
        ctypes.memset(address, 5, 1 << 20)
        assert m.evict(area, 0, 256) == 256
        assert ctypes.string_at(address, 1 << 20) == bytes([5]) * (1 << 20)
        m.free(area)
        m.close()
        plane.close()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1 << 20, "KiB"
        """
    )
    if "AssertionError" in done.stderr and "mlockall" in done.stderr:
        pytest.skip("mlockall is refused: RLIMIT_MEMLOCK or CAP_IPC_LOCK would allow it")
    done.check()


def test_what_nothing_takes_stays_in_memory(memory: paged.Memory, engine: core.Engine) -> None:
    """Incompressible pages, writeback off: zswap refuses, the device is not allowed, and memory.max cannot be kept."""
    memcg = engine.memcg_new(0)
    engine.set_writeback(memcg, False)
    engine.set_limit(memcg, core.MEMORY_MAX, MIB)
    area, x = array(memory, memcg, 256 * 1024)
    noise = np.random.default_rng(1).integers(0, 1 << 64, len(x), np.uint64)
    x[:] = noise
    assert (x == noise).all()
    assert counters(engine, memcg)["resident"] == x.nbytes
    assert memory.take_events(memcg) & (paged.MAX | paged.OOM) == paged.MAX | paged.OOM
    del x
    memory.free(area)


@pytest.mark.parametrize("dtype", [np.float64, np.int32])
def test_the_byte_shuffle_is_used_where_it_pays(engine: core.Engine, memory: paged.Memory, dtype: type) -> None:
    memcg = engine.memcg_new(0)
    sizes = []
    for item in (0, np.dtype(dtype).itemsize):
        n = MIB // np.dtype(dtype).itemsize
        area, address = memory.alloc(MIB, memcg, item)
        x = np.frombuffer((ctypes.c_char * MIB).from_address(address), dtype)
        x[:] = np.arange(n) * 3
        assert memory.evict(area, 0, 256) == 256
        sizes.append(counters(engine, memcg)["zswap"])
        assert (x == np.arange(n, dtype=dtype) * 3).all()
        del x
        memory.free(area)
    assert sizes[1] < sizes[0] / 2


def test_reclaim_of_one_memcg_alone_leaves_its_children_alone(engine: core.Engine, memory: paged.Memory) -> None:
    parent = engine.memcg_new(0)
    child = engine.memcg_new(parent)
    arrays = [array(memory, memcg, 64 * 1024) for memcg in (parent, child)]
    for area, values in arrays:
        values[:] = np.arange(len(values))
        memory.bring(area, 0, 128)
    assert [memory.own_pages(memcg) for memcg in (parent, child)] == [128, 128]
    assert memory.reclaim_own(parent, 1000) == 128
    assert [memory.own_pages(memcg) for memcg in (parent, child)] == [0, 128]
    areas = [area for area, _ in arrays]
    del arrays, values
    for area in areas:
        memory.free(area)


def test_areas_of_a_removed_memcg_are_its_parents(engine: core.Engine, memory: paged.Memory) -> None:
    parent = engine.memcg_new(0)
    child = engine.memcg_new(parent)
    (mine, x), (theirs, y) = (array(memory, memcg, 64 * 1024) for memcg in (parent, child))
    for area, values in ((mine, x), (theirs, y)):
        values[:] = np.arange(len(values))
        memory.bring(area, 0, 128)
    engine.memcg_remove(child)
    again = engine.memcg_new(0)
    assert memory.area(theirs).memcg == parent
    assert memory.own_pages(parent) == 256
    assert memory.own_pages(again) == 0
    assert memory.reclaim(parent, 1000) == 256
    assert (y == np.arange(len(y))).all()
    assert counters(engine, again)["resident"] == 0
    del x, y, values
    memory.free(mine)
    memory.free(theirs)
    assert counters(engine, parent)["resident"] == 0


def test_a_fault_whose_memcg_is_removed_meanwhile_asks_for_room_below_the_parents_limit() -> None:
    """Nothing of the child could go, so that its own limit would have been passed over."""
    done = child.run(
        """
        import ctypes, os, sys, threading
        import numpy as np
        from tests.support import uffd_filter
        from uzswap.core.boundary import engine
        from uzswap.core.boundary import memory

        plane = engine.Engine()
        m = memory.Memory(plane)
        parent = plane.memcg_new(0)
        child = plane.memcg_new(parent)

        def array(memcg, pages):
            area, address = m.alloc(pages * 4096, memcg)
            return np.frombuffer((ctypes.c_char * (pages * 4096)).from_address(address), np.uint64)

        x, y = array(child, 128), array(parent, 256)
        x[: 64 * 512] = np.random.default_rng(1).integers(0, 1 << 64, 64 * 512, np.uint64)
        y[:] = 7
        m.settle()
        resident = engine.COUNTERS.index("resident")
        plane.set_limit(child, engine.MEMORY_MAX, plane.counters(child)[resident])
        plane.set_limit(parent, engine.MEMORY_MAX, plane.counters(parent)[resident])
        try:
            held = uffd_filter.hold("MOVE")
        except uffd_filter.Unsupported as why:
            sys.exit(str(why))
        page = ctypes.c_void_p(x.ctypes.data + 100 * 4096)
        faulting = threading.Thread(target=ctypes.CDLL(None).memchr, args=(page, 1, 1))  # without the GIL
        faulting.start()
        number = held.wait()
        plane.memcg_remove(child)
        held.go_on(number)
        held.let_all_go_on()
        faulting.join()
        assert m.take_events(parent) & memory.MAX
        print("right", flush=True)
        os._exit(0)
        """
    )
    if "seccomp filters cannot be made here" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.check().stdout == "right\n"


def test_cooled_pages_are_the_next_to_go(engine: core.Engine, memory: paged.Memory) -> None:
    memcg = engine.memcg_new(0)
    areas = [array(memory, memcg, 64 * 1024) for _ in range(2)]
    for area, values in areas:
        values[:] = 1
        memory.bring(area, 0, 128)
    newest = areas[1][0]
    memory.cool(newest, 0, 128)
    memory.reclaim(memcg, 128)
    assert [memory.area(area).resident for area, _ in areas] == [128, 0]
    numbers = [area for area, _ in areas]
    del areas, values
    for area in numbers:
        memory.free(area)


def test_first_touches_count_as_faults_but_not_as_major_ones(engine: core.Engine, memory: paged.Memory) -> None:
    memcg = engine.memcg_new(0)
    area, x = array(memory, memcg, 64 * 1024)
    x[:] = 1
    memory.bring(area, 0, 128)
    assert (counters(engine, memcg)["pgfault"], counters(engine, memcg)["pgmajfault"]) == (128, 0)
    memory.evict(area, 0, 128)
    memory.bring(area, 0, 128)
    assert (counters(engine, memcg)["pgfault"], counters(engine, memcg)["pgmajfault"]) == (256, 128)
    del x
    memory.free(area)


def test_what_is_compressed_does_not_fill_a_budget(engine: core.Engine, memory: paged.Memory) -> None:
    memcg = engine.memcg_new(0)
    engine.set_limit(memcg, core.MEMORY_MAX, 2 * MIB)
    area, x = array(memory, memcg, MIB)
    x[:] = noise = np.random.default_rng(1).integers(0, 1 << 32, len(x), np.uint64)  # half of each word: ratio 2
    assert (x == noise).all()
    levels = counters(engine, memcg)
    assert levels["resident"] >= MIB // 2
    assert levels["resident"] + levels["zswap"] <= 2 * MIB + 64 * PAGE
    assert levels["disk"] > 0
    assert not memory.take_events(memcg) & paged.OOM
    del x
    memory.free(area)


def test_calls_that_are_under_way_when_the_memory_is_closed_end_first() -> None:
    """Whatever the moment: they are done, or refused."""
    child.run(
        """
        import sys, threading
        from uzswap.core.boundary import engine
        from uzswap.core.boundary import memory

        sys.setswitchinterval(1e-6)
        for _ in range(60):
            plane = engine.Engine()
            m = memory.Memory(plane)
            memcg = plane.memcg_new(0)
            m.free(m.alloc(1 << 20, memcg)[0])
            calls = [
                m.wait_events,
                m.settle,
                m.info,
                lambda: m.take_counts(memcg),
                lambda: m.reclaim(memcg, 10),
                lambda: m.own_pages(memcg),
            ]
            begin = threading.Barrier(len(calls) + 1)

            def call(one):
                begin.wait()
                try:
                    while True:
                        one()
                except ValueError as closed:
                    assert "closed" in str(closed)

            threads = [threading.Thread(target=call, args=(one,)) for one in calls]
            for thread in threads:
                thread.start()
            begin.wait()
            m.close()
            plane.close()
            for thread in threads:
                thread.join()
        """
    ).check()


def test_no_descriptor_is_inherited(engine: core.Engine) -> None:
    """Whoever has the write end of the pipe that ends the threads could end them."""
    known = set(os.listdir("/proc/self/fd"))
    memory = paged.Memory(engine)
    inherited = []
    for fd in set(os.listdir("/proc/self/fd")) - known:
        with contextlib.suppress(OSError):  # the listing's own
            inherited += [fd] if os.get_inheritable(int(fd)) else []
    memory.close()
    assert inherited == []


def test_a_core_dump_has_no_plaintext_of_what_is_evicted() -> None:
    """Of what a dump would contain, all but the mappings marked "dd"; a page comes, is evicted, and is read ahead."""
    child.run(
        """
        import ctypes, re
        from uzswap.core.boundary import engine
        from uzswap.core.boundary import memory

        def dumped():
            # Mappings that a dump has, without the page tables: these are large, and know no bytes of pages.
            for line in open("/proc/self/smaps"):
                if re.match("[0-9a-f]+-", line):
                    begin, end = (int(number, 16) for number in line.split()[0].split("-"))
                    ours = line.split()[1].startswith("rw") and end - begin < 256 << 20
                elif line.startswith("VmFlags:") and ours and " dd" not in line:
                    yield begin, end

        plane = engine.Engine()
        m = memory.Memory(plane)
        memcg = plane.memcg_new(0)
        plane.set_limit(memcg, engine.MEMORY_MAX, 1 << 20)
        area, address = m.alloc(4 << 20, memcg)
        key = bytes(b ^ 0x55 for b in b"+:;0=0=$#!!")

        def secret():
            return bytes(b ^ 0x55 for b in key) * 4

        for page in range(1024):
            ctypes.memmove(address + page * 4096, secret() + (page + 1).to_bytes(4, "little") * 900, 3600)
        for page in range(1024):
            assert ctypes.string_at(address + page * 4096, 1) == secret()[:1]
        m.settle()
        assert m.evict(area, 0, 1024) >= 0
        count = 0
        with open("/proc/self/mem", "rb", buffering=0) as memory_file:
            for begin, end in list(dumped()):
                if begin <= address < end:
                    continue
                memory_file.seek(begin)
                try:
                    data = memory_file.read(end - begin)
                except OSError:
                    continue
                for at in re.finditer(re.escape(secret()), data or b""):
                    # A page of ours: the secret and then its number, which is never 0, again and again.
                    after = data[at.end() : at.end() + 8]
                    count += len(after) == 8 and after[:4] == after[4:] and after[:4] not in (bytes(4), secret()[:4])
        assert count == 0, count
        m.free(area)
        m.close()
        plane.close()
        """,
        fresh=True,  # whose memory nobody else has used
    ).check()
