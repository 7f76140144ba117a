"""run, as an ordinary user: what programs do with arrays and files gives the same bytes as without an engine.

The kernel does not wait for pages there.  Each program has a budget of 16 MiB, and arrays of twice that.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tests.serve.conftest import needs_fuse
from tests.support.child import Finished, NobodysChild, closed_to_others
from tests.support.seccomp import can_refuse

pytestmark = pytest.mark.slow

#: Debian's own, whose file functions take other ways through glibc than one that was built here
DEBIAN = "/usr/bin/python3"

BEGIN = """
import os, pickle, signal, socket, sys, tempfile, threading
import numpy as np
import uzswap
x = np.arange(1 << 22)
y = np.zeros_like(x)
mode = uzswap.info(x).mode
if mode != "trapped":
    sys.exit(f"nobody gets the mode {mode}: sudo sysctl vm.unprivileged_userfaultfd=0")
directory = tempfile.mkdtemp(dir="/var/tmp")  # what is large may not fit in a /tmp in memory
path = os.path.join(directory, "data")

def same(found):
    assert found.dtype == x.dtype and found.shape == x.shape
    assert (found == x).all()

def out():
    uzswap.advise(x, "pageout")
    y[:] = 0
    uzswap.advise(y, "pageout")
"""

END = """
import shutil
shutil.rmtree(directory)
program = uzswap.default_engine().cgroup("/program")
assert int(program.read("memory.current")) <= 20 << 20, program.read("memory.current")
assert "oom 0\\n" in program.read("memory.events"), program.read("memory.events")
"""

FILES = """
out()
x.tofile(path)
out()
same(np.fromfile(path, x.dtype))
same(np.fromfile(path, x.dtype, len(x)))
with open(path, "rb") as file:
    assert file.readinto(y) == y.nbytes
same(y)
out()
with open(path, "rb", buffering=0) as file:
    assert file.readinto(y) == y.nbytes
same(y)
out()
with open(path, "wb", buffering=0) as file:
    assert file.write(x) == x.nbytes
same(np.fromfile(path, x.dtype))
out()
np.save(path + ".npy", x)
same(np.load(path + ".npy"))
out()
np.savez(path + ".npz", x=x, y=y)
with np.load(path + ".npz") as found:
    same(found["x"])
out()
with open(path, "wb") as file:
    pickle.dump({"x": x, "y": y}, file, protocol=5)
out()
with open(path, "rb") as file:
    found = pickle.load(file)
same(found["x"])
assert not found["y"].any()
"""

SOCKETS = """
def both(send, receive):
    ours, theirs = socket.socketpair()
    out()
    def give():
        with ours:
            send(ours)
    thread = threading.Thread(target=give)
    thread.start()
    view = memoryview(y).cast("B")
    got = 0
    while got < y.nbytes:
        n = receive(theirs, view[got:])
        assert n
        got += n
    thread.join()
    theirs.close()
    same(y)

def send(ours):
    rest = memoryview(x).cast("B")
    while rest:
        rest = rest[ours.send(rest):]

def sendmsg(ours):
    rest = memoryview(x).cast("B")
    while rest:
        rest = rest[ours.sendmsg([b"", rest[:100], rest[100:1 << 20], rest[1 << 20:]]):]

both(send, lambda theirs, view: theirs.recv_into(view))
both(lambda ours: ours.sendall(x), lambda theirs, view: theirs.recvmsg_into([view[:10], view[10:]])[0])
both(sendmsg, lambda theirs, view: theirs.recvfrom_into(view)[0])
both(lambda ours: ours.makefile("wb").write(x), lambda theirs, view: theirs.recv_into(view, 0, socket.MSG_WAITALL))
"""

VECTORS = """
view, into = memoryview(x).cast("B"), memoryview(y).cast("B")
out()
fd = os.open(path, os.O_RDWR | os.O_CREAT)
assert os.writev(fd, [view[:5], view[5:1 << 24], view[1 << 24:]]) == x.nbytes
os.lseek(fd, 0, 0)
assert os.readv(fd, [into[:1 << 23], into[1 << 23:]]) == y.nbytes
same(y)
out()
assert os.pwritev(fd, [view[k:k + (1 << 18)] for k in range(0, x.nbytes, 1 << 18)], 4096) == x.nbytes
out()
assert os.preadv(fd, [into[k:k + (1 << 18)] for k in range(0, y.nbytes, 1 << 18)], 4096) == y.nbytes
same(y)
"""

BLOCKED = """
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
out()
fd = os.open(path, os.O_RDWR | os.O_CREAT)
assert os.write(fd, x) == x.nbytes
assert os.pread(fd, 16, 8) == x[1:3].tobytes()
"""

LEFT_ALONE = """
import subprocess
assert "LD_PRELOAD" not in os.environ
done = subprocess.run("echo $LD_PRELOAD; grep -c uzswap /proc/$$/maps", shell=True, capture_output=True)
assert done.stdout.split() == [b"0"], done
"""

H5PY = """
import h5py
out()
with h5py.File(path, "w") as file:
    file["plain"] = x
    file.create_dataset("chunks", data=x, chunks=(1 << 16,), compression="gzip", compression_opts=1)
