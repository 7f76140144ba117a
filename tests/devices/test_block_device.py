"""Block devices: what is taken for swap, who else may use one meanwhile, and what is left on it."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import EngineFactory
from tests.support.child import Child
from tests.support.loop import loop_device, make_file_system, mounted, second_node
from tests.support.states import fill, reclaim

from uzswap import Zswap
from uzswap.devices import open_swap

MIB = 1 << 20
SIZE = 16 * MIB
SECRET = b"TOP-SECRET-PASSWORD"

#: A process that writes the secret, in clear, to the device argv[1], says so, and waits.
WRITES_A_SECRET = """
    import contextlib, sys, uzswap
    z = uzswap.Zswap(sys.argv[1], "8M", encrypt=False)
    g = z.cgroup("/g")
    data = [b"TOP-SECRET-PASSWORD %d " % i * 20 for i in range(100)]
    handles = [z.swap_out(text, g) for text in data]
    for _ in range(2):  # the first may only take the second chance
        with contextlib.suppress(BlockingIOError):
            g.reclaim("8M", source="zswap")
    assert all(z.where(handle) == "disk" for handle in handles)
    print("written")
    input()
    z.close()
    """


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "image"


@pytest.fixture
def device(image: Path) -> Iterator[str]:
    with loop_device(image, SIZE) as device:
        yield device


def in_use(z: Zswap) -> None:
    """Have something on the device."""
    g = z.cgroup("/g")
    fill(z, g, 20, 2000, referenced=False)
    assert reclaim(g, 40_000).errno == 0


def write(device: str, offset: int, data: bytes) -> None:
    fd = os.open(device, os.O_RDWR)
    os.pwrite(fd, data, offset)
    os.fsync(fd)
    os.close(fd)


def run_label(device: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "uzswap.devices", device]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_blank_device_is_taken_again_and_again(engine: EngineFactory, device: str) -> None:
    for _ in range(3):
        z = engine(swap=device, swap_size="8M")
        in_use(z)
        z.close()


@pytest.mark.parametrize("offset", [0, 64 << 10, 3 * MIB + 4096, SIZE - MIB - 512, SIZE - 4096, SIZE - 1])
def test_a_device_with_data_anywhere_is_refused(device: str, image: Path, offset: int) -> None:
    write(device, offset, b"!")
    before = image.read_bytes()
    with pytest.raises(FileExistsError, match=f"holds data: run python -m uzswap.devices {device}"):
        open_swap(device, SIZE)
    assert image.read_bytes() == before


def test_a_device_too_large_to_look_through_needs_a_label(engine: EngineFactory, image: Path) -> None:
    with loop_device(image, 2 << 30) as device:
        with pytest.raises(FileExistsError, match=r"no label, and its 2\.0 GiB are too much") as refused:
            open_swap(device, SIZE)
        assert f"python -m uzswap.devices {device}" in str(refused.value)
        assert run_label(device).stdout == f"{device}: 2.0 GiB for swap\n"
        z = engine(swap=device, swap_size="8M")
        in_use(z)
        z.close()


def test_a_label_gives_up_what_was_there(engine: EngineFactory, device: str) -> None:
    write(device, 512, b"old data")
    assert run_label(device).returncode == 0
    engine(swap=device, swap_size="8M").close()


def test_a_label_is_for_devices_that_nobody_uses(engine: EngineFactory, device: str, tmp_path: Path) -> None:
    z = engine(swap=device, swap_size="8M")
    assert "in use" in run_label(device).stderr
    in_use(z)
    z.close()
    (tmp_path / "thesis").write_bytes(b"data")
    assert run_label(str(tmp_path / "thesis")).returncode == 1
    assert (tmp_path / "thesis").read_bytes() == b"data"


def test_a_file_system_made_over_the_label_is_refused(engine: EngineFactory, device: str, image: Path) -> None:
    """mkfs need not write where the label is: here, that it did not is played."""
    engine(swap=device, swap_size="8M").close()
    label = image.read_bytes()[-4096:]
    assert label.startswith(b"uzswap swap device")
    assert make_file_system(device).returncode == 0
    write(device, SIZE - 4096, label)
    with pytest.raises(FileExistsError, match="holds data"):
        open_swap(device, SIZE)


def test_data_after_a_killed_engine_is_refused(device: str, image: Path) -> None:
    """What begins with another engine's record than the label's, or with a damaged one, is not known."""
    with Child(WRITES_A_SECRET, args=[device]) as child:
        assert child.read_line() == "written"
        child.kill()
    write(device, 30, b"!")
    with pytest.raises(FileExistsError, match="holds data"):
        open_swap(device, SIZE)
    assert SECRET in image.read_bytes()


def test_nothing_stays_readable_after_close(device: str, image: Path) -> None:
    with Child(WRITES_A_SECRET, args=[device]) as child:
        assert child.read_line() == "written"
        assert SECRET in image.read_bytes()
        child.write_line("close")
        child.wait().check()
    assert not any(image.read_bytes()[:-4096])


def test_what_a_killed_engine_left_is_erased_by_the_next(engine: EngineFactory, device: str, image: Path) -> None:
    with Child(WRITES_A_SECRET, args=[device]) as child:
        assert child.read_line() == "written"
        child.kill()
    assert SECRET in image.read_bytes()
    z = engine(swap=device, swap_size="8M")
    assert SECRET not in image.read_bytes()
    in_use(z)
    z.close()


def test_one_engine_a_device_under_whatever_name(engine: EngineFactory, device: str, tmp_path: Path) -> None:
    node = second_node(device, tmp_path / "node")
    z = engine(swap=device, swap_size="8M")
    in_use(z)
    for name in (device, node):
        with pytest.raises(OSError, match="in use") as busy:
            engine(swap=name, swap_size="8M")
        assert busy.value.errno == errno.EBUSY
        assert busy.value.filename == str(name)
    in_use(z)
    z.close()
    engine(swap=node, swap_size="8M").close()


def test_nobody_else_can_use_the_device_meanwhile(engine: EngineFactory, device: str) -> None:
    z = engine(swap=device, swap_size="8M")
    in_use(z)
    made = make_file_system(device)
    assert made.returncode != 0
    assert "in use" in made.stderr
    with pytest.raises(subprocess.CalledProcessError), mounted(device):
        pass
    z.close()


def test_a_mounted_device_is_refused(device: str) -> None:
    assert make_file_system(device).returncode == 0
    with mounted(device) as where:
        (where / "thesis").write_bytes(b"data")
        with pytest.raises(OSError, match="unmount it") as busy:
            open_swap(device, SIZE)
        assert busy.value.errno == errno.EBUSY
        assert (where / "thesis").read_bytes() == b"data"


def test_a_device_stays_claimed_when_the_program_closes_all_descriptors(engine: EngineFactory, device: str) -> None:
    code = """
        import os, sys, uzswap
        z = uzswap.Zswap(sys.argv[1], "8M")
        os.closerange(3, 1024)
        print("closed")
        input()
        z.close()
        """
    with Child(code, args=[device]) as child:
        assert child.read_line() == "closed"
        with pytest.raises(OSError, match="in use"):
            open_swap(device, SIZE)
        child.write_line("close")
        child.wait().check()
    engine(swap=device, swap_size="8M").close()


def test_other_devices_are_not_even_opened(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="regular file or a block device") as refused:
        open_swap("/dev/null", SIZE)
    assert refused.value.errno == errno.EINVAL
