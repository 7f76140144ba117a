"""Disks that fail or lie, processes that fork or are killed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.store.values import counters, evict, noise
from tests.support.child import Child, run
from tests.support.faulty import FaultySwap

from uzswap import IntegrityError, ReclaimError, Store, Zswap

if TYPE_CHECKING:
    from tests.conftest import EngineFactory


def to_disk(z: Zswap, store: Store[Any, Any]) -> None:
    evict(store)
    store.cgroup.reclaim(counters(store.cgroup)["zswap"], source="zswap")
    assert {store.where(key) for key in store} == {"disk"}


def chunks(z: Zswap, store: Store[Any, Any], key: object) -> list[tuple[int, int]]:
    """Place and compressed length of each chunk of a value."""
    packed = store._slots.by_key[key].packed
    assert packed is not None
    infos = [z.core.info(int(handle)) for handle in packed.handles]
    return [(info.location, info.length) for info in infos if info is not None]


def test_a_corrupt_chunk_is_an_error_of_its_value_alone(engine: EngineFactory, tmp_path: Path) -> None:
    swap = tmp_path / "named"
    z = engine(swap=str(swap))
    cgroup = z.cgroup("/jobs/a")
    with Store[str, Any](cgroup) as store:
        store["good"] = noise(300_000)
        store["bad"] = [noise(100_000, 1), np.frombuffer(bytes(noise(300_000, 2)), np.uint8).copy()]
        store["also good"] = noise(300_000, 3)
        to_disk(z, store)
        offset, length = chunks(z, store, "bad")[3]
        with swap.open("r+b") as file:
            file.seek(offset + length // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 0xFF]))
            os.fsync(file.fileno())
        before = counters(cgroup)
        for attempt in (lambda: store["bad"], lambda: store.get("bad"), lambda: store.pop("bad", None)):
            with pytest.raises(IntegrityError, match="/jobs/a") as info:
                attempt()
            assert info.value.cgroup == "/jobs/a"
            assert info.value.errno == errno.EIO
            assert info.value.__notes__ == ["in the store of /jobs/a, while loading the value of 'bad': it is kept"]
        assert "bad" in store
        assert store.where("bad") == "disk"
        assert counters(cgroup)["anon"] == before["anon"] == 0
        assert store["good"] == noise(300_000)
        assert store["also good"] == noise(300_000, 3)
        store["bad"] = [1]
        evict(store)
        assert store.pop("bad") == [1]
        z.check()


def test_a_device_that_cannot_be_read_for_a_while(engine: EngineFactory) -> None:
    with FaultySwap(16 << 20) as disk:
        z = engine(swap=disk.path, swap_size="16M")
        with Store[str, Any](z.cgroup("/a")) as store:
            store["a"] = noise(300_000)
            store["b"] = [1.5] * 1000
            to_disk(z, store)
            disk.fail_reads(errno.EIO)
            for key in store:
                with pytest.raises(OSError, match="/a") as info:
                    store[key]
                assert info.value.errno == errno.EIO
                assert not isinstance(info.value, IntegrityError)
            assert store.resident_bytes == 0
            disk.heal()
            assert store["a"] == noise(300_000)
            assert store["b"] == [1.5] * 1000
        z.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_device_that_cannot_be_written_for_a_while(engine: EngineFactory, number: int) -> None:
    with FaultySwap(16 << 20) as disk:
        z = engine(swap=disk.path, swap_size="16M")
        cgroup = z.cgroup("/a")
        cgroup.write("memory.zswap.max", "0")  # everything has to go to the device
        with Store[int, Any](cgroup) as store:
            for i in range(10):
                store[i] = noise(100_000, i)
            disk.fail_writes(number)
            assert store.reclaim(1 << 30).freed_bytes == 0
            refused = store.stats()["refused"]
            assert refused > 0
            with pytest.raises(ReclaimError) as info:
                cgroup.reclaim("256K")
            assert info.value.errno == errno.EAGAIN
            # It stops soon, and does not try each value at each priority as often as a reclaim is repeated.
            assert store.stats()["refused"] - refused < 100
            cgroup.write("memory.max", cgroup.usage())
            refused = store.stats()["refused"]
            with pytest.raises(MemoryError):
                store["one more"] = noise(100_000)
            assert store.stats()["refused"] - refused < 200
            cgroup.write("memory.max", "max")
            assert store.stats()["packed"] == 0
            disk.heal()
            evict(store)
            assert store.stats()["disk_bytes"] >= 1_000_000
            assert all(store[i] == noise(100_000, i) for i in range(10))
            z.check()
        z.close()


CHILD = """
import os, sys
import uzswap
from tests.store.values import evict, noise

z = uzswap.Zswap(swap=(sys.argv[1] or "auto"), swap_size="64M")
store = uzswap.Store(z.cgroup("/a"))
for i in range(50):
    store[i] = noise(100_000, i)
evict(store)
z.cgroup("/a").reclaim("2M", source="zswap")
print(store.stats()["disk_bytes"])
"""


def test_kill_9_leaves_nothing(tmp_path: Path) -> None:
    with Child(CHILD + "input()", args=[""], env={"TMPDIR": str(tmp_path)}) as child:
        assert int(child.read_line()) >= 2_000_000
        in_use = [Path(os.readlink(fd)) for fd in Path(f"/proc/{child.pid}/fd").iterdir()]
        assert any(str(path).startswith(str(tmp_path)) for path in in_use)
        child.kill()
    assert list(tmp_path.rglob("*")) == []


def test_a_forked_child_has_the_store_as_its_own() -> None:
    """Whatever its parent's threads are at: locks that they have, values on their way in and out."""
    code = """
        import threading
        exec(CHILD)
        stop = threading.Event()
        hold = threading.Event(), threading.Event()

        def hold_the_lock():
            with z.tree.lock:
                hold[0].set()
                hold[1].wait()

        def use(begin):
            while not stop.is_set():
                for i in range(begin, 50, 3):
                    assert store[i] == noise(100_000, i)
                    store.reclaim(300_000)

        threads = [threading.Thread(target=use, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for turn in range(10):
            if turn == 9:
                stop.set()
                for thread in threads:
                    thread.join()
                threads = [threading.Thread(target=hold_the_lock)]
                threads[0].start()
                hold[0].wait()
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    assert all(store[i] == noise(100_000, i) for i in range(50))
                    store[0] = "mine"
                    store.reclaim(1 << 30)
                    assert store[0] == "mine" and store[1] == noise(100_000, 1)
                    assert len(store) == 50 and store.pop(7) == noise(100_000, 7)
                    with uzswap.Store(store.cgroup) as other:
                        other["a"] = 1
                    store.check()
                    store.close()
                    z.close()
                    code = 0
                except BaseException:
                    import traceback
                    traceback.print_exc()
                finally:
                    os._exit(code)
            assert os.waitpid(pid, 0)[1] == 0
        hold[1].set()
        threads[0].join()
        assert all(store[i] == noise(100_000, i) for i in range(50))
        store.close()
        z.check()
        z.close()
        print("the parent is well")
        """.replace("exec(CHILD)", CHILD.replace("\n", "\n        "))
    assert run(code, args=[""]).check().stdout.splitlines()[-1] == "the parent is well"