with h5py.File(path) as file:
    same(file["plain"][:])
    same(file["chunks"][:])
    out()
    file["plain"].read_direct(y)
same(y)
"""

PANDAS = """
import pandas as pd
frame = pd.DataFrame({"a": x, "b": x * 2.5})
frame.to_pickle(path)
assert frame.equals(pd.read_pickle(path))
"""

ARROW = """
import pyarrow as pa
import pyarrow.feather
out()
table = pa.table({"a": x, "b": y})
pyarrow.feather.write_feather(table, path, compression="uncompressed")
out()
assert pyarrow.feather.read_table(path).equals(table)
same(pyarrow.feather.read_table(path, memory_map=False)["a"].to_numpy())
with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
    writer.write_table(table)
out()
with pa.OSFile(path) as file:
    assert pa.ipc.open_file(file).read_all().equals(table)
"""

PROGRAMS = {
    "files": (FILES, []),
    "sockets": (SOCKETS, []),
    "vectors": (VECTORS, []),
    "blocked-signals": (BLOCKED, []),
    "environment": (LEFT_ALONE, []),
    "h5py": (H5PY, ["h5py"]),
    "pandas": (PANDAS, ["pandas"]),
    "arrow": (ARROW, ["pyarrow"]),
}

SETTINGS = {
    "UZSWAP_MEMORY_MAX": "16M",
    "UZSWAP_MIN_BYTES": "64K",
    "UZSWAP_SWAP_SIZE": "1G",
    "TMPDIR": "/var/tmp",
}

#: Becomes `uzswap run`.
RUN = """
import os, sys
from uzswap.cli.main import main
sys.argv = ["uzswap", "run", "--", sys.argv[1] or sys.executable, "-c", sys.argv[2]]
main()
"""


def run_as_nobody(interpreter: str, code: str, before: str = "", env: Mapping[str, str] | None = None) -> Finished:
    with NobodysChild(before + RUN, [interpreter, code], env={**SETTINGS, **(env or {})}) as child:
        return child.wait()


@functools.cache
def cannot_use(interpreter: str) -> str:
    """Why an interpreter cannot run what was built for this one."""
    if not os.path.exists(interpreter):
        return f"there is no {interpreter}: apt install python3"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [interpreter, "-c", "import numpy, uzswap.core.boundary.memory"],
        env=environment,
        capture_output=True,
        text=True,
    )
    return "" if done.returncode == 0 else f"{interpreter} cannot import what this Python can: build uzswap with it"


def require(modules: Sequence[str]) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: make venv")


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("interpreter", ["", DEBIAN], ids=["this-python", "debians-python"])
def test_what_goes_through_files_and_sockets_is_the_same(interpreter: str, name: str) -> None:
    code, modules = PROGRAMS[name]
    require(modules)
    if interpreter and (reason := cannot_use(interpreter)):
        pytest.skip(reason)
    if interpreter and (closed := closed_to_others()):
        pytest.skip(f"{interpreter} is started without descriptors of ours: chmod o+x what is above {closed}")
    done = run_as_nobody(interpreter, BEGIN + code + END)
    if "nobody gets the mode" in done.stderr:
        pytest.skip(done.stderr.strip())
    done.check()


def test_a_program_does_not_begin_where_its_bytes_would_not_be_the_same() -> None:
    if not can_refuse():
        pytest.skip("the system call numbers of this machine are not known to the test")
    before = "import errno\nfrom tests.support.seccomp import refuse\nrefuse('seccomp', errno.EPERM)\n"
    done = run_as_nobody("", "print('it began')", before=before, env={"UZSWAP_MOUNT": "no"})
    if done.returncode == 0:
        pytest.skip("nobody gets all faults here: sudo sysctl vm.unprivileged_userfaultfd=0")
    assert (done.returncode, done.stdout) == (1, "")
    assert "seccomp: Operation not permitted" in done.stderr
    assert "vm.unprivileged_userfaultfd=1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


MOUNTED = """
import os
import numpy as np
import uzswap
from uzswap.client.runtime import runtime_directory
x = np.ones(1 << 20)
directory = runtime_directory() / str(os.getpid())
print(uzswap.info(x).mode, directory, os.path.ismount(directory))
"""


@needs_fuse
def test_its_mount_goes_with_it() -> None:
    """Though it may not have fusermount3 unmount any more."""
    if os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
        pytest.skip("nobody may not open /dev/fuse: chmod 666 /dev/fuse")
    done = run_as_nobody("", MOUNTED).check()
    mode, directory, mounted = done.stdout.split()
    if mode != "trapped":
        pytest.skip("nobody gets all faults here: sudo sysctl vm.unprivileged_userfaultfd=0")
    assert (mounted, done.stderr) == ("True", "")
    assert directory not in Path("/proc/mounts").read_text()
